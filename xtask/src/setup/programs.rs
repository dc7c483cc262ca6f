//! The programs that the end-to-end tests compare netwatch with or start, and those that start a guest.

use anyhow::{Result, bail};

use super::apt;
use crate::exec::{find, step};

/// Program, and the Debian package that contains it.
const PROGRAMS: &[(&str, &str)] = &[
    ("netstat", "net-tools"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("tc", "iproute2"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
];

/// For other kernels, beside the emulator; apt and dpkg are part of the Debian that this needs.
const FOR_GUESTS: &[(&str, &str)] = &[("cpio", "cpio"), ("depmod", "kmod"), ("modprobe", "kmod")];

/// Installs those that are missing. Without apt it only reports them, as do the tests that need them.
pub(super) fn ensure(verbose: bool) -> Result<()> {
    if let Some(missing) = install(PROGRAMS, "the end-to-end tests use them", verbose)? {
        step(&format!("MISSING: {missing}, or tests will be skipped"));
    }
    Ok(())
}

/// Installs what is needed to boot other kernels.
pub(super) fn ensure_for_guests(verbose: bool) -> Result<()> {
    if !cfg!(target_arch = "x86_64") {
        bail!("the kernels, and the host's programs in their guests, have to be x86_64's");
    }
    match install(FOR_GUESTS, "other kernels are booted with them", verbose)? {
        Some(missing) => bail!(missing),
        None => Ok(()),
    }
}

/// If some cannot be installed, returns an error that says what to do.
fn install(programs: &[(&str, &str)], why: &str, verbose: bool) -> Result<Option<String>> {
    let (programs, mut packages): (Vec<&str>, Vec<&str>) =
        programs.iter().filter(|(program, _)| find(program).is_none()).copied().unzip();
    if programs.is_empty() {
        return Ok(None);
    }
    packages.dedup();
    if apt::offers(&packages, verbose)? {
        return apt::install(&packages, why, verbose).map(|()| None);
    }
    let (programs, packages) = (programs.join(" "), packages.join(" "));
    Ok(Some(format!("{programs}; install them (Debian calls the packages {packages})")))
}
