//! What runs a program: an installed unit, a container; and cgroups that only have similar names.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use tests::{Cgroup, Running, Tree, binary, in_fresh_netns, skip, until};

use super::{Audit, reasons};

/// `sleep`, of a package, listens at 127.0.0.1:5000 in a cgroup of the hierarchy that netwatch reads.
struct Listening {
    _sleep: Running,
    _cgroup: Cgroup,
}

impl Listening {
    fn in_cgroup(path: &str) -> Self {
        let listener = TcpListener::bind("127.0.0.1:5000").unwrap();
        // The command has the listener open until it is dropped.
        let sleep = {
            let mut command = Command::new("sleep");
            command.arg("600").stdin(OwnedFd::from(listener)).stdout(Stdio::null());
            Running::start(&mut command)
        };
        until("it is sleep", || {
            std::fs::read_to_string(format!("/proc/{}/comm", sleep.pid())).is_ok_and(|comm| comm == "sleep\n")
        });
        let cgroup = Cgroup::new(Tree::Unified, path);
        cgroup.takes(sleep.pid());
        Self { _sleep: sleep, _cgroup: cgroup }
    }
}

/// Audits in a temporary mount namespace in which a unit of this name and text is installed.
fn with_unit(name: &str, text: &str) -> Audit {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join(name), text).unwrap();
    let script = format!(
        "mkdir -p /run/systemd && mount -t tmpfs none /run/systemd && mkdir /run/systemd/system && \
         mount --bind {} /run/systemd/system && exec \"$0\" audit --json --netns self",
        folder.path().display()
    );
    Audit::of(Command::new("unshare").args(["--mount", "sh", "-c", &script]).arg(binary()))
}

fn by(audit: &Audit) -> (String, String) {
    let port = audit.port("127.0.0.1:5000");
    assert_eq!(port["process"]["comm"], "sleep");
    (port["by"].to_string(), reasons(port))
}

const SLEEPS: &str = "[Service]\nExecStart=-/bin/sleep 600\n";
const OTHER: &str = "[Service]\nExecStart=/usr/sbin/cron -f\n";

#[test]
fn unit_explains_only_its_own_program() {
    if Tree::Unified.root().is_none() || !Path::new("/var/lib/dpkg/status").exists() {
        return skip(
            "audit::units::unit_explains_only_its_own_program",
            "there is no cgroup tree of version 2, or no dpkg",
        );
    }
    in_fresh_netns(|| {
        let name = format!("netwatch-test-{}.service", std::process::id());
        let here = Listening::in_cgroup(&name);
        assert_eq!(by(&with_unit(&name, SLEEPS)).0, r#"["package","unit"]"#);
        // Whatever a service starts stays in its cgroup.
        let (none, why) = by(&with_unit(&name, OTHER));
        assert!(
            none == "[]"
                && why.contains(&format!(
                    "it runs in the cgroup of {name}, but is not the program of that unit"
                )),
            "{none} {why}"
        );
        // No such unit is installed.
        assert_eq!(by(&with_unit("another.service", SLEEPS)).0, "[]");
        drop(here);

        // A user's service manager creates cgroups with any name.
        let _users = Listening::in_cgroup(&format!("user@1000.service/{name}"));
        assert_eq!(by(&with_unit(&name, SLEEPS)).0, "[]");
    });
}

/// A name like that of a container, but the mount namespace of the host.
#[test]
fn container_explains_only_in_its_own_mount_namespace() {
    if Tree::Unified.root().is_none() || !Path::new("/var/lib/dpkg/status").exists() {
        return skip(
            "audit::units::container_explains_only_in_its_own_mount_namespace",
            "there is no cgroup tree of version 2, or no dpkg",
        );
    }
    in_fresh_netns(|| {
        let id = format!("{:064x}", std::process::id());
        let _named = Listening::in_cgroup(&format!("docker-{id}.scope"));
        assert_eq!(by(&Audit::take(&[])).0, "[]");
        // From another mount namespace the process is in a container.
        assert_eq!(by(&with_unit("x.service", OTHER)).0, r#"["package","container"]"#);
    });
}
