//! Which unit of the system's service manager a process is of, and what that unit starts. A cgroup's name alone proves
//! nothing: users name theirs as they like, and whatever a service starts stays in its cgroup.

use std::path::{Path, PathBuf};

use crate::process::Process;
use crate::{bounded, where_it_runs};

/// A service or socket that somebody installed.
pub(super) struct Unit {
    /// As systemd spells it.
    pub(super) name: String,
    /// Its file, without symbolic links.
    pub(super) file: String,
    /// Paths on its `ExecStart=` lines, without symbolic links: the program, and what it may interpret.
    pub(super) starts: Vec<String>,
}

/// Where unit files are that somebody installed, those first that go before others (systemd.unit(5)). Not
/// `/run/systemd/transient`, where `systemd-run` makes them.
const FOLDERS: [&str; 7] = [
    "/etc/systemd/system",
    "/run/systemd/system",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
    "/run/systemd/generator.late",
];

const TRANSIENT: &str = "/run/systemd/transient";

/// Larger files are no units.
const MOST_BYTES: usize = 1 << 20;

/// Name of the cgroup's unit, whoever made it.
pub(super) fn named(process: &Process) -> Option<&str> {
    where_it_runs::of_cgroup(&process.cgroup).unit
}

/// Whether the process is in the part of the tree that is a user's to arrange.
pub(super) fn is_a_users(process: &Process) -> bool {
    process.cgroup.split('/').any(|element| element.starts_with("user@"))
}

/// The unit that a process is of, where that is installed, and the system's.
pub(super) fn installed(process: &Process) -> Option<Unit> {
    let name = named(process).filter(|_| !is_a_users(process))?;
    let (stem, kind) = name.rsplit_once('.').filter(|(_, kind)| matches!(*kind, "service" | "socket"))?;
    if name.contains('/') || Path::new(TRANSIENT).join(name).exists() {
        return None;
    }
    let template = stem.split_once('@').map(|(template, _)| format!("{template}@.{kind}"));
    let names = [Some(name.to_owned()), template];
    let paths =
        FOLDERS.iter().flat_map(|folder| names.iter().flatten().map(|name| Path::new(folder).join(name)));
    let file = paths.filter_map(|path| std::fs::canonicalize(path).ok()).find(|path| path.is_file())?;
    let text = bounded::text(&file, MOST_BYTES).unwrap_or_default();
    Some(Unit {
        name: name.to_owned(),
        file: spelled(&file),
        starts: starts(&text).map(|path| real(&path)).collect(),
    })
}

/// Paths on `ExecStart=` lines, as they are written.
fn starts(text: &str) -> impl Iterator<Item = String> + use<> {
    let whole = text.replace("\\\n", " ");
    let lines: Vec<String> =
        whole.lines().filter_map(|line| line.trim().strip_prefix("ExecStart=")).map(str::to_owned).collect();
    lines.into_iter().flat_map(|line| {
        // systemd.service(5), "COMMAND LINES": marks may stand before the path.
        let words =
            line.split_whitespace().map(|word| word.trim_start_matches(['-', '@', ':', '+', '!', '|', '"']));
        let paths = words.map(|word| word.trim_end_matches(['"', ';'])).filter(|word| word.starts_with('/'));
        paths.map(str::to_owned).collect::<Vec<_>>()
    })
}

fn real(path: &str) -> String {
    spelled(&std::fs::canonicalize(path).unwrap_or_else(|_| PathBuf::from(path)))
}

fn spelled(path: &Path) -> String {
    crate::escape::utf8(path.as_os_str().as_encoded_bytes())
}

/// Whether two packages are of one piece of software, as far as their names tell: `apache2` and `apache2-bin`,
/// `postgresql-common` and `postgresql-15`.
pub(super) fn are_of_one(one: &str, other: &str) -> bool {
    let stem = |name: &str| {
        name.split('-').next().unwrap_or(name).trim_end_matches(|c: char| c.is_ascii_digit()).to_owned()
    };
    one == other || (stem(one) == stem(other) && stem(one).len() > 2 && stem(one) != "lib")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_unit_starts() {
        let text = "[Service]\nExecStartPre=/bin/false\nExecStart=-!/usr/sbin/x -D \\\n  /srv/script \"/a b\"\n\
                    ExecStart=@/usr/bin/y y\nExecStartPost=/z\n";
        assert_eq!(starts(text).collect::<Vec<_>>(), ["/usr/sbin/x", "/srv/script", "/a", "/usr/bin/y"]);
        assert_eq!(starts("").count(), 0);
    }

    #[test]
    fn packages_of_one_piece_of_software() {
        for (one, other, expected) in [
            ("openssh-server", "openssh-server", true),
            ("apache2", "apache2-bin", true),
            ("postgresql-common", "postgresql-15", true),
            ("redis-server", "redis-tools", true),
            ("cron", "netcat-openbsd", false),
            ("apache2", "socat", false),
            ("libx-bin", "liby-bin", false),
        ] {
            assert_eq!(are_of_one(one, other), expected, "{one} {other}");
        }
    }

    #[test]
    fn a_unit_that_nobody_installed_is_none() {
        let of = |cgroup: &str| {
            let mut process = Process::clone(&crate::process::tests::process(1, None));
            process.cgroup = cgroup.into();
            installed(&process).is_some()
        };
        for cgroup in [
            "/system.slice/no-such-thing.service",
            "/user.slice/user-0.slice/session-3.scope",
            "/user.slice/user-1000.slice/user@1000.service/app.slice/systemd-journald.service",
            "/system.slice/..",
            "/",
        ] {
            assert!(!of(cgroup), "{cgroup}");
        }
    }

    proptest::proptest! {
        #[test]
        fn no_unit_file_panics(text in proptest::prelude::any::<String>()) {
            let _ = starts(&text).count();
        }
    }
}
