//! The system unit of a process, and the programs that the unit starts. The name of a cgroup alone is not evidence:
//! users can choose it, and all children of a service stay in its cgroup.

use std::path::{Path, PathBuf};

use crate::blocking::{self, Patience, Place, Subject};
use crate::process::Process;
use crate::{bounded, limits, where_it_runs};

/// An installed service or socket unit.
pub(super) struct Unit {
    /// Name of the unit.
    pub(super) name: String,
    /// Path of its file with symbolic links resolved.
    pub(super) file: String,
    /// Paths in its `ExecStart=` lines with symbolic links resolved: the program and its arguments.
    pub(super) starts: Vec<String>,
}

/// Directories of installed unit files, in order of precedence (systemd.unit(5)). Not `/run/systemd/transient`, which
/// has those of `systemd-run`.
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

/// Name of the unit by the cgroup.
pub(super) fn named(process: &Process) -> Option<&str> {
    where_it_runs::of_cgroup(&process.cgroup).unit
}

/// Whether the process is in a part of the cgroup tree that a user controls.
pub(super) fn is_a_users(process: &Process) -> bool {
    process.cgroup.split('/').any(|element| element.starts_with("user@"))
}

/// The installed system unit of a process.
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
    let mut installed = paths
        .filter(|path| path.symlink_metadata().is_ok())
        .filter_map(|path| blocking::real_path(&path, Patience::Command));
    // Not that of a masked unit, which is /dev/null.
    let file = installed.find(|path| is_file(path))?;
    let read = file.clone();
    let read = move || bounded::text(&read, limits::UNIT_FILE).unwrap_or_default();
    let text = blocking::within(limits::READ_WAIT, read)?;
    Some(Unit {
        name: name.to_owned(),
        file: spelled(&file),
        starts: starts(&text).map(|path| real(&path)).collect(),
    })
}

fn is_file(path: &Path) -> bool {
    let subject = || Subject::Folder(path.parent().unwrap_or(path).to_owned());
    let file = blocking::stat(Place { root_of: None, path }, subject, Patience::Command);
    file.is_some_and(|file| file.is_ok_and(|file| file.is_file()))
}

/// Paths in `ExecStart=` lines as written.
fn starts(text: &str) -> impl Iterator<Item = String> + use<> {
    let whole = text.replace("\\\n", " ");
    let lines: Vec<String> =
        whole.lines().filter_map(|line| line.trim().strip_prefix("ExecStart=")).map(str::to_owned).collect();
    lines.into_iter().flat_map(|line| {
        // systemd.service(5), "COMMAND LINES": special prefixes may precede the path.
        let words =
            line.split_whitespace().map(|word| word.trim_start_matches(['-', '@', ':', '+', '!', '|', '"']));
        let paths = words.map(|word| word.trim_end_matches(['"', ';'])).filter(|word| word.starts_with('/'));
        paths.map(str::to_owned).collect::<Vec<_>>()
    })
}

fn real(path: &str) -> String {
    spelled(&blocking::real_path(Path::new(path), Patience::Command).unwrap_or_else(|| PathBuf::from(path)))
}

fn spelled(path: &Path) -> String {
    crate::escape::utf8(path.as_os_str().as_encoded_bytes())
}

/// Whether two packages are of the same software, by their names: `apache2` and `apache2-bin`, `postgresql-common` and
/// `postgresql-15`.
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
