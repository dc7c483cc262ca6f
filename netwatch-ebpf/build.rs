//! How the object is linked.

fn main() {
    // By its default the linker has LLVM copy memory in order, for packets, and then no zeroing of memory is written out:
    // each is a call of a loop that goes byte by byte, which the verifier walks as the processor does.
    println!("cargo:rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    println!("cargo:rerun-if-changed=build.rs");
}
