//! When something that failed is tried again.

use std::time::{Duration, Instant};

use crate::limits;

/// Pauses between retries.
#[derive(Debug, Default)]
pub struct Retry {
    failures: u32,
    due: Option<Instant>,
}

impl Retry {
    /// A delivery failed. `asked`: the pause that the receiver asked for.
    pub fn failed(&mut self, now: Instant, asked: Option<Duration>) {
        let grown = limits::OUTPUT_RETRY.saturating_mul(2_u32.saturating_pow(self.failures));
        let pause = asked.unwrap_or_default().max(grown).min(limits::OUTPUT_RETRY_MOST);
        self.failures += 1;
        self.due = Some(now + pause);
    }

    /// A delivery succeeded.
    pub fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// The run ends: the next retry is not put off for long.
    pub fn hurry(&mut self, now: Instant) {
        self.failures = 0;
        self.due = self.due.map(|due| due.min(now));
    }

    /// How long until the next try; zero: now.
    pub fn wait(&self, now: Instant) -> Duration {
        self.due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_the_limit() {
        let now = Instant::now();
        let mut retry = Retry::default();
        assert_eq!(retry.wait(now), Duration::ZERO);
        let mut pauses = Vec::new();
        for _ in 0..40 {
            retry.failed(now, None);
            pauses.push(retry.wait(now));
        }
        assert_eq!(pauses[..3], [1, 2, 4].map(|times| times * limits::OUTPUT_RETRY));
        assert_eq!(pauses.last(), Some(&limits::OUTPUT_RETRY_MOST));
        retry.succeeded();
        assert_eq!(retry.wait(now), Duration::ZERO);
        retry.failed(now, Some(Duration::from_secs(7)));
        assert_eq!(retry.wait(now), Duration::from_secs(7));
        retry.failed(now, Some(Duration::from_secs(7000)));
        assert_eq!(retry.wait(now), limits::OUTPUT_RETRY_MOST);
        retry.hurry(now);
        assert_eq!(retry.wait(now), Duration::ZERO);
    }
}
