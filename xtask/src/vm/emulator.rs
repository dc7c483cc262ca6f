//! The emulator that boots other kernels: the host's own if it is new enough, or else Debian's, unpacked in the cache.
//!
//! QEMU 10 takes three quarters of the time that 7.2 does, which is Debian 12's. Debian's cannot be installed on a host
//! that has tools of another QEMU (it conflicts with a backport's `qemu-utils`), and a test must not remove those. So
//! it is unpacked with all its dependencies, including the C library, and started by that library's loader: it does not
//! depend on the host's libraries.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::fetch::{self, Suite, said};
use super::mirror::Mirror;
use crate::exec::{answer, find, step, succeeds};
use crate::setup;

/// Debian's name of the program, and of the package that contains it.
const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// The first version that is fast enough, and a suite that has it.
const FAST: u32 = 10;
const SUITE: &str = "trixie";

/// Folder of the libraries in the unpacked one.
const LIBRARIES: &str = "usr/lib/x86_64-linux-gnu";
const LOADER: &str = "usr/lib/x86_64-linux-gnu/ld-linux-x86-64.so.2";

/// Folder of its firmware.
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// Finds it, or unpacks or installs it, `cache` being the place for the unpacked one.
pub(super) fn ensure(cache: &Path, verbose: bool) -> Result<()> {
    if is_fast(find(PROGRAM)) || starts(cache) {
        return Ok(());
    }
    let Err(error) = unpack(cache, verbose) else { return Ok(()) };
    step(&format!("the emulator of {SUITE} is not available, using this machine's: {error:#}"));
    if find(PROGRAM).is_some() {
        return Ok(());
    }
    setup::install(&[PACKAGE], "other kernels are booted with it", verbose)
}

/// The command that starts it: the host's, or the unpacked one. It is killed with this process, even if that is killed:
/// an emulator never stops by itself.
pub(super) fn command(cache: &Path) -> Option<Command> {
    let host_s = find(PROGRAM);
    if !is_fast(host_s.clone())
        && let Some(command) = unpacked(cache)
    {
        return Some(command);
    }
    let mut command = bound_to_this();
    command.arg(host_s?);
    Some(command)
}

fn bound_to_this() -> Command {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    command
}

fn is_fast(program: Option<PathBuf>) -> bool {
    program
        .and_then(|program| answer(Command::new(program).arg("--version")))
        .and_then(|version| major(&version))
        .is_some_and(|major| major >= FAST)
}

/// The major version in `QEMU emulator version 10.0.2 (…)`.
fn major(output: &str) -> Option<u32> {
    let version = output.split_whitespace().skip_while(|word| *word != "version").nth(1)?;
    version.split('.').next()?.parse().ok()
}

fn place(cache: &Path) -> PathBuf {
    cache.join(format!("emulator-{SUITE}"))
}

fn unpacked(cache: &Path) -> Option<Command> {
    let place = place(cache);
    let program = Some(place.join("usr/bin").join(PROGRAM)).filter(|program| program.is_file())?;
    let libraries = place.join(LIBRARIES);
    let mut command = bound_to_this();
    command.arg(place.join(LOADER)).arg("--library-path").arg(&libraries).arg(program);
    // Some of its modules are loaded on demand.
    command.env("QEMU_MODULE_DIR", libraries.join("qemu"));
    for folder in FIRMWARE {
        command.arg("-L").arg(place.join(folder));
    }
    Some(command)
}

/// Whether it works with this processor and loader is known when it was started.
fn starts(cache: &Path) -> bool {
    unpacked(cache).is_some_and(|mut command| succeeds(command.arg("--version")))
}

fn unpack(cache: &Path, verbose: bool) -> Result<()> {
    let mirror = Mirror::of_this_machine()?;
    let suite = Suite::open(SUITE, &mirror, cache, verbose)?;
    step(&format!("unpacking the emulator of {SUITE} in {}", cache.display()));
    // In the same folder, so that the final rename is atomic.
    let half = tempfile::tempdir_in(cache).context("cannot make a temporary directory in the cache")?;
    let archives = half.path().join("archives");
    // apt requires this folder to exist.
    fs::create_dir_all(archives.join("partial")).context("cannot make a folder for the emulator")?;
    // To this apt nothing is installed, so it downloads all dependencies.
    let mut download = suite.apt("apt-get");
    download.arg("-o").arg(format!("Dir::Cache::Archives={}", archives.display()));
    download.args(["install", "--yes", "--no-install-recommends", "--download-only", PACKAGE]);
    said(&mut download, verbose).with_context(|| format!("cannot download {PACKAGE}"))?;
    fetch::unpack(&archives, half.path(), verbose)?;
    fs::remove_dir_all(&archives).context("cannot remove what was unpacked")?;
    let place = place(cache);
    if place.exists() {
        fs::remove_dir_all(&place).context("cannot remove an emulator that does not start")?;
    }
    fs::rename(half.keep(), &place).with_context(|| format!("cannot make {}", place.display()))?;
    if !starts(cache) {
        bail!("what was unpacked does not start");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_is_read_from_the_output() {
        let old = "QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright (c) 2003-2022";
        assert_eq!(major(old), Some(7));
        assert_eq!(major("QEMU emulator version 10.0.2"), Some(10));
        assert_eq!(major("QEMU emulator version"), None);
        assert_eq!(major("something else"), None);
    }
}
