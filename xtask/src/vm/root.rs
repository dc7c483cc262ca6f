//! What a guest has for a file system: the host's own programs with their libraries, at the host's own paths.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use super::cached::Cached;
use super::modules;
use super::rungs::{Rung, SAME_EVERYWHERE};
use crate::exec::{answer, find, quietly, succeeds};

/// What `init.sh` starts, what the tests start, and what they look at.
const PROGRAMS: &[&str] = &[
    "sh", "bash", "cat", "true", "sleep", "mkdir", "mount", "umount", "modprobe", "ip", "tc", "ss",
    "netstat", "unshare", "setpriv",
];

/// Names that tests hold against those of netwatch. Not the accounts of this machine: nobody is enough.
const FILES: [&str; 3] = ["/etc/services", "/etc/protocols", "/etc/nsswitch.conf"];
const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\ndaemon:x:1:1:daemon:/:/bin/false\n\
nobody:x:65534:65534:nobody:/nonexistent:/bin/false\n";
const GROUP: &str = "root:x:0:\ndaemon:x:1:\nnogroup:x:65534:\n";

/// Directories that are symbolic links to those in /usr on most systems.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// What the test program is given, unless whoever calls gives it the same option. Two at once, because a test
/// waits now and then, and three are no faster; their output at the end, because that of several would be mixed up.
const LIBTEST: [&str; 2] = ["--show-output", "--test-threads=2"];

const INIT: &str = include_str!("init.sh");

/// The programs under test, where the host has them: the tests know the actor's path.
pub(super) struct Programs {
    pub(super) netwatch: PathBuf,
    pub(super) tests: PathBuf,
    pub(super) actor: PathBuf,
}

/// The part that all guests have alike, as a cpio archive.
pub(super) struct Base {
    scratch: tempfile::TempDir,
    start: String,
}

impl Base {
    /// `directory` is where the tests are started.
    pub(super) fn build(programs: &Programs, directory: &Path, verbose: bool) -> Result<Self> {
        let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
        let root = scratch.path().join("root");
        skeleton(&root)?;
        for part in ["proc", "sys", "dev", "tmp", "run", "root", "etc", "var"] {
            fs::create_dir_all(root.join(part)).context("cannot make a directory")?;
        }
        let mut files = BTreeSet::new();
        for program in PROGRAMS {
            let path = find(program).with_context(|| format!("there is no {program} here"))?;
            files.extend(libraries(&path));
            files.insert(path);
        }
        files.extend(FILES.map(PathBuf::from).into_iter().filter(|file| file.exists()));
        for path in [&programs.netwatch, &programs.tests, &programs.actor] {
            files.extend(libraries(path));
            copy(path, &inside(&root, path), true)?;
        }
        for file in &files {
            copy(file, &inside(&root, file), false)?;
        }
        fs::create_dir_all(inside(&root, directory)).context("cannot make a directory")?;
        fs::write(root.join("etc/passwd"), PASSWD).context("cannot write a file")?;
        fs::write(root.join("etc/group"), GROUP).context("cannot write a file")?;
        fs::write(root.join("init"), INIT).context("cannot write a file")?;
        quietly(Command::new("chmod").arg("755").arg(root.join("init")), verbose)?;
        archive(&root, &scratch.path().join("base.cpio"), verbose)?;
        let quoted = |path: &Path| quote(&path.to_string_lossy());
        let start = format!(
            "export NETWATCH_BIN={}\nE2E={}\ncd {}\n",
            quoted(&programs.netwatch),
            quoted(&programs.tests),
            quoted(directory)
        );
        Ok(Self { scratch, start })
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
        fs::write(root.join("plan"), format!("{}{}", self.start, plan(rungs, asked)))
            .context("cannot write a file")?;
        let own = self.scratch.path().join(format!("{}.cpio", kernel.release));
        archive(&root, &own, verbose)?;
        // The kernel unpacks one archive after the other.
        let whole = self.scratch.path().join(format!("{}.initramfs", kernel.release));
        let mut to = File::create(&whole).context("cannot make the initramfs")?;
        for part in [self.scratch.path().join("base.cpio"), own] {
            let mut from = File::open(&part).with_context(|| format!("cannot read {}", part.display()))?;
            io::copy(&mut from, &mut to).context("cannot write the initramfs")?;
        }
        Ok(whole)
    }
}

/// What of the tests is asked for.
#[derive(Clone, Copy)]
pub(super) struct Asked<'a> {
    /// Arguments for the test program.
    pub(super) libtest: &'a [String],
    /// Those too that no kernel has a part in.
    pub(super) everything: bool,
}

/// Calls of `rung` in `init.sh`. Whoever asks for certain tests gets these on every rung.
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

/// One word to a shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Links where the host has links, so that a path leads to the same file here and there.
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

/// Without symbols where these are not needed: an initramfs is unpacked into memory, at an emulator's pace.
fn copy(from: &Path, to: &Path, strip: bool) -> Result<()> {
    fs::create_dir_all(to.parent().unwrap_or(to)).context("cannot make a directory")?;
    if strip && succeeds(Command::new("strip").arg("-o").arg(to).arg(from)) {
        return Ok(());
    }
    fs::copy(from, to).map(|_| ()).with_context(|| format!("cannot copy {}", from.display()))
}

/// The shared libraries of a program, the loader among them; none where it has none.
fn libraries(program: &Path) -> Vec<PathBuf> {
    paths(&answer(Command::new("ldd").arg(program)).unwrap_or_default())
}

/// The absolute paths in what ldd says.
fn paths(ldd: &str) -> Vec<PathBuf> {
    ldd.split_whitespace().filter(|word| word.starts_with('/')).map(PathBuf::from).collect()
}

/// All that is in `root`, as root's, whoever made it; readable for everybody, whatever the umask was.
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
    fn the_plan_is_what_the_shell_takes_for_it() {
        let rungs = [
            Rung { name: "best", probes: "", tests: &[] },
            Rung { name: "low", probes: "accept=one connect=two", tests: &["accept::", "fail::"] },
        ];
        let rungs: Vec<_> = rungs.iter().collect();
        let told = |libtest: &[&str], everything: bool| {
            let libtest: Vec<_> = libtest.iter().copied().map(str::to_owned).collect();
            let asked = Asked { libtest: &libtest, everything };
            let script = format!("rung() {{ printf '<%s>' \"$@\" $same; }}\n{}", plan(&rungs, &asked));
            answer(Command::new("sh").args(["-c", &script])).unwrap()
        };
        assert_eq!(
            told(&["--test-threads=7"], true),
            "<best><><--show-output><--test-threads=7>\
             <low><accept=one connect=two><accept::><fail::><--show-output><--test-threads=7>"
        );
        let own: String = LIBTEST.map(|own| format!("<{own}>")).concat();
        let same: String = SAME_EVERYWHERE.iter().map(|same| format!("<{same}>")).collect();
        assert_eq!(
            told(&["--test-threads=7"], false),
            format!(
                "<best><><--show-output><--test-threads=7>{same}\
                     <low><accept=one connect=two><accept::><fail::><--show-output><--test-threads=7>"
            )
        );
        assert_eq!(
            told(&["it's"], false),
            format!("<best><>{own}<it's><low><accept=one connect=two>{own}<it's>")
        );
    }
}
