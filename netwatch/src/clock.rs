//! The relation of CLOCK_BOOTTIME, which records use, to the time of day.

use crate::model::BootTime;
use std::io;

use jiff::Timestamp;
use nix::time::{ClockId, clock_gettime};

/// The current time by the clock of records: time since boot, including suspend.
///
/// # Errors
/// If the clock cannot be read.
pub fn since_boot() -> io::Result<BootTime> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let nanoseconds = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    u64::try_from(nanoseconds).map(BootTime::from_nanos).map_err(io::Error::other)
}

/// When the system booted, by one reading of the wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootClock {
    /// Nanoseconds since the epoch.
    boot: i128,
}

impl BootClock {
    /// Reads the wall clock and the boot-time clock.
    ///
    /// # Errors
    /// If the clock cannot be read.
    pub fn now() -> nix::Result<Self> {
        let nanoseconds = |clock| {
            clock_gettime(clock).map(|t| i128::from(t.tv_sec()) * 1_000_000_000 + i128::from(t.tv_nsec()))
        };
        let boot = nanoseconds(ClockId::CLOCK_BOOTTIME)?;
        Ok(Self { boot: nanoseconds(ClockId::CLOCK_REALTIME)? - boot })
    }

    /// The same value, or a new one if the wall clock was set. Two readings differ by microseconds, which must not make
    /// times of events jitter.
    ///
    /// # Errors
    /// As [`BootClock::now`].
    pub fn corrected(self) -> nix::Result<Self> {
        const SET: u128 = 1_000_000;
        let now = Self::now()?;
        Ok(if now.boot.abs_diff(self.boot) > SET { now } else { self })
    }

    /// From a stored value: when the system booted, in nanoseconds since the epoch.
    #[must_use]
    pub fn of_boot(boot: i64) -> Self {
        Self { boot: boot.into() }
    }

    /// When the system booted, in nanoseconds since the epoch; `None` after the year 2262.
    #[must_use]
    pub fn boot(&self) -> Option<i64> {
        self.boot.try_into().ok()
    }

    /// The time of day of `since_boot`; `None` if that is not a valid date.
    #[must_use]
    pub fn time(&self, since_boot: BootTime) -> Option<Timestamp> {
        Timestamp::from_nanosecond(self.boot + i128::from(since_boot.nanos())).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boot_clock_converts_to_the_time_of_day() {
        let clock = BootClock::now().unwrap();
        let now = clock_gettime(ClockId::CLOCK_BOOTTIME).unwrap();
        let since_boot = u64::try_from(now.tv_sec()).unwrap() * 1_000_000_000;
        let reported = clock.time(BootTime::from_nanos(since_boot)).unwrap();
        assert!(Timestamp::now().duration_since(reported).as_secs().abs() < 3);
    }
}
