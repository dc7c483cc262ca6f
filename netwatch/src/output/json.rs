//! One object a line, with the keys of the contract in its order.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;

use super::object::Object;
use super::process::ProcessObjects;
use super::{ProcessForm, Render, exe_status, time_of};
use crate::clock::BootClock;
use crate::hash::Map;
use crate::loss::Loss;
use crate::model::{Cookie, Family, ProcessKey};
use crate::origin::Origin;
use crate::process::{Actor, ExeStatus, Process};
use crate::signs;
use crate::stream::{Context, Item, Ready};
use crate::tracker::{ConnectionEvent, EndpointId, Party};

/// Of the lines as a whole; a key that is renamed or goes makes another.
const VERSION: u8 = 1;

/// Processes whose objects have been printed, with [`ProcessForm::Once`]. When there are more, all are printed again.
const MOST_PRINTED: usize = 65_536;

pub(super) struct Json {
    form: ProcessForm,
    objects: ProcessObjects,
    /// The object last printed for each process, with [`ProcessForm::Once`].
    printed: Map<ProcessKey, (Arc<Process>, ExeStatus)>,
    /// The boot of the context, escaped for the inside of a string.
    boot: String,
    /// What `objects`, `printed` and `boot` are of.
    context: Option<(Arc<str>, BootClock)>,
    second: Second,
}

impl Json {
    pub(super) fn new(form: ProcessForm) -> Self {
        Self {
            form,
            objects: ProcessObjects::default(),
            printed: Map::default(),
            boot: String::new(),
            context: None,
            second: Second::default(),
        }
    }

    /// A connection by itself: an event's object without what numbers the lines of a log.
    pub(super) fn object(&mut self, context: &Context, event: &ConnectionEvent) -> io::Result<Box<RawValue>> {
        self.turn_to(context);
        let mut out = Vec::new();
        self.connection(None, context.clock.time(event.at), event, context, &mut out)?;
        let text = String::from_utf8(out).map_err(io::Error::other)?;
        Ok(RawValue::from_string(text)?)
    }

    /// A process by itself.
    pub(super) fn process_object(&mut self, context: &Context, actor: &Actor) -> io::Result<Arc<RawValue>> {
        self.turn_to(context);
        self.objects.object(actor, actor.process.exe_status(), context)
    }

    /// What comes is of this boot, and process starts are by this clock.
    fn turn_to(&mut self, context: &Context) {
        let is_same = |(boot, clock): &(Arc<str>, BootClock)| {
            (Arc::ptr_eq(boot, &context.boot) || *boot == context.boot) && *clock == context.run_clock
        };
        if self.context.as_ref().is_some_and(is_same) {
            return;
        }
        // A store may have been given any text for it.
        let quoted = serde_json::Value::from(&*context.boot).to_string();
        self.boot = quoted.get(1..quoted.len() - 1).unwrap_or_default().to_owned();
        self.context = Some((context.boot.clone(), context.run_clock));
        self.objects.clear();
        self.printed.clear();
    }
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
    unseen: &'a [&'a str],
}

#[derive(Serialize)]
struct LossLine<'a> {
    #[serde(flatten)]
    head: Head,
    count: u64,
    reason: &'static str,
    kinds: &'a BTreeMap<&'static str, u64>,
}

/// The second of the line before, as it is spelled, for the next: most are of the same.
#[derive(Default)]
struct Second {
    since_epoch: Option<i64>,
    /// `2026-11-25T23:10:19.`
    text: String,
}

impl Second {
    fn write(&mut self, time: Timestamp, out: &mut Vec<u8>) {
        const FRACTION: usize = "123456789Z".len();
        // Before 1970 the fraction counts down.
        let fraction = u32::try_from(time.subsec_nanosecond()).ok().filter(|_| time.as_second() >= 0);
        let same = self.since_epoch == Some(time.as_second());
        if !same || fraction.is_none() {
            self.text.clear();
            // Writing to a String cannot fail.
            let _ = write!(self.text, "{time:.9}");
            out.extend_from_slice(self.text.as_bytes());
            self.text.truncate(self.text.len().saturating_sub(FRACTION));
            self.since_epoch = fraction.map(|_| time.as_second());
            return;
        }
        out.extend_from_slice(self.text.as_bytes());
        let mut digits = *b"000000000";
        let mut rest = fraction.unwrap_or(0);
        for digit in digits.iter_mut().rev() {
            *digit = b'0' + (rest % 10) as u8;
            rest /= 10;
        }
        out.extend_from_slice(&digits);
        out.push(b'Z');
    }
}

impl Render for Json {
    fn render(&mut self, seq: &mut u64, item: &Item, context: &Context, out: &mut Vec<u8>) -> io::Result<()> {
        if matches!(item, Item::Process(..) | Item::Table(_)) {
            return Ok(());
        }
        self.turn_to(context);
        let time = time_of(item, context);
        if let Item::Event(event) = item
            && self.form == ProcessForm::Once
        {
            self.print_processes(seq, time, event, context, out)?;
        }
        *seq += 1;
        let head = |event| Head { v: VERSION, seq: *seq, ts: format!("{time:.9}"), event };
        match item {
            Item::Ready(Ready { probes, unseen, seeded }) => {
                let coverage = CoverageView { probes: probes.iter().copied().collect(), unseen };
                serde_json::to_writer(
                    &mut *out,
                    &ReadyLine { head: head("ready"), coverage, seeded: *seeded },
                )?;
            }
            Item::Loss(_, loss) => {
                let Loss { reason, kinds } = loss;
                let line = LossLine { head: head("loss"), count: loss.count(), reason: reason.name(), kinds };
                serde_json::to_writer(&mut *out, &line)?;
            }
            Item::Event(event) => self.connection(Some(*seq), Some(time), event, context, out)?,
            Item::Process(..) | Item::Table(_) => {}
        }
        out.push(b'\n');
        Ok(())
    }
}

impl Json {
    /// An event for each process of `event` whose object was not printed before, or has changed since.
    fn print_processes(
        &mut self,
        seq: &mut u64,
        time: Timestamp,
        event: &ConnectionEvent,
        context: &Context,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let roles = event.endpoint.actors().with(event.facts.exe);
        let roles = [roles.process, roles.originator, roles.listener, roles.peer];
        for (actor, status) in roles.into_iter().flatten() {
            let (key, status) = (actor.process.key, exe_status(status, &actor.process));
            let is_known = |(process, then): &(Arc<Process>, ExeStatus)| {
                *then == status && (Arc::ptr_eq(process, &actor.process) || *process == actor.process)
            };
            if self.printed.get(&key).is_some_and(is_known) {
                continue;
            }
            if self.printed.len() >= MOST_PRINTED {
                self.printed.clear();
            }
            self.printed.insert(key, (actor.process.clone(), status));
            *seq += 1;
            let mut object = Object::begin(out);
            object.number("v", VERSION);
            object.number("seq", *seq);
            object.string("ts", |out| self.second.write(time, out));
            object.word("event", "process");
            object.raw("process", &self.objects.object(actor, status, context)?);
            object.end();
            out.push(b'\n');
        }
        Ok(())
    }

    /// `seq`: of a line in a log.
    fn connection(
        &mut self,
        seq: Option<u64>,
        time: Option<Timestamp>,
        event: &ConnectionEvent,
        context: &Context,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        let endpoint = &event.endpoint;
        let exe = event.facts.exe;
        let mut object = Object::begin(out);
        if let Some(seq) = seq {
            object.number("v", VERSION);
            object.number("seq", seq);
        }
        object.string("ts", |out| {
            if let Some(time) = time {
                self.second.write(time, out);
            }
        });
        object.word("event", event.kind.name());
        object.string("id", |out| self.id(endpoint.id, out));
        match endpoint.remote {
            Some(_) => object.string("flow", |out| self.id(endpoint.flow, out)),
            None => object.null("flow"),
        }
        object.word("proto", endpoint.proto.name());
        object.word("family", if endpoint.family == Family::Ipv4 { "ipv4" } else { "ipv6" });
        if endpoint.mapped {
            object.value("mapped", &true)?;
        }
        object.number("netns", endpoint.netns.number());
        object.number("cookie", Cookie::number(endpoint.cookie));
        object.number("inode", endpoint.inode);
        object.endpoint("local", Some(endpoint.local))?;
        object.endpoint("remote", endpoint.remote)?;
        object.value("service", &event.facts.service)?;
        object.word("state", endpoint.state.name());
        match endpoint.remote {
            Some(remote) => {
                let origin =
                    Origin::new(endpoint.verdict, endpoint.local, remote, endpoint.originator.as_ref());
                let mut object = object.object("origin");
                object.word("side", origin.side.name());
                object.word("basis", origin.basis.name());
                object.word("confidence", origin.confidence.name());
                object.endpoint("endpoint", origin.endpoint)?;
                self.process(origin.process, exe.originator, context, &mut object)?;
                object.word("port_rule", origin.port_rule.name());
                object.end();
            }
            // Nobody began a listener.
            None => object.null("origin"),
        }
        self.process(endpoint.process.as_ref(), exe.process, context, &mut object)?;
        object.value("process_basis", &endpoint.process_basis)?;
        self.party("listener", endpoint.listener.as_deref(), exe.listener, context, &mut object)?;
        self.party("peer", endpoint.peer.as_ref(), exe.peer, context, &mut object)?;
        let outcome = &event.outcome;
        object.value("errno", &outcome.errno.map(crate::errno::name))?;
        object.option("handshake_us", endpoint.handshake.map(|handshake| microseconds(handshake.get())));
        object.option("duration_us", outcome.duration.map(microseconds));
        object.option("bytes_sent", outcome.bytes.map(|bytes| bytes.sent));
        object.option("bytes_received", outcome.bytes.map(|bytes| bytes.received));
        object.value("closed_by", &outcome.closed_by)?;
        if let Some(via) = endpoint.via {
            object.word("via", via.name());
        }
        if event.repaired {
            object.value("repaired", &true)?;
        }
        // What speaks against a listener; a process has its own.
        let signs: Vec<_> = signs::of_end(endpoint).collect();
        if !signs.is_empty() {
            object.value("signs", &signs)?;
        }
        object.end();
        Ok(())
    }

    fn id(&self, id: EndpointId, out: &mut Vec<u8>) {
        out.extend_from_slice(self.boot.as_bytes());
        for number in [id.cookie, id.began.nanos()] {
            out.push(b'-');
            let digits = (u64::BITS - number.leading_zeros()).div_ceil(4).max(1);
            out.extend((0..digits).rev().map(|digit| match (number >> (4 * digit) & 0xf) as u8 {
                value @ 0..10 => b'0' + value,
                value => b'a' - 10 + value,
            }));
        }
    }

    fn process(
        &mut self,
        actor: Option<&Actor>,
        status: Option<ExeStatus>,
        context: &Context,
        object: &mut Object<'_>,
    ) -> io::Result<()> {
        match actor {
            Some(actor) if self.form == ProcessForm::Full => {
                let status = exe_status(status, &actor.process);
                object.raw("process", &self.objects.object(actor, status, context)?);
            }
            Some(actor) => object.value("process", &actor.process.key)?,
            None => object.null("process"),
        }
        Ok(())
    }

    fn party(
        &mut self,
        key: &'static str,
        party: Option<&Party>,
        status: Option<ExeStatus>,
        context: &Context,
        object: &mut Object<'_>,
    ) -> io::Result<()> {
        let Some(party) = party else {
            object.null(key);
            return Ok(());
        };
        let mut object = object.object(key);
        object.string("id", |out| self.id(party.id, out));
        self.process(party.process.as_ref(), status, context, &mut object)?;
        object.end();
        Ok(())
    }
}

fn microseconds(nanoseconds: u64) -> u64 {
    nanoseconds / 1000
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nine_digits_whatever_was_spelled_before() {
        let mut second = Second::default();
        for nanoseconds in [
            1_764_112_219_428_632_001,
            1_764_112_219_000_000_000,
            1_764_112_219_999_999_999,
            1_764_112_220_000_000_007,
            -1,
            0,
            1,
            -1_500_000_000,
            i128::from(i64::MAX),
        ] {
            let time = Timestamp::from_nanosecond(nanoseconds).unwrap();
            let mut out = Vec::new();
            second.write(time, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("{time:.9}"));
        }
    }

    #[test]
    fn an_id_is_spelled_as_it_is_printed_elsewhere() {
        let mut json = Json::new(ProcessForm::Full);
        json.turn_to(&Context { boot: "a\"\n".into(), ..Context::of_run("").unwrap() });
        for id in [(0, 0), (1, 15), (16, u64::MAX), (0x00ab_cdef_0123, 1 << 60)] {
            let id = EndpointId { cookie: id.0, began: crate::model::BootTime::from_nanos(id.1) };
            let mut out = Vec::new();
            json.id(id, &mut out);
            assert_eq!(String::from_utf8(out).unwrap(), format!("a\\\"\\n-{id}"));
        }
    }
}
