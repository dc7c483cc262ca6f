//! Things done wrong on purpose, so that tests see them noticed: `--sabotage`, which no help shows.

use netwatch_common::Offsets;

use super::plan::JOBS;

/// What to do wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sabotage {
    /// The member at this place in [`Offsets::MEMBERS`] is read beside where it lies.
    Offset(usize),
    /// This job's probes are said to be attached, and never fire; or those of [`ALL`].
    Deaf(&'static str),
}

const ALL: &str = "all";

/// A neighbour of nearly any member.
const BESIDE: u32 = 4;

impl Sabotage {
    /// Reads `offset=STRUCTURE.MEMBER`, `deaf=JOB` or `deaf=all`.
    ///
    /// # Errors
    /// Where it is neither.
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
            _ => Err("offset=STRUCTURE.MEMBER or deaf=JOB"),
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
}
