//! The agent: the kernel side's records and looks at the host, brought together in the tables of
//! processes and connections.
//!
//! Order matters at the start: attach, then look, then merge, then the records that came meanwhile. The
//! other order loses what begins in between, or takes it for older than it is.

mod heal;
mod self_test;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use nix::time::{ClockId, clock_gettime};
use thiserror::Error;

use crate::decode::{Act, Event, Name, ProcessEvent, Record, SocketEvent, decode};
use crate::hash::Set;
use crate::kernel::{Coverage, FlowTable, Iterators, Kernel, KernelError, Options, Phase};
use crate::loss::Loss;
use crate::model::{ProcessKey, State, Via};
use crate::process::{Process, ProcessTable};
use crate::snapshot::{Lister, Note, SnapshotError, processes};
use crate::tracker::{ConnectionEvent, Occasion, Tracker};
use heal::{Healer, HostLook};

pub use self_test::SelfTest;

/// Why the agent cannot start, or not go on.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The kernel side.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// The look at the host.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A system call of the agent's own.
    #[error("cannot read the clock or the ring")]
    Io(#[from] io::Error),
}

/// What there is to tell once it runs.
#[derive(Debug)]
pub struct Started {
    /// What was there before: one for each socket.
    pub seeds: Vec<ConnectionEvent>,
    /// What began or ended while the look was taken.
    pub events: Vec<ConnectionEvent>,
    /// Whether a connection of netwatch's own came through.
    pub self_test: SelfTest,
    /// What could not be seen.
    pub notes: Vec<Note>,
}

/// Runs until it is dropped, which detaches the probes.
pub struct Agent {
    kernel: Kernel,
    records: Records,
    tables: Tables,
    healer: Healer,
}

/// How long to wait for the records of the self-test.
const SELF_TEST_PATIENCE: Duration = Duration::from_secs(2);

impl Agent {
    /// Loads, attaches, looks, merges.
    ///
    /// # Errors
    /// Where the kernel side cannot run or the host cannot be looked at.
    pub fn start(options: &Options) -> Result<(Self, Started), AgentError> {
        let mut kernel = Kernel::load(options)?;
        kernel.attach(Phase::Processes)?;
        let processes = ProcessTable::of(&processes::all()?);
        kernel.attach(Phase::Sockets)?;
        let mut records = Records { ring: kernel.take_records()?, taken: 0, bytes: 0, undecodable: 0 };
        let test = self_test::perform();
        let lister = lister(kernel.iterators());
        let HostLook { sockets, processes: holders, mut notes } = HostLook::take(lister.as_deref())?;
        notes.extend(foreign_pids());

        let mut early = records.until(now()?);
        let deadline = Instant::now() + SELF_TEST_PATIENCE;
        while test.is_unfinished(&early, kernel.coverage()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
            early.extend(records.until(now()?));
        }
        let self_test = test.finish(&mut early, kernel.coverage());

        let mut tables = Tables {
            tracker: Tracker::new(options.all_states),
            flows: kernel.take_flows()?,
            processes,
            loss: 0,
            doubted: false,
            idle: options.udp_idle,
            idle_looked: Instant::now(),
            started_on_sockets: Vec::new(),
        };
        let mut started = Started { seeds: Vec::new(), events: Vec::new(), self_test, notes };
        // Holders are named as they were when the look saw them hold; the early records' processes as they
        // were when the probes came, and from there on as the records say.
        tables.tracker.merge(
            now()?,
            &sockets,
            Occasion::Start,
            &begun(&early),
            &ProcessTable::of(&holders),
            &mut started.seeds,
        );
        tables.processes.learn_stdio(&holders);
        for record in early {
            tables.apply(&record, &mut started.events);
        }
        let healer = Healer::new(kernel.take_lost()?, lister);
        Ok((Self { kernel, records, tables, healer }, started))
    }

    /// What is attached.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        self.kernel.coverage()
    }

    /// A descriptor that becomes readable when there are records.
    ///
    /// # Errors
    /// Where no descriptor is to be had.
    pub fn readiness(&self) -> io::Result<OwnedFd> {
        self.records.ring.as_fd().try_clone_to_owned()
    }

    /// How many records were taken in so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.records.taken
    }

    /// Takes in `most` records at the most, and appends what there is to tell. False when there are no
    /// more.
    pub fn take(&mut self, most: usize, out: &mut Vec<ConnectionEvent>) -> bool {
        for _ in 0..most {
            let Some(record) = self.records.next() else { return false };
            self.tables.apply(&record, out);
        }
        true
    }

    /// Processes that were started on a network socket (stdin, stdout or stderr) since the last call, as they were
    /// right after their exec.
    pub fn started_on_sockets(&mut self) -> Vec<Arc<Process>> {
        std::mem::take(&mut self.tables.started_on_sockets)
    }

    /// The last of it: what is to be told when nothing more will be taken in, and what was lost.
    ///
    /// # Errors
    /// Where the clock cannot be read.
    pub fn finish(mut self, out: &mut Vec<ConnectionEvent>) -> Result<Vec<Loss>, AgentError> {
        let now = now()?;
        for record in self.records.until(now) {
            self.tables.apply(&record, out);
        }
        // Nothing is waited for any more.
        self.tables.tracker.settle(u64::MAX, out);
        // By this a test holds the kernel side to what it may send (tests/tests/e2e/cost.rs).
        log::debug!("{} records, {} bytes", self.records.taken, self.records.bytes);
        Ok(self.healer.last_losses(&mut self.records.undecodable))
    }

    /// To be called several times a second: returns what was lost since the last call, and heals. What
    /// healing finds is appended to `out`, to be told after the losses.
    ///
    /// # Errors
    /// Where a look at the host failed; it is tried again.
    pub fn tick(&mut self, out: &mut Vec<ConnectionEvent>) -> Result<Vec<Loss>, AgentError> {
        #[cfg(debug_assertions)]
        self.kernel.flush_lines();
        let losses = self.healer.losses_if_due(&mut self.records.undecodable, self.records.taken);
        if !losses.is_empty() {
            self.tables.doubt();
        }
        self.tables.settle(now()?, out);
        if self.healer.start_look() {
            self.tables.begin_look();
        }
        if let Some(look) = self.healer.finished() {
            let look = look?;
            // What happened before the end of the look has to be known when it is compared.
            for record in self.records.until(now()?) {
                self.tables.apply(&record, out);
            }
            self.tables.repair(now()?, &look, out);
        }
        Ok(losses)
    }
}

/// One look at the host, nothing attached: what is open now as seeds, what could not be seen, and when the look began,
/// nanoseconds since boot.
///
/// # Errors
/// Where the host cannot be looked at.
pub fn look() -> Result<(Vec<ConnectionEvent>, Vec<Note>, u64), AgentError> {
    let HostLook { sockets, processes, notes } = HostLook::take(iterators().ok().as_deref())?;
    let mut seeds = Vec::new();
    let processes = ProcessTable::of(&processes);
    Tracker::new(false).merge(now()?, &sockets, Occasion::Start, &Set::default(), &processes, &mut seeds);
    Ok((seeds, notes, sockets.began))
}

/// The kernel's iterators, loaded by themselves.
///
/// # Errors
/// Why they cannot be had, or not be used.
pub fn iterators() -> Result<Arc<dyn Lister>, KernelError> {
    let iterators = Iterators::alone().inspect_err(|error| log::info!("{error}"))?;
    lister(Some(iterators)).ok_or(KernelError::ForeignPids)
}

/// The iterators number processes as the initial namespace does: of no use where `/proc` does not.
fn lister(iterators: Option<Iterators>) -> Option<Arc<dyn Lister>> {
    let iterators = iterators.filter(|_| foreign_pids().is_none())?;
    Some(Arc::new(iterators))
}

/// Inode number of the initial pid namespace: include/linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// The kernel side numbers processes as the initial namespace does, `/proc` as its own mount's.
fn foreign_pids() -> Option<Note> {
    let own = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let text = "netwatch runs in a pid namespace of its own: processes that begin from now on are named by \
                the pids of the initial one; run it there";
    (own.as_os_str() != INITIAL_PID_NAMESPACE).then(|| Note { netns: None, text: text.into() })
}

/// Flows are looked through for idle ones this often, or more often where that is not enough.
const IDLE_LOOKS: Duration = Duration::from_secs(10);

/// How many such looks there are within the time after which a flow is idle.
const LOOKS_WHILE_IDLE: u32 = 4;

/// Nanoseconds since boot, suspension included: the records' clock.
fn now() -> io::Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_BOOTTIME)?;
    let nanoseconds = i128::from(now.tv_sec()) * 1_000_000_000 + i128::from(now.tv_nsec());
    u64::try_from(nanoseconds).map_err(io::Error::other)
}

/// The ring, decoded.
struct Records {
    ring: RingBuf<MapData>,
    /// Since the start.
    taken: u64,
    /// Those of these, without what the ring itself adds.
    bytes: u64,
    /// Records that made no sense, since last told.
    undecodable: u64,
}

impl Records {
    fn next(&mut self) -> Option<Record> {
        loop {
            let record = self.ring.next()?;
            let decoded = decode(&record);
            self.taken += 1;
            self.bytes += record.len() as u64;
            match decoded {
                Ok(record) => return Some(record),
                Err(error) => {
                    log::debug!("{error}");
                    self.undecodable += 1;
                }
            }
        }
    }

    /// All that happened before `end`, nanoseconds since boot: under a flood the ring is never empty.
    fn until(&mut self, end: u64) -> Vec<Record> {
        let mut records = Vec::new();
        while let Some(record) = self.next() {
            let at = record.at;
            records.push(record);
            if at >= end {
                break;
            }
        }
        records
    }
}

/// Cookies of the sockets whose first record among `records` is their beginning.
fn begun(records: &[Record]) -> Set<u64> {
    let mut seen = Set::default();
    let mut begun = Set::default();
    for record in records {
        let Event::Socket(event) = &record.event else { continue };
        if seen.insert(event.socket.cookie) && begins(event) {
            begun.insert(event.socket.cookie);
        }
    }
    begun
}

fn begins(event: &SocketEvent) -> bool {
    match &event.act {
        Act::Connect(_) | Act::Listen(_) | Act::Refused { .. } | Act::Born(_) => true,
        // With the cookie of its listener, perhaps, which began long before.
        Act::Change(_) if event.socket.via == Some(Via::Mptcp) => false,
        // A child of a listener; the first of these comes only where every transition is asked for.
        Act::Change(change) => matches!(
            (change.old, change.new),
            (State::Listen, State::SynRecv | State::Established) | (State::SynRecv, State::Established)
        ),
        Act::Accept(_) | Act::Use(_) | Act::Datagram { .. } | Act::Release => false,
    }
}

/// Connections and processes, kept by records.
struct Tables {
    tracker: Tracker,
    flows: FlowTable,
    processes: ProcessTable,
    /// See [`Record::loss`].
    loss: u32,
    /// Something was lost since the look in progress began.
    doubted: bool,
    /// After so long without a datagram a flow is over.
    idle: Duration,
    /// When flows were last looked through for idle ones.
    idle_looked: Instant,
    /// See [`Agent::started_on_sockets`]; no more than [`MOST_STARTED`].
    started_on_sockets: Vec<Arc<Process>>,
}

/// Of a caller who does not ask for them.
const MOST_STARTED: usize = 4096;

impl Tables {
    fn apply(&mut self, record: &Record, out: &mut Vec<ConnectionEvent>) {
        if record.loss != self.loss {
            self.loss = record.loss;
            self.doubt();
        }
        match &record.event {
            Event::Process(event) => self.process(record.at, event),
            Event::Socket(event) => {
                if let Some(task) = event.act.task() {
                    self.look_at(task.key, &task.comm);
                }
                if event.act == Act::Release {
                    self.count_flows(event.socket.cookie);
                }
                self.tracker.apply(record.at, event, &mut self.processes, out);
            }
        }
    }

    fn process(&mut self, at: u64, event: &ProcessEvent) {
        if let ProcessEvent::Fork(fork) = event {
            // A child is born with the name of who forked it.
            self.look_at(fork.parent, &fork.task.comm);
        }
        self.processes.apply(at, event);
        match event {
            // /proc has the path as readers see it, and the numbers that stat(2) would give.
            ProcessEvent::Exec(exec) => {
                let (exe, _, file) = processes::exe(exec.task.key.pid);
                self.processes.confirm_exe(exec.task.key, exe, file);
                if exec.stdio != [0; 3] && self.started_on_sockets.len() < MOST_STARTED {
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
    fn look_at(&mut self, key: ProcessKey, comm: &Name) {
        if self.processes.wants_look(key)
            && let Some(row) = processes::one(key.pid)
            && row.key == key
        {
            self.processes.learn_named(&row, &comm.text());
        }
    }

    /// The socket is closed: takes what passed on each of its flows out of the kernel's table.
    fn count_flows(&mut self, cookie: u64) {
        for (key, remote) in self.tracker.flows_of(cookie) {
            if let Some(bytes) = self.flows.take(cookie, remote) {
                self.tracker.count(key, bytes);
            }
        }
    }

    /// Tells UDP flows that wait for nothing any more, and ends those on which nothing passes any more.
    fn settle(&mut self, now: u64, out: &mut Vec<ConnectionEvent>) {
        self.tracker.settle(now, out);
        if self.idle_looked.elapsed() < IDLE_LOOKS.min(self.idle / LOOKS_WHILE_IDLE) {
            return;
        }
        self.idle_looked = Instant::now();
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
    }

    fn doubt(&mut self) {
        self.tracker.doubt();
        self.processes.doubt();
        self.doubted = true;
    }

    fn begin_look(&mut self) {
        self.tracker.begin_look();
        self.doubted = false;
    }

    fn repair(&mut self, at: u64, look: &HostLook, out: &mut Vec<ConnectionEvent>) {
        self.processes.learn(&look.processes, look.sockets.began);
        self.processes.keep_only(&look.processes, look.sockets.began);
        self.tracker.merge(at, &look.sockets, Occasion::Loss, &Set::default(), &self.processes, out);
        if self.doubted {
            // Another look is due already.
            self.tracker.doubt();
        }
    }
}
