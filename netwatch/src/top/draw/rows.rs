//! The cells of a line, one for each column of its view.

use jiff::Timestamp;

use crate::origin::Confidence;
use crate::top::cells::{address, bytes, clean, who};
use crate::top::details::arrow;
use crate::top::groups::{Group, Originator, Sums};
use crate::top::losses::{self, What};
use crate::top::order::{Target, View};
use crate::top::state::State;
use crate::top::table::{Row, RowId, state_word};

/// How a line looks as a whole.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    Ended,
    Alarm,
}

/// The texts of a line.
pub(super) struct Cells {
    pub(super) texts: Vec<String>,
    pub(super) is_suspicious: bool,
    pub(super) tone: Tone,
}

/// The cells of a line; `None` if what it was about is not kept any more.
pub(super) fn cells(state: &State, target: &Target) -> Option<Cells> {
    match target {
        Target::Row(id) => {
            let row = state.rows().rows.get(id)?;
            Some(match state.view {
                View::Listening => listener(state, *id, row),
                View::Losses => sign(state, row),
                _ => connection(state, row),
            })
        }
        Target::Group(group) => {
            let sums = state.shown.sums.get(group)?;
            Some(match group {
                Group::Process(_) => process(state, sums),
                Group::Originator(originator) => self::originator(state, originator, sums),
            })
        }
        Target::Line(number) => {
            let line = state.losses.lines.iter().find(|line| line.number == *number)?;
            let (text, tone) = match &line.what {
                What::Loss(loss) => (losses::sentence(loss), Tone::Alarm),
                What::Note(text) => (clean(text).into_owned(), Tone::Plain),
            };
            let at = Some(line.at).filter(|at| *at != Timestamp::UNIX_EPOCH);
            Some(Cells { texts: vec![time(state, at), text], is_suspicious: false, tone })
        }
    }
}

fn tone(row: &Row) -> Tone {
    if row.gone.is_some() { Tone::Ended } else { Tone::Plain }
}

fn signs(row: &Row) -> String {
    row.signs().map(|sign| sign.text()).collect::<Vec<_>>().join(", ")
}

fn program(row: &Row) -> String {
    row.endpoint().process.as_ref().map_or_else(|| "-".into(), who)
}

fn connection(state: &State, row: &Row) -> Cells {
    let endpoint = row.endpoint();
    let origin = match &endpoint.originator {
        Some(actor) => who(actor),
        None => match Originator::of(endpoint) {
            Originator::Remote(ip) => ip.to_string(),
            Originator::Unknown => "unknown".into(),
            Originator::Host => "this host".into(),
            _ => program(row),
        },
    };
    let amount = |count: Option<u64>| count.map_or_else(String::new, bytes);
    let signs = signs(row);
    Cells {
        is_suspicious: !signs.is_empty(),
        texts: vec![
            time(state, row.began()),
            origin,
            arrow(endpoint).into(),
            how(row),
            address(endpoint.local),
            endpoint.remote.map_or_else(String::new, address),
            program(row),
            state_word(row).into(),
            row.last.facts.service.map_or_else(String::new, |service| clean(service).into_owned()),
            amount(row.bytes.map(|bytes| bytes.sent)),
            amount(row.bytes.map(|bytes| bytes.received)),
            amount(row.rate.map(|rate| rate.sent)),
            amount(row.rate.map(|rate| rate.received)),
            signs,
        ],
        tone: tone(row),
    }
}

/// The basis: as it is if observed, with `~` if inferred, with `?` if guessed.
fn how(row: &Row) -> String {
    let verdict = row.endpoint().verdict;
    let name = verdict.basis.name();
    match verdict.confidence {
        Confidence::Observed => name.into(),
        Confidence::Inferred => format!("{name}~"),
        Confidence::Guessed => "ports?".into(),
        Confidence::Unknown => "unknown".into(),
    }
}

fn listener(state: &State, id: RowId, row: &Row) -> Cells {
    let endpoint = row.endpoint();
    let clients = state.shown.clients.get(&id.end.cookie).copied().unwrap_or(0);
    let ip = endpoint.local.ip;
    let reach = if ip.is_loopback() {
        "this host"
    } else if ip.is_unspecified() {
        "every address"
    } else {
        "one address"
    };
    let signs = signs(row);
    let process = endpoint.process.as_ref().map(|actor| &actor.process);
    Cells {
        is_suspicious: !signs.is_empty(),
        texts: vec![
            address(endpoint.local),
            endpoint.proto.name().into(),
            program(row),
            clients.to_string(),
            reach.into(),
            process.map_or_else(String::new, |process| state.user(process.uid)),
            state_word(row).into(),
            time(state, row.began()),
            row.last.facts.service.map_or_else(String::new, |service| clean(service).into_owned()),
            signs,
        ],
        tone: tone(row),
    }
}

fn sign(state: &State, row: &Row) -> Cells {
    let endpoint = row.endpoint();
    let remote = endpoint.remote.map_or_else(|| "listens".into(), address);
    let text = format!("{} {} {} {remote}: {}", program(row), endpoint.local, arrow(endpoint), signs(row));
    Cells { texts: vec![time(state, row.began()), text], is_suspicious: true, tone: tone(row) }
}

fn process(state: &State, sums: &Sums) -> Cells {
    let process = sums.process.as_ref();
    let name = |process: &crate::process::Process| format!("{}[{}]", clean(&process.comm), process.key.pid);
    let parent = process.and_then(|process| process.parent.as_ref());
    let exe = process.and_then(|process| process.image.exe.as_deref());
    Cells {
        texts: vec![
            process.map_or_else(|| "not known".into(), |process| name(process)),
            sums.open.to_string(),
            sums.out.to_string(),
            sums.inbound.to_string(),
            sums.failed.to_string(),
            sums.listening.to_string(),
            bytes(sums.bytes.sent),
            bytes(sums.bytes.received),
            process.map_or_else(String::new, |process| state.user(process.uid)),
            parent.map_or_else(String::new, |parent| name(parent)),
            exe.map_or_else(String::new, |exe| clean(exe).into_owned()),
        ],
        is_suspicious: sums.is_suspicious,
        tone: Tone::Plain,
    }
}

fn originator(state: &State, originator: &Originator, sums: &Sums) -> Cells {
    Cells {
        texts: vec![
            originator.name(|uid| state.user(uid)),
            originator.kind().into(),
            sums.open.to_string(),
            sums.total.to_string(),
            sums.failed.to_string(),
            bytes(sums.bytes.sent),
            bytes(sums.bytes.received),
            time(state, sums.first),
            time(state, sums.last),
            sums.least.name().into(),
        ],
        is_suspicious: sums.is_suspicious,
        tone: if sums.open == 0 { Tone::Ended } else { Tone::Plain },
    }
}

/// `12:03:11`; the date, if it is another day than that of the last event.
fn time(state: &State, time: Option<Timestamp>) -> String {
    let Some(time) = time else { return String::new() };
    let zoned = |time: Timestamp| time.to_zoned_datetime(state.options.zone.clone());
    let time = zoned(time);
    let is_today = state.newest().is_none_or(|newest| zoned(newest).date() == time.date());
    time.strftime(if is_today { "%T" } else { "%y-%m-%d" }).to_string()
}
