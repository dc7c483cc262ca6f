//! Builds the kernel side with whichever BPF toolchain `cargo xtask setup` found, and leaves the
//! object in `OUT_DIR` for `kernel::load`: without debug info, and the same wherever the checkout is.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use aya_build::{Package, Toolchain};
use object::build::elf::{Builder, SectionData};

/// The toolchain that `cargo xtask setup` links where no nightly has `rust-src`.
const LINKED: &str = "netwatch-bpf";

/// Set for the inner cargo, which starts this program in place of rustc: paths that rustc leaves out, as
/// `--remap-path-prefix` takes them. aya-build sets the flags itself, and takes none from outside.
const REMAPPED: &str = "NETWATCH_REMAPPED";

fn main() -> Result<()> {
    if let Some(prefixes) = env::var_os(REMAPPED) {
        return Err(rustc(&prefixes));
    }
    if env::var("CARGO_CFG_TARGET_ENDIAN").is_ok_and(|endian| endian == "big") {
        bail!("netwatch is for little-endian machines: its records are read as the kernel side wrote them");
    }
    println!("cargo:rerun-if-env-changed=RUSTUP_TOOLCHAIN");
    describe();
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
    let from =
        |variable: &str| env::var_os(variable).map(PathBuf::from).with_context(|| format!("no {variable}"));
    let (checkout, out) = (from("CARGO_MANIFEST_DIR")?, from("OUT_DIR")?);
    let checkout = checkout.parent().context("the package is in no workspace")?;
    let home = from("CARGO_HOME").or_else(|_| from("HOME").map(|home| home.join(".cargo")))?;
    let prefixes = [(checkout, "netwatch"), (&home, "cargo"), (&out, "out")];
    let prefixes: Vec<_> =
        prefixes.iter().map(|(path, name)| format!("{}=/{name}", path.display())).collect();
    // SAFETY: the build script has a single thread.
    unsafe { env::set_var(REMAPPED, prefixes.join("\n")) };
    // SAFETY: as above.
    unsafe { env::set_var("RUSTC_WRAPPER", env::current_exe().context("cannot find this program")?) };
    aya_build::build_ebpf([package], toolchain)?;
    finish(&out.join("netwatch-ebpf"))
}

/// For `--version`. `cargo xtask package` passes the commit on; this program does not ask git, which would build netwatch
/// again at every commit.
fn describe() {
    println!("cargo:rerun-if-env-changed=NETWATCH_COMMIT");
    let commit = env::var("NETWATCH_COMMIT").unwrap_or_else(|_| "unknown".into());
    println!("cargo:rustc-env=NETWATCH_COMMIT={commit}");
    println!("cargo:rustc-env=NETWATCH_TARGET={}", env::var("TARGET").unwrap_or_default());
}

/// Becomes the rustc that the inner cargo wants to start.
fn rustc(prefixes: &std::ffi::OsStr) -> anyhow::Error {
    let mut arguments = env::args_os().skip(1);
    let mut command = Command::new(arguments.next().unwrap_or_else(|| "rustc".into()));
    command.args(arguments);
    for prefix in prefixes.to_string_lossy().lines() {
        command.arg(OsString::from(format!("--remap-path-prefix={prefix}")));
    }
    command.exec().into()
}

/// Removes the sections for debuggers, four fifths of the object; BTF with line info stays. The hash is for `--version`.
fn finish(object: &Path) -> Result<()> {
    let whole = std::fs::read(object).context("the kernel side was not built")?;
    let mut builder = Builder::read(&*whole).context("cannot read the object of the kernel side")?;
    for section in &mut builder.sections {
        let name = section.name.as_slice();
        // Relocations of BTF are for linkers.
        let unused = [&b".debug_"[..], b".rel.debug_", b".rel.BTF"];
        section.delete |= unused.iter().any(|prefix| name.starts_with(prefix));
    }
    builder.delete_orphans();
    // LLVM has one table for names of sections and of symbols; the writer wants two.
    let names = builder.sections.add();
    names.name = b".shstrtab"[..].into();
    names.sh_type = object::elf::SHT_STRTAB;
    names.sh_addralign = 1;
    names.data = SectionData::SectionString;
    let mut stripped = Vec::new();
    builder.write(&mut stripped).context("cannot write the object of the kernel side")?;
    std::fs::write(object, &stripped).context("cannot write the object of the kernel side")?;
    println!("cargo:rustc-env=NETWATCH_OBJECT={:.16}", blake3::hash(&stripped).to_hex());
    Ok(())
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
    Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").is_dir()
}
