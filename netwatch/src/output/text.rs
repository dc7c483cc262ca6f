//! Events as text: one line per event, in columns: process, direction, peer process, basis. Strings from outside
//! netwatch are escaped.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};
use std::net::IpAddr;

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;

use super::{Render, Stamp};
use crate::alert::{Alert, Level};
use crate::loss::{Loss, LossReason};
use crate::model::{DeviceName, Proto, SockAddr};
use crate::names::{HostName, NameBasis};
use crate::origin::{Confidence, Side};
use crate::process::Actor;
use crate::signs::{self, Sign};
use crate::stream::{Context, Item, Ready};
use crate::tracker::{ConnectionEvent, Endpoint, EventKind};
use crate::{errno, escape};

/// Minimum widths of the columns: they fit most names, and IPv4 addresses with a port.
const EVENT: usize = 8;
const WHO: usize = 20;
/// Length of the name of TCP, and of UDP.
const TCP: usize = 3;
const ADDRESS: usize = 21;

pub(super) struct Text {
    colour: bool,
    stamp: Stamp,
    zone: TimeZone,
}

impl Text {
    pub(super) fn new(colour: bool, stamp: Stamp, zone: TimeZone) -> Self {
        Self { colour, stamp, zone }
    }
}

impl Render for Text {
    fn render(&mut self, seq: &mut u64, item: &Item, context: &Context, out: &mut Vec<u8>) -> io::Result<()> {
        if matches!(item, Item::Process(..) | Item::Exec(..) | Item::Table(_)) {
            return Ok(());
        }
        *seq += 1;
        let time = super::time_of(item, context).to_zoned_datetime(self.zone.clone());
        match self.stamp {
            Stamp::Time => write!(out, "{} ", time.strftime("%H:%M:%S.%6f"))?,
            Stamp::DateAndTime => write!(out, "{} ", time.strftime("%F %H:%M:%S.%6f"))?,
            Stamp::None => {}
        }
        match item {
            Item::Ready(Ready { probes, seeded, .. }) => {
                let event = self.event("ready", Style::new());
                let sockets = if *seeded == 1 { "socket" } else { "sockets" };
                let covered = probes.iter().filter(|(_, probe)| probe.is_some()).count();
                write!(
                    out,
                    "{event} {}, {covered} of {} jobs have a probe, {seeded} existing {sockets}; \
                     run `netwatch doctor` to show what is not seen",
                    time.strftime("%F %:z"),
                    probes.len()
                )?;
            }
            Item::Loss(_, loss) => {
                write!(out, "{} {}", self.event("loss", AnsiColor::Red.on_default().bold()), lost(loss))?;
            }
            Item::Alert(alert) => {
                let style = match alert.rule.level {
                    Level::Critical | Level::High => AnsiColor::Red.on_default().bold(),
                    Level::Medium => AnsiColor::Yellow.on_default().bold(),
                    Level::Low | Level::Informational => AnsiColor::Yellow.on_default(),
                };
                write!(out, "{} {}", self.event("alert", style), found(alert))?;
            }
            Item::Event(event) => {
                let style = match event.kind {
                    EventKind::Fail => AnsiColor::Red.on_default(),
                    EventKind::Open => AnsiColor::Green.on_default(),
                    EventKind::Accept | EventKind::Handover => AnsiColor::Cyan.on_default(),
                    EventKind::Listen | EventKind::Unlisten => AnsiColor::Yellow.on_default(),
                    EventKind::Seed | EventKind::Attempt | EventKind::Close | EventKind::State => {
                        Style::new().dimmed()
                    }
                };
                let endpoint = &event.endpoint;
                let proto = endpoint.proto.name();
                // A longer name than tcp or udp takes the room of the process.
                let width = (WHO + TCP).saturating_sub(proto.len());
                write!(
                    out,
                    "{} {proto} {:<width$} ",
                    self.event(event.kind.name(), style),
                    who(endpoint.process.as_ref())
                )?;
                out.write_all(sentence(event).trim_end().as_bytes())?;
                self.signs(event, out)?;
            }
            Item::Process(..) | Item::Exec(..) | Item::Table(_) => {}
        }
        out.push(b'\n');
        Ok(())
    }
}

impl Text {
    /// Prints the signs of the endpoint's process or of the listener.
    fn signs(&self, event: &ConnectionEvent, out: &mut Vec<u8>) -> io::Result<()> {
        let endpoint = &event.endpoint;
        let of_process = endpoint.process.as_ref().map(|actor| {
            signs::of_process(&actor.process, super::exe_status(event.facts.exe.process, &actor.process))
        });
        let all: Vec<_> =
            of_process.into_iter().flatten().chain(signs::of_end(endpoint)).map(Sign::text).collect();
        if all.is_empty() {
            return Ok(());
        }
        let style = if self.colour { AnsiColor::Red.on_default().bold() } else { Style::new() };
        write!(out, "  {style}! {}{style:#}", all.join(", "))
    }

    fn event(&self, name: &str, style: Style) -> String {
        if self.colour { format!("{style}{name:<EVENT$}{style:#}") } else { format!("{name:<EVENT$}") }
    }
}

/// An alert in a sentence: level, title, process, connection, and what was found.
fn found(alert: &Alert) -> String {
    let rule = &alert.rule;
    let mut out = format!("{} {}:", rule.level.name(), escape::terminal(&rule.title));
    // Writing to a String cannot fail.
    if let Some((actor, _)) = &alert.process {
        let _ = write!(out, " {}", who(Some(actor)));
    }
    if let Some(about) = &alert.about {
        let proto = about.socket.proto;
        let _ = write!(out, " {} {}", proto.name(), proto.spell(about.socket.local));
        if let Some(remote) = about.socket.remote {
            let _ = write!(out, " {} {}", arrow(about.verdict.side), proto.spell(remote));
        }
    }
    let _ = write!(out, "; {}", escape::terminal(&alert.detail));
    if alert.suppressed > 0 {
        let _ = write!(out, "; {} more were held back", alert.suppressed);
    }
    out
}

/// Points away from the originator.
const fn arrow(side: Side) -> &'static str {
    match side {
        Side::Local => "->",
        Side::Remote => "<-",
        Side::Both => "<>",
        Side::Unknown => "--",
    }
}

fn lost(loss: &Loss) -> String {
    let kinds: Vec<_> = loss.kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    let (why, then) = match loss.reason {
        LossReason::Ring => ("the ring was full", "; resynchronising with a snapshot"),
        LossReason::Undecodable => ("could not be decoded", "; resynchronising with a snapshot"),
        LossReason::Stdout => ("the reader is too slow", ""),
        LossReason::Store => ("the store is too slow or rejects writes", ""),
        LossReason::Rules => ("the rules are too slow", ""),
        LossReason::Limit => ("a limit was reached", ""),
        LossReason::Output(_) => ("an output is too slow or down", ""),
    };
    if loss.reason == LossReason::Limit {
        let most = loss.sockets.iter().map(|socket| match (&socket.comm, socket.process) {
            (Some(comm), Some(key)) => format!("{}[{}] {}", escape::terminal(comm), key.pid, socket.count),
            _ => format!("socket {} {}", socket.cookie, socket.count),
        });
        let most: Vec<_> = most.collect();
        let by = if most.is_empty() { String::new() } else { format!("; by {}", most.join(", ")) };
        return format!("not followed because of a limit: {}{by}", kinds.join(", "));
    }
    let records = if loss.count() == 1 { "record" } else { "records" };
    if let LossReason::Output(kind) = loss.reason {
        let kinds = kinds.join(", ");
        return format!(
            "lost {} {records} (the output {} is too slow or down): {kinds}",
            loss.count(),
            kind.name()
        );
    }
    format!("lost {} {records} ({why}): {}{then}", loss.count(), kinds.join(", "))
}

/// `comm[pid]`
pub(super) fn who(actor: Option<&Actor>) -> String {
    match actor {
        Some(Actor { process, .. }) => format!("{}[{}]", escape::terminal(&process.comm), process.key.pid),
        None => "-".into(),
    }
}

/// The name of the remote host; behind `~` if not proven: another process asked for it.
fn spelled(name: &HostName, endpoint: &Endpoint) -> String {
    let process = endpoint.process.as_ref().map(|actor| actor.process.key);
    let is_proven = name.basis == NameBasis::TlsSni || name.was_asked_by(process);
    format!("{}{}", if is_proven { "" } else { "~" }, name.name)
}

fn sentence(event: &ConnectionEvent) -> String {
    let endpoint = &event.endpoint;
    let mut out = String::new();
    // Writing to a String cannot fail.
    let Some(remote) = endpoint.remote else {
        let verb = if event.kind == EventKind::Unlisten { "listened on" } else { "listens on" };
        let _ = write!(out, "{verb} {}", on_device(endpoint.local, endpoint.proto, event.facts.device));
        if let Some(service) = service(event) {
            let _ = write!(out, "; {service}");
        }
        return out;
    };
    let arrow = arrow(endpoint.verdict.side);
    let (local, remote) =
        (on_device(endpoint.local, endpoint.proto, event.facts.device), endpoint.proto.spell(remote));
    let _ = write!(out, "{local:>ADDRESS$} {arrow} {remote:<ADDRESS$} ");
    // The process of the peer endpoint, if it is on this host.
    let whom = endpoint.peer.as_ref().and_then(|peer| peer.process.as_ref());
    let name = endpoint.names.remote().map(|name| spelled(name, endpoint));
    let shown = match (whom, &name) {
        (Some(whom), _) => who(Some(whom)),
        (None, Some(name)) => name.clone(),
        (None, None) => String::new(),
    };
    let _ = write!(out, "{shown:<WHO$} ");
    out.push_str(&how_known(endpoint));
    if let Some(service) = service(event) {
        let _ = write!(out, "; {service}");
    }
    if let Some(seen) = endpoint.nat.translation() {
        let _ = write!(out, "; nat {} {arrow} {}", seen.local, seen.remote);
    }
    if let Some(name) = name.filter(|_| whom.is_some()) {
        let _ = write!(out, "; to {name}");
    }
    if let Some(name) = endpoint.names.local() {
        let _ = write!(out, "; as {}", name.name);
    }
    if let Some(via) = endpoint.via {
        let _ = write!(out, "; via {}", via.name());
    }
    if event.kind == EventKind::Fail
        && let Some(number) = event.outcome.errno
    {
        let _ = write!(out, "; {}", errno::name(number));
    }
    if event.kind == EventKind::State {
        let _ = write!(out, "; {}", endpoint.state.name());
    }
    if event.kind == EventKind::Close {
        if let Some(closed_by) = event.outcome.closed_by {
            let _ = write!(out, "; closed: {}", closed_by.name());
        }
        if let Some(bytes) = event.outcome.bytes {
            let _ = write!(out, ", {} B sent, {} B received", bytes.sent, bytes.received);
        }
        if let Some(duration) = event.outcome.duration {
            let _ = write!(out, ", {}", lasted(duration));
        }
    }
    if event.repaired {
        out.push_str("; found by the snapshot after a loss");
    }
    out
}

/// An address with the interface of its socket, as ss prints it: `0.0.0.0%lo:80`, `[fe80::1%eth0]:22`.
pub(super) fn on_device(address: SockAddr, proto: Proto, device: Option<DeviceName>) -> String {
    let Some(device) = device else { return proto.spell(address) };
    let device = escape::terminal(device.as_str()).into_owned();
    if !proto.has_ports() {
        return format!("{}%{device}", proto.spell(address));
    }
    match address.ip {
        IpAddr::V4(ip) => format!("{ip}%{device}:{}", address.port),
        IpAddr::V6(ip) => format!("[{ip}%{device}]:{}", address.port),
    }
}

/// The basis of the verdict, with its confidence unless it was observed, and the verdict of the port rule if that
/// differs.
pub(super) fn how_known(endpoint: &Endpoint) -> String {
    let verdict = endpoint.verdict;
    let mut out = match verdict.confidence {
        Confidence::Observed => verdict.basis.name().to_owned(),
        Confidence::Unknown => "origin unknown".to_owned(),
        confidence => format!("{}, {}", verdict.basis.name(), confidence.name()),
    };
    if let Some(remote) = endpoint.remote {
        let rule = crate::origin::port_rule(endpoint.local.port, remote.port);
        if rule != Side::Unknown && verdict.side != Side::Unknown && rule != verdict.side {
            let _ = write!(out, " (by the ports: {})", rule.name());
        }
    }
    out
}

/// The registered service of the responder's port.
fn service(event: &ConnectionEvent) -> Option<Cow<'static, str>> {
    event.facts.service.map(escape::terminal)
}

fn lasted(nanoseconds: u64) -> String {
    match nanoseconds {
        0..1_000_000 => format!("{} us", nanoseconds / 1000),
        1_000_000..1_000_000_000 => format!("{}.{} ms", nanoseconds / 1_000_000, nanoseconds / 100_000 % 10),
        _ => format!("{}.{} s", nanoseconds / 1_000_000_000, nanoseconds / 100_000_000 % 10),
    }
}
