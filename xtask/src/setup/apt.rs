//! Packages of Debian and its relatives.

use std::ffi::OsStr;
use std::fs;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::exec::{as_root, find, quietly, step, succeeds};

/// How long, in seconds, to wait for another apt (a machine that just booted updates itself).
const LOCK_TIMEOUT: &str = "DPkg::Lock::Timeout=120";

/// Whether these packages are available. On Debian it checks again after `apt-get update`, since the lists may never
/// have been downloaded. On other systems an update would not help.
pub(super) fn offers(packages: &[&str], verbose: bool) -> Result<bool> {
    if find("apt-get").is_none() {
        return Ok(false);
    }
    if knows(packages) {
        return Ok(true);
    }
    if !is_debian() {
        return Ok(false);
    }
    update(packages, verbose)?;
    Ok(knows(packages))
}

/// Installs packages, after an update where the lists are too old to be of use.
pub(super) fn install(packages: &[&str], why: &str, verbose: bool) -> Result<()> {
    step(&format!("installing {} by apt: {why}", packages.join(" ")));
    let attempt = || quietly(apt_get("install")?.args(packages), verbose);
    attempt().or_else(|error| {
        step(&format!("{error:#}"));
        update(packages, verbose)?;
        attempt().with_context(|| format!("cannot install {}", packages.join(" ")))
    })
}

fn update(packages: &[&str], verbose: bool) -> Result<()> {
    step(&format!("apt-get update: the package lists here do not lead to {}", packages.join(" ")));
    quietly(&mut apt_get("update")?, verbose)
}

fn knows(packages: &[&str]) -> bool {
    succeeds(Command::new("apt-cache").args(["show", "--no-all-versions"]).args(packages))
}

/// `--no-remove` because rustc-web and rustc exclude each other: apt must not remove the one that is installed.
fn apt_get(verb: &str) -> Result<Command> {
    let mut command = as_root("apt-get", &[("DEBIAN_FRONTEND", OsStr::new("noninteractive"))])
        .context("run this as root, or install sudo")?;
    command.args([verb, "--yes", "-o", LOCK_TIMEOUT]);
    if verb == "install" {
        command.args(["--no-install-recommends", "--no-remove"]);
    }
    Ok(command)
}

fn is_debian() -> bool {
    fs::read_to_string("/etc/os-release").is_ok_and(|release| release.lines().any(|line| line == "ID=debian"))
}
