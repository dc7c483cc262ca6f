//! What an audit that goes on knows, and how it follows the stream.

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
use crate::loss::LossReason;
use crate::model::{NetnsId, Proto};
use crate::output::audit::Writer;
use crate::stream::Item;
use crate::tracker::{ConnectionEvent, Endpoint, EndpointId, EventKind};

/// How often a pass that is under way is checked for.
const TICK: Duration = Duration::from_millis(50);

/// What is audited, and what is bad.
pub(super) struct Scope {
    /// What the administrator has accepted.
    pub(super) known: Option<Baseline>,
    /// Only this network namespace.
    pub(super) only: Option<NetnsId>,
    /// Findings as bad as this count.
    pub(super) fail_on: Severity,
}

/// How long the end of the run waits for a pass that is under way: a portmapper and a disk may take some seconds.
pub(super) const LAST_PATIENCE: Duration = Duration::from_secs(10);

pub(super) struct Auditor {
    /// On loan to the thread that makes a pass over the host, while it does.
    inventory: Option<Inventory>,
    /// Judges what events tell.
    beside: Beside,
    known: Arc<Option<Baseline>>,
    writer: Writer,
    out: BufWriter<Stdout>,
    only: Option<NetnsId>,
    fail_on: Severity,
    every: Duration,
    /// When the last pass began.
    pass_began: Instant,
    pass: Option<mpsc::Receiver<Pass>>,
    /// What was reported, and when: nothing is reported again for as long as it stands.
    reported: HashMap<String, Instant>,
    /// What listens, by the events.
    live: BTreeMap<(u64, u64), Endpoint>,
    /// What the last pass did not show of it.
    missing: HashSet<(u64, u64)>,
    is_first: bool,
    is_bad: Arc<AtomicBool>,
}

fn key(id: EndpointId) -> (u64, u64) {
    (id.cookie, id.began.nanos())
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
            // Whoever asked may be gone.
            let _ = sender.send((inventory, judged));
        };
        self.pass_began = Instant::now();
        self.pass = Some(receiver);
        // Where there is none the inventory went with it, so nothing more can be gathered.
        std::thread::Builder::new()
            .name("netwatch-pass".into())
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
            self.reported.extend(ports.map(of_port).chain(findings.map(of_finding)).map(|key| (key, now)));
            return Ok(self.writer.report(&report, &mut self.out)?);
        }
        self.report_new(&report)?;
        // What went away and comes back is news again. What was told since the pass began, the pass need not have.
        let (ports, findings) = news(&report);
        let standing: HashSet<String> = ports.map(of_port).chain(findings.map(of_finding)).collect();
        let began = self.pass_began;
        self.reported.retain(|key, told| *told >= began || standing.contains(key));
        Ok(())
    }

    /// Listeners that the events told of, and that no view showed in this pass nor in the one before. Of a namespace that
    /// was not seen whole nothing is said.
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

    /// Notes what is reported; whether it is new.
    fn is_new(&mut self, key: String) -> bool {
        self.reported.insert(key, Instant::now()).is_none()
    }

    fn note_whether_bad(&self, report: &Report) {
        if report.is_bad(self.fail_on) {
            self.is_bad.store(true, Ordering::Relaxed);
        }
    }

    /// Reports what was judged beside.
    fn report_judged(&mut self) -> Result<()> {
        for report in self.beside.judged() {
            self.note_whether_bad(&report);
            self.report_new(&report)?;
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
    /// Audits until the stream is over.
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
                    "{} records were lost: what began to listen then is seen at the next look",
                    loss.count()
                ));
                if loss.reason == LossReason::Stdout {
                    // These were events for this thread: what listens is to be learnt anew.
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
            Item::Process(..) => {}
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
                let is_meant = self.only.is_none_or(|only| only == endpoint.netns);
                if is_meant && endpoint.local.port != 0 && !self.beside.listens(endpoint) {
                    complain("too much begins to listen at once: the rest is judged at the next look");
                }
                self.live.insert(key(endpoint.id), endpoint.clone());
            }
            EventKind::Seed => _ = self.live.insert(key(endpoint.id), endpoint.clone()),
            EventKind::Unlisten => _ = self.live.remove(&key(endpoint.id)),
            _ => {}
        }
    }
}
