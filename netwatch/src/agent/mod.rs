//! The agent: the kernel side's records and looks at the host, brought together in the tables of
//! processes and connections.
//!
//! Order matters at the start: attach, then look, then merge, then the records that came meanwhile. The
//! other order loses what begins in between, or takes it for older than it is.

mod heal;
mod self_test;
mod tables;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use thiserror::Error;

use crate::clock;
use crate::decode::{Act, Event, Record, SocketEvent, decode};
use crate::hash::Set;
use crate::kernel::{Coverage, Iterators, Kernel, KernelError, Options, Phase};
use crate::loss::Loss;
use crate::model::{BootTime, Cookie, Lister, State, Via};
use crate::process::{Process, ProcessTable};
use crate::snapshot::{HostSnapshot, Mptcp, Note, SnapshotError, processes};
use crate::tracker::{ConnectionEvent, Occasion, Tracker};
use heal::Healer;
use tables::Tables;

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
        let HostSnapshot { sockets, processes: holders, mut notes } =
            HostSnapshot::take(lister.as_deref(), Mptcp::Whole)?.with_stdio();
        notes.extend(foreign_pids());

        let mut early = records.until(clock::since_boot()?);
        let deadline = Instant::now() + SELF_TEST_PATIENCE;
        while test.is_unfinished(&early, kernel.coverage()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
            early.extend(records.until(clock::since_boot()?));
        }
        let self_test = test.finish(&mut early, kernel.coverage());

        let mut tables =
            Tables::new(Tracker::new(options.all_states), processes, kernel.take_flows()?, options.udp_idle);
        let mut started = Started { seeds: Vec::new(), events: Vec::new(), self_test, notes };
        // Holders are named as they were when the look saw them hold; the early records' processes as they
        // were when the probes came, and from there on as the records say.
        tables.tracker.merge(
            clock::since_boot()?,
            &sockets,
            Occasion::Start,
            &begun(&early),
            &ProcessTable::of(&holders),
            &mut started.seeds,
        );
        if !kernel.coverage().has("listen") {
            tables.tracker.expect_no_ports();
        }
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
        self.tables.started_on_sockets()
    }

    /// Every endpoint that is there now, as an event each.
    #[must_use]
    pub fn table(&self) -> Vec<ConnectionEvent> {
        self.tables.tracker.table()
    }

    /// The last of it: what is to be told when nothing more will be taken in, and what was lost.
    ///
    /// # Errors
    /// Where the clock cannot be read.
    pub fn finish(mut self, out: &mut Vec<ConnectionEvent>) -> Result<Vec<Loss>, AgentError> {
        let now = clock::since_boot()?;
        for record in self.records.until(now) {
            self.tables.apply(&record, out);
        }
        // Nothing is waited for any more.
        self.tables.tracker.settle(BootTime::END, out);
        // By this a test holds the kernel side to what it may send (tests/tests/e2e/cost.rs).
        log::debug!("{} records, {} bytes", self.records.taken, self.records.bytes);
        Ok(self.healer.last_losses(&mut self.records.undecodable))
    }

    /// Whether a loss is yet to be made up for, which takes several ticks.
    #[must_use]
    pub fn is_healing(&self) -> bool {
        self.healer.is_at_work()
    }

    /// To be called several times a second while something happens, or [`Agent::is_healing`]: returns what was lost since the last call, and heals. What
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
        let lost = self.tables.settle(clock::since_boot()?, out);
        self.healer.lost_ports(lost);
        if self.healer.start_snapshot() {
            self.tables.begin_snapshot();
        }
        if let Some(snapshot) = self.healer.finished() {
            let snapshot = snapshot?;
            // What happened before the end of the look has to be known when it is compared.
            for record in self.records.until(clock::since_boot()?) {
                self.tables.apply(&record, out);
            }
            self.tables.repair(clock::since_boot()?, &snapshot, out);
        }
        Ok(losses)
    }
}

/// A snapshot of the host with nothing attached, taken in by a tracker: what is open now, as seeds; what could not be seen;
/// and when the snapshot began.
///
/// # Errors
/// Where no snapshot can be taken.
pub fn snapshot() -> Result<(Vec<ConnectionEvent>, Vec<Note>, BootTime), AgentError> {
    let HostSnapshot { sockets, processes, notes } =
        HostSnapshot::take(iterators().ok().as_deref(), Mptcp::Whole)?.with_stdio();
    let mut seeds = Vec::new();
    let processes = ProcessTable::of(&processes);
    Tracker::new(false).merge(
        clock::since_boot()?,
        &sockets,
        Occasion::Start,
        &Set::default(),
        &processes,
        &mut seeds,
    );
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

    /// All that happened before `end`: under a flood the ring is never empty.
    fn until(&mut self, end: BootTime) -> Vec<Record> {
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
fn begun(records: &[Record]) -> Set<Cookie> {
    let mut seen = Set::default();
    let mut begun = Set::default();
    for record in records {
        let Event::Socket(event) = &record.event else { continue };
        if let Some(cookie) = event.socket.cookie
            && seen.insert(cookie)
            && begins(event)
        {
            begun.insert(cookie);
        }
    }
    begun
}

fn begins(event: &SocketEvent) -> bool {
    match &event.act {
        Act::Connect(_) | Act::Listen(_) | Act::Fail { .. } | Act::Born(_) => true,
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
