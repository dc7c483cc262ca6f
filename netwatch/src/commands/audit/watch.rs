//! The audit that goes on: a socket that begins to listen is judged by its own event, since it may be gone at the next
//! look; the host as a whole is looked at again now and then.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, TryRecvError, channel};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use jiff::Timestamp;

use super::gather::Gatherer;
use super::programs::Programs;
use super::{Watch, Writer};
use crate::agent::Agent;
use crate::audit::baseline::Baseline;
use crate::audit::facts::{Facts, Server};
use crate::audit::views::{Disagreement, View, What};
use crate::audit::{Finding, Port, Report, Severity, judge};
use crate::commands::follow::{self, FinishError, Listener, complain};
use crate::commands::verify::FOUND;
use crate::hash::Map;
use crate::loss::Loss;
use crate::model::Proto;
use crate::output::{Sink, SinkError};
use crate::process::Process;
use crate::services::Services;
use crate::tracker::{ConnectionEvent, End, EndId, Kind};

/// Runs until it is told to stop.
///
/// # Errors
/// Where the probes cannot be had, or the output fails.
pub(super) fn run(
    watch: Watch,
    gatherer: Gatherer,
    known: Option<Baseline>,
    writer: Writer,
    only: Option<u32>,
    fail_on: Severity,
) -> Result<ExitCode> {
    let is_bad = Arc::new(AtomicBool::new(false));
    let Watch { kernel, duration, every } = watch;
    let listener = || {
        Ok(Auditor {
            gatherer: Some(gatherer),
            programs: Programs::default(),
            port_ranges: Map::default(),
            known: Arc::new(known),
            writer,
            sink: Sink::new(io::stdout())?,
            only,
            fail_on,
            every,
            looked: Instant::now(),
            look: None,
            told: HashSet::new(),
            live: BTreeMap::new(),
            missing: HashSet::new(),
            is_first: true,
            failure: None,
            is_bad: is_bad.clone(),
        })
    };
    let ended = follow::run(&kernel, true, duration, listener)?;
    Ok(if is_bad.load(Ordering::Relaxed) { ExitCode::from(FOUND) } else { ended })
}

struct Auditor {
    /// On loan to the thread that looks, while it does.
    gatherer: Option<Gatherer>,
    /// For what is judged meanwhile.
    programs: Programs,
    /// By namespace, as the last look found them.
    port_ranges: Map<u32, (u16, u16)>,
    known: Arc<Option<Baseline>>,
    writer: Writer,
    sink: Sink,
    only: Option<u32>,
    fail_on: Severity,
    every: Duration,
    looked: Instant,
    look: Option<Receiver<Looked>>,
    /// What was told: nothing is told twice.
    told: HashSet<String>,
    /// What listens, by the events.
    live: BTreeMap<(u64, u64), End>,
    /// What the last look did not show of it.
    missing: HashSet<(u64, u64)>,
    is_first: bool,
    failure: Option<anyhow::Error>,
    is_bad: Arc<AtomicBool>,
}

fn key(id: EndId) -> (u64, u64) {
    (id.cookie, id.began)
}

/// The gatherer, and what it found.
type Looked = (Gatherer, Result<(Report, Facts)>);

/// By which a port is known again.
fn of_port(port: &Port) -> String {
    let server = &port.server;
    let exe = server.program().map(|program| program.exe());
    format!("{:?} {} {} {exe:?}", server.proto, server.netns, server.local)
}

fn of_finding(finding: &Finding) -> String {
    let program = finding.place.program.as_ref().map(|program| program.actor.process.key);
    format!("{:?} {:?} {:?} {program:?}", finding.code, finding.place.local, finding.place.netns)
}

impl Auditor {
    fn start_look(&mut self) {
        let Some(mut gatherer) = self.gatherer.take() else { return };
        let (sender, receiver) = channel();
        let known = self.known.clone();
        let look = move || {
            let facts = gatherer.facts();
            let judged = facts.map(|facts| (judge(&facts, Option::as_ref(&known)), facts));
            // Whoever asked may be gone.
            let _ = sender.send((gatherer, judged));
        };
        self.looked = Instant::now();
        self.look = Some(receiver);
        if let Err(error) = std::thread::Builder::new().name("netwatch-audit".into()).spawn(look) {
            // The gatherer went with it, so nothing more can be looked at.
            self.failure = Some(anyhow::Error::from(error).context("cannot start a thread"));
        }
    }

    fn finish_look(&mut self) -> Result<()> {
        if let Some(failure) = self.failure.take() {
            return Err(failure);
        }
        let Some(look) = &self.look else { return Ok(()) };
        let (gatherer, judged) = match look.try_recv() {
            Ok(looked) => looked,
            Err(TryRecvError::Empty) => return Ok(()),
            Err(TryRecvError::Disconnected) => bail!("the thread that looks at the host panicked"),
        };
        (self.gatherer, self.look) = (Some(gatherer), None);
        let (mut report, facts) = match judged {
            Ok(judged) => judged,
            Err(error) => {
                complain(&format!("a look at the host failed, it will be tried again: {error:#}"));
                return Ok(());
            }
        };
        self.port_ranges.clone_from(&facts.port_ranges);
        let hidden = self.hidden(&facts);
        if !hidden.is_empty() {
            let facts = Facts { disagreements: hidden, ..Facts::default() };
            let more = judge(&facts, Option::as_ref(&self.known));
            report.findings.splice(0..0, more.findings);
        }
        self.note_whether_bad(&report);
        if std::mem::take(&mut self.is_first) {
            self.told.extend(report.ports.iter().map(of_port).chain(report.findings.iter().map(of_finding)));
            self.writer.report(&report, self.sink.buffer())?;
        } else {
            self.tell_new(&report)?;
        }
        Ok(())
    }

    /// Listeners that the events told of, and that no view showed in this look nor in the one before.
    fn hidden(&mut self, facts: &Facts) -> Vec<Disagreement> {
        let shown: HashSet<_> =
            facts.servers.iter().map(|server| (server.netns, server.proto, server.local)).collect();
        let missing: HashSet<(u64, u64)> = self
            .live
            .iter()
            .filter(|(_, end)| self.only.is_none_or(|only| only == end.netns))
            .filter(|(_, end)| !shown.contains(&(end.netns, end.proto, end.local)) && end.local.port != 0)
            .map(|(key, _)| *key)
            .collect();
        let standing =
            missing.intersection(&self.missing).filter_map(|key| self.live.get(key)).map(hidden_listener);
        let standing = standing.collect();
        self.missing = missing;
        standing
    }

    fn tell_new(&mut self, report: &Report) -> Result<()> {
        for port in report.ports.iter().filter(|port| !port.is_explained()) {
            if self.told.insert(of_port(port)) {
                self.writer.port(port, Timestamp::now(), self.sink.buffer())?;
            }
        }
        for finding in report.findings.iter().filter(|finding| !finding.is_listed) {
            if self.told.insert(of_finding(finding)) {
                self.writer.finding(finding, Timestamp::now(), self.sink.buffer())?;
            }
        }
        Ok(())
    }

    fn note_whether_bad(&self, report: &Report) {
        if report.is_bad(self.fail_on) {
            self.is_bad.store(true, Ordering::Relaxed);
        }
    }

    /// Judges a socket by the event that it listens.
    fn judge(&mut self, end: &End) -> Result<()> {
        let holders = self.programs.of(end.process.iter().map(|actor| actor.process.clone()));
        let range = self.port_ranges.get(&end.netns);
        let server = Server {
            proto: end.proto,
            local: end.local,
            v6only: false,
            netns: end.netns,
            inode: end.inode,
            uid: end.process.as_ref().map_or(0, |actor| actor.process.uid),
            service: Services::host().name(end.proto, end.local.port).map(Into::into),
            rpc: Vec::new(),
            is_ephemeral: range.is_some_and(|(low, high)| (*low..=*high).contains(&end.local.port)),
            history: None,
            holders: holders.clone(),
        };
        let facts = Facts { servers: vec![Arc::new(server)], programs: holders, ..Facts::default() };
        let report = judge(&facts, Option::as_ref(&self.known));
        self.note_whether_bad(&report);
        self.tell_new(&report)
    }
}

fn hidden_listener(end: &End) -> Disagreement {
    let local = (end.local.ip, end.local.port);
    Disagreement {
        what: What::Socket { netns: end.netns, proto: end.proto, inode: end.inode, local },
        shown_by: vec![View::Live],
        hidden_by: View::OF_SOCKETS.to_vec(),
        program: None,
    }
}

impl Listener for Auditor {
    fn ready(&mut self, _: &Agent, _: usize) -> Result<()> {
        self.start_look();
        Ok(())
    }

    fn tell(&mut self, events: &mut Vec<ConnectionEvent>) -> Result<()> {
        for event in events.drain(..) {
            let end = &event.end;
            // A datagram socket begins to take anybody's datagrams without a word: the next look sees it.
            if end.remote.is_some() || end.proto != Proto::Tcp {
                continue;
            }
            match event.kind {
                Kind::Seed => _ = self.live.insert(key(end.id), event.end),
                Kind::Listen => {
                    let is_meant = self.only.is_none_or(|only| only == end.netns);
                    if is_meant && end.local.port != 0 {
                        self.judge(end)?;
                    }
                    self.live.insert(key(end.id), event.end);
                }
                Kind::Unlisten => _ = self.live.remove(&key(end.id)),
                _ => {}
            }
        }
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
        self.finish_look()?;
        if self.look.is_none() && self.looked.elapsed() >= self.every {
            self.start_look();
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

    fn finish(self) -> Result<(), FinishError> {
        self.sink.finish().map_err(FinishError::Sink)
    }
}
