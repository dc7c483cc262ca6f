//! All that is known of a line, as text.

use std::time::Duration;

use super::cells::{self, clean, who};
use super::groups::Originator;
use super::losses::{self, What};
use super::order::Target;
use super::state::State;
use super::table::{Row, state_word};
use crate::errno;
use crate::model::{BootTime, ProcessKey};
use crate::origin::{Basis, Confidence, Side, Verdict};
use crate::process::{Actor, Process};
use crate::tracker::{ConnectionEvent, Endpoint, EventKind, ProcessBasis};
use crate::where_it_runs;

/// How many ancestors of a process are shown.
const ANCESTORS: usize = 16;

/// How many characters of the arguments of a process are shown, and of those of its ancestors.
const ARGUMENTS: usize = 1000;
const SHORT: usize = 80;

/// The lines about a target.
pub(super) fn lines(state: &State, target: &Target) -> Vec<String> {
    match target {
        Target::Row(id) => match state.rows().rows.get(id) {
            Some(row) => of_row(state, row),
            None => vec!["It ended long ago, and is not kept any more.".into()],
        },
        Target::Line(number) => {
            let line = state.losses.lines.iter().find(|line| line.number == *number);
            line.map(|line| match &line.what {
                What::Loss(loss) => vec![
                    losses::sentence(loss),
                    "Connections that began or ended meanwhile may be missing until the next snapshot."
                        .into(),
                ],
                What::Note(text) => vec![clean(text).into_owned()],
            })
            .unwrap_or_default()
        }
        Target::Group(_) => Vec::new(),
    }
}

fn of_row(state: &State, row: &Row) -> Vec<String> {
    let endpoint = row.endpoint();
    let mut out = Vec::new();
    let arrow = arrow(endpoint);
    let what = match endpoint.remote {
        Some(remote) => {
            let proto = endpoint.proto;
            format!("{} {} {arrow} {}", proto.name(), proto.spell(endpoint.local), proto.spell(remote))
        }
        None => format!("{} listens on {}", endpoint.proto.name(), endpoint.local),
    };
    out.push(format!("{what}  {}", state_word(row)));
    for sign in row.signs() {
        out.push(format!("! {}", sign.text()));
    }
    if endpoint.remote.is_some() {
        out.push(format!("Originator: {}", originator(state, endpoint)));
        out.push(format!("Known by: {}", basis(endpoint)));
    }
    if let Some(seen) = endpoint.nat.translation() {
        out.push(format!("Translated: the other side sees {} {arrow} {}", seen.local, seen.remote));
    }
    for (whose, name) in [("Remote name", endpoint.names.remote()), ("Called", endpoint.names.local())] {
        if let Some(name) = name {
            let asker = name
                .asked_by
                .as_ref()
                .map(|asker| format!(", asked for by {}[{}]", clean(&asker.comm), asker.key.pid));
            let (basis, asker) = (name.basis.name(), asker.unwrap_or_default());
            out.push(format!("{whose}: {} ({basis}{asker}; {} known)", clean(&name.name), name.candidates));
        }
    }
    if let Some(service) = row.last.facts.service {
        out.push(format!("Service: {}", clean(service)));
    }
    if let Some(device) = row.last.facts.device {
        out.push(format!("Interface: {}", clean(device.as_str())));
    }
    if let Some(via) = endpoint.via {
        out.push(format!("By: {}", via.name()));
    }
    out.push(format!("Network namespace: {}  id: {}-{}", endpoint.netns, row.boot, endpoint.id));
    if let Some(bytes) = row.bytes {
        out.push(format!("Payload: {} B sent, {} B received", bytes.sent, bytes.received));
    }

    out.push(String::new());
    let how = endpoint.process_basis.map_or("", how_it_has_it);
    about(state, "Process here", endpoint.process.as_ref(), how, &mut out);
    if let Some(actor) = &endpoint.originator
        && endpoint.process.as_ref().is_none_or(|here| here.process.key != actor.process.key)
    {
        about(state, "Originating process", Some(actor), "", &mut out);
    }
    if let Some(peer) = &endpoint.peer
        && peer.process.as_ref().map(key) != endpoint.originator.as_ref().map(key)
    {
        about(state, "Process at the other end, on this host", peer.process.as_ref(), "", &mut out);
    }
    if let Some(listener) = endpoint.listener.as_ref().and_then(|party| party.process.as_ref())
        && endpoint.process.as_ref().is_none_or(|actor| actor.process.key != listener.process.key)
    {
        about(state, "Listener", Some(listener), "", &mut out);
    }

    out.push("Events".into());
    for event in row.events() {
        out.push(format!("  {} {}", time(state, row, event.at), happened(event)));
    }
    if row.gone.is_some() && !row.events().any(|event| ends(event.kind)) {
        out.push("  its end was not observed: a snapshot does not have it any more".into());
    }
    out
}

fn key(actor: &Actor) -> ProcessKey {
    actor.process.key
}

fn ends(kind: EventKind) -> bool {
    matches!(kind, EventKind::Close | EventKind::Fail | EventKind::Unlisten)
}

/// The arrow points away from the originator.
pub(super) fn arrow(endpoint: &Endpoint) -> &'static str {
    match endpoint.side() {
        Some(Side::Local) => "->",
        Some(Side::Remote) => "<-",
        Some(Side::Both) => "<>",
        Some(Side::Unknown) => "--",
        None => "",
    }
}

fn originator(state: &State, endpoint: &Endpoint) -> String {
    if let Some(actor) = &endpoint.originator {
        let side = if endpoint.verdict.side == Side::Remote { ", on this host" } else { "" };
        return format!("{}{side}", who(actor));
    }
    let originator = Originator::of(endpoint);
    match originator {
        Originator::Unknown => "unknown".into(),
        other => format!("{} {}", other.kind(), other.name(|uid| state.user(uid))),
    }
}

/// The basis of a verdict, in words.
fn basis(endpoint: &Endpoint) -> String {
    let Verdict { side, basis, confidence } = endpoint.verdict;
    let name = |actor: Option<&Actor>| actor.map_or_else(|| "a process".into(), who);
    let here = endpoint.process.as_ref();
    let words = match basis {
        Basis::Connect => format!("{} was seen to call connect()", name(endpoint.originator.as_ref())),
        Basis::Accept => format!("{} was seen to accept it", name(here)),
        Basis::Handshake => match side {
            Side::Both => "both sides sent a SYN".into(),
            Side::Local => "the SYN was sent from here".into(),
            _ => "the SYN was received".into(),
        },
        Basis::Peer => "the endpoint of the other side, which is on this host".into(),
        Basis::Listener => "a socket listens on the local address and port".into(),
        Basis::PortRange => "only the port numbers: a guess".into(),
        Basis::Idle => {
            "nothing: it is the first datagram after a pause, which either side may have sent".into()
        }
        Basis::Repair => "nothing: the kernel was made to restore the connection (TCP_REPAIR)".into(),
        Basis::None => "nothing".into(),
    };
    match confidence {
        Confidence::Unknown => words,
        confidence => format!("{words} ({}, {})", basis.name(), confidence.name()),
    }
}

fn how_it_has_it(basis: ProcessBasis) -> &'static str {
    match basis {
        ProcessBasis::Connect => "it connected",
        ProcessBasis::Accept => "it accepted",
        ProcessBasis::Listener => "it listens; nobody has accepted yet",
        ProcessBasis::Handover => "it got the connection from another process",
        ProcessBasis::Seed => "it has the socket open",
    }
}

fn about(state: &State, title: &str, actor: Option<&Actor>, how: &str, out: &mut Vec<String>) {
    let Some(actor) = actor else {
        out.extend([format!("{title}: not known"), String::new()]);
        return;
    };
    let process = &actor.process;
    let how = if how.is_empty() { String::new() } else { format!(", {how}") };
    out.push(format!("{title}: {}{how}", who(actor)));
    if let Some(thread) = actor.thread() {
        out.push(format!("  thread {} ({})", actor.tid(), clean(thread)));
    }
    out.push(format!("  {}", program(process, ARGUMENTS)));
    let mut user = format!("  user {}", state.user(process.uid));
    if let Some(login) = process.auid {
        user.push_str(&format!(", logged in as {}", state.user(login)));
    }
    let place = where_it_runs::of_cgroup(&process.cgroup);
    if let Some(unit) = place.unit {
        user.push_str(&format!(", unit {}", clean(unit)));
    }
    if let Some(container) = place.container {
        user.push_str(&format!(", container {}", clean(&container)));
    }
    out.push(user);
    for (depth, ancestor) in process.ancestors().take(ANCESTORS).enumerate() {
        let name = who(&Actor::leader(ancestor.clone()));
        out.push(format!("  {}forked by {name} {}", "  ".repeat(depth.min(8)), program(ancestor, SHORT)));
    }
    out.push(String::new());
}

/// Path and arguments.
fn program(process: &Process, most: usize) -> String {
    let image = &process.image;
    let mut line = match &image.exe {
        Some(exe) => clean(exe).into_owned(),
        None if process.kernel => "kernel thread".into(),
        None => "program not known".into(),
    };
    let arguments = image.args.join(" ");
    if !arguments.is_empty() {
        let short: String = arguments.chars().take(most).collect();
        let more = if short.len() < arguments.len() { "…" } else { "" };
        line.push_str(&format!("  {}{more}", clean(&short)));
    }
    line
}

fn time(state: &State, row: &Row, at: BootTime) -> String {
    match row.clock.time(at) {
        Some(time) => {
            time.to_zoned_datetime(state.options.zone.clone()).strftime("%F %H:%M:%S.%3f").to_string()
        }
        None => "-".into(),
    }
}

fn happened(event: &ConnectionEvent) -> String {
    let mut line = event.kind.name().to_owned();
    if let Some(actor) = event.endpoint.process.as_ref().filter(|_| !ends(event.kind)) {
        line.push_str(&format!(" {}", who(actor)));
    }
    let outcome = &event.outcome;
    if let Some(number) = outcome.errno {
        line.push_str(&format!(" {}", errno::name(number)));
    }
    if let Some(closed_by) = outcome.closed_by {
        line.push_str(&format!(" by {}", closed_by.name()));
    }
    if let Some(duration) = outcome.duration {
        line.push_str(&format!(" after {}", cells::lasted(Duration::from_nanos(duration))));
    }
    if let Some(bytes) = outcome.bytes {
        line.push_str(&format!(", {} B sent, {} B received", bytes.sent, bytes.received));
    }
    if event.repaired {
        line.push_str(", found by a snapshot after a loss");
    }
    line
}

impl State {
    /// Name of a user, or the number.
    pub(super) fn user(&self, uid: u32) -> String {
        match self.table.users.get(&uid).and_then(Option::as_ref) {
            Some(name) => clean(name).into_owned(),
            None => uid.to_string(),
        }
    }
}
