//! When the loop of the engine does what no record brings about.

use std::future;
use std::time::Duration;

use tokio::time::{Instant, sleep};

use crate::kernel::WAKE;

/// How often losses are checked for, held-back events are released, and subscribers are told what they missed.
const TICK: Duration = Duration::from_millis(50);

/// The same on a quiet host, where it is most of what netwatch costs.
const QUIET_TICK: Duration = Duration::from_millis(500);

/// How long after a record something may have to be done that no other record brings about: what the tracker holds back,
/// and a loss, which is checked for four times a second.
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

    /// Records came, or none did.
    pub(super) fn note(&mut self, came: bool) {
        if came {
            let now = Instant::now();
            self.lively_until = now + LIVELY;
            self.due = self.due.min(now + TICK);
        }
    }

    /// A tick is done; `is_busy`: the next is wanted soon.
    pub(super) fn done(&mut self, is_busy: bool) {
        let now = Instant::now();
        self.due = now + if is_busy || now < self.lively_until { TICK } else { QUIET_TICK };
    }
}

/// When the ring is read without a wake-up: the kernel side wakes the agent once in [`WAKE`] at most, so after a record
/// the ring is polled as often, until nothing came for three times as long.
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
