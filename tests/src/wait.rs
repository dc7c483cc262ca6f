//! Deadlines instead of sleeps.

use std::io::Write as _;
use std::time::{Duration, Instant};

/// The longest wait for anything. A test must not fail because the machine is busy.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two polls of a condition that cannot be waited for otherwise.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits for a condition.
///
/// # Panics
/// If it does not become true in time.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Reports that `test` cannot be done here, in the form that `cargo xtask test` counts; for the test runner it passes.
pub fn skip(test: &str, reason: &str) {
    // Not by println!, which the test runner captures.
    let _ = writeln!(std::io::stdout(), "SKIP {test}: {reason}");
}
