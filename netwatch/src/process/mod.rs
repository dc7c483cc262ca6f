//! Processes: what one is, the table that keeps them with their true lineage, and the object that is
//! printed. Pure but for the names of users.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::model::{BootTime, CgroupId, Cookie, ExeState, Image, ProcessFacts, ProcessKey};

pub mod table;

pub use table::ProcessTable;

/// A process as it was at one moment: a later exec or a new name makes another value, so whoever keeps
/// this one keeps what acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// What there is to know of it by itself.
    pub facts: ProcessFacts,
    /// The cgroup in the unified hierarchy, where it is known.
    pub cgroup_id: Option<CgroupId>,
    /// How it was forked, where netwatch saw that.
    pub birth: Option<Birth>,
    /// Who forked it, as that one was then; where netwatch did not see the fork, the parent when the
    /// process was first looked at.
    pub parent: Option<Arc<Self>>,
    /// Status of its executable when this was recorded; `None` for a process that was not read from the store, and for
    /// one that was recorded only as an ancestor.
    pub exe_status: Option<ExeStatus>,
    /// Ancestors above.
    depth: u32,
}

/// Status of a process's executable file at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExeStatus {
    /// Whether the file is still the one that the process runs.
    pub state: ExeState,
    /// Any user may create files in its directory.
    pub world_writable: bool,
}

/// A fork, as the kernel saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Birth {
    /// When: the start in the key is cut to a clock tick, this is not.
    pub at: BootTime,
    /// What the thread that forked was about: the socket from which it had received last, or which it had accepted, if it
    /// had not slept since. What it does next, it does because of that.
    pub cause: Option<Cookie>,
}

/// More ancestors than this are not kept: a program that forks and exits forever makes a line without
/// end.
const MOST_ANCESTORS: u32 = 128;

impl Process {
    /// Nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(self.parent.as_ref(), |process| process.parent.as_ref())
    }

    /// As it was, with a parent of its own: for whoever reads a process from where it was written down.
    #[must_use]
    pub fn child_of(self, parent: Option<&Arc<Self>>) -> Self {
        self.under(parent)
    }

    /// The status of its executable: as recorded, else as the last exec left it.
    #[must_use]
    pub fn exe_status(&self) -> ExeStatus {
        let state = self.image.exe_state;
        self.exe_status.unwrap_or(ExeStatus { state, world_writable: false })
    }

    /// Nothing but who it is.
    #[must_use]
    pub fn bare(key: ProcessKey, comm: Arc<str>) -> Self {
        Self::of(ProcessFacts {
            key,
            ppid: 0,
            comm,
            uid: 0,
            auid: None,
            image: Image::unknown(),
            cgroup: "/".into(),
            kernel: false,
            stdio: [None; 3],
        })
    }

    /// Nothing but what there is to know of it by itself.
    fn of(facts: ProcessFacts) -> Self {
        Self { facts, cgroup_id: None, birth: None, parent: None, exe_status: None, depth: 0 }
    }

    /// Puts `self` under `parent`. A line that grew too long loses its far half.
    fn under(mut self, parent: Option<&Arc<Self>>) -> Self {
        self.parent = parent.cloned();
        self.depth = parent.map_or(0, |parent| parent.depth + 1);
        if self.depth >= MOST_ANCESTORS {
            let near: Vec<_> = self.ancestors().take(MOST_ANCESTORS as usize / 2).cloned().collect();
            let mut above = None;
            for process in near.iter().rev() {
                above = Some(Arc::new(Self::clone(process).under(above.as_ref())));
            }
            self = self.under(above.as_ref());
        }
        self
    }
}

impl Deref for Process {
    type Target = ProcessFacts;

    fn deref(&self) -> &ProcessFacts {
        &self.facts
    }
}

impl DerefMut for Process {
    fn deref_mut(&mut self) -> &mut ProcessFacts {
        &mut self.facts
    }
}

/// Who did something: a process, and in it a thread. Each end of a connection has several of these, so they are small:
/// nearly always it is the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The process.
    pub process: Arc<Process>,
    thread: Option<Arc<Thread>>,
}

/// Another thread than the leader.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    tid: u32,
    name: Option<Arc<str>>,
}

impl Actor {
    /// A thread of a process, with its name where that is not the leader.
    #[must_use]
    pub fn new(process: Arc<Process>, tid: u32, name: Option<Arc<str>>) -> Self {
        let is_leader = tid == process.key.pid && name.is_none();
        Self { process, thread: (!is_leader).then(|| Arc::new(Thread { tid, name })) }
    }

    /// The process as a whole, no thread being known.
    #[must_use]
    pub fn leader(process: Arc<Process>) -> Self {
        Self { process, thread: None }
    }

    /// The thread.
    #[must_use]
    pub fn tid(&self) -> u32 {
        self.thread.as_ref().map_or(self.process.key.pid, |thread| thread.tid)
    }

    /// Its name, where it is not the leader.
    #[must_use]
    pub fn thread(&self) -> Option<&Arc<str>> {
        self.thread.as_ref()?.name.as_ref()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A process of which nothing matters but who it is.
    pub(crate) fn process(pid: u32, parent: Option<&Arc<Process>>) -> Arc<Process> {
        let key = ProcessKey::from_ticks(pid, u64::from(pid));
        let bare = Process::bare(key, format!("p{pid}").into());
        let mut process = bare.under(parent);
        process.ppid = parent.map_or(0, |parent| parent.key.pid);
        Arc::new(process)
    }

    #[test]
    fn a_line_without_end_keeps_its_near_half() {
        let mut last = process(1, None);
        for pid in 2..10_000 {
            last = process(pid, Some(&last));
            assert!(last.ancestors().count() < MOST_ANCESTORS as usize);
        }
        let pids: Vec<_> = last.ancestors().take(40).map(|p| p.key.pid).collect();
        assert_eq!(pids, (0..40).map(|n| 9998 - n).collect::<Vec<_>>());
    }
}
