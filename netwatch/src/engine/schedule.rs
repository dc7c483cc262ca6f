//! Timing of the engine's loop: ticks, and polls of the ring.

use std::future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::kernel::WAKE;

/// Interval at which losses are checked, held-back events are emitted, and subscribers are notified of what they
/// missed.
const TICK: Duration = Duration::from_millis(50);

/// The same on an idle host, where ticks are most of netwatch's CPU time.
const QUIET_TICK: Duration = Duration::from_millis(500);

/// How long after a record the short interval is kept: the tracker may hold back events, and losses are checked four
/// times a second.
const LIVELY: Duration = Duration::from_millis(300);

/// When the next tick is due.
pub(super) struct Ticks {
    pub(super) due: Instant,
    lively_until: Instant,
}

impl Ticks {
    pub(super) fn begin() -> Self {
        let now = Instant::now();
        Self { due: now, lively_until: now + LIVELY }
    }

    /// Notes whether records arrived.
    pub(super) fn note(&mut self, came: bool) {
        if came {
            let now = Instant::now();
            self.lively_until = now + LIVELY;
            self.due = self.due.min(now + TICK);
        }
    }

    /// Schedules the next tick; `is_busy`: at the short interval.
    pub(super) fn done(&mut self, is_busy: bool) {
        let now = Instant::now();
        self.due = now + if is_busy || now < self.lively_until { TICK } else { QUIET_TICK };
    }
}

/// When the ring is read without a wake-up. The kernel side wakes the agent at most once per [`WAKE`], so after a
/// record the ring is polled at that interval until nothing arrived for three intervals.
#[derive(Default)]
pub(super) struct Polls {
    until: Option<Instant>,
}

impl Polls {
    pub(super) fn note(&mut self, came: bool) {
        let now = Instant::now();
        if came {
            self.until = Some(now + 3 * WAKE);
        } else if self.until.is_some_and(|until| until < now) {
            self.until = None;
        }
    }

    pub(super) async fn next(&self) {
        match self.until {
            Some(_) => sleep(WAKE).await,
            None => future::pending().await,
        }
    }
}
