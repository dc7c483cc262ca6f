//! The process value, and the table of processes with their ancestors. Pure.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use crate::limits;
use crate::model::{BootTime, CgroupId, ExeState, Image, ProcessFacts, ProcessKey};

mod cause;
pub mod table;

pub use cause::{Cause, Message};
pub use table::ProcessTable;

/// A process at one time. A later exec or name change creates another value, so a holder of this one keeps the process
/// that acted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Attributes of the process.
    pub facts: ProcessFacts,
    /// Id of the cgroup in the unified hierarchy, if known.
    pub cgroup_id: Option<CgroupId>,
    /// Its fork, if netwatch observed it.
    pub birth: Option<Birth>,
    /// The process that forked it, as it was then. If the fork was not observed, the parent when the process was first
    /// read.
    pub parent: Option<Arc<Self>>,
    /// Status of its executable when it was recorded; `None` if it was not read from the store, or was recorded only as
    /// an ancestor.
    pub exe_status: Option<ExeStatus>,
    /// Number of ancestors.
    depth: u32,
    /// The longest way over ancestors and writers of messages.
    reach: u32,
}

/// Status of an executable file at one time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExeStatus {
    /// Whether the file is still the one that the process runs.
    pub state: ExeState,
    /// Any user may create files in its directory.
    pub world_writable: bool,
}

/// A fork.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Birth {
    /// Time of the fork. Not truncated to a clock tick, unlike the start in the key.
    pub at: BootTime,
    /// What the forking thread acted upon.
    pub cause: Cause,
}

impl Process {
    /// The ancestors, the nearest first.
    pub fn ancestors(&self) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::successors(self.parent.as_ref(), |process| process.parent.as_ref())
    }

    /// The same process under this parent, for a process that is read from the store.
    #[must_use]
    pub fn child_of(self, parent: Option<&Arc<Self>>) -> Self {
        self.under(parent)
    }

    /// The status of its executable: as recorded, or as of the last exec.
    #[must_use]
    pub fn exe_status(&self) -> ExeStatus {
        let state = self.image.exe_state;
        self.exe_status.unwrap_or(ExeStatus { state, world_writable: false })
    }

    /// A process of which only key and name are known.
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
            streams: [None; 3],
        })
    }

    /// A process with only its attributes.
    fn of(facts: ProcessFacts) -> Self {
        Self { facts, cgroup_id: None, birth: None, parent: None, exe_status: None, depth: 0, reach: 0 }
    }

    /// The longest way over ancestors and writers of messages, in steps.
    fn reach(&self) -> u32 {
        self.reach
    }

    /// Determines [`Self::reach`], after a change of the parent or of the birth.
    fn measured(mut self) -> Self {
        let above = self.parent.as_ref().map_or(0, |parent| parent.reach);
        let beside = self.birth.as_ref().map_or(0, |birth| birth.cause.reach());
        self.reach = above.max(beside) + 1;
        self
    }

    /// Sets the parent. If the chain becomes too long, its older half is dropped.
    fn under(mut self, parent: Option<&Arc<Self>>) -> Self {
        self.parent = parent.cloned();
        self.depth = parent.map_or(0, |parent| parent.depth + 1);
        if self.depth >= limits::MOST_ANCESTORS {
            let near: Vec<_> = self.ancestors().take(limits::MOST_ANCESTORS as usize / 2).cloned().collect();
            let mut above = None;
            for process in near.iter().rev() {
                above = Some(Arc::new(Self::clone(process).under(above.as_ref())));
            }
            self = self.under(above.as_ref());
        }
        self.measured()
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

/// A process, and the thread in it that acted. Kept small, since every endpoint has several; the thread is nearly
/// always the leader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    /// The process.
    pub process: Arc<Process>,
    thread: Option<Arc<Thread>>,
}

/// A thread other than the leader.
#[derive(Debug, PartialEq, Eq)]
struct Thread {
    tid: u32,
    name: Option<Arc<str>>,
}

impl Actor {
    /// A thread of a process, with its name if it is not the leader.
    #[must_use]
    pub fn new(process: Arc<Process>, tid: u32, name: Option<Arc<str>>) -> Self {
        let is_leader = tid == process.key.pid && name.is_none();
        Self { process, thread: (!is_leader).then(|| Arc::new(Thread { tid, name })) }
    }

    /// The process, without a known thread.
    #[must_use]
    pub fn leader(process: Arc<Process>) -> Self {
        Self { process, thread: None }
    }

    /// The thread.
    #[must_use]
    pub fn tid(&self) -> u32 {
        self.thread.as_ref().map_or(self.process.key.pid, |thread| thread.tid)
    }

    /// Its name, if it is not the leader.
    #[must_use]
    pub fn thread(&self) -> Option<&Arc<str>> {
        self.thread.as_ref()?.name.as_ref()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A process with only a pid, for tests.
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
            assert!(last.ancestors().count() < limits::MOST_ANCESTORS as usize);
        }
        let pids: Vec<_> = last.ancestors().take(40).map(|p| p.key.pid).collect();
        assert_eq!(pids, (0..40).map(|n| 9998 - n).collect::<Vec<_>>());
    }
}
