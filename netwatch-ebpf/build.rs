//! Linker options.

fn main() {
    // By default the linker makes LLVM expand memcpy in order, which also turns zeroing of memory into a call of a loop
    // over bytes. The verifier would have to walk each iteration.
    println!("cargo:rustc-link-arg-bins=--disable-expand-memcpy-in-order");
    println!("cargo:rerun-if-changed=build.rs");
}
