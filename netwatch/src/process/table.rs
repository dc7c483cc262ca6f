//! The table of processes: who is, who was a moment ago, and who forked whom.
//!
//! Fork, exec and exit keep it; `/proc` fills it at the start and wherever a record was lost. What a record
//! says of a process goes before what `/proc` says: the record was read in the kernel at the moment.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::{Actor, Process};
use crate::decode::{CgroupEvent, ExecEvent, ForkEvent, Owner, ProcessEvent, Task};
use crate::model::{Image, ProcessKey};
use crate::snapshot::ProcessRow;

/// Processes that are gone and may still be asked for: a connection's last record can come after its
/// process's.
const MOST_GONE: usize = 8192;

/// Processes, by pid and start.
#[derive(Debug, Default)]
pub struct ProcessTable {
    live: HashMap<u32, Live>,
    gone: HashMap<ProcessKey, Arc<Process>>,
    gone_order: VecDeque<ProcessKey>,
    /// Paths by the id of the group in the unified hierarchy.
    cgroups: HashMap<u64, Arc<str>>,
    /// Counts the times that records were lost: what was learnt in an earlier one may be out of date.
    epoch: u32,
}

#[derive(Debug)]
struct Live {
    process: Arc<Process>,
    /// The table's when this was learnt; one before where only part of it is known.
    epoch: u32,
    /// When a record last changed it, nanoseconds since boot; 0: never.
    changed: u64,
}

impl ProcessTable {
    /// A table of the processes that one look saw. Parents are the present ones.
    #[must_use]
    pub fn of(rows: &[ProcessRow]) -> Self {
        let mut table = Self::default();
        table.learn(rows, u64::MAX);
        table
    }

    /// Takes in what a look saw that began at `began`, nanoseconds since boot. A process that the table
    /// knows keeps its lineage, and is left as it is where a record changed it since.
    pub fn learn(&mut self, rows: &[ProcessRow], began: u64) {
        // A parent is never younger than its child: so it is there when its child comes.
        let mut by_age: Vec<_> = rows.iter().collect();
        by_age.sort_by_key(|row| (row.key.start, row.key.pid));
        for row in by_age {
            let live = self.live.get(&row.key.pid);
            if live.is_none_or(|live| live.process.key != row.key || live.changed < began) {
                self.learn_one(row);
            }
        }
    }

    /// Takes in a process of which a record said at some time that it was called `comm`, from what `/proc`
    /// shows by now. Where it has another name by now it may have another image as well: that stays unknown.
    pub fn learn_named(&mut self, row: &ProcessRow, comm: &str) {
        if *row.comm == *comm {
            self.learn_one(row);
        } else {
            self.learn_one(&ProcessRow { image: Image::unknown(), comm: comm.into(), ..row.clone() });
        }
    }

    /// Takes in one process as `/proc` shows it.
    pub fn learn_one(&mut self, row: &ProcessRow) {
        let known = self.find(row.key);
        let parent = match known {
            Some(known) => known.parent.clone(),
            None => self
                .live
                .get(&row.ppid)
                .map(|live| &live.process)
                .filter(|parent| (parent.key.start, parent.key.pid) < (row.key.start, row.key.pid))
                .cloned(),
        };
        // Arguments as at exec, where that was seen: a process can write over what /proc shows.
        let image = match known.map(|known| &known.image) {
            Some(image) if image.exe.is_some() && image.file == row.image.file => image.clone(),
            _ => row.image.clone(),
        };
        let process = Process {
            key: row.key,
            ppid: row.ppid,
            comm: row.comm.clone(),
            uid: row.uid,
            auid: row.auid,
            image,
            cgroup_id: known.map_or(0, |known| known.cgroup_id),
            cgroup: row.cgroup.clone(),
            kernel: row.kernel,
            parent: None,
            depth: 0,
        };
        let changed = self.live.get(&row.key.pid).map_or(0, |live| live.changed);
        self.put(process.under(parent.as_ref()), self.epoch, changed);
    }

    /// Takes in what happened to a process at `at`, nanoseconds since boot.
    pub fn apply(&mut self, at: u64, event: &ProcessEvent) {
        match event {
            ProcessEvent::Fork(fork) => self.fork(at, fork),
            ProcessEvent::Exec(exec) => self.exec(at, exec),
            ProcessEvent::Exit(key) => self.exit(*key),
            ProcessEvent::Cgroup(cgroup) => self.cgroup(cgroup),
        }
    }

    /// Records were lost: what the table has may be out of date.
    pub fn doubt(&mut self) {
        self.epoch = self.epoch.wrapping_add(1);
    }

    /// Whether `/proc` should be asked about this process before it is named: it is not known, or not all
    /// of it, or something was lost since.
    #[must_use]
    pub fn wants_look(&self, key: ProcessKey) -> bool {
        match self.live.get(&key.pid) {
            Some(live) if live.process.key == key => live.epoch != self.epoch,
            _ => !self.gone.contains_key(&key),
        }
    }

    /// A process that is there or was a moment ago.
    #[must_use]
    pub fn find(&self, key: ProcessKey) -> Option<&Arc<Process>> {
        let live = self.live.get(&key.pid).map(|live| &live.process).filter(|process| process.key == key);
        live.or_else(|| self.gone.get(&key))
    }

    /// The process of this pid, which has not ended as far as is known.
    #[must_use]
    pub fn present(&self, pid: u32) -> Option<&Arc<Process>> {
        self.live.get(&pid).map(|live| &live.process)
    }

    /// Who a task is, with what the record says of it.
    pub fn actor(&mut self, task: &Task) -> Actor {
        let process = match self.find(task.key) {
            Some(known) if is_as(known, task) => known.clone(),
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
        Actor { process, tid: task.tid, thread: task.thread.clone() }
    }

    /// Who connected a socket or called listen(), by what was kept with it.
    #[must_use]
    pub fn owner(&self, owner: &Owner) -> Option<Actor> {
        let process = self.find(owner.key)?.clone();
        Some(Actor { process, tid: owner.tid, thread: None })
    }

    /// Sets the path and identity of a process's executable to what `/proc` says, unless that is about
    /// another file already: it may have gone on to the next program.
    pub fn confirm_exe(&mut self, key: ProcessKey, exe: Option<Arc<str>>, file: (u64, u64)) {
        let Some(Live { process, .. }) = self.live.get_mut(&key.pid) else { return };
        if process.key != key || exe.is_none() || process.image.file.1 != file.1 {
            return;
        }
        let image = Image { exe, file, ..Image::clone(&process.image) };
        *process = Arc::new(Process { image: Arc::new(image), ..Process::clone(process) });
    }

    /// Forgets those that are not among `rows`, the processes of a look that began when nothing of what
    /// the table has now was younger than `since`, nanoseconds since boot.
    pub fn keep_only(&mut self, rows: &[ProcessRow], since: u64) {
        let there: std::collections::HashSet<_> = rows.iter().map(|row| row.key).collect();
        let ended: Vec<_> = self
            .live
            .values()
            .map(|live| live.process.key)
            .filter(|key| key.start < since && !there.contains(key))
            .collect();
        for key in ended {
            self.exit(key);
        }
    }

    fn fork(&mut self, at: u64, fork: &ForkEvent) {
        let task = &fork.task;
        let mut child = self.stranger(task);
        let mut epoch = self.unsure();
        if let Some(parent) = self.find(fork.parent).cloned() {
            child.image = parent.image.clone();
            if parent.cgroup_id == task.cgroup || parent.cgroup_id == 0 {
                child.cgroup = parent.cgroup.clone();
            }
            child = child.under(Some(&parent));
            // A child has the image of its parent, and is as sure of it.
            epoch = self.live.get(&parent.key.pid).map_or(self.epoch, |live| live.epoch);
        }
        self.put(child, epoch, at);
    }

    fn exec(&mut self, at: u64, exec: &ExecEvent) {
        let (mut process, epoch) = match self.find(exec.task.key) {
            Some(known) => (Process::clone(known), self.epoch),
            // Its fork was lost, and with it its lineage.
            None => (self.stranger(&exec.task), self.unsure()),
        };
        self.bring_up_to_date(&mut process, &exec.task);
        process.image = exec.image.clone();
        self.put(process, epoch, at);
    }

    fn exit(&mut self, key: ProcessKey) {
        let Some(live) = self.live.get(&key.pid) else { return };
        if live.process.key != key {
            return;
        }
        let Some(Live { process, .. }) = self.live.remove(&key.pid) else { return };
        if self.gone_order.len() >= MOST_GONE
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
        self.gone_order.push_back(key);
        self.gone.insert(key, process);
    }

    fn cgroup(&mut self, event: &CgroupEvent) {
        const UNIFIED: u32 = 0;
        if event.hierarchy == UNIFIED {
            self.cgroups.insert(event.id, event.path.clone());
        }
        let Some(Live { process, epoch, changed }) = event.moved.and_then(|key| self.live.get(&key.pid))
        else {
            return;
        };
        if Some(process.key) != event.moved {
            return;
        }
        // The same choice as for /proc/PID/cgroup: the old hierarchies speak where the unified one has
        // nothing to say.
        let telling = event.path.len() > 1;
        if telling && (event.hierarchy == UNIFIED || process.cgroup.len() <= 1) {
            let mut moved = Process::clone(process);
            moved.cgroup = event.path.clone();
            if event.hierarchy == UNIFIED {
                moved.cgroup_id = event.id;
            }
            let (epoch, changed) = (*epoch, *changed);
            self.put(moved, epoch, changed);
        }
    }

    /// What a record alone says.
    fn stranger(&self, task: &Task) -> Process {
        Process {
            key: task.key,
            ppid: task.ppid,
            comm: task.comm.clone(),
            uid: task.uid,
            auid: task.auid,
            image: Image::unknown(),
            cgroup_id: task.cgroup,
            cgroup: self.cgroups.get(&task.cgroup).cloned().unwrap_or_else(|| "/".into()),
            kernel: task.kernel,
            parent: None,
            depth: 0,
        }
    }

    fn bring_up_to_date(&self, process: &mut Process, task: &Task) {
        process.comm = task.comm.clone();
        process.uid = task.uid;
        process.auid = task.auid;
        process.ppid = task.ppid;
        if process.cgroup_id != task.cgroup {
            process.cgroup_id = task.cgroup;
            if let Some(path) = self.cgroups.get(&task.cgroup) {
                process.cgroup = path.clone();
            }
        }
    }

    /// The epoch of what is known in part only.
    fn unsure(&self) -> u32 {
        self.epoch.wrapping_sub(1)
    }

    fn put(&mut self, process: Process, epoch: u32, changed: u64) -> Arc<Process> {
        let process = Arc::new(process);
        self.live.insert(process.key.pid, Live { process: process.clone(), epoch, changed });
        process
    }

    /// Another value of a process, where the one before was; a process that is gone stays gone, and what
    /// is known of one is as old as it was.
    fn put_again(&mut self, process: Process) -> Arc<Process> {
        if let Some(gone) = self.gone.get_mut(&process.key) {
            *gone = Arc::new(process);
            return gone.clone();
        }
        let known = self.live.get(&process.key.pid).filter(|live| live.process.key == process.key);
        let (epoch, changed) = known.map_or((self.unsure(), 0), |live| (live.epoch, live.changed));
        self.put(process, epoch, changed)
    }
}

fn is_as(known: &Process, task: &Task) -> bool {
    known.comm == task.comm
        && known.uid == task.uid
        && known.auid == task.auid
        && known.ppid == task.ppid
        && known.cgroup_id == task.cgroup
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::ExeState;

    fn key(pid: u32) -> ProcessKey {
        ProcessKey::from_ticks(pid, u64::from(pid))
    }

    fn task(pid: u32, comm: &str) -> Task {
        Task {
            key: key(pid),
            tid: pid,
            ppid: 1,
            uid: 0,
            auid: None,
            kernel: false,
            via: None,
            cgroup: 7,
            comm: comm.into(),
            thread: None,
        }
    }

    fn row(pid: u32, ppid: u32, exe: &str) -> ProcessRow {
        ProcessRow {
            key: key(pid),
            ppid,
            comm: exe.into(),
            uid: 0,
            auid: None,
            image: image(exe),
            argv0: Box::default(),
            cgroup: "/row".into(),
            kernel: false,
        }
    }

    fn image(exe: &str) -> Arc<Image> {
        Arc::new(Image {
            exe: Some(exe.into()),
            exe_state: ExeState::Ok,
            file: (1, 1),
            mntns: 0,
            args: [].into(),
        })
    }

    fn fork(parent: u32, child: u32) -> ProcessEvent {
        ProcessEvent::Fork(ForkEvent { task: task(child, "x"), parent: key(parent) })
    }

    fn exec(pid: u32, exe: &str) -> ProcessEvent {
        ProcessEvent::Exec(ExecEvent { task: task(pid, exe), image: image(exe), path_cut: false })
    }

    fn lineage(table: &ProcessTable, pid: u32) -> Vec<String> {
        let ancestors = table.find(key(pid)).unwrap().ancestors();
        ancestors.map(|p| format!("{}:{}", p.key.pid, p.image.exe.as_deref().unwrap_or("-"))).collect()
    }

    #[test]
    fn a_double_fork_keeps_the_true_lineage() {
        let mut table = ProcessTable::of(&[row(2, 1, "sh"), row(1, 0, "init")]);
        assert_eq!(lineage(&table, 2), ["1:init"]);
        for event in [fork(2, 10), exec(10, "launcher"), fork(10, 11), ProcessEvent::Exit(key(10))] {
            table.apply(1, &event);
        }
        table.apply(1, &exec(11, "daemon"));
        assert_eq!(lineage(&table, 11), ["10:launcher", "2:sh", "1:init"]);
        // What it was adopted by shows in ppid only.
        let actor = table.actor(&task(11, "daemon"));
        assert_eq!((actor.process.ppid, actor.process.image.exe.as_deref()), (1, Some("daemon")));
        // What the shell becomes later was not what forked.
        table.apply(1, &exec(2, "other"));
        assert_eq!(lineage(&table, 11)[1], "2:sh");
    }

    #[test]
    fn a_reused_pid_is_another_process() {
        let mut table = ProcessTable::default();
        table.apply(1, &fork(1, 10));
        table.apply(1, &exec(10, "old"));
        let before = table.actor(&task(10, "old"));
        table.apply(1, &ProcessEvent::Exit(key(10)));
        let mut again = task(10, "new");
        again.key.start += 10_000_000;
        table.apply(1, &ProcessEvent::Fork(ForkEvent { task: again.clone(), parent: key(1) }));
        assert_eq!(table.find(key(10)).unwrap().image.exe.as_deref(), Some("old"));
        assert_eq!(table.find(again.key).unwrap().image.exe, None);
        assert_eq!(table.actor(&again).process.key, again.key);
        assert_eq!(before.process.image.exe.as_deref(), Some("old"));
        // An exit of the old one that comes late does not end the new one.
        table.apply(1, &ProcessEvent::Exit(key(10)));
        assert_eq!(table.present(10).unwrap().key, again.key);
    }

    #[test]
    fn what_only_a_record_spoke_of_wants_a_look() {
        let mut table = ProcessTable::default();
        assert!(table.wants_look(key(5)));
        let actor = table.actor(&task(5, "five"));
        assert_eq!((&*actor.process.comm, actor.process.image.exe.as_deref()), ("five", None));
        assert!(table.wants_look(key(5)));
        table.learn_one(&row(5, 1, "/five"));
        assert!(!table.wants_look(key(5)));
        table.doubt();
        assert!(table.wants_look(key(5)));
        // A child of a doubtful parent has an image that may be the wrong one.
        table.apply(1, &fork(5, 6));
        assert!(table.wants_look(key(6)));
        table.learn_one(&row(5, 1, "/five"));
        table.apply(1, &fork(5, 7));
        assert!(!table.wants_look(key(7)));
        table.apply(1, &ProcessEvent::Exit(key(5)));
        assert!(!table.wants_look(key(5)));
    }

    #[test]
    fn a_look_does_not_undo_what_a_record_said_since() {
        let mut table = ProcessTable::of(&[row(3, 1, "/old")]);
        table.apply(100, &exec(3, "/new"));
        table.learn(&[row(3, 1, "/old")], 50);
        assert_eq!(table.find(key(3)).unwrap().image.exe.as_deref(), Some("/new"));
        // A look that began later knows better: the file is another one.
        let mut later = row(3, 1, "/newer");
        later.image = Arc::new(Image { file: (1, 2), ..Image::clone(&later.image) });
        table.learn(&[later], 150);
        assert_eq!(table.find(key(3)).unwrap().image.exe.as_deref(), Some("/newer"));
    }

    #[test]
    fn what_has_another_name_by_now_may_have_another_image() {
        let mut table = ProcessTable::default();
        table.learn_named(&row(3, 1, "later"), "sooner");
        let process = table.find(key(3)).unwrap();
        assert_eq!((&*process.comm, process.image.exe.as_deref()), ("sooner", None));
        table.learn_named(&row(4, 1, "same"), "same");
        assert_eq!(table.find(key(4)).unwrap().image.exe.as_deref(), Some("same"));
    }

    #[test]
    fn a_new_name_makes_another_value() {
        let mut table = ProcessTable::of(&[row(3, 1, "a")]);
        let first = table.actor(&task(3, "a"));
        let second = table.actor(&task(3, "renamed"));
        assert_eq!((&*first.process.comm, &*second.process.comm), ("a", "renamed"));
        assert!(Arc::ptr_eq(&second.process, &table.actor(&task(3, "renamed")).process));
    }

    #[test]
    fn cgroups_are_inherited_and_moved() {
        let mut table = ProcessTable::of(&[row(2, 1, "sh")]);
        table.apply(1, &fork(2, 10));
        assert_eq!(&*table.find(key(10)).unwrap().cgroup, "/row");
        let moved = |pid, path: &str, hierarchy| {
            let moved = (pid != 0).then(|| key(pid));
            ProcessEvent::Cgroup(CgroupEvent { id: 99, hierarchy, path: path.into(), moved })
        };
        table.apply(1, &moved(0, "/made", 0));
        table.apply(1, &moved(10, "/made", 0));
        assert_eq!(&*table.find(key(10)).unwrap().cgroup, "/made");
        // An old hierarchy has nothing to add.
        table.apply(1, &moved(10, "/v1", 3));
        assert_eq!(&*table.find(key(10)).unwrap().cgroup, "/made");
        // Born into a group that was made before our eyes.
        let mut born = task(11, "x");
        born.cgroup = 99;
        let parent = table.actor(&task(2, "sh")).process.key;
        table.apply(1, &ProcessEvent::Fork(ForkEvent { task: born, parent }));
        assert_eq!(&*table.find(key(11)).unwrap().cgroup, "/made");
    }

    #[test]
    fn a_look_ends_those_whose_exit_was_lost() {
        let mut table = ProcessTable::of(&[row(2, 1, "a"), row(3, 1, "b")]);
        table.apply(1, &fork(2, 50));
        table.keep_only(&[row(2, 1, "a")], key(40).start);
        assert!(table.present(2).is_some() && table.present(3).is_none() && table.present(50).is_some());
        assert!(table.find(key(3)).is_some());
    }

    #[test]
    fn the_gone_are_bounded() {
        let mut table = ProcessTable::default();
        for pid in 1..20_000 {
            table.apply(1, &fork(0, pid));
            table.apply(1, &ProcessEvent::Exit(key(pid)));
        }
        assert_eq!(table.gone.len(), MOST_GONE);
        assert!(table.find(key(19_999)).is_some() && table.find(key(1)).is_none());
    }
}
