//! `--sabotage`: faults that tests introduce to check that they are detected. Without the feature `test-equipment` the
//! type has no values.

use std::time::Duration;

use netwatch_common::Offsets;

#[cfg(any(test, feature = "test-equipment"))]
use super::plan::JOBS;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The member with this index in [`Offsets::MEMBERS`] is read at a wrong offset.
    #[cfg(any(test, feature = "test-equipment"))]
    Offset(usize),
    /// The probes of this job, or of all jobs, are reported as attached but are not.
    #[cfg(any(test, feature = "test-equipment"))]
    Deaf(&'static str),
    /// Attaching the probes of this job takes longer.
    #[cfg(any(test, feature = "test-equipment"))]
    Slow(&'static str),
    /// The first snapshot after a loss fails, in the step that reports the loss.
    #[cfg(any(test, feature = "test-equipment"))]
    FailingSnapshot,
}

#[cfg(not(any(test, feature = "test-equipment")))]
impl Sabotage {
    pub(super) fn offsets(self, _: &Offsets) -> Offsets {
        match self {}
    }

    pub(super) fn deafens(self, _: &str) -> bool {
        match self {}
    }

    pub(super) fn slows(self, _: &str) -> Option<Duration> {
        match self {}
    }

    pub(crate) fn fails_snapshot(self) -> bool {
        match self {}
    }
}

#[cfg(any(test, feature = "test-equipment"))]
const ALL: &str = "all";

/// Longer than a step of a start may take without a report.
#[cfg(any(test, feature = "test-equipment"))]
const SLOW: Duration = Duration::from_secs(2);

/// Added to the offset, in bytes.
#[cfg(any(test, feature = "test-equipment"))]
const BESIDE: u32 = 4;

#[cfg(any(test, feature = "test-equipment"))]
impl Sabotage {
    /// Parses `offset=STRUCTURE.MEMBER`, `deaf=JOB`, `deaf=all`, `slow=JOB` or `fail=snapshot`.
    ///
    /// # Errors
    /// If the text has another form, or names an unknown member or job.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text.split_once('=') {
            Some(("offset", path)) => {
                let nth = Offsets::MEMBERS.iter().position(|(member, _)| *member == path);
                nth.map(Self::Offset).ok_or("no such member")
            }
            Some(("deaf", ALL)) => Ok(Self::Deaf(ALL)),
            Some(("deaf", name)) => {
                let job = JOBS.iter().find(|job| job.name == name);
                job.map(|job| Self::Deaf(job.name)).ok_or("no such job")
            }
            Some(("slow", name)) => {
                let job = JOBS.iter().find(|job| job.name == name);
                job.map(|job| Self::Slow(job.name)).ok_or("no such job")
            }
            Some(("fail", "snapshot")) => Ok(Self::FailingSnapshot),
            _ => Err("offset=STRUCTURE.MEMBER, deaf=JOB, slow=JOB or fail=snapshot"),
        }
    }

    pub(super) fn offsets(self, offsets: &Offsets) -> Offsets {
        let members = offsets.to_members().into_iter().enumerate();
        Offsets::from_members(members.map(|(nth, offset)| {
            if self == Self::Offset(nth) { offset.wrapping_add(BESIDE) } else { offset }
        }))
    }

    pub(super) fn deafens(self, job: &str) -> bool {
        matches!(self, Self::Deaf(deaf) if deaf == job || deaf == ALL)
    }

    pub(super) fn slows(self, job: &str) -> Option<Duration> {
        matches!(self, Self::Slow(slow) if slow == job).then_some(SLOW)
    }

    pub(crate) fn fails_snapshot(self) -> bool {
        self == Self::FailingSnapshot
    }
}
