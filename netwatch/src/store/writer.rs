//! Writes what was told, in batches: one transaction, one sync, one link of the chain each.

use std::fmt::Write as _;
use std::path::Path;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{OptionalExtension as _, TransactionBehavior};

use super::batch::{Batch, Ids};
use super::chain::{Link, Table};
use super::intern::Interner;
use super::retain::{Retain, Retention};
use super::rows::{COLUMNS, Cell, Cells, Roles, predicted};
use super::thread::Item;
use super::{StoreError, open};
use crate::hash::Map;
use crate::process::view::BootClock;
use crate::process::{Actor, Found, signs};
use crate::tracker::{ConnectionEvent, EndId, Kind};

/// What a writer has to know beside what it is told.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How much is kept.
    pub retention: Retention,
    /// The boot, as in the ids of events.
    pub boot: String,
    /// What is recorded of all there is, in words; `None`: everything.
    pub filter: Option<String>,
    /// When the system booted, by the clock when the run began.
    pub clock: BootClock,
}

/// Rows of connections that go into one batch.
const MOST_ROWS: usize = 8192;

/// Has the store, and the only one to write to it.
pub(crate) struct Writer {
    opened: open::Opened,
    settings: Settings,
    clock: BootClock,
    ids: Ids,
    previous: Link,
    segment: Option<Segment>,
    run: Option<i64>,
    interner: Interner,
    retain: Retain,
    grouping: Grouping,
    scratch: Scratch,
}

#[derive(Clone, Copy)]
struct Segment {
    id: i64,
    started: Timestamp,
    rows: i64,
    clock: BootClock,
}

/// Which events make one row: those of one end.
#[derive(Default)]
struct Grouping {
    /// First and last event of an end, by their places among the items.
    ends: Map<EndId, (usize, usize)>,
    /// For each item the next of the same end.
    next: Vec<Option<usize>>,
    /// First events, in their order.
    firsts: Vec<usize>,
}

#[derive(Default)]
struct Scratch {
    events: String,
    kinds: Vec<Kind>,
    local: String,
    remote: String,
    errno: String,
}

impl Writer {
    /// Opens the store at `path`, or makes it.
    ///
    /// # Errors
    /// Where somebody else writes to it, or it is none.
    pub(crate) fn open(path: &Path, settings: Settings) -> Result<Self, StoreError> {
        let opened = open::for_writing(path, settings.retention.wal_pages())?;
        let mut writer = Self {
            opened,
            clock: settings.clock,
            ids: Ids::default(),
            previous: Link::NONE,
            segment: None,
            run: None,
            interner: Interner::default(),
            retain: Retain::new(&settings.retention),
            grouping: Grouping::default(),
            scratch: Scratch::default(),
            settings,
        };
        writer.resume()?;
        Ok(writer)
    }

    /// Where the chain ends and the ids go on.
    fn resume(&mut self) -> Result<(), StoreError> {
        let db = &self.opened.db;
        let last = db
            .query_row("SELECT id, hash FROM batch ORDER BY id DESC LIMIT 1", [], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, Vec<u8>>(1)?))
            })
            .optional()?;
        if let Some((id, hash)) = last {
            self.ids.batch = id;
            self.previous = Link::from_bytes(&hash)
                .ok_or_else(|| StoreError::Damaged(format!("batch {id} has no hash")))?;
        }
        for (table, id) in Table::ALL.iter().zip(&mut self.ids.tables) {
            let name = table.name();
            // What retention has dropped is counted too, and what somebody may have put behind the last batch.
            let covered = format!("SELECT coalesce(max({name}_to), 0) FROM batch WHERE id = ?");
            let covered: i64 = db.query_row(&covered, [self.ids.batch], |row| row.get(0))?;
            let there = format!("SELECT coalesce(max(id), 0) FROM {name}");
            let there: i64 = db.query_row(&there, [], |row| row.get(0))?;
            *id = covered.max(there);
        }
        self.retain.resume(db)
    }

    /// Writes the first of `items` in one transaction, and returns how many those are: as many as go into one batch.
    /// With none it does what there is to do for retention. Where it fails nothing was written, and all may be tried again.
    ///
    /// # Errors
    /// What SQLite met.
    pub(crate) fn commit(&mut self, items: &[Item]) -> Result<usize, StoreError> {
        let (clock, taken) = self.take(items);
        let prune = self.retain.due(&self.opened.db, self.segment.map(|segment| segment.id))?;
        let has_rows = items.iter().take(taken).any(|item| !matches!(item, Item::Clock(_)));
        if !has_rows && prune.is_none() && !self.retain.has_slices() {
            self.clock = clock;
            return Ok(taken);
        }
        let written = self.write(items, clock, prune, has_rows);
        match written {
            Ok(written) => {
                self.ids = written.ids;
                self.previous = written.link;
                self.segment = written.segment;
                self.run = written.run;
                self.clock = clock;
                Ok(taken)
            }
            Err(error) => {
                // Rows that it remembers may not be there.
                self.interner.clear();
                self.retain.undo();
                Err(error)
            }
        }
    }

    /// The clock by which the first items are told, and how many those are.
    fn take(&mut self, items: &[Item]) -> (BootClock, usize) {
        let Grouping { ends, next, firsts } = &mut self.grouping;
        ends.clear();
        next.clear();
        firsts.clear();
        let mut clock = self.clock;
        for (place, item) in items.iter().enumerate() {
            match item {
                Item::Clock(new) if *new == clock => {}
                // By another clock: another segment.
                Item::Clock(_) if !firsts.is_empty() || place > 0 => return (clock, place),
                Item::Clock(new) => clock = *new,
                Item::Event(event, _) => match ends.get_mut(&event.end.id) {
                    Some((_, last)) => {
                        if let Some(link) = next.get_mut(*last) {
                            *link = Some(place);
                        }
                        *last = place;
                    }
                    None if firsts.len() >= MOST_ROWS => return (clock, place),
                    None => {
                        ends.insert(event.end.id, (place, place));
                        firsts.push(place);
                    }
                },
                Item::Process(..) | Item::Loss(..) | Item::Stopped(_) => {}
            }
            next.push(None);
        }
        (clock, items.len())
    }

    fn write(
        &mut self,
        items: &[Item],
        clock: BootClock,
        prune: Option<i64>,
        has_rows: bool,
    ) -> Result<Written, StoreError> {
        let transaction = self.opened.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let now = Timestamp::now();
        let mut batch = Batch::new(&transaction, self.ids, self.segment.map_or(0, |segment| segment.id))?;
        let (mut segment, mut run) = (self.segment, self.run);
        let is_full = |segment: &Segment| {
            segment.clock != clock
                || segment.rows >= self.settings.retention.segment_rows()
                || now.duration_since(segment.started).unsigned_abs() >= self.settings.retention.segment_age()
        };
        let needs_segment = (has_rows || prune.is_some())
            && segment.as_ref().is_none_or(|segment| is_full(segment) || Some(segment.id) <= prune);
        if needs_segment {
            self.interner.clear();
            segment = Some(begin_segment(&mut batch, &self.settings, now, clock, &mut run)?);
        }
        let mut row = RowWriter {
            clock,
            interner: &mut self.interner,
            grouping: &self.grouping,
            scratch: &mut self.scratch,
        };
        for first in &self.grouping.firsts {
            row.connection(items, *first, &mut batch)?;
        }
        for item in items.iter().take(self.grouping.next.len()) {
            match item {
                Item::Process(process, found) => {
                    let ts = nanoseconds(now);
                    row.interner.actor(&Actor::leader(process.clone()), Some(*found), ts, &mut batch)?;
                }
                Item::Loss(at, loss) => {
                    for (kind, count) in &loss.kinds {
                        insert_loss(&mut batch, *at, loss.reason.name(), kind, *count)?;
                    }
                }
                Item::Stopped(at) => {
                    insert_with_segment(&mut batch, Table::Stopped, &[ValueRef::Integer(nanoseconds(*at))])?;
                }
                Item::Event(..) | Item::Clock(_) => {}
            }
        }
        if let Some(through) = prune {
            self.retain.prune(&transaction, &mut batch, through, nanoseconds(now))?;
        }
        let rows = batch.rows(Table::Connection);
        self.retain.slice(&transaction, rows)?;
        let is_batch = Table::ALL.iter().any(|table| batch.rows(*table) > 0);
        let (ids, link) = if is_batch {
            batch.seal(nanoseconds(now), &self.previous)?
        } else {
            drop(batch);
            (self.ids, self.previous)
        };
        transaction.commit()?;
        if let Some(segment) = &mut segment {
            segment.rows += rows;
        }
        Ok(Written { ids, link, segment, run })
    }
}

struct Written {
    ids: Ids,
    link: Link,
    segment: Option<Segment>,
    run: Option<i64>,
}

fn begin_segment(
    batch: &mut Batch<'_>,
    settings: &Settings,
    now: Timestamp,
    clock: BootClock,
    run: &mut Option<i64>,
) -> Result<Segment, StoreError> {
    let id = batch.next_id(Table::Segment);
    let run = *run.get_or_insert(id);
    batch.begin_segment(id);
    let uname = rustix::system::uname();
    let of_boot = |clock: BootClock| ValueRef::Integer(clock.boot().unwrap_or(0));
    let kernel = uname.release().to_string_lossy();
    let hostname = uname.nodename().to_string_lossy();
    batch.insert(
        Table::Segment,
        &[
            ValueRef::Integer(id),
            ValueRef::Integer(run),
            text(Some(&settings.boot)),
            ValueRef::Integer(nanoseconds(now)),
            of_boot(clock),
            of_boot(settings.clock),
            text(Some(env!("CARGO_PKG_VERSION"))),
            text(Some(&kernel)),
            text(Some(&hostname)),
            text(settings.filter.as_deref()),
        ],
    )?;
    Ok(Segment { id, started: now, rows: 0, clock })
}

fn insert_with_segment(
    batch: &mut Batch<'_>,
    table: Table,
    values: &[ValueRef<'_>],
) -> Result<(), StoreError> {
    let head = [ValueRef::Integer(batch.next_id(table)), ValueRef::Integer(batch.segment())];
    batch.insert(table, &[&head, values].concat())
}

fn insert_loss(
    batch: &mut Batch<'_>,
    at: Timestamp,
    reason: &str,
    kind: &str,
    count: u64,
) -> Result<(), StoreError> {
    insert_with_segment(
        batch,
        Table::Loss,
        &[
            ValueRef::Integer(nanoseconds(at)),
            ValueRef::Text(reason.as_bytes()),
            ValueRef::Text(kind.as_bytes()),
            ValueRef::Integer(count.cast_signed()),
        ],
    )
}

/// Since the epoch; the store ends in the year 2262.
pub(super) fn nanoseconds(time: Timestamp) -> i64 {
    time.as_nanosecond().try_into().unwrap_or(i64::MAX)
}

/// Writes rows of connections.
struct RowWriter<'a> {
    clock: BootClock,
    interner: &'a mut Interner,
    grouping: &'a Grouping,
    scratch: &'a mut Scratch,
}

impl RowWriter<'_> {
    /// One row: of the end whose first event is the item at `first`, with all that follow.
    fn connection(&mut self, items: &[Item], first: usize, batch: &mut Batch<'_>) -> Result<(), StoreError> {
        let events = Chain { items, next: &self.grouping.next, place: Some(first) };
        let Some((head, _)) = events.clone().next() else { return Ok(()) };
        self.scratch.events.clear();
        self.scratch.kinds.clear();
        for (event, _) in events.clone() {
            let separator = if self.scratch.events.is_empty() { "" } else { " " };
            let since = i128::from(event.at) - i128::from(head.at);
            // Writing to a String cannot fail.
            let _ = write!(self.scratch.events, "{separator}{}+{since}", event.kind.name());
            self.scratch.kinds.push(event.kind);
        }
        let ts = self.time(head.at);
        let Some((last, found)) = events.clone().last() else { return Ok(()) };
        let cells = Cells::of(last, self.rows(last, found, ts, batch)?);
        let odd = self.odd(events, &cells, ts, batch)?;
        let signs: Vec<_> = signs::of_end(&last.end).map(signs::Sign::name).collect();
        let signs = signs.join(",");
        self.insert(last.end.id, ts, &cells, &signs, odd.as_deref(), batch)
    }

    /// What events before the last had otherwise than predicted, by their place in the row.
    fn odd(
        &mut self,
        events: Chain<'_>,
        last: &Cells,
        ts: i64,
        batch: &mut Batch<'_>,
    ) -> Result<Option<String>, StoreError> {
        let mut odd = serde_json::Map::new();
        for (place, (event, found)) in events.enumerate() {
            let later = self.scratch.kinds.get(place + 1..).unwrap_or_default();
            if later.is_empty() {
                break;
            }
            let expected = predicted(event.kind, later, last);
            let cells = Cells::of(event, self.rows(event, found, ts, batch)?);
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

    /// The rows of the processes of an event.
    fn rows(
        &mut self,
        event: &ConnectionEvent,
        found: &Roles<Option<Found>>,
        ts: i64,
        batch: &mut Batch<'_>,
    ) -> Result<Roles<Option<i64>>, StoreError> {
        let mut row = |actor: Option<&Actor>, found: Option<Found>| {
            actor.map(|actor| self.interner.actor(actor, found, ts, batch)).transpose()
        };
        let end = &event.end;
        Ok(Roles {
            originator: row(end.originator.as_ref(), found.originator)?,
            process: row(end.process.as_ref(), found.process)?,
            listener: row(end.listener.as_ref().and_then(|party| party.process.as_ref()), found.listener)?,
            peer: row(end.peer.as_ref().and_then(|party| party.process.as_ref()), found.peer)?,
        })
    }

    fn insert(
        &mut self,
        id: EndId,
        ts: i64,
        cells: &Cells,
        signs: &str,
        odd: Option<&str>,
        batch: &mut Batch<'_>,
    ) -> Result<(), StoreError> {
        let Scratch { events, local, remote, errno, .. } = &mut *self.scratch;
        [&mut *local, &mut *remote, &mut *errno].into_iter().for_each(String::clear);
        let mut values = [ValueRef::Null; 6 + COLUMNS.len() + 2];
        let head = [
            ValueRef::Integer(batch.next_id(Table::Connection)),
            ValueRef::Integer(batch.segment()),
            ValueRef::Integer(id.cookie.cast_signed()),
            ValueRef::Integer(id.began.cast_signed()),
            ValueRef::Integer(ts),
            ValueRef::Text(events.as_bytes()),
        ];
        // Texts first: what a value borrows must not change any more.
        for cell in cells.0 {
            match cell {
                Cell::Ip(ip) if local.is_empty() => _ = write!(local, "{ip}"),
                Cell::Ip(ip) => _ = write!(remote, "{ip}"),
                Cell::Errno(number) => errno.push_str(&crate::errno::name(number)),
                Cell::Null | Cell::Int(_) => {}
            }
        }
        let mut addresses = [&**local, &**remote].into_iter();
        let columns = cells.0.iter().map(|cell| match cell {
            Cell::Null => ValueRef::Null,
            Cell::Int(number) => ValueRef::Integer(*number),
            Cell::Ip(_) => ValueRef::Text(addresses.next().unwrap_or_default().as_bytes()),
            Cell::Errno(_) => ValueRef::Text(errno.as_bytes()),
        });
        let tail = [text(Some(signs).filter(|signs| !signs.is_empty())), text(odd)];
        for (value, filled) in values.iter_mut().zip(head.into_iter().chain(columns).chain(tail)) {
            *value = filled;
        }
        batch.insert(Table::Connection, &values)
    }

    /// Nanoseconds since the epoch.
    fn time(&self, at: u64) -> i64 {
        let boot = i128::from(self.clock.boot().unwrap_or(0));
        (boot + i128::from(at)).try_into().unwrap_or(i64::MAX)
    }
}

fn text(text: Option<&str>) -> ValueRef<'_> {
    text.map_or(ValueRef::Null, |text| ValueRef::Text(text.as_bytes()))
}

fn json(cell: Cell) -> serde_json::Value {
    match cell {
        Cell::Null => serde_json::Value::Null,
        Cell::Int(number) => number.into(),
        Cell::Ip(ip) => ip.to_string().into(),
        Cell::Errno(number) => crate::errno::name(number).into(),
    }
}

/// The events of one end among items.
#[derive(Clone)]
struct Chain<'a> {
    items: &'a [Item],
    next: &'a [Option<usize>],
    place: Option<usize>,
}

impl<'a> Iterator for Chain<'a> {
    type Item = (&'a ConnectionEvent, &'a Roles<Option<Found>>);

    fn next(&mut self) -> Option<Self::Item> {
        let place = self.place?;
        self.place = self.next.get(place).copied().flatten();
        match self.items.get(place)? {
            Item::Event(event, found) => Some((event, found)),
            _ => None,
        }
    }
}
