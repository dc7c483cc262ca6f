//! The id of the running boot, since socket cookies are unique only within a boot.

use crate::{bounded, limits};

/// The first eight digits of the kernel's boot id; empty if it cannot be read.
#[must_use]
pub fn id() -> String {
    let id = bounded::text("/proc/sys/kernel/random/boot_id", limits::PROC_FILE).unwrap_or_default();
    id.chars().filter(char::is_ascii_hexdigit).take(8).collect()
}
