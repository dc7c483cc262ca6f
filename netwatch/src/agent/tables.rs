//! The tables of connections and processes. Records update them; what records lack is read from `/proc`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::heal::Doubt;
use super::name::Namer;
use super::translate::Translator;
use crate::blocking::Patience;
use crate::decode::{Act, Event, Name, ProcessEvent, Record, Task};
use crate::hash::Set;
use crate::kernel::FlowTable;
use crate::limits;
use crate::loss::{Loss, LossOfSocket, LossReason};
use crate::model::{BootTime, Cookie, ProcessKey};
use crate::process::{Process, ProcessTable};
use crate::snapshot::{CgroupPaths, HostSnapshot, processes};
use crate::tracker::{ConnectionEvent, Occasion, TrackedFlow, Tracker};

/// Longest interval of checks for idle flows.
const IDLE_CHECKS: Duration = Duration::from_secs(10);

/// Minimum number of checks within the time after which a flow is idle.
const CHECKS_WHILE_IDLE: u32 = 4;

/// The tables of connections and processes.
pub(super) struct Tables {
    pub(super) tracker: Tracker,
    flows: FlowTable,
    pub(super) processes: ProcessTable,
    /// `None` if no cgroup v2 hierarchy is mounted.
    cgroups: Option<CgroupPaths>,
    /// See [`Record::loss`] and [`Record::udp_loss`].
    loss: (u32, u16),
    /// A record was lost since the snapshot in progress began.
    doubted: bool,
    /// The same for records about UDP flows.
    udp_doubted: bool,
    /// A flow without a datagram for this time is closed.
    idle: Duration,
    /// When the flows were last checked.
    idle_checked: Instant,
    translator: Translator,
    namer: Namer,
    /// See [`super::Agent::started_on_sockets`]; at most [`limits::MOST_STARTED`].
    started_on_sockets: Vec<Arc<Process>>,
    executed: Executed,
}

/// Programs that were executed and not taken yet.
#[derive(Default)]
pub(super) struct Executed {
    is_wanted: bool,
    /// At most [`limits::MOST_STARTED`].
    programs: Vec<(BootTime, Arc<Process>)>,
    /// How many more there were.
    missed: u64,
}

impl Executed {
    fn note(&mut self, at: BootTime, process: Option<&Arc<Process>>) {
        if !self.is_wanted {
            return;
        }
        if self.programs.len() < limits::MOST_STARTED {
            self.programs.extend(process.map(|process| (at, process.clone())));
        } else {
            self.missed += 1;
        }
    }

    fn take(&mut self) -> (Vec<(BootTime, Arc<Process>)>, u64) {
        (std::mem::take(&mut self.programs), std::mem::take(&mut self.missed))
    }
}

/// Maximum number of sockets that a loss names.
const MOST_SOCKETS: usize = 4;

impl Tables {
    pub(super) fn new(
        tracker: Tracker,
        processes: ProcessTable,
        cgroups: Option<CgroupPaths>,
        flows: FlowTable,
        idle: Duration,
    ) -> Self {
        Self {
            tracker,
            flows,
            processes,
            cgroups,
            loss: (0, 0),
            doubted: false,
            udp_doubted: false,
            idle,
            idle_checked: Instant::now(),
            translator: Translator::new(),
            namer: Namer::default(),
            started_on_sockets: Vec::new(),
            executed: Executed::default(),
        }
    }

    /// See [`super::Agent::started_on_sockets`].
    pub(super) fn started_on_sockets(&mut self) -> Vec<Arc<Process>> {
        std::mem::take(&mut self.started_on_sockets)
    }

    /// Programs are noted from now on: see [`super::Agent::executed`].
    pub(super) fn note_executed(&mut self) {
        self.executed.is_wanted = true;
    }

    /// See [`super::Agent::executed`].
    pub(super) fn executed(&mut self) -> (Vec<(BootTime, Arc<Process>)>, u64) {
        self.executed.take()
    }

    pub(super) fn apply(&mut self, record: &Record, out: &mut Vec<ConnectionEvent>) {
        if (record.loss, record.udp_loss) != self.loss {
            if record.loss != self.loss.0 {
                self.doubt();
            } else {
                self.doubt_udp();
            }
            self.loss = (record.loss, record.udp_loss);
        }
        match &record.event {
            Event::Process(event) => self.process(record.at, event),
            Event::Netns(netns) => self.namer.forget(*netns),
            Event::Name(event) => self.namer.note(record.at, event, &mut self.tracker),
            Event::Socket(event) => {
                if let Some(task) = event.act.task() {
                    self.learn_cgroup(task);
                    self.complete_from_proc(task.key, &task.comm);
                }
                if event.act == Act::Release
                    && let Some(cookie) = event.socket.cookie
                {
                    self.count_flows(cookie);
                }
                let actor = event.act.task().map(|task| self.processes.acting(task));
                let before = out.len();
                self.tracker.apply(record.at, event, actor.as_ref(), &self.processes, out);
                // What fails before a SYN is sent is not known to be in the namespace that the answers are of.
                if !matches!(event.act, Act::Fail { .. }) {
                    self.namer.complete(out, before, &mut self.tracker);
                }
                self.translator.complete(out, before, &mut self.tracker);
            }
        }
    }

    fn process(&mut self, at: BootTime, event: &ProcessEvent) {
        if let ProcessEvent::Fork(fork) = event {
            // A child has the name of its parent.
            self.complete_from_proc(fork.parent, &fork.task.comm);
            self.learn_cgroup(&fork.task);
        }
        self.processes.apply(at, event);
        match event {
            // /proc has the path as other readers of /proc see it, and the numbers that stat(2) returns.
            ProcessEvent::Exec(exec) => {
                let (exe, _, file) = processes::exe(exec.task.key.pid, Patience::Live);
                self.processes.confirm_exe(exec.task.key, exe, file);
                // A record has a part of long arguments.
                if self.processes.lacks_args(exec.task.key)
                    && let Some(row) = processes::of(exec.task.key, Patience::Live)
                {
                    self.processes.complete_args(&row);
                }
                self.executed.note(at, self.processes.find(exec.task.key));
                if exec.stdio != [None; 3] {
                    note_started(&mut self.started_on_sockets, self.processes.find(exec.task.key));
                }
            }
            // The record has one hierarchy, /proc has all.
            ProcessEvent::Cgroup(cgroup) => {
                if let Some(row) = cgroup.moved.and_then(|key| processes::of(key, Patience::Live)) {
                    self.processes.learn_one(&row);
                }
            }
            ProcessEvent::Fork(_)
            | ProcessEvent::Exit(_)
            | ProcessEvent::Messages(_)
            | ProcessEvent::Pair(_) => {}
        }
    }

    /// Looks up the cgroup of a task, once.
    fn learn_cgroup(&mut self, task: &Task) {
        if let Some(id) = task.cgroup
            && let Some(cgroups) = &self.cgroups
            && !self.processes.knows_cgroup(id)
        {
            self.processes.learn_cgroup(id, cgroups.path(id));
        }
    }

    /// Completes a process from `/proc` if records do not name it. `comm`: its name at the time of the record.
    fn complete_from_proc(&mut self, key: ProcessKey, comm: &Name) {
        if self.processes.needs_proc(key)
            && let Some(row) = processes::of(key, Patience::Live)
        {
            self.processes.learn_named(&row, &comm.text());
        }
    }

    /// Moves the counts of all flows of a closed socket from the kernel's table to the tracker.
    fn count_flows(&mut self, cookie: Cookie) {
        for (key, flow) in self.tracker.flows_of(cookie) {
            if let Some(bytes) = self.flows.remove(flow) {
                self.tracker.count(key, bytes);
            }
        }
        self.flows.forget(cookie);
    }

    /// The sockets whose flows most often found no place since the last call.
    fn not_followed(&mut self) -> Vec<LossOfSocket> {
        let owner = |cookie| self.tracker.udp_owner(cookie).map(|actor| &*actor.process);
        named(self.flows.not_followed(), owner)
    }

    /// See [`Translator::left_out`].
    pub(super) fn left_out(&mut self) -> Option<Loss> {
        self.translator.left_out()
    }

    /// Emits events that need no further record, and closes idle UDP flows. Returns the number of listeners whose port
    /// was lost.
    pub(super) fn settle(&mut self, now: BootTime, out: &mut Vec<ConnectionEvent>) -> u64 {
        let before = out.len();
        let lost = self.tracker.settle(now, out);
        self.namer.complete(out, before, &mut self.tracker);
        self.translator.complete(out, before, &mut self.tracker);
        self.translator.tick(now, &mut self.tracker);
        if self.idle_checked.elapsed() < IDLE_CHECKS.min(self.idle / CHECKS_WHILE_IDLE) {
            return lost;
        }
        self.idle_checked = Instant::now();
        let flows: Vec<_> = self.tracker.flows().collect();
        for TrackedFlow { key, flow, began } in flows {
            let last = match self.flows.get(flow) {
                Some((_, last)) => last,
                // A connected socket from before the start may have no datagram yet, and is no flow that ends.
                None => match began {
                    Some(began) => began,
                    None => continue,
                },
            };
            if Duration::from_nanos(now.saturating_sub(last)) > self.idle {
                if let Some(bytes) = self.flows.take(flow) {
                    self.tracker.count(key, bytes);
                }
                self.tracker.idle(now, key, out);
            }
        }
        lost
    }

    pub(super) fn doubt(&mut self) {
        self.tracker.doubt();
        self.tracker.doubt_udp();
        self.processes.doubt();
        self.doubted = true;
    }

    /// Notes what was lost, and adds the sockets concerned.
    pub(super) fn note_loss(&mut self, loss: Loss, doubt: Doubt) -> Loss {
        match doubt {
            Doubt::Everything => self.doubt(),
            Doubt::Udp => self.doubt_udp(),
            Doubt::Nothing => {}
        }
        if loss.reason == LossReason::Limit {
            return Loss { sockets: self.not_followed(), ..loss };
        }
        loss
    }

    /// Notes a loss that concerns UDP flows only.
    pub(super) fn doubt_udp(&mut self) {
        self.tracker.doubt_udp();
        self.udp_doubted = true;
    }

    pub(super) fn begin_snapshot(&mut self) {
        self.tracker.begin_snapshot();
        (self.doubted, self.udp_doubted) = (false, false);
    }

    pub(super) fn repair(&mut self, at: BootTime, snapshot: &HostSnapshot, out: &mut Vec<ConnectionEvent>) {
        self.processes.learn(&snapshot.processes, snapshot.sockets.began);
        self.processes.keep_only(&snapshot.processes, snapshot.sockets.began);
        self.tracker.merge(at, &snapshot.sockets, Occasion::Loss, &Set::default(), &self.processes, out);
        if self.doubted {
            // Another snapshot is due.
            self.tracker.doubt();
        }
        if self.doubted || self.udp_doubted {
            self.tracker.doubt_udp();
        }
        let removed = self.flows.remove_unknown(|cookie| self.tracker.has_udp(cookie));
        log::debug!("{removed} flows of sockets that are gone were removed");
    }
}

/// The first of these sockets, with their processes.
fn named<'a>(
    sockets: Vec<(Cookie, u64)>,
    owner: impl Fn(Cookie) -> Option<&'a Process>,
) -> Vec<LossOfSocket> {
    let named = |(cookie, count)| {
        let process = owner(cookie);
        LossOfSocket {
            cookie,
            process: process.map(|process| process.key),
            comm: process.map(|process| process.comm.clone()),
            count,
        }
    };
    sockets.into_iter().take(MOST_SOCKETS).map(named).collect()
}

/// Adds a program to those that were started on sockets, unless too many were not taken yet.
fn note_started(started: &mut Vec<Arc<Process>>, process: Option<&Arc<Process>>) {
    if started.len() < limits::MOST_STARTED {
        started.extend(process.cloned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_names_a_limited_number_of_sockets() {
        let process = crate::process::tests::process(5, None);
        let sockets: Vec<_> = (1..7).filter_map(|n| Some((Cookie::new(n)?, 100 - n))).collect();
        let named = named(sockets, |cookie| (cookie.get() == 1).then_some(&process));
        let counts: Vec<_> = named.iter().map(|socket| socket.count).collect();
        assert_eq!(counts, [99, 98, 97, 96]);
        assert_eq!((named[0].process, named[1].process), (Some(process.key), None));
    }

    #[test]
    fn number_of_programs_executed_is_bounded_and_the_rest_counted() {
        let process = crate::process::tests::process(5, None);
        let mut executed = Executed::default();
        executed.note(BootTime::default(), Some(&process));
        assert_eq!(executed.take(), (Vec::new(), 0), "nobody wants to know");
        executed.is_wanted = true;
        for _ in 0..limits::MOST_STARTED + 2 {
            executed.note(BootTime::default(), Some(&process));
        }
        let (programs, missed) = executed.take();
        assert_eq!((programs.len(), missed), (limits::MOST_STARTED, 2));
    }

    #[test]
    fn number_of_programs_started_on_sockets_is_bounded() {
        let mut started = Vec::new();
        let process = crate::process::tests::process(5, None);
        for _ in 0..limits::MOST_STARTED + 2 {
            note_started(&mut started, Some(&process));
        }
        assert_eq!(started.len(), limits::MOST_STARTED);
    }
}
