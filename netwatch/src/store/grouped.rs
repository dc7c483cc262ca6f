//! Groups the events of an endpoint within a batch to one row.

use std::fmt::Write as _;

use rusqlite::types::ValueRef;

use super::StoreError;
use super::batch::Batch;
use super::chain::Table;
use super::entry::Entry;
use super::intern::Interner;
use super::predict::{Kinds, find_later, predicted};
use super::rebuild::{HEAD, TAIL};
use super::rows::{COLUMNS, Cell, Cells, FIRST_COLUMNS};
use crate::clock::BootClock;
use crate::hash::Map;
use crate::model::BootTime;
use crate::signs;
use crate::tracker::{ConnectionEvent, EndpointId, EventKind, Roles};

/// Maximum number of connection rows in a batch.
const MOST_ROWS: usize = 8192;

/// The events of each endpoint.
#[derive(Default)]
pub(super) struct Grouping {
    /// First and last event of an endpoint, by index of the item.
    ends: Map<EndpointId, (usize, usize)>,
    /// For each item the next one of the same endpoint.
    next: Vec<Option<usize>>,
    /// First events in order.
    firsts: Vec<usize>,
}

impl Grouping {
    /// Takes as many items as fit in a batch. Returns their clock, which was `clock` so far, and their number.
    pub(super) fn take(&mut self, items: &[Entry], clock: BootClock) -> (BootClock, usize) {
        let Self { ends, next, firsts } = self;
        ends.clear();
        next.clear();
        firsts.clear();
        let mut clock = clock;
        for (place, item) in items.iter().enumerate() {
            match item {
                Entry::Clock(new) if *new == clock => {}
                // Another clock requires another segment.
                Entry::Clock(_) if !firsts.is_empty() || place > 0 => return (clock, place),
                Entry::Clock(new) => clock = *new,
                Entry::Event(event) => match ends.get_mut(&event.endpoint.id) {
                    Some((_, last)) => {
                        if let Some(link) = next.get_mut(*last) {
                            *link = Some(place);
                        }
                        *last = place;
                    }
                    None if firsts.len() >= MOST_ROWS => return (clock, place),
                    None => {
                        ends.insert(event.endpoint.id, (place, place));
                        firsts.push(place);
                    }
                },
                Entry::Process(..) | Entry::Alert(_) | Entry::Loss(..) | Entry::Stopped(_) => {}
            }
            next.push(None);
        }
        (clock, items.len())
    }

    /// Indices of the first event of each endpoint.
    pub(super) fn firsts(&self) -> &[usize] {
        &self.firsts
    }

    /// Number of items taken.
    pub(super) fn taken(&self) -> usize {
        self.next.len()
    }
}

/// Buffers, reused for each row.
#[derive(Default)]
pub(super) struct Scratch {
    events: String,
    kinds: Vec<EventKind>,
    /// See [`find_later`].
    later: Vec<Kinds>,
    /// Of the endpoint, and as the other side sees them.
    addresses: [String; 4],
    errno: String,
}

/// Writes rows of connections.
pub(super) struct RowWriter<'a> {
    pub(super) clock: BootClock,
    pub(super) interner: &'a mut Interner,
    pub(super) grouping: &'a Grouping,
    pub(super) scratch: &'a mut Scratch,
}

impl RowWriter<'_> {
    /// Writes the row of the endpoint whose first event is the item at `first`.
    pub(super) fn connection(
        &mut self,
        items: &[Entry],
        first: usize,
        batch: &mut Batch<'_>,
    ) -> Result<(), StoreError> {
        let events = Chain { items, next: &self.grouping.next, place: Some(first) };
        let Some(head) = events.clone().next() else { return Ok(()) };
        self.scratch.events.clear();
        self.scratch.kinds.clear();
        for event in events.clone() {
            let separator = if self.scratch.events.is_empty() { "" } else { " " };
            let since = i128::from(event.at.nanos()) - i128::from(head.at.nanos());
            // Writing to a String cannot fail.
            let _ = write!(self.scratch.events, "{separator}{}+{since}", event.kind.name());
            self.scratch.kinds.push(event.kind);
        }
        let ts = self.time(head.at);
        let Some(last) = events.clone().last() else { return Ok(()) };
        let cells = self.cells(last, ts, batch)?;
        let odd = self.odd(events, &cells, ts, batch)?;
        let signs: Vec<_> = signs::of_end(&last.endpoint).map(signs::Sign::name).collect();
        let signs = signs.join(",");
        self.insert(last.endpoint.id, ts, &cells, &signs, odd.as_deref(), batch)
    }

    /// Values of earlier events that differ from the prediction, by index in the row.
    fn odd(
        &mut self,
        events: Chain<'_>,
        last: &Cells,
        ts: i64,
        batch: &mut Batch<'_>,
    ) -> Result<Option<String>, StoreError> {
        let mut odd = serde_json::Map::new();
        let Scratch { kinds, later, .. } = &mut *self.scratch;
        find_later(kinds, later);
        for (place, event) in events.enumerate() {
            let later = self.scratch.later.get(place).copied().unwrap_or_default();
            if later.is_empty() {
                break;
            }
            let expected = predicted(event.kind, later, last);
            let cells = self.cells(event, ts, batch)?;
            if cells == expected {
                continue;
            }
            let differs =
                COLUMNS.iter().zip(cells.0.iter().zip(&expected.0)).filter(|(_, (is, was))| is != was);
            let differs = differs.map(|(column, (is, _))| ((*column).to_owned(), json(*is)));
            odd.insert(place.to_string(), serde_json::Value::Object(differs.collect()));
        }
        if odd.is_empty() {
            return Ok(None);
        }
        serde_json::to_string(&odd).map(Some).map_err(StoreError::Json)
    }

    /// The columns of an event; processes, messages and names are written if they are new.
    fn cells(
        &mut self,
        event: &ConnectionEvent,
        ts: i64,
        batch: &mut Batch<'_>,
    ) -> Result<Cells, StoreError> {
        let rows = self.rows(event, ts, batch)?;
        let cause = self.interner.cause(&event.endpoint.cause, ts, batch)?;
        let names = self.interner.names(&event.endpoint.names, ts, batch)?;
        Ok(Cells::of(event, rows, cause, names))
    }

    /// The rows of the processes of an event.
    fn rows(
        &mut self,
        event: &ConnectionEvent,
        ts: i64,
        batch: &mut Batch<'_>,
    ) -> Result<Roles<Option<i64>>, StoreError> {
        let actors = event.endpoint.actors().with(event.facts.exe);
        actors.try_map(|(actor, status)| self.interner.actor(actor, status, ts, batch))
    }

    fn insert(
        &mut self,
        id: EndpointId,
        ts: i64,
        cells: &Cells,
        signs: &str,
        odd: Option<&str>,
        batch: &mut Batch<'_>,
    ) -> Result<(), StoreError> {
        let Scratch { events, addresses, errno, .. } = &mut *self.scratch;
        addresses.iter_mut().chain([&mut *errno]).for_each(String::clear);
        let mut values = [ValueRef::Null; HEAD + COLUMNS.len() + TAIL];
        let head = [
            ValueRef::Integer(batch.next_id(Table::Connection)),
            ValueRef::Integer(batch.segment()),
            ValueRef::Integer(id.cookie.cast_signed()),
            ValueRef::Integer(id.began.nanos().cast_signed()),
            ValueRef::Integer(ts),
            ValueRef::Text(events.as_bytes()),
        ];
        // Texts first, since values borrow from them.
        let mut texts = addresses.iter_mut();
        for cell in cells.0 {
            match cell {
                Cell::Ip(ip) => {
                    if let Some(text) = texts.next() {
                        _ = write!(text, "{ip}");
                    }
                }
                Cell::Errno(number) => errno.push_str(&crate::errno::name(number)),
                Cell::Null | Cell::Int(_) | Cell::Device(_) => {}
            }
        }
        let mut addresses = addresses.iter();
        let columns = cells.0.iter().map(|cell| match cell {
            Cell::Null => ValueRef::Null,
            Cell::Int(number) => ValueRef::Integer(*number),
            Cell::Ip(_) => text(addresses.next().map(String::as_str)),
            Cell::Errno(_) => ValueRef::Text(errno.as_bytes()),
            Cell::Device(name) => text(Some(name.as_str())),
        });
        let tail = [text(Some(signs).filter(|signs| !signs.is_empty())), text(odd)];
        const FIRST: usize = HEAD + FIRST_COLUMNS;
        let places = (0..FIRST).chain(FIRST + TAIL..HEAD + COLUMNS.len() + TAIL).chain(FIRST..FIRST + TAIL);
        for (place, filled) in places.zip(head.into_iter().chain(columns).chain(tail)) {
            if let Some(value) = values.get_mut(place) {
                *value = filled;
            }
        }
        batch.insert(Table::Connection, &values)
    }

    /// Nanoseconds since the epoch.
    fn time(&self, at: BootTime) -> i64 {
        let boot = i128::from(self.clock.boot().unwrap_or(0));
        (boot + i128::from(at.nanos())).try_into().unwrap_or(i64::MAX)
    }
}

pub(super) fn text(text: Option<&str>) -> ValueRef<'_> {
    text.map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes()))
}

fn json(cell: Cell) -> serde_json::Value {
    match cell {
        Cell::Null => serde_json::Value::Null,
        Cell::Int(number) => number.into(),
        Cell::Ip(ip) => ip.to_string().into(),
        Cell::Errno(number) => crate::errno::name(number).into(),
        Cell::Device(name) => name.as_str().into(),
    }
}

/// Iterates over the events of one endpoint.
#[derive(Clone)]
struct Chain<'a> {
    items: &'a [Entry],
    next: &'a [Option<usize>],
    place: Option<usize>,
}

impl<'a> Iterator for Chain<'a> {
    type Item = &'a ConnectionEvent;

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.place?;
        self.place = self.next.get(place).copied().flatten();
        match self.items.get(place)? {
            Entry::Event(event) => Some(event),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::ns;

    #[test]
    fn rows_of_a_batch_are_limited() {
        let of = |cookie: usize| {
            let mut event = crate::tracker::tests::event(EventKind::Open, "10.0.0.1:1", Some("10.0.0.2:2"));
            event.endpoint.id = EndpointId { cookie: cookie as u64, began: ns(1) };
            Entry::Event(event)
        };
        // A further event of an endpoint takes no row.
        let mut items: Vec<_> = (1..=MOST_ROWS).chain([1]).map(of).collect();
        let mut grouping = Grouping::default();
        assert_eq!(grouping.take(&items, BootClock::of_boot(0)).1, MOST_ROWS + 1);
        items.extend([of(MOST_ROWS + 1), of(MOST_ROWS + 2)]);
        assert_eq!(grouping.take(&items, BootClock::of_boot(0)).1, MOST_ROWS + 1);
        // The next batch has the rest.
        assert_eq!(grouping.take(&items[MOST_ROWS + 1..], BootClock::of_boot(0)).1, 2);
    }
}
