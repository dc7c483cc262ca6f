//! Identity and attributes of a process.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::Serialize;

use super::{Arguments, BootTime, Cookie, Stream};

/// Identifies a process even if its pid is reused.
///
/// Records and task iterators have its exact start, `/proc` has the clock tick of it. Two keys are equal if they are
/// spelled the same; use [`ProcessKey::may_be`] to find a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Thread group id.
    pub pid: u32,
    /// Start of its leader. If it is not exact, the beginning of the clock tick in which the process started.
    pub start: BootTime,
    is_exact: bool,
}

impl ProcessKey {
    /// A clock tick of `/proc` in nanoseconds: `USER_HZ` is 100 on every architecture except alpha.
    const TICK: u64 = 10_000_000;

    /// From the exact start (`task_struct.start_boottime` of the leader).
    #[must_use]
    pub const fn new(pid: u32, start: BootTime) -> Self {
        Self { pid, start, is_exact: true }
    }

    /// From the start time in `/proc/PID/stat`: the exact one, divided by the length of a tick and rounded down
    /// (fs/proc/array.c, do_task_stat(), and kernel/time/time.c, nsec_to_clock_t(), v6.12).
    #[must_use]
    pub const fn from_ticks(pid: u32, ticks: u64) -> Self {
        let start = BootTime::from_nanos(ticks.saturating_mul(Self::TICK));
        Self { pid, start, is_exact: false }
    }

    /// From the start in a store, which does not say how exact it is: a multiple of a tick is not. An exact start is
    /// one by chance once in ten million processes, and is found nevertheless.
    #[must_use]
    pub const fn recorded(pid: u32, start: BootTime) -> Self {
        Self { pid, start, is_exact: !start.nanos().is_multiple_of(Self::TICK) }
    }

    /// Whether the start is exact.
    #[must_use]
    pub const fn is_exact(self) -> bool {
        self.is_exact
    }

    /// The key that `/proc` gives to this process. Keys of one process have the same one.
    #[must_use]
    pub const fn coarse(self) -> Self {
        Self::from_ticks(self.pid, self.start.nanos() / Self::TICK)
    }

    /// Whether two keys can be of one process: they are equal, or one of them is not exact, and the pid and the tick of
    /// the start are the same.
    #[must_use]
    pub fn may_be(self, other: Self) -> bool {
        self == other || (!(self.is_exact && other.is_exact) && self.coarse() == other.coarse())
    }

    /// Of two keys of one process, the one that is exact.
    #[must_use]
    pub const fn or_exact(self, other: Self) -> Self {
        if self.is_exact { self } else { other }
    }

    /// The first and the last time in nanoseconds at which processes started that may be this one.
    #[must_use]
    pub const fn starts(self) -> (BootTime, BootTime) {
        let first = self.coarse().start;
        (first, first.saturating_add(Self::TICK - 1))
    }

    /// Orders processes by age, the oldest first. A parent is never younger than its child. Where the start is not
    /// exact, the end of the tick counts: of the processes of a snapshot, those are not exact that ended early.
    #[must_use]
    pub const fn age(self) -> (BootTime, u32) {
        (if self.is_exact { self.start } else { self.starts().1 }, self.pid)
    }

    /// Whether the process is old enough to have forked `child`. Pids in one tick are assumed to count up.
    #[must_use]
    pub fn may_be_parent_of(self, child: Self) -> bool {
        let exact = self.is_exact && child.is_exact;
        let age = |key: Self| (if exact { key.start } else { key.coarse().start }, key.pid);
        age(self) < age(child)
    }
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let coarse = if self.is_exact { "" } else { "~" };
        write!(f, "{}@{}{coarse}", self.pid, self.start.nanos())
    }
}

impl Serialize for ProcessKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// State of the executable file of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExeState {
    /// The file has the same path.
    Ok,
    /// The file was deleted.
    Deleted,
    /// The file never had a name (memfd_create(2)).
    Memfd,
    /// Another file has the path now.
    Replaced,
    /// Not known.
    Unknown,
}

/// A program image, set by exec. Strings are already escaped for JSON (see [`crate::escape`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Absolute path of the executable as in `/proc/PID/exe`, without the suffix for a deleted file; `None` for a
    /// kernel thread, or if not known.
    pub exe: Option<Arc<str>>,
    /// State of the file at exec; the agent checks it again at each event.
    pub exe_state: ExeState,
    /// Device number as in `stat.st_dev`, and inode number; 0 if not known.
    pub file: (u64, u64),
    /// Inode number of the mount namespace in which `exe` is valid; 0 if not known.
    pub mntns: u32,
    /// Arguments as at exec.
    pub args: Arguments,
}

impl Image {
    /// Nothing known.
    #[must_use]
    pub fn unknown() -> Arc<Self> {
        Arc::new(Self {
            exe: None,
            exe_state: ExeState::Unknown,
            file: (0, 0),
            mntns: 0,
            args: Arguments::default(),
        })
    }
}

/// Attributes of a process, from a record or from `/proc`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Identifies a process even if its pid is reused.
    pub key: ProcessKey,
    /// Pid of the current parent; 0 for processes that the kernel started.
    pub ppid: u32,
    /// Name of the thread group leader, escaped for JSON.
    pub comm: Arc<str>,
    /// Effective user.
    pub uid: u32,
    /// Login user; `None` if it was never set.
    pub auid: Option<u32>,
    /// Its program image.
    pub image: Arc<Image>,
    /// Path in the cgroup tree, in the cgroup namespace of netwatch.
    pub cgroup: Arc<str>,
    /// Whether it is a kernel thread.
    pub kernel: bool,
    /// Cookies of the sockets that were stdin, stdout and stderr at its last exec, or are now if the exec was not
    /// observed; `None` if not a socket or not known.
    pub stdio: [Option<Cookie>; 3],
    /// What stdin, stdout and stderr were at its last exec, where that is a pipe, a terminal or a UNIX socket; `None`
    /// if it was not observed.
    pub streams: [Option<Stream>; 3],
}

/// A process as in `/proc`. The arguments of its image are the current ones, which the process may have overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRow {
    /// Its attributes. The start in its key has the precision of `/proc`, unless a task iterator lists the process.
    pub facts: ProcessFacts,
    /// The bytes of the first argument; empty if there is none.
    pub argv0: Box<[u8]>,
}

impl Deref for ProcessRow {
    type Target = ProcessFacts;

    fn deref(&self) -> &ProcessFacts {
        &self.facts
    }
}

impl DerefMut for ProcessRow {
    fn deref_mut(&mut self) -> &mut ProcessFacts {
        &mut self.facts
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// What the kernel prints of an exact start: nsec_to_clock_t() divides by NSEC_PER_SEC / USER_HZ.
    fn of_proc(pid: u32, start: u64) -> ProcessKey {
        ProcessKey::from_ticks(pid, start / (1_000_000_000 / 100))
    }

    /// Times near the border of a tick, and any.
    fn start() -> impl Strategy<Value = u64> {
        let near = (0_u64..1 << 20, -2_i64..=2);
        let near = near.prop_map(|(tick, by)| (tick * ProcessKey::TICK).saturating_add_signed(by));
        prop_oneof![near, 0..u64::MAX / 2]
    }

    proptest! {
        #[test]
        fn key_of_proc_is_joined_with_the_exact_one(pid in 1_u32..4, start in start()) {
            let exact = ProcessKey::new(pid, BootTime::from_nanos(start));
            let coarse = of_proc(pid, start);
            prop_assert!(exact.may_be(coarse) && coarse.may_be(exact) && exact.may_be(exact) && coarse.may_be(coarse));
            prop_assert_eq!(exact.coarse(), coarse);
            prop_assert_eq!((exact.or_exact(coarse), coarse.or_exact(exact)), (exact, exact));
            prop_assert!(exact.starts().0 <= exact.start && exact.start <= exact.starts().1);
            prop_assert!(exact != coarse && exact.to_string() != coarse.to_string());
            prop_assert!(ProcessKey::recorded(pid, exact.start).may_be(exact));
            prop_assert_eq!(ProcessKey::recorded(pid, coarse.start), coarse);
        }

        #[test]
        fn keys_of_other_processes_are_not_joined(pids in (1_u32..4, 1_u32..4), a in start(), by in -20_000_000_i64..=20_000_000) {
            let b = a.saturating_add_signed(by);
            let exact = |pid, start| ProcessKey::new(pid, BootTime::from_nanos(start));
            let (first, second) = (exact(pids.0, a), exact(pids.1, b));
            prop_assert_eq!(first.may_be(second), pids.0 == pids.1 && a == b);
            let same_tick = pids.0 == pids.1 && a / 10_000_000 == b / 10_000_000;
            for (one, other) in [(first.coarse(), second), (first, second.coarse()), (first.coarse(), second.coarse())] {
                prop_assert_eq!(one.may_be(other), same_tick);
            }
        }

        #[test]
        fn no_parent_is_taken_for_younger_than_its_child(
            a in start(),
            by in 0_u64..20_000_000,
            exact in any::<(bool, bool)>(),
        ) {
            let key = |pid, start, exact: bool| {
                let key = ProcessKey::new(pid, BootTime::from_nanos(start));
                if exact { key } else { key.coarse() }
            };
            let (parent, child) = (key(1, a, exact.0), key(2, a + by, exact.1));
            prop_assert!(parent.may_be_parent_of(child));
            prop_assert!(!child.may_be_parent_of(parent));
        }
    }

    #[test]
    fn key_says_whether_its_start_is_exact() {
        let exact = ProcessKey::new(1234, BootTime::from_nanos(56_780_000_001));
        assert_eq!(exact.to_string(), "1234@56780000001");
        assert_eq!(exact.coarse().to_string(), "1234@56780000000~");
    }
}
