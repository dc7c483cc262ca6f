//! One object a line, with the keys of [`super::keys`] in their order.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::value::RawValue;

use super::keys::{self, Event, Key};
use super::object::Object;
use super::process::ProcessObjects;
use super::timestamp::Second;
use super::{HostNameView, ProcessForm, Render, exe_status, time_of};
use crate::clock::BootClock;
use crate::hash::Map;
use crate::model::{Cookie, Family, Nat, ProcessKey};
use crate::origin::Origin;
use crate::process::{Actor, ExeStatus, Process};
use crate::stream::{Context, Item};
use crate::tracker::{ConnectionEvent, EndpointId, Party};
use crate::{limits, signs};

mod alerts;
mod messages;
#[cfg(test)]
mod tests;

/// Of the lines as a whole; a key that is renamed or goes makes another.
const VERSION: u8 = 1;

pub(super) struct Json {
    form: ProcessForm,
    /// Add the Community ID of each connection.
    community_id: bool,
    objects: ProcessObjects,
    /// What was last printed of each process, with [`ProcessForm::Once`].
    printed: Map<ProcessKey, Printed>,
    /// The boot of the context, escaped for the inside of a string.
    boot: String,
    /// What `objects`, `printed` and `boot` are of.
    context: Option<(Arc<str>, BootClock)>,
    second: Second,
}

struct Printed {
    process: Arc<Process>,
    status: ExeStatus,
    /// The object of its leader. Processes can differ in what is not printed, such as the id of the cgroup.
    object: Arc<RawValue>,
}

impl Json {
    pub(super) fn new(form: ProcessForm) -> Self {
        Self {
            form,
            community_id: false,
            objects: ProcessObjects::default(),
            printed: Map::default(),
            boot: String::new(),
            context: None,
            second: Second::default(),
        }
    }

    /// The same with the Community ID of each connection, if `is_wanted`.
    pub(super) fn with_community_id(self, is_wanted: bool) -> Self {
        Self { community_id: is_wanted, ..self }
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

impl Render for Json {
    fn render(&mut self, seq: &mut u64, item: &Item, context: &Context, out: &mut Vec<u8>) -> io::Result<()> {
        if matches!(item, Item::Process(..) | Item::Exec(..) | Item::Table(_)) {
            return Ok(());
        }
        self.turn_to(context);
        let time = time_of(item, context);
        if self.form == ProcessForm::Once {
            match item {
                Item::Event(event) => {
                    let roles = event.endpoint.actors().with(event.facts.exe);
                    let roles = [roles.process, roles.originator, roles.listener, roles.peer];
                    let roles = roles.into_iter().flatten();
                    let roles = roles.map(|(actor, status)| (actor, exe_status(status, &actor.process)));
                    self.print_processes(seq, time, roles, context, out)?;
                }
                Item::Alert(alert) => {
                    let process = alert.process.iter().map(|(actor, status)| (actor, *status));
                    self.print_processes(seq, time, process, context, out)?;
                }
                _ => {}
            }
        }
        *seq += 1;
        match item {
            Item::Ready(ready) => {
                let mut object = self.begin_line(*seq, time, "ready", out);
                let mut coverage = object.object(Event::Coverage);
                let probes: BTreeMap<_, _> = ready.probes.iter().copied().collect();
                coverage.value(keys::Coverage::Probes, &probes)?;
                coverage.value(keys::Coverage::Unseen, &ready.unseen)?;
                coverage.end();
                object.value(Event::Seeded, &ready.seeded)?;
                object.end();
            }
            Item::Loss(_, loss) => {
                let mut object = self.begin_line(*seq, time, "loss", out);
                object.number(Event::Count, loss.count());
                object.word(Event::Reason, loss.reason.name());
                if !loss.sockets.is_empty() {
                    object.array(Event::Sockets, &loss.sockets, |socket, out| {
                        let mut object = Object::begin(out);
                        object.number(keys::LossOfSocket::Cookie, socket.cookie.get());
                        object.value(keys::LossOfSocket::Process, &socket.process)?;
                        object.option_text(keys::LossOfSocket::Comm, socket.comm.as_deref());
                        object.number(keys::LossOfSocket::Count, socket.count);
                        object.end();
                        Ok(())
                    })?;
                }
                object.value(Event::Kinds, &loss.kinds)?;
                object.end();
            }
            Item::Alert(alert) => self.alert(*seq, time, alert, context, out)?,
            Item::Event(event) => self.connection(Some(*seq), Some(time), event, context, out)?,
            Item::Process(..) | Item::Exec(..) | Item::Table(_) => {}
        }
        out.push(b'\n');
        Ok(())
    }
}

impl Json {
    /// The keys that every line begins with.
    fn begin_line<'a>(
        &mut self,
        seq: u64,
        time: Timestamp,
        kind: &'static str,
        out: &'a mut Vec<u8>,
    ) -> Object<'a, Event> {
        let mut object = Object::begin(out);
        object.number(Event::V, VERSION);
        object.number(Event::Seq, seq);
        object.string(Event::Ts, |out| self.second.write(time, out));
        object.word(Event::Kind, kind);
        object
    }

    /// An event for each of the processes whose object was not printed before, or has changed since.
    fn print_processes<'a>(
        &mut self,
        seq: &mut u64,
        time: Timestamp,
        actors: impl Iterator<Item = (&'a Actor, ExeStatus)>,
        context: &Context,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        for (actor, status) in actors {
            let key = actor.process.key;
            let is_known = |printed: &Printed| {
                let same = Arc::ptr_eq(&printed.process, &actor.process) || printed.process == actor.process;
                printed.status == status && same
            };
            if self.printed.get(&key).is_some_and(is_known) {
                continue;
            }
            if self.printed.len() >= limits::MOST_PRINTED {
                self.printed.clear();
            }
            let process = actor.process.clone();
            let object = self.objects.object(&Actor::leader(process.clone()), status, context)?;
            let before = self.printed.insert(key, Printed { process, status, object: object.clone() });
            if before.is_some_and(|before| before.object.get() == object.get()) {
                continue;
            }
            *seq += 1;
            let process = self.objects.object(actor, status, context)?;
            let mut object = self.begin_line(*seq, time, "process", out);
            object.raw(Event::OneProcess, &process);
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
            object.number(Event::V, VERSION);
            object.number(Event::Seq, seq);
        }
        object.string(Event::Ts, |out| {
            if let Some(time) = time {
                self.second.write(time, out);
            }
        });
        object.word(Event::Kind, event.kind.name());
        object.string(Event::Id, |out| self.id(endpoint.id, out));
        match endpoint.remote {
            Some(_) => object.string(Event::Flow, |out| self.id(endpoint.flow, out)),
            None => object.null(Event::Flow),
        }
        object.word(Event::Proto, endpoint.proto.name());
        object.word(Event::Family, if endpoint.family == Family::Ipv4 { "ipv4" } else { "ipv6" });
        if endpoint.mapped {
            object.value(Event::Mapped, &true)?;
        }
        object.number(Event::Netns, endpoint.netns.number());
        object.number(Event::Cookie, Cookie::number(endpoint.cookie));
        object.number(Event::Inode, endpoint.inode);
        object.endpoint(Event::Local, Some(endpoint.local))?;
        object.endpoint(Event::Remote, endpoint.remote)?;
        if let (Some(device), Some(name)) = (endpoint.device, event.facts.device) {
            if device.is_bound() {
                object.option_text(Event::Device, Some(name.as_str()));
            }
            if endpoint.scope().is_some() {
                object.option_text(Event::Scope, Some(name.as_str()));
            }
        }
        object.value(Event::Service, &event.facts.service)?;
        object.word(Event::State, endpoint.state.name());
        match endpoint.remote {
            Some(remote) => {
                let origin =
                    Origin::new(endpoint.verdict, endpoint.local, remote, endpoint.originator.as_ref());
                let mut object = object.object(Event::Origin);
                object.word(keys::Origin::Side, origin.side.name());
                object.word(keys::Origin::Basis, origin.basis.name());
                object.word(keys::Origin::Confidence, origin.confidence.name());
                object.endpoint(keys::Origin::Endpoint, origin.endpoint)?;
                self.process(keys::Origin::Process, origin.process, exe.originator, context, &mut object)?;
                object.word(keys::Origin::PortRule, origin.port_rule.name());
                object.end();
            }
            // Nobody began a listener.
            None => object.null(Event::Origin),
        }
        self.process(Event::Process, endpoint.process.as_ref(), exe.process, context, &mut object)?;
        object.value(Event::ProcessBasis, &endpoint.process_basis)?;
        self.party(Event::Listener, endpoint.listener.as_deref(), exe.listener, context, &mut object)?;
        self.party(Event::Peer, endpoint.peer.as_ref(), exe.peer, context, &mut object)?;
        let outcome = &event.outcome;
        object.value(Event::Errno, &outcome.errno.map(crate::errno::name))?;
        object.option(Event::HandshakeUs, endpoint.handshake.map(|handshake| microseconds(handshake.get())));
        object.option(Event::DurationUs, outcome.duration.map(microseconds));
        object.option(Event::BytesSent, outcome.bytes.map(|bytes| bytes.sent));
        object.option(Event::BytesReceived, outcome.bytes.map(|bytes| bytes.received));
        object.value(Event::ClosedBy, &outcome.closed_by)?;
        if let Some(via) = endpoint.via {
            object.word(Event::Via, via.name());
        }
        match (&endpoint.nat, endpoint.remote) {
            (Nat::Unknown, _) | (_, None) => {}
            (Nat::None, Some(_)) => object.null(Event::Nat),
            (Nat::Translated(seen), Some(_)) => {
                let mut object = object.object(Event::Nat);
                object.endpoint(keys::Nat::Local, Some(seen.local))?;
                object.endpoint(keys::Nat::Remote, Some(seen.remote))?;
                object.word(keys::Nat::Basis, Nat::BASIS);
                object.end();
            }
        }
        for (key, name) in
            [(Event::RemoteName, endpoint.names.remote()), (Event::LocalName, endpoint.names.local())]
        {
            if let Some(name) = name {
                object.value(key, &HostNameView::new(name, endpoint.id.began))?;
            }
        }
        if self.community_id
            && let Some(id) = super::community::id(endpoint)
        {
            object.option_text(Event::CommunityId, Some(&id));
        }
        messages::write(endpoint.cause.messages(), context.clock, &mut object)?;
        if event.repaired {
            object.value(Event::Repaired, &true)?;
        }
        // What speaks against a listener; a process has its own.
        let signs: Vec<_> = signs::of_end(endpoint).collect();
        if !signs.is_empty() {
            object.value(Event::Signs, &signs)?;
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

    fn process<K: Key>(
        &mut self,
        key: K,
        actor: Option<&Actor>,
        status: Option<ExeStatus>,
        context: &Context,
        object: &mut Object<'_, K>,
    ) -> io::Result<()> {
        match actor {
            Some(actor) if self.form == ProcessForm::Full => {
                let status = exe_status(status, &actor.process);
                object.raw(key, &self.objects.object(actor, status, context)?);
            }
            Some(actor) => object.value(key, &actor.process.key)?,
            None => object.null(key),
        }
        Ok(())
    }

    fn party(
        &mut self,
        key: Event,
        party: Option<&Party>,
        status: Option<ExeStatus>,
        context: &Context,
        object: &mut Object<'_, Event>,
    ) -> io::Result<()> {
        let Some(party) = party else {
            object.null(key);
            return Ok(());
        };
        let mut object = object.object(key);
        object.string(keys::Party::Id, |out| self.id(party.id, out));
        self.process(keys::Party::Process, party.process.as_ref(), status, context, &mut object)?;
        object.end();
        Ok(())
    }
}

fn microseconds(nanoseconds: u64) -> u64 {
    nanoseconds / 1000
}
