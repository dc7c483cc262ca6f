//! One object a line, with the keys of the contract in its order.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::{RawValue, to_raw_value};

use super::process::ProcessObjects;
use super::{Line, Ready, Spell};
use crate::loss::Loss;
use crate::model::{Endpoint, Family, Proto, Via};
use crate::origin::{Origin, responder};
use crate::process::Actor;
use crate::process::found::Looks;
use crate::process::signs::{self, Sign};
use crate::process::view::BootClock;
use crate::services::Services;
use crate::tracker::{ClosedBy, ConnectionEvent, EndId, Party, ProcessBasis};

/// Of the lines as a whole; a key that is renamed or goes makes another.
const VERSION: u8 = 1;

pub(super) struct Json {
    processes: ProcessObjects,
    boot: String,
}

impl Json {
    /// `clock` tells when processes started.
    pub(super) fn new(clock: BootClock, looks: Looks) -> Self {
        Self { processes: ProcessObjects::new(clock, looks), boot: boot() }
    }

    /// For what happened in another boot, or by another clock.
    pub(super) fn of(clock: BootClock, boot: &str) -> Self {
        Self { processes: ProcessObjects::new(clock, Looks::default()), boot: boot.to_owned() }
    }

    /// A connection by itself: an event's object without what numbers the lines of a log.
    pub(super) fn object(&mut self, clock: BootClock, event: &ConnectionEvent) -> io::Result<Box<RawValue>> {
        let time = clock.time(event.at).map(|time| format!("{time:.9}")).unwrap_or_default();
        Ok(to_raw_value(&self.connection(None, time, event)?)?)
    }

    /// A process by itself.
    pub(super) fn process_object(&mut self, actor: &Actor) -> io::Result<Arc<RawValue>> {
        self.processes.object(actor)
    }
}

/// Tells one boot from another: cookies begin anew with each.
pub(crate) fn boot() -> String {
    let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    id.chars().filter(char::is_ascii_hexdigit).take(8).collect()
}

#[derive(Serialize)]
struct Head {
    v: u8,
    seq: u64,
    ts: String,
    event: &'static str,
}

#[derive(Serialize)]
struct ReadyLine<'a> {
    #[serde(flatten)]
    head: Head,
    coverage: CoverageView<'a>,
    seeded: usize,
}

#[derive(Serialize)]
struct CoverageView<'a> {
    probes: BTreeMap<&'a str, Option<&'a str>>,
    unseen: Vec<&'a str>,
}

#[derive(Serialize)]
struct LossLine<'a> {
    #[serde(flatten)]
    head: Head,
    count: u64,
    reason: &'static str,
    kinds: &'a BTreeMap<&'static str, u64>,
}

#[derive(Serialize)]
struct ConnectionLine<'a> {
    /// These two of a line in a log.
    #[serde(skip_serializing_if = "Option::is_none")]
    v: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seq: Option<u64>,
    ts: String,
    event: &'static str,
    id: String,
    flow: Option<String>,
    proto: Proto,
    family: Family,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    mapped: bool,
    netns: u32,
    cookie: u64,
    inode: u64,
    local: Endpoint,
    remote: Option<Endpoint>,
    service: Option<&'a str>,
    state: &'static str,
    /// `null` for a listener.
    origin: Option<Origin<Arc<RawValue>>>,
    process: Option<Arc<RawValue>>,
    process_basis: Option<ProcessBasis>,
    listener: Option<PartyView>,
    peer: Option<PartyView>,
    errno: Option<Cow<'static, str>>,
    handshake_us: Option<u64>,
    duration_us: Option<u64>,
    bytes_sent: Option<u64>,
    bytes_received: Option<u64>,
    closed_by: Option<ClosedBy>,
    #[serde(skip_serializing_if = "Option::is_none")]
    via: Option<Via>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    repaired: bool,
    /// What speaks against a listener; a process has its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    signs: Vec<Sign>,
}

#[derive(Serialize)]
struct PartyView {
    id: String,
    process: Option<Arc<RawValue>>,
}

impl Spell for Json {
    fn spell(&mut self, seq: u64, time: Timestamp, line: &Line<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        let ts = format!("{time:.9}");
        let head = |event| Head { v: VERSION, seq, ts: ts.clone(), event };
        match line {
            Line::Ready(Ready { coverage, seeded }) => {
                let probes = coverage.jobs.iter().map(|(job, covered)| (*job, covered.probe)).collect();
                let coverage = CoverageView { probes, unseen: coverage.unseen() };
                serde_json::to_writer(
                    &mut *out,
                    &ReadyLine { head: head("ready"), coverage, seeded: *seeded },
                )?;
            }
            Line::Loss(loss) => {
                let Loss { reason, kinds } = loss;
                let line = LossLine { head: head("loss"), count: loss.count(), reason: reason.name(), kinds };
                serde_json::to_writer(&mut *out, &line)?;
            }
            Line::Connection(event) => {
                let line = self.connection(Some(seq), ts, event)?;
                serde_json::to_writer(&mut *out, &line)?;
            }
        }
        out.push(b'\n');
        Ok(())
    }
}

impl Json {
    fn connection<'a>(
        &mut self,
        seq: Option<u64>,
        ts: String,
        event: &'a ConnectionEvent,
    ) -> io::Result<ConnectionLine<'a>> {
        let end = &event.end;
        let origin = match end.remote {
            Some(remote) => {
                let process = self.process(end.originator.as_ref())?;
                Some(Origin::new(end.verdict, end.local, remote, process))
            }
            None => None,
        };
        let responder = responder(end.side(), end.local, end.remote);
        Ok(ConnectionLine {
            v: seq.map(|_| VERSION),
            seq,
            ts,
            event: event.kind.name(),
            id: self.id(end.id),
            flow: end.remote.map(|_| self.id(end.flow)),
            proto: end.proto,
            family: end.family,
            mapped: end.mapped,
            netns: end.netns,
            cookie: end.cookie,
            inode: end.inode,
            local: end.local,
            remote: end.remote,
            service: responder.and_then(|end_of| Services::host().name(end.proto, end_of.port)),
            state: end.state.name(),
            origin,
            process: self.process(end.process.as_ref())?,
            process_basis: end.process_basis,
            listener: self.party(end.listener.as_ref())?,
            peer: self.party(end.peer.as_ref())?,
            errno: end.errno.map(crate::errno::name),
            handshake_us: end.handshake.map(microseconds),
            duration_us: end.duration.map(microseconds),
            bytes_sent: end.bytes.map(|bytes| bytes.sent),
            bytes_received: end.bytes.map(|bytes| bytes.received),
            closed_by: end.closed_by,
            via: end.via,
            repaired: event.repaired,
            signs: signs::of_end(end).collect(),
        })
    }

    fn id(&self, id: EndId) -> String {
        format!("{}-{id}", self.boot)
    }

    fn process(&mut self, actor: Option<&Actor>) -> io::Result<Option<Arc<RawValue>>> {
        actor.map(|actor| self.processes.object(actor)).transpose()
    }

    fn party(&mut self, party: Option<&Party>) -> io::Result<Option<PartyView>> {
        let Some(party) = party else { return Ok(None) };
        Ok(Some(PartyView { id: self.id(party.id), process: self.process(party.process.as_ref())? }))
    }
}

fn microseconds(nanoseconds: u64) -> u64 {
    nanoseconds / 1000
}
