//! Zeek's conn.log, as TSV or JSON: one line for each connection, at its end. Columns after `ip_proto` are netwatch's
//! own, with `community_id` as the last.
//!
//! Columns and values: scripts/base/protocols/conn/main.zeek of Zeek; escapes: `ODesc::AddBytes` of src/Desc.cc, and
//! `escapeReservedContent` of src/threading/formatters/Ascii.cc.

use std::collections::VecDeque;
use std::io::{self, Write as _};
use std::net::IpAddr;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use nix::errno::Errno;
use serde_json::{Map, Value};

use super::{Ends, asserted, id_of, is_within_host};
use crate::limits;
use crate::model::Proto;
use crate::origin::{Confidence, Side};
use crate::output::{Render, community, time_of};
use crate::stream::{Context, Item};
use crate::tracker::{ClosedBy, ConnectionEvent, EndpointId, EventKind};

/// Names and types.
const COLUMNS: [(&str, &str); 31] = [
    ("ts", "time"),
    ("uid", "string"),
    ("id.orig_h", "addr"),
    ("id.orig_p", "port"),
    ("id.resp_h", "addr"),
    ("id.resp_p", "port"),
    ("proto", "enum"),
    ("service", "string"),
    ("duration", "interval"),
    ("orig_bytes", "count"),
    ("resp_bytes", "count"),
    ("conn_state", "string"),
    ("local_orig", "bool"),
    ("local_resp", "bool"),
    ("missed_bytes", "count"),
    ("history", "string"),
    ("orig_pkts", "count"),
    ("orig_ip_bytes", "count"),
    ("resp_pkts", "count"),
    ("resp_ip_bytes", "count"),
    ("tunnel_parents", "set[string]"),
    ("ip_proto", "count"),
    ("netwatch.id", "string"),
    ("netwatch.side", "string"),
    ("netwatch.basis", "string"),
    ("netwatch.confidence", "string"),
    ("netwatch.pid", "count"),
    ("netwatch.process", "string"),
    ("netwatch.exe", "string"),
    ("netwatch.user", "string"),
    ("community_id", "string"),
];

#[derive(Debug)]
enum Cell {
    Unset,
    Text(String),
    Count(u64),
    Address(IpAddr),
    Bool(bool),
    /// Nanoseconds; a time since the epoch, or an interval.
    Nanoseconds(i128),
}

impl Cell {
    fn text(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

pub(in crate::output) struct Zeek {
    is_json: bool,
    zone: TimeZone,
    /// Flows of which one of two endpoints on this host is printed, the oldest first.
    halves: VecDeque<EndpointId>,
}

impl Zeek {
    /// `zone`: of the times in the header.
    pub(in crate::output) fn new(is_json: bool, zone: TimeZone) -> Self {
        Self { is_json, zone, halves: VecDeque::new() }
    }

    /// Whether the other endpoint of the connection was printed.
    fn is_second(&mut self, event: &ConnectionEvent) -> bool {
        let endpoint = &event.endpoint;
        if endpoint.peer.is_none() {
            return false;
        }
        if let Some(place) = self.halves.iter().rposition(|flow| *flow == endpoint.flow) {
            self.halves.remove(place);
            return true;
        }
        if self.halves.len() >= limits::MOST_HALVES {
            self.halves.pop_front();
        }
        self.halves.push_back(endpoint.flow);
        false
    }

    /// A line of the header with the time.
    fn marker(&self, name: &str, out: &mut Vec<u8>) -> io::Result<()> {
        let now = Timestamp::now().to_zoned_datetime(self.zone.clone());
        writeln!(out, "#{name}\t{}", now.strftime("%Y-%m-%d-%H-%M-%S"))
    }
}

impl Render for Zeek {
    fn begin(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.is_json {
            return Ok(());
        }
        out.extend_from_slice(
            b"#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n",
        );
        out.extend_from_slice(b"#path\tconn\n");
        self.marker("open", out)?;
        let [names, types] = [COLUMNS.map(|(name, _)| name), COLUMNS.map(|(_, of_type)| of_type)];
        writeln!(out, "#fields\t{}\n#types\t{}", names.join("\t"), types.join("\t"))
    }

    fn end(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        if self.is_json { Ok(()) } else { self.marker("close", out) }
    }

    fn render(&mut self, seq: &mut u64, item: &Item, context: &Context, out: &mut Vec<u8>) -> io::Result<()> {
        let Item::Event(event) = item else { return Ok(()) };
        if !matches!(event.kind, EventKind::Close | EventKind::Fail) || self.is_second(event) {
            return Ok(());
        }
        let Some(row) = row(event, time_of(item, context), context) else { return Ok(()) };
        *seq += 1;
        if self.is_json {
            let cells = COLUMNS.iter().zip(row).filter_map(|((name, _), cell)| Some((*name, json(cell)?)));
            let object: Map<String, Value> = cells.map(|(name, value)| (name.to_owned(), value)).collect();
            serde_json::to_writer(&mut *out, &object)?;
        } else {
            let cells: Vec<_> = row.into_iter().map(tsv).collect();
            out.extend_from_slice(cells.join("\t").as_bytes());
        }
        out.push(b'\n');
        Ok(())
    }
}

/// `None` for a listener.
fn row(event: &ConnectionEvent, time: Timestamp, context: &Context) -> Option<[Cell; COLUMNS.len()]> {
    let endpoint = &event.endpoint;
    let outcome = &event.outcome;
    let ends = Ends::of(endpoint)?;
    let start = context.clock.time(endpoint.id.began).unwrap_or(time);
    // Of a connection that is older than netwatch only the end is known.
    let is_timed = outcome.duration.is_some() || event.kind == EventKind::Fail;
    let lasted = (time.as_nanosecond() - start.as_nanosecond()).max(0);
    let bytes = outcome.bytes;
    let (of_source, of_destination) =
        ends.by_role(bytes.map(|bytes| bytes.sent), bytes.map(|bytes| bytes.received));
    let process = endpoint.process.as_ref().map(|actor| &actor.process);
    // That an address is not of this host is not known.
    let is_here = |is_source: bool| {
        let is_this_endpoint = is_source == ends.is_source_here;
        ends.is_known && (is_this_endpoint || is_within_host(endpoint))
    };
    let here = |is_source| if is_here(is_source) { Cell::Bool(true) } else { Cell::Unset };
    let count = |number: Option<u64>| number.map_or(Cell::Unset, Cell::Count);
    let text = |text: Option<&str>| text.map_or(Cell::Unset, Cell::text);
    Some([
        Cell::Nanoseconds(start.as_nanosecond()),
        Cell::Text(id_of(endpoint.flow, context)),
        Cell::Address(ends.source.ip),
        Cell::Count(ends.source.port.into()),
        Cell::Address(ends.destination.ip),
        Cell::Count(ends.destination.port.into()),
        Cell::text(transport(endpoint.proto)),
        // An analyzer of Zeek determines it from what is sent; netwatch knows only the port.
        Cell::Unset,
        if is_timed { Cell::Nanoseconds(lasted) } else { Cell::Unset },
        count(of_source),
        count(of_destination),
        text(conn_state(event, &ends)),
        here(true),
        here(false),
        // missed_bytes, history, packets and IP bytes are not measured; tunnels are not observed.
        Cell::Unset,
        Cell::Unset,
        Cell::Unset,
        Cell::Unset,
        Cell::Unset,
        Cell::Unset,
        Cell::Unset,
        count(endpoint.proto.number().map(u64::from)),
        Cell::Text(id_of(endpoint.id, context)),
        Cell::text(endpoint.verdict.side.name()),
        Cell::text(endpoint.verdict.basis.name()),
        Cell::text(endpoint.verdict.confidence.name()),
        count(process.map(|process| process.key.pid.into())),
        text(process.map(|process| &*process.comm)),
        text(process.and_then(|process| process.image.exe.as_deref())),
        text(process.and_then(|process| context.users.get(&process.uid)?.as_deref())),
        text(community::id(endpoint).as_deref()),
    ])
}

/// As Zeek names transports: scripts/base/init-bare.zeek, type transport_proto.
fn transport(proto: Proto) -> &'static str {
    match proto {
        Proto::Tcp | Proto::Udp => proto.name(),
        Proto::Icmp | Proto::Icmpv6 => "icmp",
        Proto::UdpLite | Proto::Raw(_) | Proto::Packet => "unknown_transport",
    }
}

/// The states that Zeek documents; `None` where what it would have seen is not known.
fn conn_state(event: &ConnectionEvent, ends: &Ends) -> Option<&'static str> {
    const REFUSED: i32 = Errno::ECONNREFUSED as i32;
    const TIMED_OUT: i32 = Errno::ETIMEDOUT as i32;
    const CANCELLED: i32 = Errno::ECANCELED as i32;
    let endpoint = &event.endpoint;
    if endpoint.proto != Proto::Tcp {
        let bytes = event.outcome.bytes.filter(|_| ends.is_known);
        let Some((from_source, from_destination)) =
            bytes.map(|bytes| ends.by_role(bytes.sent, bytes.received))
        else {
            return Some("OTH");
        };
        return Some(match (from_source > 0, from_destination > 0) {
            (true, true) => "SF",
            (true, false) => "S0",
            (false, true) => "SHR",
            (false, false) => "OTH",
        });
    }
    if event.kind == EventKind::Fail {
        return match event.outcome.errno {
            Some(REFUSED) => Some("REJ"),
            // A SYN without an answer. After other errors it may never have left the host.
            Some(TIMED_OUT | CANCELLED) => Some("S0"),
            _ => None,
        };
    }
    // Its SYN was not seen.
    let is_whole = endpoint.verdict.confidence == Confidence::Observed && event.outcome.duration.is_some();
    if !is_whole || asserted(endpoint).is_none_or(|side| side == Side::Unknown) {
        return Some("OTH");
    }
    match event.outcome.closed_by? {
        ClosedBy::Local | ClosedBy::Remote => Some("SF"),
        ClosedBy::ResetLocal => Some(ends.by_role("RSTO", "RSTR").0),
        ClosedBy::ResetRemote => Some(ends.by_role("RSTR", "RSTO").0),
        ClosedBy::Timeout => Some("S1"),
        ClosedBy::Unknown => None,
    }
}

fn microseconds(nanoseconds: i128) -> i128 {
    nanoseconds.div_euclid(1000)
}

fn json(cell: Cell) -> Option<Value> {
    Some(match cell {
        Cell::Unset => return None,
        Cell::Text(text) => text.into(),
        Cell::Count(count) => count.into(),
        Cell::Address(ip) => ip.to_string().into(),
        Cell::Bool(is) => is.into(),
        #[expect(clippy::cast_precision_loss, reason = "2^53 microseconds are 285 years")]
        Cell::Nanoseconds(nanoseconds) => (microseconds(nanoseconds) as f64 / 1e6).into(),
    })
}

fn tsv(cell: Cell) -> String {
    match cell {
        Cell::Unset => "-".into(),
        Cell::Text(text) => escaped(&text),
        Cell::Count(count) => count.to_string(),
        Cell::Address(ip) => ip.to_string(),
        Cell::Bool(is) => if is { "T" } else { "F" }.into(),
        Cell::Nanoseconds(nanoseconds) => {
            let microseconds = microseconds(nanoseconds);
            format!("{}.{:06}", microseconds.div_euclid(1_000_000), microseconds.rem_euclid(1_000_000))
        }
    }
}

/// As Zeek escapes: a backslash is doubled, bytes of what is not printable are `\xNN`, and so is the first one of a text
/// that would read as unset or empty.
pub(super) fn escaped(text: &str) -> String {
    match text {
        "" => return "(empty)".into(),
        "-" => return "\\x2d".into(),
        "(empty)" => return "\\x28empty)".into(),
        _ => {}
    }
    let mut out = String::with_capacity(text.len());
    for part in text.split_inclusive('\\') {
        let (plain, is_followed) = part.strip_suffix('\\').map_or((part, false), |plain| (plain, true));
        // Controls and formatting characters.
        out.push_str(&crate::escape::terminal(plain));
        if is_followed {
            out.push_str("\\\\");
        }
    }
    out
}
