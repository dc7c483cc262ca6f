//! The emulator that boots other kernels: the host's own, or one that is unpacked beside it.
//!
//! Debian's cannot be installed on a host that has another QEMU's tools (a backport's `qemu-utils` breaks it), and nobody
//! is to lose those for a test. So where apt would remove something, the same packages are only fetched and unpacked.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::exec::{find, quietly, step, succeeds};
use crate::setup;

/// As Debian calls the program, and the package that has it.
const PROGRAM: &str = "qemu-system-x86_64";
const PACKAGE: &str = "qemu-system-x86";

/// Where an unpacked one has its libraries.
const LIBRARIES: [&str; 2] = ["usr/lib/x86_64-linux-gnu", "lib/x86_64-linux-gnu"];

/// Where it looks for firmware.
const FIRMWARE: [&str; 2] = ["usr/share/qemu", "usr/share/seabios"];

/// Finds it, or installs or unpacks it; `cache` is for what is unpacked.
pub(super) fn ensure(cache: &Path, verbose: bool) -> Result<()> {
    if starts(cache) {
        return Ok(());
    }
    setup::install(&[PACKAGE], "other kernels are booted with it", verbose).or_else(|error| {
        unpack(cache, verbose)
            .with_context(|| format!("{error:#}, and it cannot be unpacked beside what is there"))
    })
}

/// What starts it: the host's, or the one that was unpacked. It ends with this process even where that is killed: an
/// emulator never stops by itself.
pub(super) fn command(cache: &Path) -> Option<Command> {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if let Some(program) = find(PROGRAM) {
        command.arg(program);
        return Some(command);
    }
    let place = place(cache);
    let program = Some(place.join("usr/bin").join(PROGRAM)).filter(|program| program.is_file())?;
    command.arg(program);
    command
        .env("LD_LIBRARY_PATH", LIBRARIES.map(|folder| place.join(folder).display().to_string()).join(":"));
    // Parts of it are loaded when they are needed.
    command.env("QEMU_MODULE_DIR", place.join("usr/lib/x86_64-linux-gnu/qemu"));
    for folder in FIRMWARE {
        command.arg("-L").arg(place.join(folder));
    }
    Some(command)
}

fn place(cache: &Path) -> PathBuf {
    cache.join("qemu")
}

fn unpack(cache: &Path, verbose: bool) -> Result<()> {
    let place = place(cache);
    step("unpacking the emulator beside what is installed: apt would remove something for it");
    let archives = place.join("archives");
    fs::create_dir_all(&archives).context("cannot make a folder for the emulator")?;
    setup::fetch(&[PACKAGE], &archives, verbose)?;
    for entry in fs::read_dir(&archives).context("cannot read what apt fetched")?.flatten() {
        let path = entry.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            quietly(Command::new("dpkg").arg("-x").arg(&path).arg(&place), verbose)?;
        }
    }
    fs::remove_dir_all(&archives).context("cannot remove what was unpacked")?;
    if !starts(cache) {
        bail!("what was unpacked does not start");
    }
    Ok(())
}

/// What an earlier run left half unpacked does not.
fn starts(cache: &Path) -> bool {
    command(cache).is_some_and(|mut command| succeeds(command.arg("--version")))
}
