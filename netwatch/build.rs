//! Builds the kernel side with whichever BPF toolchain `cargo xtask setup` found, and leaves the
//! object in `OUT_DIR` for `kernel::load`.

use std::env;
use std::process::{Command, Stdio};

use anyhow::{Result, bail};
use aya_build::{Package, Toolchain};

/// The toolchain that `cargo xtask setup` links where no nightly has `rust-src`.
const LINKED: &str = "netwatch-bpf";

fn main() -> Result<()> {
    println!("cargo:rerun-if-env-changed=RUSTUP_TOOLCHAIN");
    let debug = env::var("PROFILE").is_ok_and(|profile| profile == "debug");
    let features: &[&str] = if debug { &["log"] } else { &[] };
    let package =
        Package { name: "netwatch-ebpf", root_dir: "../netwatch-ebpf", features, ..Default::default() };
    // From this package, so that a copy of the checkout watches its own sources, not those that it was copied from.
    println!("cargo:rerun-if-changed=../netwatch-common");

    // aya-build passes on what the inner cargo says as warnings: its progress is none.
    // SAFETY: the build script has a single thread.
    unsafe { env::set_var("CARGO_TERM_QUIET", "true") };
    let toolchain = if has_bpf_core(LINKED) {
        // aya-build adds `-Z build-std` where RUSTC_BOOTSTRAP is unset on a nightly, is `1`, or names
        // the package. The linked toolchain has a prebuilt core; only the one feature gate
        // of aya-ebpf and of the kernel side (inline assembly) wants unlocking.
        // SAFETY: the build script has a single thread.
        unsafe { env::set_var("RUSTC_BOOTSTRAP", "aya_ebpf,netwatch_ebpf") };
        Toolchain::Custom(LINKED)
    } else if nightly_has_rust_src() {
        Toolchain::Nightly
    } else {
        bail!("no toolchain here builds for the BPF target: run `cargo xtask setup`");
    };
    aya_build::build_ebpf([package], toolchain)
}

/// A link outlives what it points to: `core` is what has to be there, not the name.
fn has_bpf_core(toolchain: &str) -> bool {
    let args = ["run", toolchain, "rustc", "--print", "target-libdir", "--target", "bpfel-unknown-none"];
    let Ok(output) = Command::new("rustup").args(args).stderr(Stdio::null()).output() else { return false };
    let Ok(entries) = std::fs::read_dir(String::from_utf8_lossy(&output.stdout).trim()) else { return false };
    entries.flatten().any(|entry| entry.file_name().to_string_lossy().starts_with("libcore-"))
}

fn nightly_has_rust_src() -> bool {
    let Ok(output) = Command::new("rustup").args(["run", "nightly", "rustc", "--print", "sysroot"]).output()
    else {
        return false;
    };
    let sysroot = String::from_utf8_lossy(&output.stdout);
    std::path::Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
}
