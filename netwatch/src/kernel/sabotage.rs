//! `--sabotage`: faults that tests introduce to check that they are detected. Without the feature `test-equipment` the
//! type has no values.

#[cfg(any(test, feature = "test-equipment"))]
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};
use std::time::Duration;

use aya::Ebpf;
#[cfg(any(test, feature = "test-equipment"))]
use aya::maps::Map;
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
    /// This map of the kernel side is small, and is full once netwatch has started, unless it evicts.
    #[cfg(any(test, feature = "test-equipment"))]
    Full(&'static str, u32),
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

    pub(super) fn full(self) -> Option<(&'static str, u32)> {
        match self {}
    }

    pub(super) fn fill(self, _: &Ebpf) {
        match self {}
    }
}

#[cfg(any(test, feature = "test-equipment"))]
const ALL: &str = "all";

/// Maps that others can fill, with a size at which the self-test has room. One that evicts has one entry.
#[cfg(any(test, feature = "test-equipment"))]
const MAPS: [(&str, u32); 8] = [
    // The host has sockets as well.
    ("KNOWN_BY_ADDRESS", 4096),
    ("CALLS", 64),
    ("UNBOUND", 64),
    ("REMOVED_FLOWS", 64),
    ("ACCEPTED", 1),
    ("ABOUT", 1),
    ("SENDING", 1),
    ("NOT_FOLLOWED_BY", 1),
];

/// Longer than a step of a start may take without a report.
#[cfg(any(test, feature = "test-equipment"))]
const SLOW: Duration = Duration::from_secs(2);

/// Added to the offset, in bytes.
#[cfg(any(test, feature = "test-equipment"))]
const BESIDE: u32 = 4;

#[cfg(any(test, feature = "test-equipment"))]
impl Sabotage {
    /// Parses `offset=STRUCTURE.MEMBER`, `deaf=JOB`, `deaf=all`, `slow=JOB`, `fail=snapshot` or `full=MAP`.
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
            Some(("full", name)) => {
                let map = MAPS.iter().find(|(map, _)| *map == name);
                map.map(|(map, entries)| Self::Full(map, *entries)).ok_or("no such map")
            }
            Some(("fail", "snapshot")) => Ok(Self::FailingSnapshot),
            _ => Err("offset=STRUCTURE.MEMBER, deaf=JOB, slow=JOB, fail=snapshot or full=MAP"),
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

    pub(super) fn full(self) -> Option<(&'static str, u32)> {
        match self {
            Self::Full(map, entries) => Some((map, entries)),
            _ => None,
        }
    }

    /// Takes all places of a map that does not evict.
    pub(super) fn fill(self, ebpf: &Ebpf) {
        if let Some((name, _)) = self.full()
            && let Some(Map::HashMap(map)) = ebpf.map(name)
        {
            (0..).take_while(|nth| insert(map.fd().as_fd(), u64::MAX - nth)).count();
        }
    }
}

/// Inserts a key that no thread and no socket has, with a value of zeros. Returns whether there was room.
#[cfg(any(test, feature = "test-equipment"))]
fn insert(map: BorrowedFd<'_>, key: u64) -> bool {
    /// `include/uapi/linux/bpf.h`
    const BPF_MAP_UPDATE_ELEM: libc::c_int = 2;
    #[repr(C)]
    struct Attributes {
        map: u64,
        key: *const u64,
        value: *const u8,
        flags: u64,
    }
    let value = [0_u8; 4096];
    let map = u64::from(map.as_raw_fd().unsigned_abs());
    let attributes = Attributes { map, key: &raw const key, value: value.as_ptr(), flags: 0 };
    // SAFETY: the keys of these maps have eight bytes, and their values no more than the buffer.
    let done = unsafe {
        libc::syscall(libc::SYS_bpf, BPF_MAP_UPDATE_ELEM, &raw const attributes, size_of::<Attributes>())
    };
    done == 0
}
