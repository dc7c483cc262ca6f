//! The root file system of a guest: programs of the host with their libraries, in the standard folders, and the
//! programs under test in a separate folder, since the guest may mount over their path on the host.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::cached::Cached;
use super::modules;
use super::rungs::{Rung, SAME_EVERYWHERE};
use crate::exec::{answer, find, quietly, succeeds};
use crate::programs::Programs;

/// Programs and files that `init.sh` and the tests use.
const PROGRAMS: &[&str] = &[
    "sh", "bash", "cat", "true", "sleep", "mkdir", "mount", "umount", "modprobe", "ip", "tc", "ss",
    "netstat", "unshare", "setpriv",
];

/// The `PATH` of `init.sh`. Programs that the host has elsewhere are copied to /usr/bin.
const PATH: [&str; 4] = ["/usr/bin", "/usr/sbin", "/bin", "/sbin"];

/// Folder of the programs under test, and working directory of the tests.
const PLACE: &str = "/netwatch-tests";

/// Mount points of `init.sh`: files below them are hidden in the guest.
const MOUNTS: [&str; 5] = ["/dev", "/proc", "/run", "/sys", "/tmp"];

/// Names that tests compare with those that netwatch prints. Not the accounts of this machine: PASSWD and GROUP have
/// the few that are needed.
const FILES: [&str; 3] = ["/etc/services", "/etc/protocols", "/etc/nsswitch.conf"];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\n\
nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n";

/// Directories that are symbolic links to those in /usr on most systems.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Default options of the test program; options of the caller replace them. Two tests at once, because a test waits now
/// and then, and three are not faster; output after each test, because that of two would be mixed.
const LIBTEST: [&str; 2] = ["--show-output", "--test-threads=2"];

const INIT: &str = include_str!("init.sh");

/// The part that is the same in all guests, as a cpio archive.
pub(super) struct Base {
    scratch: tempfile::TempDir,
}

impl Base {
    /// An error if the programs would not start in a guest, before any is booted.
    pub(super) fn build(programs: &Programs, verbose: bool) -> Result<Self> {
        let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
        let root = scratch.path().join("root");
        skeleton(&root)?;
        for part in ["proc", "sys", "dev", "tmp", "run", "root", "etc", "var"] {
            fs::create_dir_all(root.join(part)).context("cannot make a directory")?;
        }
        let mut files = BTreeSet::new();
        for program in PROGRAMS {
            let path = find(program).with_context(|| format!("{program} is not installed"))?;
            files.extend(libraries(&path)?);
            copy(&path, &inside(&root, &in_path(&path)), false)?;
        }
        files.extend(FILES.map(PathBuf::from).into_iter().filter(|file| file.exists()));
        let (there, here) =
            (Programs::placed(Path::new(PLACE)), Programs::placed(&inside(&root, Path::new(PLACE))));
        for (from, to) in programs.pairs(&here) {
            copy(from, to, true)?;
            // ldd runs on the copy, since libraries may be resolved relative to the program.
            files.extend(libraries(to)?);
        }
        here.start()?;
        for file in &files {
            if let Some(mount) = hidden_by(file) {
                let file = file.display();
                bail!("{file} would be hidden in a guest by its {mount}: install it elsewhere");
            }
            copy(file, &inside(&root, file), false)?;
        }
        fs::write(root.join("etc/passwd"), PASSWD).context("cannot write a file")?;
        fs::write(root.join("etc/group"), GROUP).context("cannot write a file")?;
        fs::write(root.join("init"), INIT).context("cannot write a file")?;
        let quoted = |path: &Path| quote(&path.to_string_lossy());
        let variables = format!(
            "export NETWATCH_BIN={} NETWATCH_ACTOR={}\nE2E={}\ncd {PLACE}\n",
            quoted(&there.netwatch),
            quoted(&there.actor),
            quoted(&there.tests),
        );
        fs::write(root.join("programs"), variables).context("cannot write a file")?;
        quietly(Command::new("chmod").arg("755").arg(root.join("init")), verbose)?;
        archive(&root, &scratch.path().join("base.cpio"), verbose)?;
        Ok(Self { scratch })
    }

    /// An initramfs with the modules of a kernel and the rungs to run on it.
    pub(super) fn with(
        &self,
        kernel: &Cached,
        rungs: &[&Rung],
        asked: &Asked<'_>,
        verbose: bool,
    ) -> Result<PathBuf> {
        let root = self.scratch.path().join(format!("root-{}", kernel.release));
        skeleton(&root)?;
        modules::install(kernel, &root, verbose)?;
        fs::write(root.join("plan"), plan(rungs, asked)).context("cannot write a file")?;
        let own = self.scratch.path().join(format!("{}.cpio", kernel.release));
        archive(&root, &own, verbose)?;
        // The kernel unpacks several archives in sequence.
        let whole = self.scratch.path().join(format!("{}.initramfs", kernel.release));
        let mut to = File::create(&whole).context("cannot make the initramfs")?;
        for part in [self.scratch.path().join("base.cpio"), own] {
            let mut from = File::open(&part).with_context(|| format!("cannot read {}", part.display()))?;
            io::copy(&mut from, &mut to).context("cannot write the initramfs")?;
        }
        Ok(whole)
    }
}

/// Selection of tests.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Arguments for the test program.
    pub(super) libtest: &'a [String],
    /// Include tests that do not depend on the kernel.
    pub(super) everything: bool,
}

/// Calls of `rung` in `init.sh`. If the caller selects tests, they run on every rung.
fn plan(rungs: &[&Rung], Asked { libtest, everything }: &Asked<'_>) -> String {
    let asked = libtest.iter().any(|argument| !argument.starts_with('-'));
    let own = LIBTEST.iter().filter(|own| {
        let option = own.split('=').next().unwrap_or(own);
        !libtest.iter().any(|argument| argument.starts_with(option))
    });
    let own: Vec<_> = own.copied().collect();
    let call = |rung: &&Rung| {
        let tests = if asked { &[] } else { rung.tests };
        let all = !asked && !everything && tests.is_empty();
        let same = if all { SAME_EVERYWHERE.join(" ") } else { String::new() };
        let words = [rung.name, rung.probes].into_iter().chain(tests.iter().copied());
        let words: Vec<_> =
            words.chain(own.iter().copied()).chain(libtest.iter().map(String::as_str)).map(quote).collect();
        format!("same={}\nrung {}\n", quote(&same), words.join(" "))
    };
    rungs.iter().map(call).collect()
}

/// Quotes a word for a shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Copies symbolic links of the host, so that a path refers to the same file in the guest.
fn skeleton(root: &Path) -> Result<()> {
    for name in MERGED {
        let here = Path::new("/").join(name);
        let is_merged = here.is_symlink();
        let directory = if is_merged { root.join("usr").join(name) } else { root.join(name) };
        fs::create_dir_all(directory).context("cannot make a directory")?;
        if is_merged {
            symlink(Path::new("usr").join(name), root.join(name)).context("cannot make a link")?;
        }
    }
    Ok(())
}

fn inside(root: &Path, path: &Path) -> PathBuf {
    root.join(path.strip_prefix("/").unwrap_or(path))
}

/// Removes symbols that are not needed: the emulated kernel unpacks the initramfs into memory, which is slow.
fn copy(from: &Path, to: &Path, strip: bool) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to)).context("cannot make a directory")?;
    if strip && succeeds(Command::new("strip").arg("-o").arg(to).arg(from)) {
        return Ok(());
    }
    fs::copy(from, to).map(|_| ()).with_context(|| format!("cannot copy {}", from.display()))
}

/// Path of a program of the host in the guest: the same, or /usr/bin if it is not in `PATH` there.
fn in_path(program: &Path) -> PathBuf {
    let is_in_path = program.parent().is_some_and(|folder| PATH.iter().any(|own| folder == Path::new(own)));
    match program.file_name() {
        Some(name) if !is_in_path => Path::new("/usr/bin").join(name),
        _ => program.to_owned(),
    }
}

/// The mount point of the guest that hides a path, if any.
fn hidden_by(path: &Path) -> Option<&'static str> {
    MOUNTS.into_iter().find(|mount| path.starts_with(mount))
}

/// The shared libraries of a program, including the loader.
fn libraries(program: &Path) -> Result<Vec<PathBuf>> {
    let ldd = answer(Command::new("ldd").arg(program)).unwrap_or_default();
    if let Some(library) = missing(&ldd) {
        bail!("{} needs {library}, which is not here: install it", program.display());
    }
    Ok(paths(&ldd))
}

/// A library that ldd cannot resolve.
fn missing(ldd: &str) -> Option<&str> {
    ldd.lines().find_map(|line| Some(line.trim().strip_suffix("=> not found")?.trim_end()))
}

/// The absolute paths in the output of ldd.
fn paths(ldd: &str) -> Vec<PathBuf> {
    ldd.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// All files in `root`, owned by root and readable for all users, whatever their owner and the umask are on the host.
fn archive(root: &Path, to: &Path, verbose: bool) -> Result<()> {
    let script = "chmod -R go+rX . && \
        find . -print0 | cpio --null --create --format=newc --owner=0:0 --quiet > \"$0\"";
    quietly(Command::new("sh").current_dir(root).args(["-c", script]).arg(to), verbose)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_are_read_from_ldd() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffc)
\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f01)
\t/lib64/ld-linux-x86-64.so.2 (0x00007f02)";
        let expected = ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(paths(ldd), expected.map(PathBuf::from));
    }

    #[test]
    fn a_library_that_is_not_found_is_named() {
        let ldd = "\tlinux-vdso.so.1 (0x00007ffc)\n\tlibgone.so.1 => not found\n";
        assert_eq!(missing(ldd), Some("libgone.so.1"));
        assert_eq!(missing("\tlibc.so.6 => /lib/libc.so.6 (0x00007f01)\n\tnot a dynamic executable\n"), None);
    }

    /// A guest mounts its own /tmp, so a checkout below /tmp would be hidden there.
    #[test]
    fn nothing_that_a_guest_needs_is_below_its_mounts() {
        let mounted = INIT.lines().filter(|line| line.starts_with("mount -t"));
        let mounted: Vec<_> = mounted.filter_map(|line| line.split(' ').next_back()).collect();
        assert!(mounted.len() >= MOUNTS.len());
        for mount in &mounted {
            assert!(hidden_by(Path::new(mount)).is_some(), "{mount}");
        }
        let own = [PLACE, "/init", "/plan", "/programs"].map(Path::new);
        assert!(own.into_iter().chain(PATH.map(Path::new)).all(|path| hidden_by(path).is_none()));
        assert!(INIT.contains(&format!("PATH={} ", PATH.join(":"))));
        assert_eq!(hidden_by(Path::new("/tmp/x/lib/libz.so.1")), Some("/tmp"));
        assert_eq!(in_path(Path::new("/tmp/bin/ip")), Path::new("/usr/bin/ip"));
        assert_eq!(in_path(Path::new("/usr/sbin/ip")), Path::new("/usr/sbin/ip"));
    }

    #[test]
    fn plan_is_parsed_by_the_shell_as_intended() {
        let rungs = [
            Rung { name: "best", probes: "", tests: &[] },
            Rung { name: "low", probes: "accept=one connect=two", tests: &["accept::", "fail::"] },
        ];
        let rungs: Vec<_> = rungs.iter().collect();
        let parsed = |libtest: &[&str], everything: bool| {
            let libtest: Vec<_> = libtest.iter().copied().map(str::to_owned).collect();
            let asked = Asked { libtest: &libtest, everything };
            let script = format!("rung() {{ printf '<%s>' \"$@\" $same; }}\n{}", plan(&rungs, &asked));
            answer(Command::new("sh").args(["-c", &script])).unwrap()
        };
        assert_eq!(
            parsed(&["--test-threads=7"], true),
            "<best><><--show-output><--test-threads=7>\
             <low><accept=one connect=two><accept::><fail::><--show-output><--test-threads=7>"
        );
        let own: String = LIBTEST.map(|own| format!("<{own}>")).concat();
        let same: String = SAME_EVERYWHERE.iter().map(|same| format!("<{same}>")).collect();
        assert_eq!(
            parsed(&["--test-threads=7"], false),
            format!(
                "<best><><--show-output><--test-threads=7>{same}\
                     <low><accept=one connect=two><accept::><fail::><--show-output><--test-threads=7>"
            )
        );
        assert_eq!(
            parsed(&["it's"], false),
            format!("<best><>{own}<it's><low><accept=one connect=two>{own}<it's>")
        );
    }
}
