//! What `--version` prints: what this program was built from, for reports of errors. build.rs collects the rest.

/// Of `-V`.
pub(super) const SHORT: &str = env!("CARGO_PKG_VERSION");

/// `static`: with a C library of its own, which asks no name service.
const FEATURES: &str = match (cfg!(target_feature = "crt-static"), cfg!(feature = "test-equipment")) {
    (false, false) => "none",
    (true, false) => "static",
    (false, true) => "test-equipment",
    (true, true) => "static test-equipment",
};

/// Of `--version`.
pub(super) fn long() -> String {
    let (commit, target, object) =
        (env!("NETWATCH_COMMIT"), env!("NETWATCH_TARGET"), env!("NETWATCH_OBJECT"));
    format!(
        "{SHORT}\ncommit: {commit}\ntarget: {target}\nfeatures: {FEATURES}\nkernel side: object {object} with BTF; \
         needs Linux 5.8 or later with /sys/kernel/btf/vmlinux"
    )
}

#[cfg(test)]
mod tests {
    #[test]
    fn version_says_what_it_was_built_from() {
        let text = super::long();
        for part in [super::SHORT, "\ncommit: ", "\ntarget: ", "\nfeatures: ", "\nkernel side: object "] {
            assert!(text.contains(part), "{text}");
        }
    }
}
