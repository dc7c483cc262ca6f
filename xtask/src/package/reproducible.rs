//! Builds the program a second time, in a copy of the checkout in another folder, and compares.

use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use super::build::{self, Arch};
use crate::cargo::{target_directory, workspace};
use crate::exec::step;

/// Fails if the two differ.
pub(super) fn check(arch: Arch) -> Result<()> {
    let (checkout, target) = (workspace()?, target_directory()?);
    let first = build::program(arch, &checkout, &target)?;
    let place = tempfile::Builder::new().prefix("another-folder-").tempdir_in(&target);
    let place = place.context("cannot make a temporary folder")?;
    let copy = place.path().join("checkout");
    fs::create_dir(&copy).context("cannot make a folder")?;
    // What git knows, as it is now.
    let mut list =
        Command::new("git").args(["ls-files", "-z"]).current_dir(&checkout).stdout(Stdio::piped()).spawn()?;
    let names = list.stdout.take().context("git has no output")?;
    let mut pack = Command::new("tar");
    pack.args(["--null", "--files-from=-", "--ignore-failed-read", "-cf", "-"]).current_dir(&checkout);
    let mut packed = pack.stdin(names).stdout(Stdio::piped()).spawn()?;
    let files = packed.stdout.take().context("tar has no output")?;
    let unpacked = Command::new("tar").arg("-xf").arg("-").current_dir(&copy).stdin(files).status()?;
    if !(list.wait()?.success() && packed.wait()?.success() && unpacked.success()) {
        bail!("cannot copy the checkout");
    }
    let second = build::program_of(arch, &copy, &place.path().join("target"), build::commit(&checkout))?;
    let read = |path| fs::read(path).context("cannot read a program");
    if read(&first)? != read(&second)? {
        let kept = target.join("package/netwatch.other");
        fs::create_dir_all(target.join("package"))?;
        fs::copy(&second, &kept).context("cannot keep the other program")?;
        bail!("{} and {} differ: something in them depends on the folder", first.display(), kept.display());
    }
    step("two builds in two folders are the same, bit for bit");
    Ok(())
}
