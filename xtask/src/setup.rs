//! `cargo xtask setup`: installs what building needs and is missing; quick when nothing is.
//!
//! Needed are a Rust toolchain that has `core` for the BPF target and a bpf-linker that reads its bitcode.
//! Three ways lead there, tried by what the machine has, never by its name or version: what is already
//! installed; Debian's packages, which need no nightly; rustup's nightly, which builds `core` itself.

mod apt;
mod linker;
mod packaging;
mod programs;
mod toolchain;

use std::process::ExitCode;

use anyhow::{Result, bail};

use crate::exec::{find, step};
use crate::package::Arch;
use crate::vm;
use toolchain::Toolchain;

/// Instructions if none of the three ways works.
const BY_HAND: &str = "cannot install what building for the BPF target needs; install by hand \
either rustup (https://rustup.rs), then `rustup toolchain install nightly --profile minimal --component rust-src` \
and bpf-linker (`cargo binstall bpf-linker`), or, on Debian with its security suite, as root \
`apt-get install rustc-web cargo-web libstd-rust-web-dev-bpf llvm-22-dev`; then run `cargo xtask setup` again";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Also install the programs that the end-to-end tests use, and those that boot other kernels
    #[arg(long)]
    test: bool,
}

pub(crate) fn run(args: &Args, verbose: bool) -> Result<ExitCode> {
    let toolchain = ensure(verbose)?;
    if args.test {
        programs::ensure(verbose)?;
        if let Err(error) = vm::ensure(verbose) {
            step(&format!("other kernels cannot be tested: {error:#}"));
        }
    }
    step(&format!("ready: {toolchain} and its bpf-linker are installed"));
    Ok(ExitCode::SUCCESS)
}

/// Installs what tests need on top of what building needs.
pub(crate) fn ensure_for_tests(verbose: bool) -> Result<()> {
    ensure(verbose)?;
    programs::ensure(verbose)
}

/// Installs what making packages needs on top of what building needs.
pub(crate) fn ensure_for_packages(arch: Arch, verbose: bool) -> Result<()> {
    ensure(verbose)?;
    packaging::ensure(arch, verbose)
}

/// Installs what judges packages.
pub(crate) fn install_for_packages(verbose: bool) -> Result<()> {
    if find("lintian").is_some() { Ok(()) } else { install(&["lintian"], "it judges the deb", verbose) }
}

/// Installs packages of Debian's.
pub(crate) fn install(packages: &[&str], why: &str, verbose: bool) -> Result<()> {
    if !apt::offers(packages, verbose)? {
        bail!("no apt here offers {}", packages.join(" "));
    }
    apt::install(packages, why, verbose)
}

/// Installs what booting other kernels needs on top of that, but for the emulator; an error where this machine cannot.
pub(crate) fn ensure_for_guests(verbose: bool) -> Result<()> {
    programs::ensure_for_guests(verbose)
}

/// Installs what building needs; says nothing when nothing is missing.
pub(crate) fn ensure(verbose: bool) -> Result<Toolchain> {
    let ways: [fn(bool) -> Result<Toolchain>; 3] = [installed, debian, nightly];
    for way in ways {
        match way(verbose) {
            Ok(toolchain) => return Ok(toolchain),
            Err(reason) => step(&format!("{reason:#}")),
        }
    }
    bail!(BY_HAND)
}

fn installed(verbose: bool) -> Result<Toolchain> {
    let Some(toolchain) = Toolchain::chosen() else {
        bail!("no toolchain here builds for the BPF target yet");
    };
    linker::ensure(toolchain, verbose)?;
    Ok(toolchain)
}

fn debian(verbose: bool) -> Result<Toolchain> {
    toolchain::link_debian(verbose)?;
    linker::ensure(Toolchain::Linked, verbose)?;
    Ok(Toolchain::Linked)
}

fn nightly(verbose: bool) -> Result<Toolchain> {
    toolchain::install_nightly(verbose)?;
    linker::ensure(Toolchain::Nightly, verbose)?;
    Ok(Toolchain::Nightly)
}
