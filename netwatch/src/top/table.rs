//! The connections and listeners that the screen knows: those that are open, and the last ones that ended.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use crate::clock::BootClock;
use crate::hash::{Map, Set};
use crate::limits;
use crate::model::{BootTime, Payload, State};
use crate::signs::{self, Sign};
use crate::stream::{Context, UserNames};
use crate::tracker::{ConnectionEvent, Endpoint, EndpointId, EventKind};

/// A connection or listener, in one of the boots that the table has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct RowId {
    boot: u32,
    pub(super) end: EndpointId,
}

/// A connection or listener.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// Boot id of its times.
    pub(super) boot: Arc<str>,
    /// Converts its times to times of day.
    pub(super) clock: BootClock,
    /// The last event, with all that is known.
    pub(super) last: Arc<ConnectionEvent>,
    /// The events before, oldest first; of very many the first and the newest.
    before: Vec<Arc<ConnectionEvent>>,
    /// When the table was told that it ended.
    pub(super) gone: Option<BootTime>,
    /// Payload so far.
    pub(super) bytes: Option<Payload>,
    /// Payload per second, between the last two measurements.
    pub(super) rate: Option<Payload>,
    measured: BootTime,
}

/// How many events of a connection are kept. More than a handful come only of one that is handed over again and again. Test:
/// `top::tests::events_of_a_connection_are_bounded`.
const MOST_EVENTS: usize = 32;

impl Row {
    pub(super) fn endpoint(&self) -> &Endpoint {
        &self.last.endpoint
    }

    /// All events that are kept, oldest first.
    pub(super) fn events(&self) -> impl Iterator<Item = &Arc<ConnectionEvent>> {
        self.before.iter().chain(std::iter::once(&self.last))
    }

    pub(super) fn is_listener(&self) -> bool {
        self.endpoint().remote.is_none()
    }

    /// When it began or was first seen.
    pub(super) fn began(&self) -> Option<Timestamp> {
        self.clock.time(self.last.endpoint.id.began)
    }

    /// The time of its last event.
    pub(super) fn last_seen(&self) -> Option<Timestamp> {
        self.clock.time(self.last.at)
    }

    /// Signs that its process is suspicious.
    pub(super) fn signs(&self) -> impl Iterator<Item = Sign> {
        let endpoint = self.endpoint();
        let process = endpoint.process.as_ref().map(|actor| &actor.process);
        let status = |process: &crate::process::Process| {
            self.last.facts.exe.process.unwrap_or_else(|| process.exe_status())
        };
        let of_process = process.map(|process| signs::of_process(process, status(process)));
        of_process.into_iter().flatten().chain(signs::of_end(endpoint))
    }

    fn push(&mut self, event: Arc<ConnectionEvent>) {
        if self.before.len() + 1 >= MOST_EVENTS {
            self.before.remove(MOST_EVENTS / 2);
        }
        self.before.push(std::mem::replace(&mut self.last, event));
    }

    fn measure(&mut self, bytes: Option<Payload>, now: BootTime) {
        let Some(bytes) = bytes else { return };
        let seconds = Duration::from_nanos(now.saturating_sub(self.measured)).as_secs_f64();
        if let Some(before) = self.bytes.filter(|_| seconds > 0.0) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate for the eye")]
            #[expect(clippy::cast_precision_loss, reason = "a rate for the eye")]
            let rate = |now: u64, before: u64| (now.saturating_sub(before) as f64 / seconds) as u64;
            let (sent, received) = (rate(bytes.sent, before.sent), rate(bytes.received, before.received));
            self.rate = Some(Payload { sent, received });
        }
        (self.bytes, self.measured) = (Some(bytes), now);
    }
}

/// The table. A clone is cheap for its size: events are shared.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Map<RowId, Row>,
    boots: Vec<Arc<str>>,
    /// Those that ended, in the order in which they did.
    gone: VecDeque<RowId>,
    /// Names of users that batches brought.
    pub(super) users: Arc<UserNames>,
    /// Number of connections that are open.
    pub(super) open: usize,
    /// Connections that began, failed and ended since the start.
    pub(super) opened: u64,
    pub(super) failed: u64,
    pub(super) closed: u64,
    /// Those that ended and are not kept any more.
    pub(super) forgotten: u64,
    /// Number of events so far.
    pub(super) events: u64,
    /// The time of day of the newest event.
    pub(super) newest: Option<Timestamp>,
}

impl Table {
    /// Takes in an event. `selected` is not forgotten.
    pub(super) fn event(
        &mut self,
        event: &ConnectionEvent,
        context: &Context,
        now: BootTime,
        selected: Option<RowId>,
    ) {
        self.events += 1;
        self.newest = self.newest.max(context.clock.time(event.at));
        let id = RowId { boot: self.boot(&context.boot), end: event.endpoint.id };
        let is_end = matches!(event.kind, EventKind::Close | EventKind::Fail | EventKind::Unlisten);
        let is_listener = event.endpoint.remote.is_none();
        match event.kind {
            EventKind::Open => self.opened += 1,
            EventKind::Fail => self.failed += 1,
            EventKind::Close => self.closed += 1,
            _ => {}
        }
        let shared = Arc::new(event.clone());
        let row = match self.rows.entry(id) {
            std::collections::hash_map::Entry::Occupied(entry) => {
                let row = entry.into_mut();
                row.push(shared);
                row
            }
            std::collections::hash_map::Entry::Vacant(entry) => {
                self.open += usize::from(!is_listener);
                let boot = context.boot.clone();
                entry.insert(Row {
                    boot,
                    clock: context.clock,
                    last: shared,
                    before: Vec::new(),
                    gone: None,
                    bytes: None,
                    rate: None,
                    measured: now,
                })
            }
        };
        row.measure(event.outcome.bytes, now);
        if is_end {
            self.end(id, now);
        }
        self.forget(selected);
    }

    /// Marks a connection as ended.
    fn end(&mut self, id: RowId, now: BootTime) {
        let Some(row) = self.rows.get_mut(&id).filter(|row| row.gone.is_none()) else { return };
        (row.gone, row.rate) = (Some(now), None);
        self.open = self.open.saturating_sub(usize::from(!row.is_listener()));
        self.gone.push_back(id);
    }

    /// Takes in the table of the source: what it does not have any more ended unseen. A table by snapshots has other
    /// start times each time, so connections are found again by their cookie.
    pub(super) fn replace(
        &mut self,
        table: &[ConnectionEvent],
        context: &Context,
        now: BootTime,
        selected: Option<RowId>,
    ) {
        let boot = self.boot(&context.boot);
        let is_open = |(id, row): &(&RowId, &Row)| id.boot == boot && row.gone.is_none();
        let known: Map<_, _> = self
            .rows
            .iter()
            .filter(is_open)
            .map(|(id, row)| ((id.end.cookie, row.endpoint().remote), *id))
            .collect();
        let mut there = Set::default();
        for event in table {
            let found = known.get(&(event.endpoint.id.cookie, event.endpoint.remote));
            let Some(row) = found.and_then(|id| self.rows.get_mut(id)) else {
                there.insert(RowId { boot, end: event.endpoint.id });
                self.event(event, context, now, selected);
                continue;
            };
            there.extend(found.copied());
            row.measure(event.outcome.bytes, now);
            let mut last = event.clone();
            last.endpoint.id = row.endpoint().id;
            // What was observed is not replaced by what is inferred.
            if row.endpoint().verdict.basis <= last.endpoint.verdict.basis {
                last.endpoint.verdict = row.endpoint().verdict;
                last.endpoint.originator = last.endpoint.originator.or(row.endpoint().originator.clone());
            }
            (last.kind, last.at) = (row.last.kind, row.last.at);
            row.last = Arc::new(last);
        }
        for id in known.into_values().filter(|id| !there.contains(id)) {
            self.closed += 1;
            self.end(id, now);
        }
        self.forget(selected);
    }

    /// Forgets the oldest of those that ended, beyond the limit.
    fn forget(&mut self, selected: Option<RowId>) {
        while self.gone.len() > limits::TOP_ENDED {
            let Some(oldest) = self.gone.pop_front() else { return };
            if Some(oldest) == selected {
                self.gone.push_back(oldest);
                continue;
            }
            self.rows.remove(&oldest);
            self.forgotten += 1;
        }
    }

    /// When the last one ended.
    pub(super) fn last_end(&self) -> Option<BootTime> {
        self.rows.get(self.gone.back()?)?.gone
    }

    fn boot(&mut self, boot: &Arc<str>) -> u32 {
        let known = self.boots.iter().position(|known| known == boot);
        let place = known.unwrap_or_else(|| {
            self.boots.push(boot.clone());
            self.boots.len() - 1
        });
        u32::try_from(place).unwrap_or(u32::MAX)
    }
}

/// The state in one word: of one that ended, how.
pub(super) fn state_word(row: &Row) -> &'static str {
    match (row.last.kind, row.gone) {
        (EventKind::Fail, _) => "FAILED",
        (_, Some(_)) => "closed",
        (..) => match row.endpoint().state {
            State::Established => "ESTAB",
            State::SynSent => "SYN-S",
            State::SynRecv => "SYN-R",
            State::FinWait1 => "FIN-1",
            State::FinWait2 => "FIN-2",
            State::TimeWait => "TIME-W",
            State::Close => "UNCONN",
            State::CloseWait => "CLOSE-W",
            State::LastAck => "LAST-A",
            State::Listen => "LISTEN",
            State::Closing => "CLOSING",
            State::Unknown(_) => "?",
        },
    }
}
