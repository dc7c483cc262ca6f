//! Who a process is and what it runs.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::Serialize;

use super::{Arguments, BootTime, Cookie};

/// Survives the reuse of a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Thread group.
    pub pid: u32,
    /// Start of its leader, in whole clock ticks (see [`ProcessKey::new`]).
    pub start: BootTime,
}

impl ProcessKey {
    /// A clock tick of `/proc`, nanoseconds: `USER_HZ` is 100 on every architecture that Linux still has
    /// but alpha.
    const TICK: u64 = 10_000_000;

    /// `start` as the kernel keeps it is cut to the tick, as `/proc/PID/stat` tells it, so that a process
    /// has one key wherever it was read. Within one tick the kernel does not come back to a pid.
    #[must_use]
    pub const fn new(pid: u32, start: BootTime) -> Self {
        Self { pid, start: BootTime::from_nanos(start.nanos() / Self::TICK * Self::TICK) }
    }

    /// Orders processes by age, the oldest first. A parent is never younger than its child.
    #[must_use]
    pub const fn age(self) -> (BootTime, u32) {
        (self.start, self.pid)
    }

    /// From the start that `/proc/PID/stat` tells.
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

/// What became of the file that a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExeState {
    /// It is where it was.
    Ok,
    /// Its name is gone.
    Deleted,
    /// It never had a name.
    Memfd,
    /// Another file has its name now.
    Replaced,
    /// Not to be found out.
    Unknown,
}

/// A program image: what an exec put into a process. Strings from outside are already safe to print in
/// JSON (see [`crate::escape`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Absolute path of the executable, as `/proc/PID/exe` shows it but for the mark of deletion;
    /// `None` for a kernel thread or where it could not be read.
    pub exe: Option<Arc<str>>,
    /// What the kernel said of the file at exec; the agent looks again at each event.
    pub exe_state: ExeState,
    /// Device number as in `stat.st_dev`, and inode; 0 where not known.
    pub file: (u64, u64),
    /// Inode number of the mount namespace in which `exe` means something; 0 where not known.
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

/// What there is to know of a process by itself, whether a record or `/proc` said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessFacts {
    /// Survives the reuse of a pid.
    pub key: ProcessKey,
    /// Present parent; 0 for those that the kernel started.
    pub ppid: u32,
    /// Name of the thread-group leader, fit for JSON.
    pub comm: Arc<str>,
    /// Effective user.
    pub uid: u32,
    /// Login user, `None` if it never was set.
    pub auid: Option<u32>,
    /// What it runs.
    pub image: Arc<Image>,
    /// Path in the cgroup tree, as netwatch's own cgroup namespace shows it.
    pub cgroup: Arc<str>,
    /// It is a kernel thread.
    pub kernel: bool,
    /// Cookies of the sockets that were its stdin, stdout and stderr at its last exec, or are now where that was not
    /// seen; `None`: no socket, or not known.
    pub stdio: [Option<Cookie>; 3],
}

/// A process as `/proc` shows it. The arguments of its image are the present ones: a process may have written over them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessRow {
    /// What there is to know of it. The start in its key is what `/proc` tells: clock ticks, so it falls on a multiple of
    /// 10 ms and may lie up to that much before the true one.
    pub facts: ProcessFacts,
    /// The first argument's own bytes; empty where there are none.
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
