//! The system unit of a process, and the programs that the unit starts. The name of a cgroup alone is not evidence:
//! users can choose it, and all children of a service stay in its cgroup.

use std::collections::BTreeMap;
use std::ffi::OsString;
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
    let names: Vec<String> = names.into_iter().flatten().collect();
    let read = (file.clone(), names);
    let read = move || texts(Path::new("/"), &read.0, &read.1);
    let text = blocking::within(limits::READ_WAIT, read)?;
    Some(Unit {
        name: name.to_owned(),
        file: spelled(&file),
        starts: starts(&text).map(|path| real(&path)).collect(),
    })
}

/// The unit file, followed by its drop-ins in the order in which systemd reads them: by file name, of files with one name
/// that in the directory with precedence (systemd.unit(5)).
fn texts(root: &Path, file: &Path, names: &[String]) -> String {
    let mut drop_ins: BTreeMap<OsString, PathBuf> = BTreeMap::new();
    for folder in FOLDERS {
        for name in names {
            let folder = root.join(folder.trim_start_matches('/')).join(format!("{name}.d"));
            let entries = std::fs::read_dir(&folder).into_iter().flatten().flatten().take(limits::DROP_INS);
            for entry in entries {
                let path = entry.path();
                if path.extension().is_some_and(|extension| extension == "conf") {
                    drop_ins.entry(entry.file_name()).or_insert(path);
                }
            }
        }
    }
    let mut text = bounded::text(file, limits::UNIT_FILE).unwrap_or_default();
    for path in drop_ins.values().take(limits::DROP_INS) {
        text.push('\n');
        text.push_str(&bounded::text(path, limits::UNIT_FILE).unwrap_or_default());
    }
    text
}

fn is_file(path: &Path) -> bool {
    let subject = || Subject::Folder(path.parent().unwrap_or(path).to_owned());
    let file = blocking::stat(Place { root_of: None, path }, subject, Patience::Command);
    file.is_some_and(|file| file.is_ok_and(|file| file.is_file()))
}

/// Paths in `ExecStart=` lines as written.
fn starts(text: &str) -> impl Iterator<Item = String> + use<> {
    let whole = text.replace("\\\n", " ");
    let mut lines: Vec<String> = Vec::new();
    for value in whole.lines().filter_map(|line| line.trim().strip_prefix("ExecStart=")) {
        if value.trim().is_empty() {
            // Resets what came before: systemd.service(5).
            lines.clear();
        } else {
            lines.push(value.to_owned());
        }
    }
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
    fn drop_ins_count_in_their_order() {
        let root = tempfile::tempdir().unwrap();
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("lib/systemd/system/x.service", "[Service]\nExecStart=/usr/bin/x\n");
        let file = root.path().join("lib/systemd/system/x.service");
        let names = ["x.service".to_owned()];
        let started = || starts(&texts(root.path(), &file, &names)).collect::<Vec<_>>();
        assert_eq!(started(), ["/usr/bin/x"]);
        write("etc/systemd/system/x.service.d/20-b.conf", "[Service]\nExecStart=/usr/bin/z\n");
        write("lib/systemd/system/x.service.d/10-a.conf", "[Service]\nExecStart=\nExecStart=/usr/bin/y\n");
        write("etc/systemd/system/x.service.d/30-c.txt", "[Service]\nExecStart=/usr/bin/no\n");
        assert_eq!(started(), ["/usr/bin/y", "/usr/bin/z"]);
        // A file of the same name in a directory with precedence replaces it.
        write("etc/systemd/system/x.service.d/10-a.conf", "");
        assert_eq!(started(), ["/usr/bin/x", "/usr/bin/z"]);
        (0..=limits::DROP_INS).for_each(|n| {
            write(&format!("run/systemd/system/x.service.d/{n:04}.conf"), "ExecStart=/usr/bin/many\n");
        });
        assert!(started().len() <= limits::DROP_INS + 1);
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
