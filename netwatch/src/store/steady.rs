//! The steady clock, by which retention measures age: elapsed time since boot, plus steps of the wall clock that lasted.
//! Pure.
//!
//! The wall clock alone may jump by years: a dead battery, `date -s`, a virtual machine that was resumed. Time since boot
//! alone does not count while the host is off. So the clock goes on with time since boot, and where the wall clock is
//! ahead or behind, that counts once it was so for [`limits::CLOCK_SETTLES`] of observed time, also over restarts.

use std::io;

use jiff::Timestamp;

use super::batch::nanoseconds;
use crate::{clock, limits};

/// One reading of both clocks, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reading {
    /// Since the epoch.
    pub(super) wall: i64,
    /// Since boot, including suspend.
    pub(super) boot: i64,
}

impl Reading {
    pub(super) fn now() -> io::Result<Self> {
        let boot = clock::since_boot()?.nanos();
        let boot = i64::try_from(boot).map_err(io::Error::other)?;
        Ok(Self { wall: nanoseconds(Timestamp::now()), boot })
    }
}

/// A step of the wall clock that does not count yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Step {
    /// How far the wall clock was ahead (or behind, negative) all the time, at least.
    pub(super) by: i64,
    /// How long.
    pub(super) stood: i64,
}

/// The clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Steady {
    /// Nanoseconds; since the epoch if the wall clock was right.
    pub(super) now: i64,
    /// Time since boot at the last observation.
    pub(super) boot: i64,
    pub(super) step: Option<Step>,
}

impl Steady {
    /// A new clock is that of the wall.
    pub(super) fn begin(reading: Reading) -> Self {
        Self { now: reading.wall, boot: reading.boot, step: None }
    }

    /// Continues from a recorded state of the same boot.
    pub(super) fn resume(recorded: Self, reading: Reading) -> Self {
        let elapsed = reading.boot.saturating_sub(recorded.boot).max(0);
        Self { now: recorded.now.saturating_add(elapsed), boot: reading.boot, step: recorded.step }
    }

    /// Continues from a time of an earlier boot. How long the host was off is a step of the wall clock.
    pub(super) fn resume_after(last: i64, step: Option<Step>, reading: Reading) -> Self {
        Self { now: last, boot: reading.boot, step }
    }

    /// Reads on. Returns whether a step was counted.
    pub(super) fn observe(&mut self, reading: Reading) -> bool {
        let elapsed = reading.boot.saturating_sub(self.boot).max(0);
        self.now = self.now.saturating_add(elapsed);
        self.boot = reading.boot;
        let ahead = reading.wall.saturating_sub(self.now);
        if ahead.unsigned_abs() <= nanos(limits::CLOCK_DRIFT).unsigned_abs() {
            self.step = None;
            return false;
        }
        let step = match self.step {
            Some(Step { by, stood }) if by.signum() == ahead.signum() => Step {
                by: if by.unsigned_abs() < ahead.unsigned_abs() { by } else { ahead },
                // Time in which nobody looked does not count.
                stood: stood.saturating_add(elapsed.min(nanos(limits::CLOCK_OBSERVED))),
            },
            _ => Step { by: ahead, stood: 0 },
        };
        if step.stood < nanos(limits::CLOCK_SETTLES) {
            self.step = Some(step);
            return false;
        }
        self.now = self.now.saturating_add(step.by);
        self.step = None;
        true
    }
}

fn nanos(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: i64 = 1_000_000_000;
    const HOUR: i64 = 3600 * SECOND;
    const YEAR: i64 = 8766 * HOUR;
    const START: Reading = Reading { wall: 50 * YEAR, boot: 100 * SECOND };

    /// Observes for some time with the wall clock ahead of real time, and returns whether a step was counted.
    fn pass(clock: &mut Steady, reading: &mut Reading, time: i64, ahead: i64) -> bool {
        let mut counted = false;
        for _ in 0..time / (5 * SECOND) {
            reading.boot += 5 * SECOND;
            reading.wall += 5 * SECOND;
            counted |= clock.observe(Reading { wall: reading.wall + ahead, ..*reading });
        }
        counted
    }

    #[test]
    fn a_jump_and_back_does_not_count() {
        let (mut clock, mut at) = (Steady::begin(START), START);
        assert!(!pass(&mut clock, &mut at, HOUR, 0));
        assert!(!pass(&mut clock, &mut at, nanos(limits::CLOCK_SETTLES) - HOUR, YEAR));
        assert!(!pass(&mut clock, &mut at, 3 * HOUR, 0));
        assert!(!pass(&mut clock, &mut at, nanos(limits::CLOCK_SETTLES) - HOUR, -YEAR));
        assert_eq!((clock.now, clock.step.unwrap().by), (at.wall, -YEAR));
    }

    #[test]
    fn a_step_that_lasts_counts() {
        let (mut clock, mut at) = (Steady::begin(START), START);
        let settles = nanos(limits::CLOCK_SETTLES);
        assert!(pass(&mut clock, &mut at, settles + 10 * SECOND, 9 * HOUR));
        assert_eq!((clock.now, clock.step), (at.wall + 9 * HOUR, None));
        // Of a jump to a year and then to an hour, the hour has stood for the whole time.
        assert!(!pass(&mut clock, &mut at, settles - HOUR, 9 * HOUR + YEAR));
        assert!(pass(&mut clock, &mut at, HOUR + 10 * SECOND, 10 * HOUR));
        assert_eq!(clock.now, at.wall + 10 * HOUR);
        // Back.
        assert!(pass(&mut clock, &mut at, settles + 10 * SECOND, 0));
        assert_eq!(clock.now, at.wall);
    }

    #[test]
    fn time_that_nobody_observed_does_not_settle_a_step() {
        let (mut clock, mut at) = (Steady::begin(START), START);
        assert!(!pass(&mut clock, &mut at, 10 * SECOND, YEAR));
        at.boot += 100 * HOUR;
        at.wall += 100 * HOUR;
        assert!(!clock.observe(Reading { wall: at.wall + YEAR, ..at }));
        // Elapsed time counts nevertheless.
        assert_eq!(clock.now, at.wall);
    }

    #[test]
    fn time_off_counts_once_it_has_stood() {
        let (mut clock, mut at) = (Steady::begin(START), START);
        assert!(!pass(&mut clock, &mut at, HOUR, 0));
        let last = clock.now;
        // A reboot after a day, and another after three hours and a day.
        let mut step = None;
        for _ in 0..2 {
            (at.wall, at.boot) = (at.wall + 24 * HOUR, 0);
            clock = Steady::resume_after(clock.now, step, at);
            assert!(!pass(&mut clock, &mut at, nanos(limits::CLOCK_SETTLES) / 2, 0));
            step = clock.step;
        }
        assert_eq!(clock.now, last + nanos(limits::CLOCK_SETTLES));
        assert!(pass(&mut clock, &mut at, 10 * SECOND, 0));
        // The second day has not stood long enough.
        assert_eq!(clock.now, at.wall - 24 * HOUR);
    }

    #[test]
    fn the_same_boot_goes_on_exactly() {
        let (mut clock, mut at) = (Steady::begin(START), START);
        assert!(!pass(&mut clock, &mut at, HOUR, YEAR));
        let later = Reading { wall: at.wall + 7 * SECOND, boot: at.boot + 7 * SECOND };
        let resumed = Steady::resume(clock, later);
        assert_eq!((resumed.now, resumed.step), (later.wall, clock.step));
    }
}
