//! The table of running and recently ended processes, and their parents.
//!
//! Records of fork, exec and exit update it; `/proc` fills it at the start and after losses. Records take precedence
//! over `/proc`, since the kernel side reads the process at the time of the record.

use std::sync::Arc;

use super::ended::Ended;
use super::{Actor, Birth, Process};
use crate::decode::{ExecEvent, ForkEvent, Owner, ProcessEvent, Task};
use crate::hash::Map;
use crate::model::{BootTime, CgroupId, ExeState, Image, ProcessFacts, ProcessKey, ProcessRow, Stream};

mod cgroups;
mod messages;
use messages::MessageTable;

/// Processes by pid and start. Of a process whose exact start becomes known, the key has it from then on.
#[derive(Debug, Default)]
pub struct ProcessTable {
    live: Map<u32, Live>,
    gone: Ended,
    /// Paths of cgroups by id in the unified hierarchy; `None` if that cannot be found out. At most
    /// [`limits::MOST_CGROUPS`](crate::limits::MOST_CGROUPS).
    cgroups: Map<CgroupId, Option<Arc<str>>>,
    /// Incremented at each loss of records; entries of an earlier epoch may be out of date.
    epoch: u32,
    messages: MessageTable,
}

#[derive(Debug)]
struct Live {
    process: Arc<Process>,
    /// The epoch of the table when the entry was read; one less if the entry is incomplete.
    epoch: u32,
    /// Time of the last record that changed it.
    changed: Option<BootTime>,
}

impl ProcessTable {
    /// A table of the processes of one snapshot, with their current parents.
    #[must_use]
    pub fn of(rows: &[ProcessRow]) -> Self {
        let mut table = Self::default();
        table.learn(rows, BootTime::END);
        table
    }

    /// Adds the processes of a snapshot that began at `began`. A known process keeps its ancestors, and is not changed
    /// if a record changed it since.
    pub fn learn(&mut self, rows: &[ProcessRow], began: BootTime) {
        // A parent is never younger than its child, so it is added first.
        let mut by_age: Vec<_> = rows.iter().collect();
        by_age.sort_by_key(|row| row.key.age());
        for row in by_age {
            let changed = self.live(row.key).map(|live| live.changed);
            if changed.flatten().is_none_or(|changed| changed < began) {
                self.learn_one(row);
            }
        }
    }

    /// Adds a process that a record named `comm`, from its current state in `/proc`. If its name has changed, its image
    /// may have changed too and stays unknown.
    pub fn learn_named(&mut self, row: &ProcessRow, comm: &str) {
        if *row.comm == *comm {
            self.learn_one(row);
        } else {
            let mut row = row.clone();
            (row.image, row.comm) = (Image::unknown(), comm.into());
            self.learn_one(&row);
        }
    }

    /// Adds one process from `/proc`.
    pub fn learn_one(&mut self, row: &ProcessRow) {
        let known = self.find(row.key);
        let parent = match known {
            Some(known) => known.parent.clone(),
            None => self
                .live
                .get(&row.ppid)
                .map(|live| &live.process)
                .filter(|parent| parent.key.may_be_parent_of(row.key))
                .cloned(),
        };
        // Keep the arguments of the exec record: a process can overwrite those in /proc.
        let image = match known.map(|known| &known.image) {
            Some(image) if image.exe.is_some() && image.file == row.image.file => image.clone(),
            _ => row.image.clone(),
        };
        let stdio = known.map_or(row.stdio, |known| known.stdio);
        let streams = known.map_or(row.streams, |known| known.streams);
        let key = known.map_or(row.key, |known| row.key.or_exact(known.key));
        let mut process = Process {
            cgroup_id: known.and_then(|known| known.cgroup_id),
            birth: known.and_then(|known| known.birth.clone()),
            ..Process::of(ProcessFacts { key, image, stdio, streams, ..row.facts.clone() })
        };
        process.note_unlinked(row.image.exe_state == ExeState::Deleted);
        let changed = self.live.get(&row.key.pid).and_then(|live| live.changed);
        self.put(process.under(parent.as_ref()), self.epoch, changed);
    }

    /// Sets the sockets that existing processes have as stdin, stdout and stderr, from a snapshot.
    pub fn learn_stdio(&mut self, rows: &[ProcessRow]) {
        for row in rows.iter().filter(|row| row.stdio != [None; 3]) {
            if let Some(Live { process, .. }) = self.live_mut(row.key)
                && process.birth.is_none()
            {
                let mut known = Process::clone(process);
                known.stdio = row.stdio;
                *process = Arc::new(known);
            }
        }
    }

    /// Applies an event about a process.
    pub fn apply(&mut self, at: BootTime, event: &ProcessEvent) {
        match event {
            ProcessEvent::Fork(fork) => self.fork(at, fork),
            ProcessEvent::Exec(exec) => self.exec(at, exec),
            ProcessEvent::Exit(key) => self.exit(*key),
            ProcessEvent::Cgroup(cgroup) => self.cgroup(cgroup),
            ProcessEvent::Messages(messages) => self.messages.announce(at, messages.clone()),
            ProcessEvent::Pair(pair) => self.messages.learn(pair),
        }
    }

    /// Notes a loss: entries may be out of date.
    pub fn doubt(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Whether the process should be read from `/proc` before it is named: it is unknown or incomplete, or records were
    /// lost since.
    #[must_use]
    pub fn needs_proc(&self, key: ProcessKey) -> bool {
        match self.live(key) {
            Some(live) => live.epoch != self.epoch,
            None => self.gone.find(key).is_none(),
        }
    }

    /// A running or recently ended process.
    #[must_use]
    pub fn find(&self, key: ProcessKey) -> Option<&Arc<Process>> {
        self.live(key).map(|live| &live.process).or_else(|| self.gone.find(key))
    }

    /// The entry of a running process. One whose exact start is not known is not taken for one that has ended.
    fn live(&self, key: ProcessKey) -> Option<&Live> {
        let live = self.live.get(&key.pid)?;
        let known = live.process.key;
        (known == key || known.may_be(key) && !self.gone.has(key)).then_some(live)
    }

    /// The same, to be changed.
    fn live_mut(&mut self, key: ProcessKey) -> Option<&mut Live> {
        self.live(key)?;
        self.live.get_mut(&key.pid)
    }

    /// The same. If its start becomes known exactly, its key is replaced.
    fn find_exact(&mut self, key: ProcessKey) -> Option<Arc<Process>> {
        let known = self.find(key)?.clone();
        if known.key == key || !key.is_exact() {
            return Some(known);
        }
        Some(self.put_again(known.with_key(key)))
    }

    /// All running processes.
    pub fn running(&self) -> impl Iterator<Item = &Arc<Process>> {
        self.live.values().map(|live| &live.process)
    }

    /// The running process with this pid.
    #[must_use]
    pub fn present(&self, pid: u32) -> Option<&Arc<Process>> {
        self.live.get(&pid).map(|live| &live.process)
    }

    /// The process and thread of a task, updated from its record.
    pub fn acting(&mut self, task: &Task) -> Actor {
        let process = match self.find(task.key) {
            Some(known) if known.is_as(task) => known.clone(),
            Some(known) => {
                let mut process = Process::clone(known);
                self.bring_up_to_date(&mut process, task);
                self.put_again(process)
            }
            None => {
                let process = self.stranger(task);
                self.put_again(process)
            }
        };
        Actor::new(process, task.tid, task.thread.map(|name| name.text().into()))
    }

    /// The process that connected a socket or called listen(), from the owner kept with the socket.
    #[must_use]
    pub fn owner(&self, owner: &Owner) -> Option<Actor> {
        let known = self.find(owner.key)?;
        let process = if known.key == owner.key { known.clone() } else { known.with_key(owner.key).into() };
        Some(Actor::new(process, owner.tid, None))
    }

    /// Sets path and identity of a process's executable from `/proc`, unless `/proc` is about another file already,
    /// because the process executed another program.
    pub fn confirm_exe(&mut self, key: ProcessKey, exe: Option<Arc<str>>, file: (u64, u64)) {
        let Some(Live { process, .. }) = self.live_mut(key) else { return };
        if exe.is_none() || process.image.file.1 != file.1 {
            return;
        }
        let image = Image { exe, file, ..Image::clone(&process.image) };
        let mut known = Process::clone(process);
        known.image = Arc::new(image);
        *process = Arc::new(known);
    }

    /// Whether the arguments of a running process are known in part.
    #[must_use]
    pub fn lacks_args(&self, key: ProcessKey) -> bool {
        self.live(key).is_some_and(|live| live.process.image.args.cut().is_some())
    }

    /// Completes arguments of which the record of the exec had only the beginning, from `/proc`, unless the process
    /// executed another program or has overwritten them.
    pub fn complete_args(&mut self, row: &ProcessRow) {
        let Some(Live { process, .. }) = self.live_mut(row.key) else { return };
        let (known, read) = (&process.image, &row.image);
        if known.file != read.file || !read.args.complete(&known.args) {
            return;
        }
        let image = Image { args: read.args.clone(), ..Image::clone(known) };
        let mut complete = Process::clone(process);
        complete.image = Arc::new(image);
        *process = Arc::new(complete);
    }

    /// Removes processes that are not in `rows`, a snapshot that began when no entry was younger than `since`.
    pub fn keep_only(&mut self, rows: &[ProcessRow], since: BootTime) {
        let there: Map<_, _> = rows.iter().map(|row| (row.key.pid, row.key)).collect();
        let is_there = |key: &ProcessKey| there.get(&key.pid).is_some_and(|row| row.may_be(*key));
        let ended: Vec<_> = self
            .live
            .values()
            .map(|live| live.process.key)
            .filter(|key| key.age().0 < since && !is_there(key))
            .collect();
        for key in ended {
            self.exit(key);
        }
    }

    fn fork(&mut self, at: BootTime, fork: &ForkEvent) {
        let task = &fork.task;
        let birth = Some(Birth { at, cause: self.cause(at, task, fork.parent) });
        let parent = self.find_exact(fork.parent);
        if let Some(known) = self.live(task.key) {
            // A later record was applied already; only the fork is new.
            let (epoch, changed) = (known.epoch, known.changed);
            let mut child = Process { birth, ..known.process.with_key(task.key) };
            if parent.is_some() {
                child = child.under(parent.as_ref());
            }
            self.put(child, epoch, changed);
            return;
        }
        let mut child = Process { birth, ..self.stranger(task) };
        let mut epoch = self.unsure();
        if let Some(parent) = parent {
            child.image = parent.image.clone();
            child.note_unlinked(task.exe_unlinked);
            child.stdio = parent.stdio;
            // Who has their other ends is not the child's parent, but whoever forked the one that executed the program.
            child.streams =
                parent.streams.map(|stream| stream.map(|stream| Stream { at_parent: false, ..stream }));
            // The child may have been created in another cgroup (CLONE_INTO_CGROUP).
            if parent.cgroup_id == task.cgroup || self.group_path(task).is_none() {
                child.cgroup = parent.cgroup.clone();
            }
            child = child.under(Some(&parent));
            // A child has the image of its parent, which is as complete as the parent's.
            epoch = self.live.get(&parent.key.pid).map_or(self.epoch, |live| live.epoch);
        }
        self.put(child, epoch, Some(at));
    }

    fn exec(&mut self, at: BootTime, exec: &ExecEvent) {
        let (mut process, epoch) = match self.find(exec.task.key) {
            Some(known) => (Process::clone(known), self.epoch),
            // Its fork was lost, so its parent is unknown.
            None => (self.stranger(&exec.task), self.unsure()),
        };
        self.bring_up_to_date(&mut process, &exec.task);
        process.image = exec.image.clone();
        process.stdio = exec.stdio;
        process.streams = exec.streams;
        self.put(process, epoch, Some(at));
    }

    fn exit(&mut self, key: ProcessKey) {
        if self.live(key).is_none() {
            return;
        }
        let Some(Live { process, .. }) = self.live.remove(&key.pid) else { return };
        self.gone.add(if process.key == key { process } else { process.with_key(key).into() });
    }

    /// A process from a record alone.
    fn stranger(&self, task: &Task) -> Process {
        let facts = ProcessFacts {
            key: task.key,
            ppid: task.ppid,
            comm: task.comm.text().into(),
            uid: task.uid,
            auid: task.auid,
            image: Image::unknown(),
            cgroup: self.group_path(task).cloned().unwrap_or_else(|| "/".into()),
            kernel: task.kernel,
            stdio: [None; 3],
            streams: [None; 3],
        };
        Process { cgroup_id: task.cgroup, ..Process::of(facts) }
    }

    fn bring_up_to_date(&self, process: &mut Process, task: &Task) {
        process.key = task.key.or_exact(process.key);
        process.note_unlinked(task.exe_unlinked);
        process.comm = task.comm.text().into();
        process.uid = task.uid;
        process.auid = task.auid;
        process.ppid = task.ppid;
        if process.cgroup_id != task.cgroup {
            process.cgroup_id = task.cgroup;
            if let Some(path) = self.group_path(task) {
                process.cgroup = path.clone();
            }
        }
    }

    /// The epoch of an incomplete entry.
    fn unsure(&self) -> u32 {
        self.epoch.wrapping_sub(1)
    }

    fn put(&mut self, process: Process, epoch: u32, changed: Option<BootTime>) -> Arc<Process> {
        let process = Arc::new(process.measured());
        self.live.insert(process.key.pid, Live { process: process.clone(), epoch, changed });
        process
    }

    /// Replaces the value of a process. Whether it has ended and its epoch do not change.
    fn put_again(&mut self, process: Process) -> Arc<Process> {
        let known = self.live(process.key);
        if known.is_none() && self.gone.find(process.key).is_some() {
            let process = Arc::new(process);
            self.gone.replace(process.clone());
            return process;
        }
        let (epoch, changed) = known.map_or((self.unsure(), None), |live| (live.epoch, live.changed));
        self.put(process, epoch, changed)
    }
}

#[cfg(test)]
mod tests;
