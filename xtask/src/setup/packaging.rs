//! What makes packages: a C library to link with, and the tools that write deb and rpm.

use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::cargo::cargo;
use crate::exec::{answer, find, quietly, step};
use crate::package::Arch;

/// Tools of cargo, at the version that this was tried with.
const TOOLS: [(&str, &str); 2] = [("cargo-deb", "3.8.0"), ("cargo-generate-rpm", "0.21.1")];

pub(super) fn ensure(arch: Arch, verbose: bool) -> Result<()> {
    target(arch, verbose)?;
    // SQLite is C: against the headers of musl, for which another machine's compiler needs its own.
    let (compiler, package) = if arch.is_own() {
        ("musl-gcc".to_owned(), "musl-tools".to_owned())
    } else {
        (arch.tool("gcc"), format!("gcc-{}-linux-gnu", arch.name()))
    };
    let mut wanted = vec![(compiler, package)];
    if !arch.is_own() {
        wanted.push((format!("qemu-{}-static", arch.name()), "qemu-user-static".to_owned()));
    }
    for (program, package) in wanted {
        if find(&program).is_none() {
            if !apt::offers(&[&package], verbose)? {
                bail!("{program} is missing: install it (Debian calls the package {package})");
            }
            apt::install(&[&package], "packages contain a static program", verbose)?;
        }
    }
    for (tool, version) in TOOLS {
        let installed = answer(&mut cargo(&[tool.trim_start_matches("cargo-"), "--version"])?);
        if installed.is_none_or(|line| !line.ends_with(version)) {
            step(&format!("compiling {tool} {version}, a minute or two"));
            quietly(&mut cargo(&["install", tool, "--version", version, "--locked", "--force"])?, verbose)?;
        }
    }
    Ok(())
}

/// rustup's standard library for the target.
fn target(arch: Arch, verbose: bool) -> Result<()> {
    let libraries =
        answer(Command::new("rustc").args(["--print", "target-libdir", "--target", arch.target()]));
    if libraries.is_some_and(|folder| Path::new(&folder).is_dir()) {
        return Ok(());
    }
    step(&format!("installing the standard library for {} by rustup", arch.target()));
    quietly(Command::new("rustup").args(["target", "add", arch.target()]), verbose)
        .with_context(|| format!("rustup has no standard library for {}", arch.target()))
}
