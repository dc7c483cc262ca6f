//! Events in the formats of other programs: one file per format. Who originated a connection is put into the terms of a
//! format only if it was observed or inferred. A guess from port numbers and an unknown origin are that format's
//! "unknown", or the key is left out; what netwatch knows stands under a name of its own ([`own`]).

mod ecs;
mod ocsf;
mod own;
mod sysmon;
#[cfg(test)]
pub(super) mod tests;
mod zeek;

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Render, time_of};
use crate::model::{Family, Proto, SockAddr};
use crate::names::HostName;
use crate::origin::Side;
use crate::process::{Actor, Process};
use crate::stream::{Context, Item};
use crate::tracker::{Endpoint, EndpointId};

pub(super) use ecs::Ecs;
pub(super) use ocsf::Ocsf;
pub(super) use sysmon::Sysmon;
pub(super) use zeek::Zeek;

/// A format of JSON objects.
pub(super) trait Objects: Send {
    /// The objects of an item, if the format can express it. `seq`: the number that the first one gets.
    fn objects(&mut self, seq: u64, time: Timestamp, item: &Item, context: &Context) -> Vec<Value>;
}

/// One object per line.
pub(super) struct Lines<T>(pub(super) T);

impl<T: Objects> Render for Lines<T> {
    fn render(&mut self, seq: &mut u64, item: &Item, context: &Context, out: &mut Vec<u8>) -> io::Result<()> {
        for object in self.0.objects(*seq + 1, time_of(item, context), item, context) {
            serde_json::to_writer(&mut *out, &object)?;
            out.push(b'\n');
            *seq += 1;
        }
        Ok(())
    }
}

/// The technique of MITRE ATT&CK that a tag of a rule names, and the part of it: `attack.t1059.004`.
fn technique(tag: &str) -> Option<(String, Option<String>)> {
    let number = tag.strip_prefix("attack.t")?;
    let (whole, part) = number.split_once('.').map_or((number, None), |(whole, part)| (whole, Some(part)));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let is_technique = is_number(whole) && part.is_none_or(is_number);
    is_technique.then(|| (format!("T{whole}"), part.map(|part| format!("T{whole}.{part}"))))
}

/// The two addresses of a connection.
struct Ends {
    /// Of the originator; of this endpoint if the originator is not known.
    source: SockAddr,
    destination: SockAddr,
    /// Whether the originator is known.
    is_known: bool,
    /// Whether `source` is this endpoint.
    is_source_here: bool,
}

impl Ends {
    /// `None` for a listener.
    fn of(endpoint: &Endpoint) -> Option<Self> {
        Self::between(endpoint.local, endpoint.remote?, asserted(endpoint))
    }

    /// `side`: who originated it, unless it is unknown or guessed.
    fn between(local: SockAddr, remote: SockAddr, side: Option<Side>) -> Option<Self> {
        let (source, destination) =
            if side == Some(Side::Remote) { (remote, local) } else { (local, remote) };
        let is_known = matches!(side, Some(Side::Local | Side::Remote));
        Some(Self { source, destination, is_known, is_source_here: side != Some(Side::Remote) })
    }

    /// A property of this endpoint and one of the other, as (source's, destination's).
    fn by_role<T>(&self, here: T, there: T) -> (T, T) {
        if self.is_source_here { (here, there) } else { (there, here) }
    }

    /// The names of the hosts.
    fn names<'a>(&self, endpoint: &'a Endpoint) -> (Option<&'a str>, Option<&'a str>) {
        let name = |name: Option<&'a Arc<HostName>>| name.map(|name| &*name.name);
        self.by_role(name(endpoint.names.local()), name(endpoint.names.remote()))
    }
}

/// The originating side, unless it is unknown or guessed.
fn asserted(endpoint: &Endpoint) -> Option<Side> {
    endpoint.verdict.asserted().filter(|_| endpoint.remote.is_some())
}

/// Whether both endpoints are on this host.
fn is_within_host(endpoint: &Endpoint) -> bool {
    let is_same = |remote: SockAddr| remote.ip.is_loopback() || remote.ip == endpoint.local.ip;
    endpoint.peer.is_some() || endpoint.remote.is_some_and(is_same)
}

/// Removes keys without a value, and objects without keys.
fn without_nulls(value: Value) -> Value {
    match value {
        Value::Object(object) => {
            let kept = object.into_iter().map(|(key, value)| (key, without_nulls(value)));
            Value::Object(kept.filter(|(_, value)| !is_empty(value)).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_nulls).collect()),
        other => other,
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty)
}

/// As `id` and `flow` in JSON.
fn id_of(id: EndpointId, context: &Context) -> String {
    format!("{}-{id}", context.boot)
}

/// Name of the protocol in the registry of IANA, by which other formats know it; `None` where only its number is known.
fn protocol_name(proto: Proto) -> Option<&'static str> {
    match proto {
        Proto::Icmpv6 => Some("ipv6-icmp"),
        Proto::Raw(_) | Proto::Packet => None,
        named => Some(named.name()),
    }
}

const fn family_name(family: Family) -> &'static str {
    match family {
        Family::Ipv4 => "ipv4",
        Family::Ipv6 => "ipv6",
    }
}

/// The arguments of a process, separated by spaces; `None` if there are none.
fn command_line(process: &Process) -> Option<String> {
    let args = &process.image.args;
    (!args.is_empty()).then(|| args.join(" "))
}

fn user_name(process: &Process, context: &Context) -> Option<String> {
    context.users.get(&process.uid)?.as_deref().map(str::to_owned)
}

/// RFC 3339 with nine digits of a second.
fn rfc3339(time: Timestamp) -> String {
    format!("{time:.9}")
}

/// A time that is this long before another, in nanoseconds.
fn before(time: Timestamp, nanoseconds: u64) -> Option<Timestamp> {
    time.checked_sub(jiff::SignedDuration::from_nanos(i64::try_from(nanoseconds).ok()?)).ok()
}

/// What identifies a process.
fn brief(actor: Option<&Actor>) -> Value {
    actor.map_or(Value::Null, |Actor { process, .. }| {
        json!({
            "pid": process.key.pid,
            "key": process.key,
            "name": &*process.comm,
            "executable": process.image.exe.as_deref(),
        })
    })
}
