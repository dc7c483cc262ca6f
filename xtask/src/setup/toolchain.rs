//! A Rust toolchain that builds for the BPF target.

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::exec::{answer, find, quietly, step, succeeds};

/// Debian has a prebuilt `core` for the BPF target. Its cargo is needed too: rustup runs a linked toolchain without one
/// by the cargo of toolchains named nightly, beta or stable only, and a pinned one is named 1.95.0.
const DEBIAN: &[&str] = &["rustc-web", "cargo-web", "libstd-rust-web-dev-bpf"];

/// Prefix of Debian's rustc for `rustup toolchain link`: the directory above `bin`.
const DEBIAN_PREFIX: &str = "/usr";

/// The toolchains that `netwatch/build.rs` looks for, in its order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toolchain {
    /// A toolchain linked under the project's own name, with a prebuilt `core`.
    Linked,
    /// rustup's nightly with `rust-src`, which builds `core` itself.
    Nightly,
}

impl fmt::Display for Toolchain {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "the Rust toolchain {}", self.name())
    }
}

impl Toolchain {
    /// The one that the build will use.
    pub(super) fn chosen() -> Option<Self> {
        [Self::Linked, Self::Nightly].into_iter().find(|toolchain| toolchain.builds_for_bpf())
    }

    fn name(self) -> &'static str {
        match self {
            Self::Linked => "netwatch-bpf",
            Self::Nightly => "nightly",
        }
    }

    /// A program of this toolchain.
    pub(super) fn program(self, program: &str) -> Command {
        let mut command = Command::new("rustup");
        command.args(["run", self.name(), program]);
        command
    }

    /// The major version of its LLVM, whose bitcode bpf-linker has to read.
    pub(super) fn llvm(self) -> Result<u32> {
        let version = answer(self.program("rustc").arg("-vV"))
            .with_context(|| format!("{self} cannot say its version"))?;
        llvm_major(&version).with_context(|| format!("{self} does not say its LLVM version"))
    }

    fn builds_for_bpf(self) -> bool {
        match self {
            Self::Linked => {
                let mut rustc = self.program("rustc");
                answer(rustc.args(["--print", "target-libdir", "--target", "bpfel-unknown-none"]))
                    .is_some_and(|libdir| has_core(Path::new(&libdir)))
                    && succeeds(self.program("cargo").arg("--version"))
            }
            Self::Nightly => answer(self.program("rustc").args(["--print", "sysroot"]))
                .is_some_and(|root| Path::new(&root).join("lib/rustlib/src/rust/library/core").is_dir()),
        }
    }
}

/// Whether a directory of compiled libraries has `core`.
fn has_core(libdir: &Path) -> bool {
    let Ok(entries) = fs::read_dir(libdir) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

/// The major version of LLVM in the output of `rustc -vV`.
fn llvm_major(version: &str) -> Option<u32> {
    let line = version.lines().find_map(|line| line.strip_prefix("LLVM version: "))?;
    line.split('.').next()?.parse().ok()
}

/// Installs Debian's toolchain and links it in rustup.
pub(super) fn link_debian(verbose: bool) -> Result<()> {
    require_rustup()?;
    if !apt::offers(DEBIAN, verbose)? {
        bail!("apt has no packages {}", DEBIAN.join(" "));
    }
    apt::install(DEBIAN, "they have core for the BPF target", verbose)?;
    let name = Toolchain::Linked.name();
    step(&format!("linking {DEBIAN_PREFIX} as {name}: rustup knows toolchains by name"));
    quietly(Command::new("rustup").args(["toolchain", "link", name, DEBIAN_PREFIX]), verbose)?;
    if !Toolchain::Linked.builds_for_bpf() {
        bail!("{} cannot build for the BPF target even so", Toolchain::Linked);
    }
    Ok(())
}

/// Installs rustup's nightly with `rust-src`, which can build `core`.
pub(super) fn install_nightly(verbose: bool) -> Result<()> {
    require_rustup()?;
    step("installing nightly with rust-src by rustup: it builds core for the BPF target");
    let args = ["toolchain", "install", "nightly", "--profile", "minimal", "--component", "rust-src"];
    quietly(Command::new("rustup").args(args), verbose)
}

fn require_rustup() -> Result<()> {
    find("rustup").map(|_| ()).context("there is no rustup, which the build picks its BPF toolchain with")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn llvm_major_is_read_from_rustc() {
        let version = "rustc 1.97.0-nightly\nrelease: 1.97.0-nightly\nLLVM version: 22.1.4";
        assert_eq!(llvm_major(version), Some(22));
        assert_eq!(llvm_major("release: 1.97.0"), None);
    }
}
