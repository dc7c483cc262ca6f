//! Deadlines instead of sleeps.

use std::io::Write as _;
use std::time::{Duration, Instant};

/// How long anything is waited for. A test on a busy machine must not fail for the machine's sake.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Between two looks at what cannot be waited for otherwise.
const PAUSE: Duration = Duration::from_millis(2);

/// Waits for what comes about soon, or never.
///
/// # Panics
/// When it does not come about.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < deadline, "in vain: {what}");
        std::thread::sleep(PAUSE);
    }
}

/// Says that `test` cannot be done here, the way `cargo xtask test` counts it: it passes for the test runner.
pub fn skip(test: &str, reason: &str) {
    // Not by println!, which the test runner keeps to itself unless told otherwise.
    let _ = writeln!(std::io::stdout(), "SKIP {test}: {reason}");
}
