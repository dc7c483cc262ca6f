//! The audit that goes on: a socket that begins to listen is judged by its own event, since it may be gone by the
//! next pass over the whole host, which is made now and then.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use super::Watch;
use super::beside::Beside;
use crate::agent::Agent;
use crate::audit::baseline::Baseline;
use crate::audit::facts::Facts;
use crate::audit::views::{Disagreement, View, What};
use crate::audit::{Code, Finding, Port, Report, Severity, judge};
use crate::commands::follow::{self, FinishError, Listener, complain};
use crate::commands::verify::FOUND;
use crate::inventory::Inventory;
use crate::loss::Loss;
use crate::model::{BootTime, Proto};
use crate::output::audit::Writer;
use crate::output::{Sink, SinkError};
use crate::process::Process;
use crate::tracker::{ConnectionEvent, End, EndId, Kind};

/// Runs until it is told to stop.
///
/// # Errors
/// Where the probes cannot be had, or the output fails.
pub(super) fn run(
    watch: Watch,
    inventory: Inventory,
    known: Option<Baseline>,
    writer: Writer,
    only: Option<u32>,
    fail_on: Severity,
) -> Result<ExitCode> {
    let is_bad = Arc::new(AtomicBool::new(false));
    let known = Arc::new(known);
    let Watch { kernel, duration, every } = watch;
    let listener = || {
        Ok(Auditor {
            inventory: Some(inventory),
            beside: Beside::start(known.clone())?,
            known: known.clone(),
            writer,
            sink: Sink::new(io::stdout())?,
            only,
            fail_on,
            every,
            pass_began: Instant::now(),
            pass: None,
            told: HashMap::new(),
            live: BTreeMap::new(),
            missing: HashSet::new(),
            missed: 0,
            is_first: true,
            is_bad: is_bad.clone(),
        })
    };
    let ended = follow::run(&kernel, true, duration, listener)?;
    Ok(if is_bad.load(Ordering::Relaxed) { ExitCode::from(FOUND) } else { ended })
}

/// How long the end of the run waits for a pass that is under way: a portmapper and a disk may take some seconds.
const LAST_PATIENCE: Duration = Duration::from_secs(10);

struct Auditor {
    /// On loan to the thread that makes a pass over the host, while it does.
    inventory: Option<Inventory>,
    /// Judges what events tell.
    beside: Beside,
    known: Arc<Option<Baseline>>,
    writer: Writer,
    sink: Sink,
    only: Option<u32>,
    fail_on: Severity,
    every: Duration,
    /// When the last pass began.
    pass_began: Instant,
    pass: Option<Receiver<Pass>>,
    /// What was told, and when: nothing is told again for as long as it stands.
    told: HashMap<String, Instant>,
    /// What listens, by the events.
    live: BTreeMap<(u64, BootTime), End>,
    /// What the last pass did not show of it.
    missing: HashSet<(u64, BootTime)>,
    /// Lines that the reader was too slow for.
    missed: u64,
    is_first: bool,
    is_bad: Arc<AtomicBool>,
}

fn key(id: EndId) -> (u64, BootTime) {
    (id.cookie, id.began)
}

/// The inventory, and what it found.
type Pass = (Inventory, Result<(Report, Facts)>);

/// By which a port is known again.
fn of_port(port: &Port) -> String {
    let server = &port.server;
    let program = server.program().map(|program| program.actor.process.key);
    format!("{:?} {} {} {program:?}", server.proto, server.netns, server.local)
}

fn of_finding(finding: &Finding) -> String {
    let place = &finding.place;
    let program = place.program.as_ref().map(|program| program.actor.process.key);
    format!("{:?} {:?} {:?} {program:?}", finding.code, place.local, place.netns)
}

/// What is told after the first report: all that is bad. Of connections from before netwatch nothing new is to be said.
fn news(report: &Report) -> (impl Iterator<Item = &Port>, impl Iterator<Item = &Finding>) {
    let is_news = |finding: &&Finding| !finding.is_listed && finding.code != Code::UnknownOriginator;
    (report.ports.iter().filter(|port| !port.is_explained()), report.findings.iter().filter(is_news))
}

impl Auditor {
    fn start_pass(&mut self) -> Result<()> {
        let Some(mut inventory) = self.inventory.take() else { return Ok(()) };
        let (sender, receiver) = channel();
        let known = self.known.clone();
        let work = move || {
            let facts = inventory.facts();
            let judged = facts.map(|facts| (judge(&facts, Option::as_ref(&known)), facts));
            // Whoever asked may be gone.
            let _ = sender.send((inventory, judged));
        };
        self.pass_began = Instant::now();
        self.pass = Some(receiver);
        // Where there is none the inventory went with it, so nothing more can be gathered.
        std::thread::Builder::new()
            .name("netwatch-audit".into())
            .spawn(work)
            .context("cannot start a thread")?;
        Ok(())
    }

    /// Takes in the pass that is under way, if it is done.
    fn finish_pass(&mut self) -> Result<()> {
        let Some(pass) = &self.pass else { return Ok(()) };
        match pass.try_recv() {
            Ok(pass) => self.take_in(pass),
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => bail!("the thread that looks at the host panicked"),
        }
    }

    fn take_in(&mut self, (inventory, judged): Pass) -> Result<()> {
        (self.inventory, self.pass) = (Some(inventory), None);
        let (mut report, facts) = match judged {
            Ok(judged) => judged,
            Err(error) => {
                complain(&format!("a look at the host failed, it will be tried again: {error:#}"));
                return Ok(());
            }
        };
        let hidden = self.hidden(&facts);
        self.beside.gathered(facts.port_ranges);
        if !hidden.is_empty() {
            let facts = Facts { disagreements: hidden, ..Facts::default() };
            let more = judge(&facts, Option::as_ref(&self.known));
            report.findings.splice(0..0, more.findings);
        }
        self.note_whether_bad(&report);
        if std::mem::take(&mut self.is_first) {
            let (ports, findings) = news(&report);
            let now = Instant::now();
            self.told.extend(ports.map(of_port).chain(findings.map(of_finding)).map(|key| (key, now)));
            return Ok(self.writer.report(&report, self.sink.buffer())?);
        }
        self.tell_new(&report)?;
        // What went away and comes back is news again. What was told since the pass began, the pass need not have.
        let (ports, findings) = news(&report);
        let standing: HashSet<String> = ports.map(of_port).chain(findings.map(of_finding)).collect();
        let began = self.pass_began;
        self.told.retain(|key, told| *told >= began || standing.contains(key));
        Ok(())
    }

    /// Listeners that the events told of, and that no view showed in this pass nor in the one before. Of a namespace that
    /// was not seen whole nothing is said.
    fn hidden(&mut self, facts: &Facts) -> Vec<Disagreement> {
        let shown: HashSet<_> =
            facts.servers.iter().map(|server| (server.netns, server.proto, server.local)).collect();
        let missing: HashSet<(u64, BootTime)> = self
            .live
            .iter()
            .filter(|(_, end)| {
                self.only.is_none_or(|only| only == end.netns) && facts.whole.contains(&end.netns)
            })
            .filter(|(_, end)| !shown.contains(&(end.netns, end.proto, end.local)) && end.local.port != 0)
            .map(|(key, _)| *key)
            .collect();
        let standing = missing.intersection(&self.missing).filter_map(|key| self.live.get(key));
        let standing = standing.map(|end| hidden_listener(end, &facts.views)).collect();
        self.missing = missing;
        standing
    }

    fn tell_new(&mut self, report: &Report) -> Result<()> {
        let (ports, findings) = news(report);
        for port in ports {
            if self.is_to_be_told(of_port(port)) {
                self.writer.port(port, Timestamp::now(), self.sink.buffer())?;
            }
        }
        for finding in findings {
            if self.is_to_be_told(of_finding(finding)) {
                self.writer.finding(finding, Timestamp::now(), self.sink.buffer())?;
            }
        }
        Ok(())
    }

    /// Notes what is new; counts it where there is no room for a line.
    fn is_to_be_told(&mut self, key: String) -> bool {
        if self.told.insert(key, Instant::now()).is_some() {
            return false;
        }
        let has_room = self.sink.has_room();
        self.missed += u64::from(!has_room);
        has_room
    }

    fn note_whether_bad(&self, report: &Report) {
        if report.is_bad(self.fail_on) {
            self.is_bad.store(true, Ordering::Relaxed);
        }
    }

    /// Tells what was judged beside.
    fn tell_judged(&mut self) -> Result<()> {
        for report in self.beside.judged() {
            self.note_whether_bad(&report);
            self.tell_new(&report)?;
        }
        Ok(())
    }

    /// What is under way is waited for, so that a short run is an audit too.
    fn last(&mut self) -> Result<()> {
        if let Some(pass) = self.pass.take() {
            match pass.recv_timeout(LAST_PATIENCE) {
                Ok(pass) => self.take_in(pass)?,
                Err(RecvTimeoutError::Timeout) => {
                    complain("the last look at the host did not end: it is left out");
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the thread that looks at the host panicked"),
            }
        }
        for report in self.beside.last(LAST_PATIENCE) {
            self.note_whether_bad(&report);
            self.tell_new(&report)?;
        }
        Ok(())
    }
}

fn hidden_listener(end: &End, views: &[View]) -> Disagreement {
    let local = (end.local.ip, end.local.port);
    Disagreement {
        what: What::Socket { netns: end.netns, proto: end.proto, inode: end.inode, local },
        shown_by: vec![View::Live],
        hidden_by: views.to_vec(),
        program: None,
    }
}

impl Listener for Auditor {
    fn ready(&mut self, _: &Agent, _: usize) -> Result<()> {
        self.start_pass()
    }

    fn tell(&mut self, events: &mut Vec<ConnectionEvent>) -> Result<()> {
        for event in events.drain(..) {
            let end = &event.end;
            // A datagram socket begins to take anybody's datagrams without a record: the next pass sees it.
            if end.remote.is_some() || end.proto != Proto::Tcp {
                continue;
            }
            match event.kind {
                Kind::Seed => _ = self.live.insert(key(end.id), event.end),
                Kind::Listen => {
                    let is_meant = self.only.is_none_or(|only| only == end.netns);
                    if is_meant && end.local.port != 0 && !self.beside.listens(end) {
                        complain("too much begins to listen at once: the rest is judged at the next look");
                    }
                    self.live.insert(key(end.id), event.end);
                }
                Kind::Unlisten => _ = self.live.remove(&key(end.id)),
                _ => {}
            }
        }
        self.tell_judged()?;
        self.sink.flush();
        Ok(())
    }

    fn started(&mut self, _: Vec<Arc<Process>>) {}

    fn lost(&mut self, losses: &[Loss]) -> Result<()> {
        for loss in losses {
            complain(&format!(
                "{} records were lost: what began to listen then is seen at the next look",
                loss.count()
            ));
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<()> {
        self.finish_pass()?;
        self.tell_judged()?;
        if self.sink.has_room() && self.missed > 0 {
            complain(&format!(
                "{} lines are missing: the reader was too slow",
                std::mem::take(&mut self.missed)
            ));
        }
        if self.pass.is_none() && self.pass_began.elapsed() >= self.every {
            self.start_pass()?;
        }
        self.sink.flush();
        Ok(())
    }

    fn is_full(&self) -> bool {
        false
    }

    async fn attend(&mut self) -> SinkError {
        self.sink.attend().await
    }

    fn finish(mut self) -> Result<(), FinishError> {
        self.last().map_err(FinishError::Other)?;
        self.sink.finish().map_err(FinishError::Sink)
    }
}
