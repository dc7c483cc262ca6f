//! Identity and attributes of a process.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::Serialize;

use super::{Arguments, BootTime, Cookie, Stream};

/// Identifies a process even if its pid is reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Thread group id.
    pub pid: u32,
    /// Start of its leader, truncated to clock ticks (see [`ProcessKey::new`]).
    pub start: BootTime,
}

impl ProcessKey {
    /// A clock tick of `/proc` in nanoseconds: `USER_HZ` is 100 on every architecture except alpha.
    const TICK: u64 = 10_000_000;

    /// `start` is truncated to a clock tick, the precision of `/proc/PID/stat`, so that a process has the same key from
    /// every source. The kernel does not reuse a pid within one tick.
    #[must_use]
    pub const fn new(pid: u32, start: BootTime) -> Self {
        Self { pid, start: BootTime::from_nanos(start.nanos() / Self::TICK * Self::TICK) }
    }

    /// Orders processes by age, the oldest first. A parent is never younger than its child.
    #[must_use]
    pub const fn age(self) -> (BootTime, u32) {
        (self.start, self.pid)
    }

    /// From the start time in `/proc/PID/stat`.
    #[must_use]
    pub const fn from_ticks(pid: u32, ticks: u64) -> Self {
        Self { pid, start: BootTime::from_nanos(ticks.saturating_mul(Self::TICK)) }
    }
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.start.nanos())
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
    /// What stdin, stdout and stderr were at its last exec, where that is a pipe, a terminal or a UNIX socket; `None` if it
    /// was not observed.
    pub streams: [Option<Stream>; 3],
}

/// A process as in `/proc`. The arguments of its image are the current ones, which the process may have overwritten.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRow {
    /// Its attributes. The start in its key has the precision of `/proc`, so it may be up to 10 ms before the true
    /// start.
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
