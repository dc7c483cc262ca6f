//! The agent: keeps the tables of processes and connections, from records of the kernel side and snapshots of the host.
//!
//! The order of the start matters: attach, take a snapshot, merge it, apply the records that arrived meanwhile. If the
//! snapshot came first, endpoints that begin before the probes are attached would be missed.

mod heal;
mod name;
mod precedence;
mod progress;
mod self_test;
mod tables;
mod translate;

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use aya::maps::{MapData, RingBuf};
use thiserror::Error;

use crate::clock;
use crate::conntrack;
use crate::decode::{Act, Event, Record, SocketEvent, decode};
use crate::hash::Set;
use crate::kernel::{Coverage, Iterators, Kernel, KernelError, Options, Phase, Sabotage};
use crate::loss::Loss;
use crate::model::{BootTime, Cookie, Lister, State, Via};
use crate::process::{Process, ProcessTable};
use crate::snapshot::{CgroupPaths, HostSnapshot, Mptcp, Note, SnapshotError, processes};
use crate::tracker::{ConnectionEvent, Occasion, Tracker};
use heal::Healer;
use precedence::Precedence;
use progress::Progress;
use tables::Tables;

pub use self_test::SelfTest;

/// Why the agent cannot start or continue.
#[derive(Debug, Error)]
pub enum AgentError {
    /// The kernel side failed.
    #[error(transparent)]
    Kernel(#[from] KernelError),
    /// No snapshot can be taken.
    #[error(transparent)]
    Snapshot(#[from] SnapshotError),
    /// A system call of the agent failed.
    #[error("cannot read the clock or the ring")]
    Io(#[from] io::Error),
}

/// The result of a start.
#[derive(Debug)]
pub struct Started {
    /// Sockets that existed before, one event each.
    pub seeds: Vec<ConnectionEvent>,
    /// Events from while the snapshot was taken.
    pub events: Vec<ConnectionEvent>,
    /// Result of the self-test.
    pub self_test: SelfTest,
    /// Notes about what could not be read.
    pub notes: Vec<Note>,
}

/// The running agent. Dropping it detaches the probes.
pub struct Agent {
    kernel: Kernel,
    records: Records,
    tables: Tables,
    healer: Healer,
}

/// Time limit for the records of the self-test.
const SELF_TEST_PATIENCE: Duration = Duration::from_secs(2);

impl Agent {
    /// Loads and attaches the kernel side, takes a snapshot and merges it.
    ///
    /// # Errors
    /// If the kernel side cannot run or no snapshot can be taken.
    pub fn start(options: &Options) -> Result<(Self, Started), AgentError> {
        // Whatever is missing without it would be named instead.
        std::fs::metadata("/proc/self").map_err(|source| SnapshotError::Proc { path: "/proc", source })?;
        let progress = Progress::begin();
        let precedence = Precedence::take();
        let attaching = |job: &str| progress.step(format!("attaching the probes of `{job}`"));
        progress.step("loading the BPF programs");
        let mut kernel = Kernel::load(options)?;
        kernel.attach(Phase::Processes, attaching)?;
        progress.step("reading the processes in /proc");
        let mut processes = processes::all()?;
        kernel.attach(Phase::Sockets, attaching)?;
        progress.step("making a test connection");
        let mut records = Records { ring: kernel.take_records()?, taken: 0, bytes: 0, undecodable: 0 };
        let test = self_test::perform();
        progress.step("taking a snapshot of sockets and processes");
        let lister = lister(kernel.iterators());
        let HostSnapshot { sockets, processes: holders, mut notes } = take_snapshot(lister.as_deref())?;
        notes.extend(foreign_pids());
        processes::set_exact(&mut processes, holders.iter().map(|row| row.key));

        progress.step("waiting for the records of the test connection");
        let mut early = records.until(clock::since_boot()?);
        let deadline = Instant::now() + SELF_TEST_PATIENCE;
        while test.is_unfinished(&early, kernel.coverage()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
            early.extend(records.until(clock::since_boot()?));
        }
        let self_test = test.finish(&mut early, kernel.coverage());
        kernel.sabotage_maps();

        progress.step("merging the snapshot");
        let tracker = Tracker::new(options.all_states);
        let cgroups = kernel.cgroup_root().and_then(CgroupPaths::of);
        let processes = ProcessTable::of(&processes);
        let mut tables = Tables::new(tracker, processes, cgroups, kernel.take_flows()?, options.udp_idle);
        let mut started = Started { seeds: Vec::new(), events: Vec::new(), self_test, notes };
        // Holders are named as they were in the snapshot. Processes of early records are named as they were when the
        // probes were attached, and from then on as records say.
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
        let fails = options.sabotage.is_some_and(Sabotage::fails_snapshot);
        let healer = Healer::new(kernel.take_lost()?, lister, fails);
        drop(precedence);
        Ok((Self { kernel, records, tables, healer }, started))
    }

    /// The probes that are attached.
    #[must_use]
    pub fn coverage(&self) -> &Coverage {
        self.kernel.coverage()
    }

    /// A descriptor that becomes readable when there are records.
    ///
    /// # Errors
    /// If the descriptor cannot be duplicated.
    pub fn readiness(&self) -> io::Result<OwnedFd> {
        self.records.ring.as_fd().try_clone_to_owned()
    }

    /// Number of records that were read so far.
    #[must_use]
    pub fn taken(&self) -> u64 {
        self.records.taken
    }

    /// Applies at most `most` records and appends the resulting events to `out`. Returns false if the ring is empty.
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

    /// From now on programs that are executed are kept for [`Agent::executed`].
    pub fn note_executed(&mut self) {
        self.tables.note_executed();
    }

    /// Programs that were executed since the last call, as they were right after their exec, and the number of those
    /// that were too many.
    pub fn executed(&mut self) -> (Vec<(BootTime, Arc<Process>)>, u64) {
        self.tables.executed()
    }

    /// All current endpoints, one event each.
    #[must_use]
    pub fn table(&self) -> Vec<ConnectionEvent> {
        self.tables.tracker.table()
    }

    /// Ends the run: applies the remaining records, emits the events that were held back, and returns the last losses.
    ///
    /// # Errors
    /// If the clock cannot be read.
    pub fn finish(mut self, out: &mut Vec<ConnectionEvent>) -> Result<Vec<Loss>, AgentError> {
        let now = clock::since_boot()?;
        for record in self.records.until(now) {
            self.tables.apply(&record, out);
        }
        // No further records arrive, so nothing is held back.
        self.tables.tracker.settle(BootTime::END, out);
        // tests/tests/e2e/cost.rs reads this line to check the limit on records.
        log::debug!("{} records, {} bytes", self.records.taken, self.records.bytes);
        Ok(self.healer.last_losses(&mut self.records.undecodable))
    }

    /// Whether a repair after a loss is due or in progress. It takes several ticks.
    #[must_use]
    pub fn is_healing(&self) -> bool {
        self.healer.is_at_work()
    }

    /// Returns the losses since the last call, and repairs the tables. Events of a repair are appended to `out`, to be
    /// emitted after the losses. To be called several times a second while records arrive or [`Agent::is_healing`]. The
    /// error is that of a snapshot, which is tried again; the losses are reported all the same.
    pub fn tick(&mut self, out: &mut Vec<ConnectionEvent>) -> (Vec<Loss>, Result<(), AgentError>) {
        #[cfg(debug_assertions)]
        self.kernel.flush_lines();
        let losses = self.healer.losses_if_due(&mut self.records.undecodable, self.records.taken);
        let mut losses: Vec<_> =
            losses.into_iter().map(|(loss, doubt)| self.tables.note_loss(loss, doubt)).collect();
        losses.extend(self.tables.left_out());
        let repaired = self.repair(out);
        (losses, repaired)
    }

    /// Takes the steps of a repair that are due.
    fn repair(&mut self, out: &mut Vec<ConnectionEvent>) -> Result<(), AgentError> {
        let lost = self.tables.settle(clock::since_boot()?, out);
        self.healer.lost_ports(lost);
        if self.healer.start_snapshot() {
            self.tables.begin_snapshot();
        }
        if let Some(snapshot) = self.healer.finished() {
            let snapshot = snapshot?;
            // All records from before the end of the snapshot must be applied before the comparison.
            for record in self.records.until(clock::since_boot()?) {
                self.tables.apply(&record, out);
            }
            self.tables.repair(clock::since_boot()?, &snapshot, out);
        }
        Ok(())
    }
}

/// Takes a snapshot without attaching probes. Returns the open sockets as seeds, notes about what could not be read,
/// and when the snapshot began.
///
/// # Errors
/// If no snapshot can be taken.
pub fn snapshot() -> Result<(Vec<ConnectionEvent>, Vec<Note>, BootTime), AgentError> {
    let HostSnapshot { sockets, processes, notes } = take_snapshot(iterators().ok().as_deref())?;
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

/// Sockets with their translations, and processes with their standard streams.
fn take_snapshot(lister: Option<&dyn Lister>) -> Result<HostSnapshot, SnapshotError> {
    let mut snapshot = HostSnapshot::take(lister, Mptcp::Whole)?.with_stdio();
    conntrack::Translations::read().complete(&mut snapshot.sockets.sockets);
    Ok(snapshot)
}

/// Loads the kernel's iterators without the probes.
///
/// # Errors
/// If they cannot be loaded, or number processes otherwise than `/proc`.
pub fn iterators() -> Result<Arc<dyn Lister>, KernelError> {
    let iterators = Iterators::alone().inspect_err(|error| log::info!("{error}"))?;
    lister(Some(iterators)).ok_or(KernelError::ForeignPids)
}

/// The iterators use pids of the initial namespace, so they are not used if `/proc` has others.
fn lister(iterators: Option<Iterators>) -> Option<Arc<dyn Lister>> {
    let iterators = iterators.filter(|_| foreign_pids().is_none())?;
    Some(Arc::new(iterators))
}

/// Inode number of the initial pid namespace: include/linux/proc_ns.h.
const INITIAL_PID_NAMESPACE: &str = "pid:[4026531836]";

/// A note if netwatch is not in the initial pid namespace: the kernel side uses its pids, `/proc` those of its mount.
fn foreign_pids() -> Option<Note> {
    let own = std::fs::read_link("/proc/self/ns/pid").ok()?;
    let text = "netwatch runs in a pid namespace of its own: processes that begin from now on are named by \
                the pids of the initial one; run it there";
    (own.as_os_str() != INITIAL_PID_NAMESPACE).then(|| Note { netns: None, text: text.into(), hides: false })
}

/// Decoded records of the ring.
struct Records {
    ring: RingBuf<MapData>,
    /// Number of records since the start.
    taken: u64,
    /// Their length, without the headers that the ring adds.
    bytes: u64,
    /// Number of records that could not be decoded since the last report.
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

    /// Records from before `end`. Without a limit this might not end, since under load the ring is never empty.
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

/// Cookies of sockets that begin in `records`.
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
        // It may have the cookie of its listener, which is older.
        Act::Change(_) if event.socket.via == Some(Via::Mptcp) => false,
        // A child of a listener. The first of these is sent only if all transitions were requested.
        Act::Change(change) => matches!(
            (change.old, change.new),
            (State::Listen, State::SynRecv | State::Established) | (State::SynRecv, State::Established)
        ),
        Act::Accept(_) | Act::Use(_) | Act::Sent(_) | Act::Datagram { .. } | Act::Release => false,
    }
}
