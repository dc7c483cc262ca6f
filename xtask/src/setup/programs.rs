//! The programs that the end-to-end tests hold netwatch against, or start.

use anyhow::Result;

use super::apt;
use crate::exec::{find, step};

/// Program, and the Debian package that has it.
const PROGRAMS: &[(&str, &str)] = &[
    ("netstat", "net-tools"),
    ("ip", "iproute2"),
    ("ss", "iproute2"),
    ("tc", "iproute2"),
    ("unshare", "util-linux"),
    ("setpriv", "util-linux"),
];

/// Installs those that are missing. Without apt it only says so: the tests that need them say it again.
pub(super) fn ensure(verbose: bool) -> Result<()> {
    let (programs, mut packages): (Vec<&str>, Vec<&str>) =
        PROGRAMS.iter().filter(|(program, _)| find(program).is_none()).copied().unzip();
    if programs.is_empty() {
        return Ok(());
    }
    packages.dedup();
    if apt::offers(&packages, verbose)? {
        return apt::install(&packages, "the end-to-end tests use them", verbose);
    }
    step(&format!(
        "MISSING: {}; install them (Debian calls the packages {}), or tests will be skipped",
        programs.join(" "),
        packages.join(" ")
    ));
    Ok(())
}
