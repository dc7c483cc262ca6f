//! The container and the systemd unit of a process, from its cgroup path. Pure. Containers of runtimes that name their
//! cgroups in another way are not recognised.

use std::borrow::Cow;

/// Where a process runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WhereItRuns<'a> {
    /// Container id of 64 hexadecimal digits, or the name of an LXC container or nspawn machine.
    pub container: Option<Cow<'a, str>>,
    /// The innermost systemd unit that is not a slice, unescaped.
    pub unit: Option<&'a str>,
}

/// Parses a cgroup path.
#[must_use]
pub fn of_cgroup(path: &str) -> WhereItRuns<'_> {
    let mut found = WhereItRuns::default();
    // The innermost, since containers may be nested.
    let mut outer = None;
    for element in path.split('/') {
        if let Some(container) = container(element, outer) {
            found.container = Some(container);
        }
        if is_unit(element) {
            found.unit = Some(element);
        }
        outer = Some(element);
    }
    found
}

/// Prefixes of the scopes that runtimes create through systemd.
const SCOPES: [&str; 4] = ["docker-", "cri-containerd-", "crio-", "libpod-"];

/// The name of the cgroup without systemd, by its parent.
const PARENTS: [&str; 4] = ["docker", "libpod_parent", "containerd", "lxc"];

fn container<'a>(element: &'a str, outer: Option<&str>) -> Option<Cow<'a, str>> {
    let scope = element.strip_suffix(".scope");
    if let Some(id) = SCOPES.iter().find_map(|prefix| scope?.strip_prefix(prefix)).filter(|id| is_id(id)) {
        return Some(id.into());
    }
    // Without systemd: podman and CRI-O keep their prefix, containerd and Kubernetes (`kubepods/…/podUID`)
    // have the bare id.
    if let Some(id) =
        ["libpod-", "crio-"].iter().find_map(|prefix| element.strip_prefix(prefix)).filter(|id| is_id(id))
    {
        return Some(id.into());
    }
    if is_id(element) && outer.is_some_and(|outer| PARENTS.contains(&outer) || is_pod(outer)) {
        return Some(element.into());
    }
    // `lxc.monitor.NAME` is the monitor, outside of the container.
    if let Some(name) =
        element.strip_prefix("lxc.payload.").or_else(|| (outer == Some("lxc")).then_some(element))
    {
        return Some(name.into());
    }
    // systemd-nspawn: a scope by machined, a service of its own template, or both. libvirt's machines
    // (`machine-qemu\x2d1\x2dname.scope`) are no containers.
    if let Some(name) = scope.and_then(|scope| scope.strip_prefix("machine-")) {
        return Some(unescape(name)).filter(|name| !name.starts_with("qemu-"));
    }
    let machine = element.strip_prefix("systemd-nspawn@")?.strip_suffix(".service")?;
    Some(unescape(machine))
}

/// A container id of Docker, containerd, CRI-O and podman.
fn is_id(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// `podUID`, or `kubepods-burstable-podUID.slice`.
fn is_pod(group: &str) -> bool {
    group.starts_with("pod") || (group.starts_with("kubepods") && group.contains("-pod"))
}

/// Types of units that have processes, as in systemd.unit(5); not `.slice`, which holds other units.
const UNITS: [&str; 5] = [".service", ".scope", ".socket", ".mount", ".swap"];

fn is_unit(element: &str) -> bool {
    UNITS.iter().any(|suffix| element.strip_suffix(suffix).is_some_and(|name| !name.is_empty()))
}

/// Unescapes `\xNN` in a unit name, see systemd-escape(1). Invalid escapes are kept.
fn unescape(name: &str) -> Cow<'_, str> {
    if !name.contains("\\x") {
        return name.into();
    }
    let mut out = Vec::with_capacity(name.len());
    let mut rest = name.as_bytes();
    while let [first, tail @ ..] = rest {
        match rest {
            [b'\\', b'x', high, low, after @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => {
                out.push(digit(*high) << 4 | digit(*low));
                rest = after;
            }
            _ => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    crate::escape::utf8(&out).into()
}

fn digit(hex: u8) -> u8 {
    char::from(hex).to_digit(16).and_then(|n| n.try_into().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn cgroup_paths_have_their_container_and_unit() {
        let docker = format!("docker-{ID}.scope");
        let cri = format!("cri-containerd-{ID}.scope");
        let crio = format!("crio-{ID}.scope");
        let podman = format!("libpod-{ID}.scope");
        let conmon = format!("libpod-conmon-{ID}.scope");
        let cases: Vec<(String, Option<&str>, Option<&str>)> = vec![
            ("/".into(), None, None),
            (String::new(), None, None),
            ("/system.slice/ssh.service".into(), None, Some("ssh.service")),
            ("/init.scope".into(), None, Some("init.scope")),
            ("/user.slice/user-0.slice/session-3.scope".into(), None, Some("session-3.scope")),
            (
                "/user.slice/user-1000.slice/user@1000.service/app.slice/app-foo.scope".into(),
                None,
                Some("app-foo.scope"),
            ),
            ("/user.slice/user-1000.slice".into(), None, None),
            ("/system.slice/system-getty.slice/getty@tty1.service".into(), None, Some("getty@tty1.service")),
            ("/system.slice/dbus.socket".into(), None, Some("dbus.socket")),
            ("/system.slice/.service".into(), None, None),
            (format!("/docker/{ID}"), Some(ID), None),
            (format!("/docker/{ID}/sub/group"), Some(ID), None),
            (format!("/system.slice/{docker}"), Some(ID), Some(&docker)),
            (format!("/system.slice/{docker}/init.scope"), Some(ID), Some("init.scope")),
            (
                format!("/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod12_34.slice/{cri}"),
                Some(ID),
                Some(&cri),
            ),
            (format!("/kubepods/besteffort/pod1234-5678/{ID}"), Some(ID), None),
            (format!("/kubepods.slice/kubepods-pod12.slice/{crio}"), Some(ID), Some(&crio)),
            (format!("/machine.slice/{podman}/container"), Some(ID), Some(&podman)),
            (format!("/machine.slice/{conmon}"), None, Some(&conmon)),
            (format!("/libpod_parent/libpod-{ID}"), Some(ID), None),
            (format!("/elsewhere/{ID}"), None, None),
            ("/docker/short".into(), None, None),
            ("/docker/buildkit".into(), None, None),
            ("/machine.slice/machine-web\\x2d1.scope".into(), Some("web-1"), Some("machine-web\\x2d1.scope")),
            (
                "/machine.slice/systemd-nspawn@web\\x2d1.service/payload/system.slice/nginx.service".into(),
                Some("web-1"),
                Some("nginx.service"),
            ),
            (
                "/machine.slice/machine-qemu\\x2d1\\x2dvm.scope".into(),
                None,
                Some("machine-qemu\\x2d1\\x2dvm.scope"),
            ),
            ("/lxc.payload.web/system.slice/ssh.service".into(), Some("web"), Some("ssh.service")),
            ("/lxc.monitor.web".into(), None, None),
            ("/lxc/web".into(), Some("web"), None),
        ];
        for (path, container, unit) in cases {
            let found = of_cgroup(&path);
            assert_eq!(found.container.as_deref(), container, "container of {path}");
            assert_eq!(found.unit, unit, "unit of {path}");
        }
    }

    #[test]
    fn escapes_are_taken_off() {
        assert_eq!(unescape("a\\x2db\\x"), "a-b\\x");
        assert_eq!(unescape("a\\xzz"), "a\\xzz");
        assert_eq!(unescape("\\xff"), "\\xff");
    }

    proptest! {
        #[test]
        fn nothing_panics(path in r"(/(machine-|systemd-nspawn@|lxc|docker|\\x|[a-f0-9.]{0,3}|é){0,4}(\.scope|\.service)?){0,6}") {
            let _ = of_cgroup(&path);
        }
    }
}
