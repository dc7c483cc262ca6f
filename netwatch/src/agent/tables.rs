//! Connections and processes, kept by records, with what records alone do not say looked up in `/proc`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::decode::{Act, Event, Name, ProcessEvent, Record};
use crate::hash::Set;
use crate::kernel::FlowTable;
use crate::model::{BootTime, Cookie, ProcessKey};
use crate::process::{Process, ProcessTable};
use crate::snapshot::{HostSnapshot, processes};
use crate::tracker::{ConnectionEvent, Occasion, Tracker};

/// Flows are looked through for idle ones this often, or more often where that is not enough.
const IDLE_CHECKS: Duration = Duration::from_secs(10);

/// How many such looks there are within the time after which a flow is idle.
const CHECKS_WHILE_IDLE: u32 = 4;

/// Connections and processes, kept by records.
pub(super) struct Tables {
    pub(super) tracker: Tracker,
    flows: FlowTable,
    pub(super) processes: ProcessTable,
    /// See [`Record::loss`].
    loss: u32,
    /// Something was lost since the look in progress began.
    doubted: bool,
    /// After so long without a datagram a flow is over.
    idle: Duration,
    /// When flows were last looked through for idle ones.
    idle_checked: Instant,
    /// See [`super::Agent::started_on_sockets`]; no more than [`MOST_STARTED`].
    started_on_sockets: Vec<Arc<Process>>,
}

/// Of a caller who does not ask for them.
const MOST_STARTED: usize = 4096;

impl Tables {
    pub(super) fn new(tracker: Tracker, processes: ProcessTable, flows: FlowTable, idle: Duration) -> Self {
        Self {
            tracker,
            flows,
            processes,
            loss: 0,
            doubted: false,
            idle,
            idle_checked: Instant::now(),
            started_on_sockets: Vec::new(),
        }
    }

    /// Those since the last call.
    pub(super) fn started_on_sockets(&mut self) -> Vec<Arc<Process>> {
        std::mem::take(&mut self.started_on_sockets)
    }

    pub(super) fn apply(&mut self, record: &Record, out: &mut Vec<ConnectionEvent>) {
        if record.loss != self.loss {
            self.loss = record.loss;
            self.doubt();
        }
        match &record.event {
            Event::Process(event) => self.process(record.at, event),
            Event::Socket(event) => {
                if let Some(task) = event.act.task() {
                    self.complete_from_proc(task.key, &task.comm);
                }
                if event.act == Act::Release
                    && let Some(cookie) = event.socket.cookie
                {
                    self.count_flows(cookie);
                }
                let actor = event.act.task().map(|task| self.processes.acting(task));
                self.tracker.apply(record.at, event, actor.as_ref(), &self.processes, out);
            }
        }
    }

    fn process(&mut self, at: BootTime, event: &ProcessEvent) {
        if let ProcessEvent::Fork(fork) = event {
            // A child is born with the name of who forked it.
            self.complete_from_proc(fork.parent, &fork.task.comm);
        }
        self.processes.apply(at, event);
        match event {
            // /proc has the path as readers see it, and the numbers that stat(2) would give.
            ProcessEvent::Exec(exec) => {
                let (exe, _, file) = processes::exe(exec.task.key.pid);
                self.processes.confirm_exe(exec.task.key, exe, file);
                if exec.stdio != [None; 3] && self.started_on_sockets.len() < MOST_STARTED {
                    self.started_on_sockets.extend(self.processes.find(exec.task.key).cloned());
                }
            }
            // Of several hierarchies /proc tells all.
            ProcessEvent::Cgroup(cgroup) => {
                if let Some(row) =
                    cgroup.moved.and_then(|key| processes::one(key.pid).filter(|r| r.key == key))
                {
                    self.processes.learn_one(&row);
                }
            }
            ProcessEvent::Fork(_) | ProcessEvent::Exit(_) => {}
        }
    }

    /// Completes a process from `/proc` where records alone do not name it. `comm` is what it was called
    /// then.
    fn complete_from_proc(&mut self, key: ProcessKey, comm: &Name) {
        if self.processes.needs_proc(key)
            && let Some(row) = processes::one(key.pid)
            && row.key == key
        {
            self.processes.learn_named(&row, &comm.text());
        }
    }

    /// The socket is closed: takes what passed on each of its flows out of the kernel's table.
    fn count_flows(&mut self, cookie: Cookie) {
        for (key, remote) in self.tracker.flows_of(cookie) {
            if let Some(bytes) = self.flows.take(cookie, remote) {
                self.tracker.count(key, bytes);
            }
        }
    }

    /// Tells what waits for nothing any more, and ends UDP flows on which nothing passes any more. Returns of how many
    /// listeners the port was lost.
    pub(super) fn settle(&mut self, now: BootTime, out: &mut Vec<ConnectionEvent>) -> u64 {
        let lost = self.tracker.settle(now, out);
        if self.idle_checked.elapsed() < IDLE_CHECKS.min(self.idle / CHECKS_WHILE_IDLE) {
            return lost;
        }
        self.idle_checked = Instant::now();
        let flows: Vec<_> = self.tracker.flows().collect();
        for (key, cookie, remote) in flows {
            // Of a connected socket that was there before there may be no count yet.
            let Some((_, last)) = self.flows.get(cookie, remote) else { continue };
            if Duration::from_nanos(now.saturating_sub(last)) > self.idle {
                if let Some(bytes) = self.flows.take(cookie, remote) {
                    self.tracker.count(key, bytes);
                }
                self.tracker.idle(now, key, out);
            }
        }
        lost
    }

    pub(super) fn doubt(&mut self) {
        self.tracker.doubt();
        self.processes.doubt();
        self.doubted = true;
    }

    pub(super) fn begin_snapshot(&mut self) {
        self.tracker.begin_snapshot();
        self.doubted = false;
    }

    pub(super) fn repair(&mut self, at: BootTime, snapshot: &HostSnapshot, out: &mut Vec<ConnectionEvent>) {
        self.processes.learn(&snapshot.processes, snapshot.sockets.began);
        self.processes.keep_only(&snapshot.processes, snapshot.sockets.began);
        self.tracker.merge(at, &snapshot.sockets, Occasion::Loss, &Set::default(), &self.processes, out);
        if self.doubted {
            // Another look is due already.
            self.tracker.doubt();
        }
    }
}
