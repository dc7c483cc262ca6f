//! Builds the program.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::cargo;
use crate::exec::{answer, quietly, step};

/// Architectures that there are packages for. The kernel side is the same object but for the layout of registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Arch {
    /// `amd64` of Debian
    #[value(name = "x86_64")]
    X86_64,
    /// `arm64` of Debian
    #[value(name = "aarch64")]
    Aarch64,
}

impl Arch {
    pub(crate) fn own() -> Result<Self> {
        match std::env::consts::ARCH {
            "x86_64" => Ok(Self::X86_64),
            "aarch64" => Ok(Self::Aarch64),
            other => bail!("no packages are made on {other}: select an architecture with --arch"),
        }
    }

    pub(crate) fn is_own(self) -> bool {
        Self::own().is_ok_and(|own| own == self)
    }

    /// As rpm and tarballs name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    /// As Debian and images name it.
    pub(super) fn debian(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// The target of rustc.
    pub(crate) fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-musl",
            Self::Aarch64 => "aarch64-unknown-linux-musl",
        }
    }

    /// A tool of binutils or gcc for it.
    pub(crate) fn tool(self, tool: &str) -> String {
        if self.is_own() { tool.to_owned() } else { format!("{}-linux-gnu-{tool}", self.name()) }
    }
}

/// Paths that neither the program nor its debug info has, and what stands for them.
fn remapped(checkout: &Path, target: &Path) -> Vec<String> {
    // The last one that fits counts, for rustc and gcc alike.
    let paths = [(cargo::home(), "cargo"), (checkout.to_owned(), "netwatch"), (target.to_owned(), "target")];
    paths.map(|(path, name)| format!("{}=/{name}", path.display())).into()
}

/// The commit of a checkout, or NETWATCH_COMMIT; a build without git has none.
pub(super) fn commit(checkout: &Path) -> Option<String> {
    if let Ok(given) = std::env::var("NETWATCH_COMMIT") {
        return Some(given);
    }
    let git = |args: &[&str]| answer(Command::new("git").arg("-C").arg(checkout).args(args));
    let commit = git(&["rev-parse", "--short=12", "HEAD"])?;
    let is_clean =
        git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|changes| changes.is_empty());
    Some(if is_clean { commit } else { format!("{commit}-dirty") })
}

/// SOURCE_DATE_EPOCH, or the time of the commit.
pub(super) fn epoch(checkout: &Path) -> String {
    std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .or_else(|| answer(Command::new("git").arg("-C").arg(checkout).args(["log", "-1", "--format=%ct"])))
        .unwrap_or_else(|| "0".into())
}

/// Builds the program of a checkout in a target directory; returns its path.
pub(super) fn program(arch: Arch, checkout: &Path, target: &Path) -> Result<PathBuf> {
    program_of(arch, checkout, target, commit(checkout))
}

/// The same of a copy of the checkout of that commit.
pub(super) fn program_of(
    arch: Arch,
    checkout: &Path,
    target: &Path,
    commit: Option<String>,
) -> Result<PathBuf> {
    step(&format!("building netwatch for {}, some minutes", arch.target()));
    let remapped = remapped(checkout, target);
    let mut flags: Vec<_> = remapped.iter().map(|path| format!("--remap-path-prefix={path}")).collect();
    if arch == Arch::X86_64 {
        // A fortieth of the size for relocations; not every linker can for other machines.
        flags.push("-Clink-arg=-Wl,-z,pack-relative-relocs".into());
    }
    let c_flags: Vec<_> = remapped.iter().map(|path| format!("-ffile-prefix-map={path}")).collect();
    let triple = arch.target();
    let mut build =
        cargo::cargo(&["build", "--locked", "--profile=dist", "--package=netwatch", "--target", triple])?;
    build.current_dir(checkout).env("CARGO_TARGET_DIR", target);
    build.env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"));
    build.env(format!("CFLAGS_{}", triple.replace('-', "_")), c_flags.join(" "));
    if !arch.is_own() {
        let upper = triple.replace('-', "_").to_uppercase();
        build.env(format!("CARGO_TARGET_{upper}_LINKER"), arch.tool("gcc"));
        build.env(format!("CC_{}", triple.replace('-', "_")), arch.tool("gcc"));
    }
    if let Some(commit) = commit {
        build.env("NETWATCH_COMMIT", commit);
    }
    // The variable is how cargo names the package that it runs this program for, not the one that is built.
    build.env_remove("CARGO_MANIFEST_DIR");
    quietly(&mut build, true).context("cannot build the program")?;
    Ok(target.join(triple).join("dist/netwatch"))
}
