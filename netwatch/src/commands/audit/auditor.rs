//! State of `audit --watch`, and how it follows the event stream.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::io::{self, BufWriter, Stdout, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;

use super::beside::Beside;
use crate::audit::baseline::Baseline;
use crate::audit::facts::Facts;
use crate::audit::views::{Disagreement, View, What};
use crate::audit::{Code, Finding, Port, Report, Severity, judge};
use crate::bus::Receiver;
use crate::engine::complain;
use crate::inventory::Inventory;
use crate::limits;
use crate::loss::LossReason;
use crate::model::{NetnsId, Proto};
use crate::output::audit::Writer;
use crate::stream::Item;
use crate::tracker::{ConnectionEvent, Endpoint, EndpointId, EventKind};

/// How often to check whether a running pass is done.
const TICK: Duration = Duration::from_millis(50);

/// What to audit, and which findings set the exit status.
pub(super) struct Scope {
    /// Ports and findings that are accepted.
    pub(super) known: Option<Baseline>,
    /// Only this network namespace.
    pub(super) only: Option<NetnsId>,
    /// The least severity that sets the exit status.
    pub(super) fail_on: Severity,
}

pub(super) struct Auditor {
    /// `None` while the thread of a pass has it.
    inventory: Option<Inventory>,
    /// Judges the listeners that events report.
    beside: Beside,
    known: Arc<Option<Baseline>>,
    writer: Writer,
    out: BufWriter<Stdout>,
    only: Option<NetnsId>,
    fail_on: Severity,
    every: Duration,
    /// Start of the last pass.
    pass_began: Instant,
    pass: Option<mpsc::Receiver<Pass>>,
    /// What was reported, and when. Nothing is reported again while it persists.
    reported: HashMap<String, Instant>,
    /// The listeners known from events.
    live: BTreeMap<(u64, u64), Endpoint>,
    /// Listeners of `live` that the last pass did not show.
    missing: HashSet<(u64, u64)>,
    is_first: bool,
    is_bad: Arc<AtomicBool>,
}

fn key(id: EndpointId) -> (u64, u64) {
    (id.cookie, id.began.nanos())
}

/// The inventory, returned, with the result of a pass.
type Pass = (Inventory, Result<(Report, Facts)>);

/// A key that is stable across passes.
fn of_port(port: &Port) -> String {
    let server = &port.server;
    let program = server.program().map(|program| program.actor.process.key.coarse());
    format!("{:?} {} {} {program:?}", server.proto, server.netns, server.local)
}

fn of_finding(finding: &Finding) -> String {
    let place = &finding.place;
    let program = place.program.as_ref().map(|program| program.actor.process.key.coarse());
    format!("{:?} {:?} {:?} {program:?}", finding.code, place.local, place.netns)
}

/// What is reported after the first report: unexplained ports and findings. Unknown originators are left out: they are
/// connections from before netwatch started.
fn news(report: &Report) -> (impl Iterator<Item = &Port>, impl Iterator<Item = &Finding>) {
    let is_news = |finding: &&Finding| !finding.is_listed && finding.code != Code::UnknownOriginator;
    (report.ports.iter().filter(|port| !port.is_explained()), report.findings.iter().filter(is_news))
}

impl Auditor {
    pub(super) fn new(
        inventory: Inventory,
        writer: Writer,
        scope: Scope,
        every: Duration,
        is_bad: Arc<AtomicBool>,
    ) -> Result<Self> {
        let Scope { known, only, fail_on } = scope;
        let known = Arc::new(known);
        Ok(Self {
            inventory: Some(inventory),
            beside: Beside::start(known.clone())?,
            known,
            writer,
            out: BufWriter::new(io::stdout()),
            only,
            fail_on,
            every,
            pass_began: Instant::now(),
            pass: None,
            reported: HashMap::new(),
            live: BTreeMap::new(),
            missing: HashSet::new(),
            is_first: true,
            is_bad,
        })
    }

    fn start_pass(&mut self) -> Result<()> {
        let Some(mut inventory) = self.inventory.take() else { return Ok(()) };
        let (sender, receiver) = channel();
        let known = self.known.clone();
        let work = move || {
            let facts = inventory.facts();
            let judged = facts.map(|facts| (judge(&facts, Option::as_ref(&known)), facts));
            // The receiver may have been dropped.
            let _ = sender.send((inventory, judged));
        };
        self.pass_began = Instant::now();
        self.pass = Some(receiver);
        // On failure the inventory is lost with the closure, so the run cannot continue.
        std::thread::Builder::new()
            .name("netwatch-pass".into())
            .spawn(work)
            .context("cannot start a thread")?;
        Ok(())
    }

    /// Takes the result of the running pass, if it is done.
    fn finish_pass(&mut self) -> Result<()> {
        let Some(pass) = &self.pass else { return Ok(()) };
        match pass.try_recv() {
            Ok(pass) => self.take_in(pass),
            Err(TryRecvError::Empty) => Ok(()),
            Err(TryRecvError::Disconnected) => bail!("the thread of the pass panicked"),
        }
    }

    fn take_in(&mut self, (inventory, judged): Pass) -> Result<()> {
        (self.inventory, self.pass) = (Some(inventory), None);
        let (mut report, facts) = match judged {
            Ok(judged) => judged,
            Err(error) => {
                complain(&format!("a pass over the host failed and will be retried: {error:#}"));
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
            self.reported.extend(ports.map(of_port).chain(findings.map(of_finding)).map(|key| (key, now)));
            return Ok(self.writer.report(&report, &mut self.out)?);
        }
        self.report_new(&report)?;
        // What disappears and returns is reported again. What was reported since the pass began may be missing from it.
        let (ports, findings) = news(&report);
        let standing: HashSet<String> = ports.map(of_port).chain(findings.map(of_finding)).collect();
        let began = self.pass_began;
        self.reported.retain(|key, at| *at >= began || standing.contains(key));
        Ok(())
    }

    /// Listeners that are known from events, and that no view showed in this pass or the one before. Namespaces that
    /// were not listed completely are skipped.
    fn hidden(&mut self, facts: &Facts) -> Vec<Disagreement> {
        let shown: HashSet<_> =
            facts.servers.iter().map(|server| (server.netns, server.proto, server.local)).collect();
        let missing: HashSet<(u64, u64)> = self
            .live
            .iter()
            .filter(|(_, endpoint)| {
                self.only.is_none_or(|only| only == endpoint.netns) && facts.whole.contains(&endpoint.netns)
            })
            .filter(|(_, endpoint)| {
                !shown.contains(&(endpoint.netns, endpoint.proto, endpoint.local)) && endpoint.local.port != 0
            })
            .map(|(key, _)| *key)
            .collect();
        let standing = missing.intersection(&self.missing).filter_map(|key| self.live.get(key));
        let standing = standing.map(|endpoint| hidden_listener(endpoint, &facts.views)).collect();
        self.missing = missing;
        standing
    }

    fn report_new(&mut self, report: &Report) -> Result<()> {
        let (ports, findings) = news(report);
        for port in ports {
            if self.is_new(of_port(port)) {
                self.writer.port(port, Timestamp::now(), &mut self.out)?;
            }
        }
        for finding in findings {
            if self.is_new(of_finding(finding)) {
                self.writer.finding(finding, Timestamp::now(), &mut self.out)?;
            }
        }
        Ok(())
    }

    /// Marks the key as reported; returns whether it is new.
    fn is_new(&mut self, key: String) -> bool {
        self.reported.insert(key, Instant::now()).is_none()
    }

    fn note_whether_bad(&self, report: &Report) {
        if report.is_bad(self.fail_on) {
            self.is_bad.store(true, Ordering::Relaxed);
        }
    }

    /// Reports the listeners that were judged by their events.
    fn report_judged(&mut self) -> Result<()> {
        for report in self.beside.judged() {
            self.note_whether_bad(&report);
            self.report_new(&report)?;
        }
        Ok(())
    }

    /// Waits for the running pass, so that even a short run completes one audit.
    fn last(&mut self) -> Result<()> {
        if let Some(pass) = self.pass.take() {
            match pass.recv_timeout(limits::AUDIT_WAIT) {
                Ok(pass) => self.take_in(pass)?,
                Err(RecvTimeoutError::Timeout) => {
                    complain(
                        "the last pass over the host did not finish in time; its result is not reported",
                    );
                }
                Err(RecvTimeoutError::Disconnected) => bail!("the thread of the pass panicked"),
            }
        }
        for report in self.beside.last(limits::AUDIT_WAIT) {
            self.note_whether_bad(&report);
            self.report_new(&report)?;
        }
        Ok(())
    }
}

fn hidden_listener(endpoint: &Endpoint, views: &[View]) -> Disagreement {
    let local = (endpoint.local.ip, endpoint.local.port);
    Disagreement {
        what: What::Socket { netns: endpoint.netns, proto: endpoint.proto, inode: endpoint.inode, local },
        shown_by: vec![View::Live],
        hidden_by: views.to_vec(),
        program: None,
    }
}

impl Auditor {
    /// Audits until the stream ends.
    pub(super) fn run(&mut self, receiver: &Receiver) -> Result<()> {
        loop {
            let gathered = receiver.gather(1, Duration::ZERO, TICK);
            for batch in gathered.batches {
                batch.items.iter().try_for_each(|item| self.take(item, receiver))?;
                receiver.release(batch.items.len());
            }
            self.finish_pass()?;
            self.report_judged()?;
            if gathered.is_over {
                self.last()?;
                return Ok(self.out.flush()?);
            }
            if self.pass.is_none() && self.pass_began.elapsed() >= self.every {
                self.start_pass()?;
            }
            self.out.flush()?;
        }
    }

    fn take(&mut self, item: &Item, receiver: &Receiver) -> Result<()> {
        match item {
            Item::Ready(_) => self.start_pass()?,
            Item::Event(event) => self.event(event),
            Item::Loss(_, loss) => {
                complain(&format!(
                    "lost {} records; listeners that started meanwhile are seen by the next pass",
                    loss.count()
                ));
                if loss.reason == LossReason::Stdout {
                    // Events for this thread were dropped, so `live` is incomplete.
                    receiver.request_table();
                }
            }
            Item::Table(events) => {
                let is_listener = |event: &&ConnectionEvent| {
                    event.endpoint.remote.is_none() && event.endpoint.proto == Proto::Tcp
                };
                let listeners = events.iter().filter(is_listener);
                self.live = listeners.map(|event| (key(event.endpoint.id), event.endpoint.clone())).collect();
            }
            Item::Process(..) | Item::Exec(..) | Item::Alert(_) => {}
        }
        Ok(())
    }

    fn event(&mut self, event: &ConnectionEvent) {
        let endpoint = &event.endpoint;
        if endpoint.remote.is_some() {
            return;
        }
        match event.kind {
            EventKind::Listen => {
                let is_selected = self.only.is_none_or(|only| only == endpoint.netns);
                if is_selected && endpoint.local.port != 0 && !self.beside.listens(endpoint) {
                    complain("too many listeners start at once; the rest is judged by the next pass");
                }
                self.live.insert(key(endpoint.id), endpoint.clone());
            }
            EventKind::Seed => _ = self.live.insert(key(endpoint.id), endpoint.clone()),
            EventKind::Unlisten => _ = self.live.remove(&key(endpoint.id)),
            _ => {}
        }
    }
}
