//! What `--version` prints: what this program was built from, for reports of errors. build.rs collects it.

/// Of `-V`.
pub(super) const SHORT: &str = env!("CARGO_PKG_VERSION");

/// Of `--version`.
pub(super) const LONG: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    "\ncommit: ",
    env!("NETWATCH_COMMIT"),
    "\ntarget: ",
    env!("NETWATCH_TARGET"),
    "\nfeatures: ",
    env!("NETWATCH_FEATURES"),
    "\nkernel side: object ",
    env!("NETWATCH_OBJECT"),
    " with BTF; needs Linux 5.8 or later with /sys/kernel/btf/vmlinux",
);
