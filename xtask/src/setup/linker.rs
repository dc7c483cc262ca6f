//! A bpf-linker that reads the bitcode of the toolchain.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::{apt, toolchain::Toolchain};
use crate::cargo::cargo;
use crate::exec::{answer, find, quietly, step, succeeds};

/// The bpf-linker that this was tried with, and the versions of LLVM that it has a feature for.
const VERSION: &str = "0.13.0";
const LLVM_FEATURES: std::ops::RangeInclusive<u32> = 21..=23;

/// Attributes, an aggregate and debug records are what a reader of another version stumbles over.
const SAMPLE: &str = "#![crate_type = \"lib\"]
#[unsafe(no_mangle)]
pub extern \"C\" fn sample(words: &mut [u64; 4], limit: Option<&u32>) -> u64 {
    words[1] = 7;
    limit.filter(|limit| **limit < 9).map_or(words[0], |limit| u64::from(*limit))
}
";

/// Installs bpf-linker unless the installed one works.
pub(super) fn ensure(toolchain: Toolchain, verbose: bool) -> Result<()> {
    if reads_bitcode_of(toolchain)? {
        return Ok(());
    }
    if find("cargo-binstall").is_some() {
        step("installing bpf-linker by cargo-binstall: none here reads the toolchain's bitcode");
        let pinned = format!("bpf-linker@{VERSION}");
        quietly(&mut cargo(&["binstall", "--no-confirm", "--force", &pinned])?, verbose)
            .unwrap_or_else(|error| step(&format!("{error:#}")));
        if reads_bitcode_of(toolchain)? {
            return Ok(());
        }
    }
    compile(toolchain.llvm()?, verbose)?;
    if !reads_bitcode_of(toolchain)? {
        bail!(
            "the bpf-linker just installed cannot read the bitcode of {toolchain}; is another one first in PATH?"
        );
    }
    Ok(())
}

/// Compiles bpf-linker against the LLVM that the toolchain was built with.
fn compile(llvm: u32, verbose: bool) -> Result<()> {
    if !LLVM_FEATURES.contains(&llvm) {
        bail!(
            "bpf-linker {VERSION}, which this was tried with, cannot be compiled for LLVM {llvm} of this toolchain"
        );
    }
    let package = format!("llvm-{llvm}-dev");
    if prefix(llvm).is_none() && apt::offers(&[&package], verbose)? {
        apt::install(&[&package], "bpf-linker is compiled against it", verbose)?;
    }
    let Some(prefix) = prefix(llvm) else {
        bail!(
            "no bpf-linker reads this toolchain's bitcode, and there is no LLVM {llvm} to compile one against: \
             install one with `cargo binstall bpf-linker`, or LLVM {llvm}'s development package ({package} on \
             Debian and Ubuntu, llvm-devel on Fedora, llvm on Arch)"
        );
    };
    step(&format!(
        "compiling bpf-linker for LLVM {llvm}, a minute or two: none here reads the toolchain's bitcode"
    ));
    let feature = format!("llvm-{llvm}");
    let mut command = cargo(&["install", "bpf-linker", "--force", "--locked"])?;
    command.args(["--no-default-features", "--features", &feature, "--version", VERSION]);
    command.env("LLVM_PREFIX", prefix);
    quietly(&mut command, verbose)
}

/// Folder of the libraries of that LLVM: its own directory, or the one that llvm-config prints.
fn prefix(llvm: u32) -> Option<PathBuf> {
    let own =
        ["/usr/lib/llvm-", "/usr/lib/llvm", "/usr/lib64/llvm"].map(|path| format!("{path}{llvm}").into());
    let configured =
        [format!("llvm-config-{llvm}"), "llvm-config".to_owned()].into_iter().filter_map(|config| {
            let version = answer(Command::new(&config).arg("--version"))?;
            version.starts_with(&format!("{llvm}.")).then(|| answer(Command::new(config).arg("--prefix")))?
        });
    let has_library =
        |prefix: &PathBuf| ["lib64", "lib"].iter().any(|lib| prefix.join(lib).join("libLLVM.so").exists());
    own.into_iter().chain(configured.map(PathBuf::from)).find(has_library)
}

/// Links a test program, since bpf-linker does not report its LLVM, and an older one rejects newer bitcode.
fn reads_bitcode_of(toolchain: Toolchain) -> Result<bool> {
    let Some(linker) = find("bpf-linker") else { return Ok(false) };
    let scratch = tempfile::tempdir().context("cannot make a temporary directory")?;
    let [source, bitcode, object] =
        ["sample.rs", "sample.bc", "sample.o"].map(|name| scratch.path().join(name));
    fs::write(&source, SAMPLE).context("cannot write to the temporary directory")?;
    // For the host, because a toolchain need not have a core for the BPF target before it builds one.
    let mut rustc = toolchain.program("rustc");
    quietly(rustc.args(["--edition=2024", "-Og", "--emit=llvm-bc", "-o"]).arg(&bitcode).arg(&source), false)
        .with_context(|| format!("{toolchain} cannot compile"))?;
    let mut link = Command::new(linker);
    link.args(["--target=bpfel-unknown-none", "--btf", "-o"]).arg(object).arg(bitcode);
    Ok(succeeds(&mut link))
}
