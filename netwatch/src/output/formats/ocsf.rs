//! Open Cybersecurity Schema Framework: the class Network Activity (4001), and Base Event (0) for what is not about a
//! connection. What the schema has no attribute for is in `unmapped.netwatch`.

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{
    Ends, Objects, asserted, before, command_line, id_of, is_within_host, own, protocol_name, technique,
    user_name, without_nulls,
};
use crate::alert::Alert;
use crate::model::{Family, ProcessKey, SockAddr};
use crate::origin::Side;
use crate::output::{OcsfVersion, community};
use crate::process::{Actor, Process};
use crate::stream::{Context, Item};
use crate::tracker::{ClosedBy, ConnectionEvent, EventKind};
use crate::{errno, where_it_runs};

pub(in crate::output) struct Ocsf {
    pub(in crate::output) version: OcsfVersion,
}

/// Category and class.
const NETWORK_ACTIVITY: (u64, u64) = (4, 4001);
const DETECTION_FINDING: (u64, u64) = (2, 2004);
const BASE_EVENT: (u64, u64) = (0, 0);

/// `activity_id` for what has no number of its own.
const OTHER: u64 = 99;

/// `severity_id`: 1 is informational, 4 high.
const INFORMATIONAL: u64 = 1;
const HIGH: u64 = 4;

impl Objects for Ocsf {
    fn objects(&mut self, seq: u64, time: Timestamp, item: &Item, context: &Context) -> Vec<Value> {
        let object = match item {
            Item::Event(event) => {
                let (activity, name) = activity(event);
                let mut object = self.head(seq, time, NETWORK_ACTIVITY, (activity, name), event.kind.name());
                object.extend(self.connection(event, time, context));
                object
            }
            Item::Loss(_, loss) => {
                let mut object = self.head(seq, time, BASE_EVENT, (OTHER, "loss"), "loss");
                object.insert("severity_id".into(), HIGH.into());
                object.insert("unmapped".into(), json!({"netwatch": own::loss(loss)}));
                object
            }
            Item::Ready(ready) => {
                let mut object = self.head(seq, time, BASE_EVENT, (OTHER, "ready"), "ready");
                object.insert("unmapped".into(), json!({"netwatch": own::ready(ready)}));
                object
            }
            Item::Alert(alert) => self.finding(seq, time, alert, context),
            Item::Process(..) | Item::Exec(..) | Item::Table(_) => return Vec::new(),
        };
        vec![without_nulls(Value::Object(object))]
    }
}

type Attributes = serde_json::Map<String, Value>;

/// The attributes of an object literal.
fn attributes(object: Value) -> Attributes {
    match object {
        Value::Object(attributes) => attributes,
        _ => Attributes::new(),
    }
}

impl Ocsf {
    /// What every event has.
    fn head(
        &self,
        seq: u64,
        time: Timestamp,
        (category, class): (u64, u64),
        (activity, name): (u64, &str),
        code: &str,
    ) -> Attributes {
        attributes(json!({
            "category_uid": category,
            "class_uid": class,
            "activity_id": activity,
            "activity_name": name,
            "type_uid": class * 100 + activity,
            "severity_id": INFORMATIONAL,
            "time": time.as_millisecond(),
            "metadata": {
                "version": self.version.name(),
                "profiles": ["host", "container"],
                "product": {
                    "name": "netwatch",
                    "vendor_name": "netwatch",
                    "version": env!("CARGO_PKG_VERSION"),
                },
                "event_code": code,
                "sequence": seq,
            },
        }))
    }

    fn finding(&self, seq: u64, time: Timestamp, alert: &Alert, context: &Context) -> Attributes {
        let rule = &alert.rule;
        // `activity_id` 1: a new finding.
        let mut all = self.head(seq, time, DETECTION_FINDING, (1, "Create"), "alert");
        let about = alert.about.as_ref();
        let remote = about.and_then(|about| about.socket.remote);
        let ends = about
            .zip(remote)
            .and_then(|(about, remote)| Ends::between(about.socket.local, remote, about.verdict.asserted()));
        let listener = about.filter(|_| remote.is_none()).map(|about| at(about.socket.local));
        let evidence = json!({
            "actor": {"process": alert.process.as_ref().map(|(actor, _)| process(actor, context))},
            "src_endpoint": ends.as_ref().map(|ends| at(ends.source)),
            "dst_endpoint": ends.as_ref().map(|ends| at(ends.destination)).or(listener),
            "connection_info": about.map(|about| json!({
                "uid": id_of(about.id, context),
                "direction_id": match about.verdict.asserted().filter(|_| remote.is_some()) {
                    Some(Side::Local) => 2,
                    Some(Side::Remote) => 1,
                    Some(Side::Both | Side::Unknown) | None => 0,
                },
                "protocol_name": protocol_name(about.socket.proto),
                "protocol_num": about.socket.proto.number(),
            })),
        });
        let id = about.map(|about| id_of(about.id, context));
        let key = alert.process.as_ref().map(|(actor, _)| actor.process.key.to_string());
        let uid = format!("{}/{}/{}", rule.id, id.or(key).unwrap_or_default(), alert.at.nanos());
        let attacks: Vec<_> = rule
            .tags
            .iter()
            .filter_map(|tag| technique(tag))
            .map(|(uid, part)| {
                json!({"technique": {"uid": uid}, "sub_technique": part.map(|uid| json!({"uid": uid}))})
            })
            .collect();
        all.extend(attributes(json!({
            // 1 is informational, 5 critical.
            "severity_id": rule.level as u64 + 1,
            "message": &*alert.detail,
            // As many as it stands for.
            "count": alert.suppressed.saturating_add(1),
            "finding_info": {
                "uid": uid,
                "title": &*rule.title,
                "desc": &*alert.detail,
                "created_time": time.as_millisecond(),
                // `type_id` 1: a rule.
                "analytic": {"uid": &*rule.id, "name": &*rule.title, "type_id": 1},
                "attacks": (!attacks.is_empty()).then_some(attacks),
            },
            "evidences": [evidence],
            "unmapped": {"netwatch": own::alert(alert, context)},
        })));
        all
    }

    fn connection(&self, event: &ConnectionEvent, time: Timestamp, context: &Context) -> Attributes {
        let endpoint = &event.endpoint;
        let outcome = &event.outcome;
        let ends = Ends::of(endpoint);
        let start = outcome.duration.and_then(|duration| before(time, duration));
        let mut all = attributes(json!({
            "status_id": status(event.kind),
            "status_code": outcome.errno.map(errno::name),
            "actor": {"process": endpoint.process.as_ref().map(|actor| process(actor, context))},
            "connection_info": {
                "uid": id_of(endpoint.id, context),
                "community_uid": community::id(endpoint),
                "direction_id": direction(event),
                "boundary_id": is_within_host(endpoint).then_some(LOCALHOST),
                "protocol_name": protocol_name(endpoint.proto),
                "protocol_num": endpoint.proto.number(),
                "protocol_ver_id": match endpoint.family {
                    Family::Ipv4 => 4,
                    Family::Ipv6 => 6,
                },
            },
            "start_time": start.map(Timestamp::as_millisecond),
            "end_time": start.map(|_| time.as_millisecond()),
            "duration": outcome.duration.map(|nanoseconds| nanoseconds / 1_000_000),
            "unmapped": {"netwatch": own::event(event, context)},
        }));
        let Some(ends) = ends else {
            all.insert("dst_endpoint".into(), at(endpoint.local));
            return all;
        };
        // From source to destination, and back.
        let (out, back) = match outcome.bytes {
            Some(bytes) => {
                let (out, back) = ends.by_role(bytes.sent, bytes.received);
                (Some(out), Some(back))
            }
            None => (None, None),
        };
        let (source, destination) = ends.names(endpoint);
        all.extend(attributes(json!({
            "src_endpoint": named(ends.source, source),
            "dst_endpoint": named(ends.destination, destination),
            "observation_point_id": observation_point(event, &ends),
            "traffic": {
                "bytes_out": out,
                "bytes_in": back,
                "bytes": out.zip(back).map(|(out, back)| out.saturating_add(back)),
            },
        })));
        match self.version {
            OcsfVersion::V1_8 => all.insert("is_src_dst_assignment_known".into(), ends.is_known.into()),
            // 1: the source; 0: unknown.
            OcsfVersion::V1_9 => all.insert("initiator_id".into(), u8::from(ends.is_known).into()),
        };
        all
    }
}

/// `activity_id` with its name.
fn activity(event: &ConnectionEvent) -> (u64, &'static str) {
    const ECONNREFUSED: i32 = nix::errno::Errno::ECONNREFUSED as i32;
    match event.kind {
        EventKind::Open => (1, "Open"),
        EventKind::Close => match event.outcome.closed_by {
            Some(ClosedBy::ResetLocal | ClosedBy::ResetRemote) => (3, "Reset"),
            _ => (2, "Close"),
        },
        EventKind::Fail if event.outcome.errno == Some(ECONNREFUSED) => (5, "Refuse"),
        EventKind::Fail => (4, "Fail"),
        EventKind::Listen => (7, "Listen"),
        other => (OTHER, other.name()),
    }
}

/// `status_id`: 1 is a success, 2 a failure.
fn status(kind: EventKind) -> Option<u64> {
    match kind {
        EventKind::Open | EventKind::Listen => Some(1),
        EventKind::Fail => Some(2),
        _ => None,
    }
}

/// `boundary_id` of a connection within this host.
const LOCALHOST: u64 = 1;

/// `direction_id`: 1 is inbound, 2 outbound, 4 within this host.
fn direction(event: &ConnectionEvent) -> u64 {
    if event.endpoint.remote.is_some() && is_within_host(&event.endpoint) {
        return 4;
    }
    match asserted(&event.endpoint) {
        Some(Side::Local) => 2,
        Some(Side::Remote) => 1,
        Some(Side::Both | Side::Unknown) | None => 0,
    }
}

/// `observation_point_id`: 1 is the source, 2 the destination, 4 both.
fn observation_point(event: &ConnectionEvent, ends: &Ends) -> u64 {
    match (is_within_host(&event.endpoint), ends.is_known, ends.is_source_here) {
        (true, ..) => 4,
        (false, false, _) => 0,
        (false, true, true) => 1,
        (false, true, false) => 2,
    }
}

fn named(address: SockAddr, name: Option<&str>) -> Value {
    json!({"ip": address.ip, "port": address.port, "hostname": name})
}

fn at(address: SockAddr) -> Value {
    json!({"ip": address.ip, "port": address.port})
}

fn process(actor: &Actor, context: &Context) -> Value {
    let process = &actor.process;
    let exe = process.image.exe.as_deref();
    let created = |key: ProcessKey| context.run_clock.time(key.start).map(Timestamp::as_millisecond);
    let entity = |process: &Process| {
        json!({
            "pid": process.key.pid,
            "uid": process.key,
            "name": &*process.comm,
            "path": process.image.exe.as_deref(),
            "cmd_line": command_line(process),
            "created_time": created(process.key),
        })
    };
    let ancestry: Vec<_> = process.ancestors().map(|ancestor| entity(ancestor)).collect();
    let parent = match &process.parent {
        Some(parent) => entity(parent),
        None if process.ppid != 0 => json!({"pid": process.ppid}),
        None => Value::Null,
    };
    let mut object = attributes(entity(process));
    object.extend(attributes(json!({
        // `type_id` 1: a regular file.
        "file": exe.map(|exe| json!({"name": exe.rsplit('/').next(), "path": exe, "type_id": 1})),
        "user": {"uid": process.uid.to_string(), "name": user_name(process, context)},
        "container": {"uid": where_it_runs::of_cgroup(&process.cgroup).container},
        "parent_process": parent,
        "ancestry": (!ancestry.is_empty()).then_some(ancestry),
    })));
    Value::Object(object)
}
