//! Reads recorded endpoints, processes and losses, also while a recorder writes.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use jiff::Timestamp;
use rusqlite::Connection;

use super::chain::{Format, Table};
use super::query::{Query, StoredConnection};
use super::rebuild::{Processes, StoredRow};
use super::scan::Scan;
use super::search::{Narrow, Search, Segment, segment, segments};
use super::{DEFAULT_PATH, Progress, StoreError, alerts, open};
use crate::alert::Alert;
use crate::hash::Map;
use crate::limits;
use crate::loss::{Loss, LossReason};
use crate::model::{BootTime, ProcessKey};
use crate::process::Actor;
use crate::tracker::{ConnectionEvent, EndpointId, EventKind};

/// A loss.
#[derive(Clone, Debug)]
pub struct Missing {
    /// Boot id.
    pub boot: Arc<str>,
    /// When it was noticed.
    pub at: BootTime,
    /// The same as a time of day.
    pub time: Timestamp,
    /// The loss.
    pub loss: Loss,
}

/// A store that is open for reading.
pub struct Reader {
    db: Connection,
    version: i32,
    processes: Processes,
    /// When the transaction began, while the reader stands still.
    begun: Cell<Option<Instant>>,
    /// Rows of all endpoints with one cookie: the children of an MPTCP listener have its cookie, and reading all of them
    /// for each would be quadratic.
    siblings: RefCell<Siblings>,
    scan: Option<Scan>,
}

/// Ids of the rows of the endpoints with one cookie, by start time.
#[derive(Default)]
struct Siblings {
    cookie: Option<u64>,
    rows: Map<BootTime, Vec<i64>>,
}

impl Reader {
    /// Opens a store.
    ///
    /// # Errors
    /// If it does not exist or cannot be read.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let (db, version) = open::for_reading(path)?;
        Ok(Self::of(db, version))
    }

    pub(super) fn of(db: Connection, version: i32) -> Self {
        Self {
            db,
            version,
            processes: Processes::default(),
            begun: Cell::new(None),
            siblings: RefCell::default(),
            scan: None,
        }
    }

    /// Opens the given store, which must exist, or else the standard one if it exists.
    ///
    /// # Errors
    /// As [`Reader::open`].
    pub fn named_or_usual(named: Option<&Path>) -> Result<Option<Self>, StoreError> {
        let usual = Path::new(DEFAULT_PATH);
        named.or_else(|| usual.exists().then_some(usual)).map(Self::open).transpose()
    }

    /// From here on tables are read without indexes and views, which may have been altered. `watch` is told how far a
    /// search is, and may end it.
    pub fn scan(&mut self, watch: Box<dyn Fn(Progress) -> ControlFlow<()>>) {
        self.scan = Some(Scan::new(watch));
    }

    pub(super) fn is_scan(&self) -> bool {
        self.scan.is_some()
    }

    pub(super) fn tell(&self, search: &Search) -> Result<(), StoreError> {
        self.scan.as_ref().map_or(Ok(()), |scan| scan.tell(search.progress()))
    }

    /// Makes the following reads use one state of the store for as long as the log of a recorder may be held:
    /// [`limits::READ_AT_ONCE`]. Then they use a newer one, from the next query on.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn stand_still(&self) -> Result<(), StoreError> {
        self.db.execute_batch("BEGIN")?;
        self.begun.set(Some(Instant::now()));
        Ok(())
    }

    /// Begins to use a newer state if the time is over. References never cross a segment, and rows are never changed,
    /// so what was read before remains valid.
    pub(super) fn step(&self) -> Result<(), StoreError> {
        if self.begun.get().is_some_and(|begun| begun.elapsed() >= limits::READ_AT_ONCE) {
            self.step_now()?;
        }
        Ok(())
    }

    /// For tests: as if the time were over.
    #[cfg(test)]
    pub(super) fn has_stood_still(&self) {
        self.begun.set(Instant::now().checked_sub(limits::READ_AT_ONCE));
    }

    fn step_now(&self) -> Result<(), StoreError> {
        self.db.execute_batch("COMMIT")?;
        self.stand_still()
    }

    pub(super) fn db(&self) -> &Connection {
        &self.db
    }

    pub(super) fn db_mut(&mut self) -> &mut Connection {
        &mut self.db
    }

    /// The version of the tables.
    pub(super) fn version(&self) -> i32 {
        self.version
    }

    pub(super) fn format(&self) -> Format {
        Format::of(self.version)
    }

    /// The selected endpoints, in the order of their last event.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn connections(&self, query: &Query) -> Result<Vec<StoredConnection>, StoreError> {
        self.step()?;
        let limit = query.limit.unwrap_or(usize::MAX);
        let mut found: Vec<StoredConnection> = Vec::new();
        let mut seen = HashSet::new();
        let mut collect = |row: &StoredRow, segment: &Segment, found: &mut Vec<StoredConnection>| {
            if seen.insert((segment.boot.clone(), row.endpoint)) {
                let recorded = self.recorded(&segment.boot, row.endpoint)?;
                found.extend(recorded.filter(|recorded| query.means(recorded)));
            }
            Ok::<_, StoreError>(())
        };
        if let Some(cookie) = query.cookie {
            let mut rows = self.by_cookie(cookie)?;
            if query.newest_first {
                rows.reverse();
            }
            for (row, segment) in rows {
                collect(&row, &segment, &mut found)?;
            }
            found.truncate(limit);
            return Ok(found);
        }
        let boot = query.boot.as_deref();
        let mut search = Search::new(
            query.narrow(),
            self.is_scan(),
            boot,
            query.since,
            query.until,
            query.newest_first,
            &self.db,
        )?;
        // A page and what it refers to are read in one state.
        while let Some(page) = search.page(&self.db)? {
            let mut rows = page.rows;
            if query.newest_first {
                rows.reverse();
            }
            for row in rows {
                collect(&row, &page.segment, &mut found)?;
                if found.len() >= limit {
                    return Ok(found);
                }
            }
            self.tell(&search)?;
            self.step()?;
        }
        Ok(found)
    }

    /// One endpoint.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn end(&self, boot: &str, id: EndpointId) -> Result<Option<StoredConnection>, StoreError> {
        self.step()?;
        self.recorded(boot, id)
    }

    fn recorded(&self, boot: &str, id: EndpointId) -> Result<Option<StoredConnection>, StoreError> {
        let mut recorded: Option<StoredConnection> = None;
        for (row, segment) in self.by_id(id)? {
            if *segment.boot != *boot {
                continue;
            }
            let events = row.events(segment.clock, &self.processes, &self.db)?;
            match &mut recorded {
                Some(recorded) => recorded.events.extend(events),
                None => {
                    let (boot, clock) = (segment.boot.clone(), segment.clock);
                    recorded = Some(StoredConnection { boot, clock, segment: segment.id, events });
                }
            }
        }
        Ok(recorded)
    }

    /// Rows of an endpoint, in order.
    fn by_id(&self, id: EndpointId) -> Result<Vec<(StoredRow, Arc<Segment>)>, StoreError> {
        let mut siblings = self.siblings.borrow_mut();
        // A reader that does not stand still expects what was written last.
        if siblings.cookie != Some(id.cookie) || self.begun.get().is_none() {
            *siblings = Siblings { cookie: Some(id.cookie), rows: Map::default() };
            if let Some(scan) = &self.scan {
                for row in scan.by_cookie(id.cookie, &self.db)? {
                    for (row, _) in self.rows("id = ?", row)? {
                        siblings.rows.entry(row.endpoint.began).or_default().push(row.id);
                    }
                }
            }
            let mut select =
                self.db.prepare_cached("SELECT began, id FROM connection WHERE cookie = ? ORDER BY id")?;
            let mut rows = select.query([id.cookie.cast_signed()])?;
            while self.scan.is_none()
                && let Some(row) = rows.next()?
            {
                let began = BootTime::from_nanos(row.get::<_, i64>(0)?.cast_unsigned());
                siblings.rows.entry(began).or_default().push(row.get(1)?);
            }
        }
        let mut found = Vec::new();
        for row in siblings.rows.get(&id.began).into_iter().flatten() {
            found.extend(self.rows("id = ?", *row)?);
        }
        Ok(found)
    }

    /// Rows of sockets with this cookie, and of endpoints with it in their id, in order.
    fn by_cookie(&self, cookie: u64) -> Result<Vec<(StoredRow, Arc<Segment>)>, StoreError> {
        if let Some(scan) = &self.scan {
            let ids = scan.by_socket(cookie, &self.db)?;
            let rows = ids.into_iter().map(|id| self.rows("id = ?", id)).collect::<Result<Vec<_>, _>>()?;
            return Ok(rows.into_iter().flatten().collect());
        }
        let mut rows = self.rows("cookie = ?", cookie.cast_signed())?;
        rows.extend(self.rows("socket IS NOT NULL AND socket = ?", cookie.cast_signed())?);
        rows.sort_by_key(|(row, _)| row.id);
        Ok(rows)
    }

    fn rows(&self, condition: &str, value: i64) -> Result<Vec<(StoredRow, Arc<Segment>)>, StoreError> {
        let select = format!("{} WHERE {condition} ORDER BY id", Table::Connection.select_in(self.format()));
        let mut select = self.db.prepare_cached(&select)?;
        let mut rows = select.query([value])?;
        let mut found: Vec<(StoredRow, Arc<Segment>)> = Vec::new();
        while let Some(row) = rows.next()? {
            let row = StoredRow::read(row)?;
            let known = found.last().map(|(_, segment)| segment).filter(|segment| segment.id == row.segment);
            let segment = match known {
                Some(known) => Some(known.clone()),
                None => segment(row.segment, &self.db)?,
            };
            // A segment that retention deleted is gone, although some of its rows may still exist.
            found.extend(segment.map(|segment| (row, segment)));
        }
        Ok(found)
    }

    /// Recorded values of a process within a boot, newest first: those in network events, and that with which it was
    /// started on a socket.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn processes(&self, boot: &str, key: ProcessKey) -> Result<Vec<Actor>, StoreError> {
        self.step()?;
        let mut states = Vec::new();
        for segment in segments(&self.db)?.iter().rev().filter(|segment| *segment.boot == *boot) {
            let mut rows = Narrow::Process(key).processes(segment, self.is_scan(), &self.db)?;
            rows.reverse();
            for row in rows {
                if let rusqlite::types::Value::Integer(row) = row {
                    let actor = self.processes.actor(row, &self.db)?;
                    states.extend(Some(actor).filter(|actor| actor.process.key.may_be(key)));
                }
            }
        }
        Ok(states)
    }

    /// Losses between two times, in nanoseconds since the epoch, in the order in which they were noticed.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn losses(&self, from: i64, to: i64) -> Result<Vec<Missing>, StoreError> {
        self.step()?;
        let by_id: Map<i64, Arc<Segment>> =
            segments(&self.db)?.into_iter().map(|segment| (segment.id, segment)).collect();
        // In one pass, since the table has no index.
        let all = |id| by_id.get(&id).cloned();
        self.losses_where("ts BETWEEN ?1 AND ?2", [from, to], &all)
    }

    /// Losses in these rows that belong to a segment.
    pub(super) fn losses_of(
        &self,
        segment: &Arc<Segment>,
        (from, to): (i64, i64),
    ) -> Result<Vec<Missing>, StoreError> {
        let only = |id| (id == segment.id).then(|| segment.clone());
        self.losses_where("id BETWEEN ?1 AND ?2", [from, to], &only)
    }

    fn losses_where(
        &self,
        condition: &str,
        values: [i64; 2],
        segment: &dyn Fn(i64) -> Option<Arc<Segment>>,
    ) -> Result<Vec<Missing>, StoreError> {
        let select = format!("{} WHERE {condition} ORDER BY id", Table::Loss.select());
        let mut select = self.db.prepare_cached(&select)?;
        let mut rows = select.query(values)?;
        let mut losses: Vec<(i64, Missing)> = Vec::new();
        while let Some(row) = rows.next()? {
            // Retention deletes the segment first.
            let Some(segment) = segment(row.get(1)?) else { continue };
            let ts: i64 = row.get(2)?;
            let reason: String = row.get(3)?;
            let kind: String = row.get(4)?;
            let count: i64 = row.get(5)?;
            let reason = LossReason::ALL.into_iter().find(|known| known.name() == reason);
            let reason = reason.unwrap_or(LossReason::Undecodable);
            let kind = kind_of(&kind);
            // The kinds of one loss are rows with the same time.
            let same = losses.last_mut().filter(|(of, missing)| {
                *of == ts && missing.loss.reason == reason && !missing.loss.kinds.contains_key(kind)
            });
            match same {
                Some((_, missing)) => _ = missing.loss.kinds.insert(kind, count.cast_unsigned()),
                None => {
                    let kinds = [(kind, count.cast_unsigned())].into();
                    let boot = i128::from(segment.clock.boot().unwrap_or(0));
                    let at = BootTime::from_nanos((i128::from(ts) - boot).try_into().unwrap_or(0));
                    let time = Timestamp::from_nanosecond(ts.into()).unwrap_or_default();
                    let loss = Loss::new(reason, kinds);
                    losses.push((ts, Missing { boot: segment.boot.clone(), at, time, loss }));
                }
            }
        }
        Ok(losses.into_iter().map(|(_, missing)| missing).collect())
    }

    /// Alerts in these rows that belong to a segment.
    pub(super) fn alerts_of(&self, segment: &Segment, rows: (i64, i64)) -> Result<Vec<Alert>, StoreError> {
        alerts::read(segment, rows, &self.processes, &self.db)
    }

    pub(super) fn events_of(
        &self,
        row: &StoredRow,
        segment: &Segment,
    ) -> Result<Vec<ConnectionEvent>, StoreError> {
        row.events(segment.clock, &self.processes, &self.db)
    }
}

/// Kinds in a `loss`: of records or of events.
pub(super) fn kind_of(name: &str) -> &'static str {
    let records = (0..u16::MAX).map_while(|kind| {
        (u32::from(kind) < netwatch_common::kind::COUNT).then(|| netwatch_common::kind::name(kind))
    });
    let events = EventKind::ALL.iter().map(|kind| kind.name());
    let known = records.flatten().chain(events).chain(["process", "alert", "loss", "record", "flow"]);
    known.into_iter().find(|known| *known == name).unwrap_or("other")
}
