//! Elastic Common Schema. The keys and their types are those of its published list of fields
//! (`tests/data/ecs-fields.csv`).

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Ends, Objects, asserted, before, command_line, family_name, own, protocol_name, rfc3339, technique,
    user_name, without_nulls,
};
use crate::alert::Alert;
use crate::model::SockAddr;
use crate::origin::Side;
use crate::output::community;
use crate::process::Actor;
use crate::stream::{Context, Item};
use crate::tracker::{ConnectionEvent, EventKind};
use crate::{errno, where_it_runs};

/// The version of the schema.
const VERSION: &str = "9.4.0";

pub(in crate::output) struct Ecs;

impl Objects for Ecs {
    fn objects(&mut self, seq: u64, time: Timestamp, item: &Item, context: &Context) -> Vec<Value> {
        let (about, own) = match item {
            Item::Event(event) => (about(event, time, context), own::event(event, context)),
            Item::Loss(_, loss) => (
                json!({"event": {"kind": "pipeline_error", "type": ["error"], "action": "loss"}}),
                own::loss(loss),
            ),
            Item::Ready(ready) => (
                json!({"event": {"kind": "event", "category": ["process"], "type": ["info"], "action": "ready"}}),
                own::ready(ready),
            ),
            Item::Alert(alert) => (found(alert, context), own::alert(alert, context)),
            Item::Process(..) | Item::Exec(..) | Item::Table(_) => return Vec::new(),
        };
        let mut object = json!({
            "@timestamp": rfc3339(time),
            "ecs": {"version": VERSION},
            "agent": {"type": "netwatch", "version": env!("CARGO_PKG_VERSION")},
            "host": {"boot": {"id": &*context.boot}},
            "netwatch": own,
        });
        merge(&mut object, about);
        let more = json!({"module": "netwatch", "dataset": "netwatch.event", "sequence": seq});
        merge(&mut object, json!({"event": more}));
        vec![without_nulls(object)]
    }
}

/// Adds keys, also to objects in it.
fn merge(into: &mut Value, more: Value) {
    match (into, more) {
        (Value::Object(into), Value::Object(more)) => {
            for (key, value) in more {
                merge(into.entry(key).or_insert(Value::Null), value);
            }
        }
        (into, more) => *into = more,
    }
}

fn about(event: &ConnectionEvent, time: Timestamp, context: &Context) -> Value {
    let endpoint = &event.endpoint;
    let outcome = &event.outcome;
    let ends = Ends::of(endpoint);
    let peers = match &ends {
        Some(ends) => peers(event, ends),
        // A listener answers.
        None => json!({"server": at(endpoint.local)}),
    };
    let mut related = vec![endpoint.local.ip];
    related.extend(endpoint.remote.map(|remote| remote.ip).filter(|ip| *ip != endpoint.local.ip));
    let start = outcome.duration.and_then(|duration| before(time, duration));
    let actor = endpoint.process.as_ref();
    let process = actor.map(|actor| &actor.process);
    let (kind, types, result) = categories(event.kind);
    let mut object = json!({
        "event": {
            "kind": kind,
            "category": ["network"],
            "type": types,
            "action": event.kind.name(),
            "outcome": result,
            "duration": outcome.duration,
            "start": start.map(rfc3339),
            "end": start.map(|_| rfc3339(time)),
        },
        "error": {"code": outcome.errno.map(errno::name)},
        "network": {
            "transport": protocol_name(endpoint.proto),
            "type": family_name(endpoint.family),
            "iana_number": endpoint.proto.number().map(|number| number.to_string()),
            "community_id": community::id(endpoint),
            "direction": endpoint.remote.map(|_| match asserted(endpoint) {
                Some(Side::Local) => "egress",
                Some(Side::Remote) => "ingress",
                Some(Side::Both | Side::Unknown) | None => "unknown",
            }),
            "bytes": outcome.bytes.map(|bytes| bytes.sent.saturating_add(bytes.received)),
        },
        "process": actor.map(|actor| process_object(actor, context)),
        "user": process.map(|process| json!({"id": process.uid.to_string(), "name": user_name(process, context)})),
        "container": {"id": process.and_then(|process| where_it_runs::of_cgroup(&process.cgroup).container)},
        "related": {"ip": related},
    });
    merge(&mut object, peers);
    object
}

/// An alert: `event.severity` is 0 to 4, as the levels of Sigma.
fn found(alert: &Alert, context: &Context) -> Value {
    let rule = &alert.rule;
    let (techniques, parts): (Vec<_>, Vec<_>) = rule.tags.iter().filter_map(|tag| technique(tag)).unzip();
    let parts: Vec<_> = parts.into_iter().flatten().collect();
    let about = alert.about.as_ref();
    let category = if about.is_some() { "network" } else { "process" };
    let actor = alert.process.as_ref().map(|(actor, _)| actor);
    let process = actor.map(|actor| &actor.process);
    let mut object = json!({
        "message": &*alert.detail,
        "event": {
            "kind": "alert",
            "category": [category],
            "type": ["info"],
            "action": "alert",
            "severity": rule.level as u8,
        },
        "rule": {"id": &*rule.id, "name": &*rule.title},
        "threat": (!techniques.is_empty()).then(|| json!({
            "framework": "MITRE ATT&CK",
            "technique": {
                "id": techniques,
                "subtechnique": (!parts.is_empty()).then(|| json!({"id": parts})),
            },
        })),
        "tags": (!rule.tags.is_empty()).then_some(&rule.tags),
        "network": {"transport": about.and_then(|about| protocol_name(about.socket.proto))},
        "process": actor.map(|actor| process_object(actor, context)),
        "user": process.map(|process| json!({"id": process.uid.to_string(), "name": user_name(process, context)})),
        "container": {"id": process.and_then(|process| where_it_runs::of_cgroup(&process.cgroup).container)},
    });
    if let Some(about) = about {
        let (local, remote) = (about.socket.local, about.socket.remote);
        let ends = remote.and_then(|remote| Ends::between(local, remote, about.verdict.asserted()));
        merge(
            &mut object,
            match ends {
                Some(ends) => json!({"source": at(ends.source), "destination": at(ends.destination)}),
                None => json!({"server": at(local)}),
            },
        );
        let mut related = vec![local.ip];
        related.extend(remote.map(|remote| remote.ip).filter(|ip| *ip != local.ip));
        merge(&mut object, json!({"related": {"ip": related}}));
    }
    object
}

/// `event.kind`, `event.type` and `event.outcome`. The types are those that the schema expects in the category
/// `network`.
fn categories(kind: EventKind) -> (&'static str, &'static [&'static str], Option<&'static str>) {
    match kind {
        EventKind::Seed => ("state", &["connection", "info"], None),
        EventKind::Listen => ("event", &["start"], Some("success")),
        EventKind::Unlisten => ("event", &["end"], None),
        EventKind::Open => ("event", &["connection", "start"], Some("success")),
        EventKind::Fail => ("event", &["connection", "start"], Some("failure")),
        EventKind::Close => ("event", &["connection", "end"], None),
        EventKind::Attempt | EventKind::Accept | EventKind::Handover | EventKind::State => {
            ("event", &["connection", "info"], None)
        }
    }
}

/// `source` and `destination`, and if the originator is known also `client` and `server`.
fn peers(event: &ConnectionEvent, ends: &Ends) -> Value {
    let endpoint = &event.endpoint;
    let bytes = event.outcome.bytes;
    let (from_source, from_destination) =
        ends.by_role(bytes.map(|bytes| bytes.sent), bytes.map(|bytes| bytes.received));
    // The addresses that the other side sees, if they are others.
    let seen = |own: SockAddr, seen: SockAddr| {
        (own != seen).then(|| json!({"ip": seen.ip, "port": (seen.port != own.port).then_some(seen.port)}))
    };
    let translation = endpoint.nat.translation();
    let here = translation.and_then(|nat| seen(endpoint.local, nat.local));
    let there = translation.zip(endpoint.remote).and_then(|(nat, remote)| seen(remote, nat.remote));
    let (nat_of_source, nat_of_destination) = ends.by_role(here, there);
    let (name_of_source, name_of_destination) = ends.names(endpoint);
    let peer = |address, bytes: Option<u64>, nat: Option<Value>, name: Option<&str>| {
        let mut peer = at(address);
        merge(&mut peer, json!({"bytes": bytes, "nat": nat, "domain": name}));
        peer
    };
    let source = peer(ends.source, from_source, nat_of_source, name_of_source);
    let destination = peer(ends.destination, from_destination, nat_of_destination, name_of_destination);
    let mut all = json!({"source": source, "destination": destination});
    if ends.is_known {
        merge(&mut all, json!({"client": source, "server": destination}));
    }
    all
}

fn at(address: SockAddr) -> Value {
    json!({"address": address.ip, "ip": address.ip, "port": address.port})
}

fn process_object(actor: &Actor, context: &Context) -> Value {
    let process = &actor.process;
    let image = &process.image;
    let parent = process.parent.as_ref();
    let start = |key: crate::model::ProcessKey| context.run_clock.time(key.start).map(rfc3339);
    json!({
        "pid": process.key.pid,
        "entity_id": process.key,
        "name": &*process.comm,
        "executable": image.exe.as_deref(),
        "args": (!image.args.is_empty()).then_some(&image.args),
        "args_count": image.args.cut().is_none().then(|| image.args.len()),
        "command_line": command_line(process),
        "start": start(process.key),
        "thread": {"id": actor.tid(), "name": actor.thread().map(|name| &**name)},
        "user": {"id": process.uid.to_string(), "name": user_name(process, context)},
        "parent": {
            "pid": parent.map_or(process.ppid, |parent| parent.key.pid),
            "entity_id": parent.map(|parent| parent.key),
            "name": parent.map(|parent| &*parent.comm),
            "executable": parent.and_then(|parent| parent.image.exe.as_deref()),
            "command_line": parent.and_then(|parent| command_line(parent)),
            "start": parent.and_then(|parent| start(parent.key)),
        },
    })
}
