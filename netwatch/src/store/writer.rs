//! Writes batches: each is one transaction, one sync and one link of the chain.

use std::path::Path;
use std::sync::Arc;

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, TransactionBehavior};

use super::batch::{Batch, Ids, nanoseconds};
use super::chain::{Link, Table};
use super::entry::Entry;
use super::files::Files;
use super::grouped::{Grouping, RowWriter, Scratch, text};
use super::intern::Interner;
use super::open::Folders;
use super::retain::{Due, Retain, Retention};
use super::seal::Sealer;
use super::steady::{Reading, Steady, Step};
use super::{StoreError, alerts, faults, open};
use crate::clock::BootClock;
use crate::process::Actor;

/// Settings of a writer.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Retention limits.
    pub retention: Retention,
    /// Boot id.
    pub boot: String,
    /// The filter as command line options; `None`: everything is recorded.
    pub filter: Option<String>,
    /// When the system booted, by the clock at the start of the run.
    pub clock: BootClock,
    /// Make seals.
    pub seal: bool,
}

/// The only writer of the store.
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
    steady: Steady,
    sealer: Option<Arc<Sealer>>,
    grouping: Grouping,
    scratch: Scratch,
}

#[derive(Clone, Copy)]
struct Segment {
    id: i64,
    /// Nanoseconds since boot.
    started: i64,
    rows: i64,
    clock: BootClock,
}

impl Writer {
    /// Opens or creates the store at `path`.
    ///
    /// # Errors
    /// If another process writes to it, or it is not a store.
    pub(crate) fn open(path: &Path, settings: Settings) -> Result<Self, StoreError> {
        Self::open_in(path, settings, Folders::Create)
    }

    pub(super) fn open_in(path: &Path, settings: Settings, folders: Folders) -> Result<Self, StoreError> {
        Self::open_at(path, settings, folders, reading()?)
    }

    /// `now`: the clocks.
    pub(super) fn open_at(
        path: &Path,
        settings: Settings,
        folders: Folders,
        now: Reading,
    ) -> Result<Self, StoreError> {
        let opened = open::for_writing(path, settings.retention.wal_pages(), folders)?;
        let sealer = settings.seal.then(|| Sealer::open(path, &opened.db)).transpose()?;
        let mut writer = Self {
            opened,
            clock: settings.clock,
            ids: Ids::default(),
            previous: Link::NONE,
            segment: None,
            run: None,
            interner: Interner::default(),
            retain: Retain::new(&settings.retention),
            steady: Steady::begin(now),
            sealer,
            grouping: Grouping::default(),
            scratch: Scratch::default(),
            settings,
        };
        writer.resume(now)?;
        Ok(writer)
    }

    /// The end of the chain, the next ids, and the steady clock.
    fn resume(&mut self, now: Reading) -> Result<(), StoreError> {
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
            // Includes what retention deleted, and rows that were inserted after the last batch.
            let covered = format!("SELECT coalesce(max({name}_to), 0) FROM batch WHERE id = ?");
            let covered: i64 = db.query_row(&covered, [self.ids.batch], |row| row.get(0))?;
            let there = format!("SELECT coalesce(max(id), 0) FROM {name}");
            let there: i64 = db.query_row(&there, [], |row| row.get(0))?;
            *id = covered.max(there);
        }
        self.steady = steady(db, &self.settings.boot, now)?;
        self.retain.resume(db)
    }

    /// Writes as many of `items` as fit in a batch in one transaction, and returns their number. Without items it
    /// continues retention. On an error nothing was written, and it can be retried.
    ///
    /// # Errors
    /// The error of SQLite.
    pub(crate) fn commit(&mut self, items: &[Entry]) -> Result<usize, StoreError> {
        self.commit_at(items, reading()?)
    }

    /// The same at this time.
    pub(super) fn commit_at(&mut self, items: &[Entry], now: Reading) -> Result<usize, StoreError> {
        if self.steady.observe(now) {
            // Within a segment the steady clock goes as time since boot does.
            self.segment = None;
        }
        let (clock, taken) = self.grouping.take(items, self.clock);
        let current = self.segment.map(|segment| segment.id);
        let prune = self.retain.due(&self.opened.db, current, &self.steady)?;
        let has_rows = items.iter().take(taken).any(|item| !matches!(item, Entry::Clock(_)));
        if !has_rows && prune.is_none() && !self.retain.has_slices() {
            self.clock = clock;
            return Ok(taken);
        }
        let written = self.write(items, clock, prune.as_ref(), has_rows, now);
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
                // Cached rows may not exist.
                self.interner.clear();
                self.retain.undo();
                Err(error)
            }
        }
    }

    /// Leaves syncing to another thread: see [`super::sync`].
    pub(super) fn leave_syncing(&self) -> Result<(), StoreError> {
        open::leave_syncing(&self.opened.db)
    }

    /// Checkpoints the log and closes the database.
    pub(super) fn close(self) {
        // On failure the log stays, and the next process to open the store reads it.
        if let Err(error) = open::sync_again(&self.opened.db) {
            log::warn!("{error}");
        }
    }

    /// Closes the database as it is: its files are damaged, or are not where they were.
    pub(super) fn abandon(self) {
        if let Err(error) = open::leave_as_it_is(&self.opened.db) {
            log::warn!("{error}");
        }
    }

    pub(super) fn files(&self) -> &Arc<Files> {
        &self.opened.files
    }

    pub(super) fn sealer(&self) -> Option<Arc<Sealer>> {
        self.sealer.clone()
    }

    /// The last batch that was written, and its link.
    pub(super) fn end(&self) -> (i64, Link) {
        (self.ids.batch, self.previous)
    }

    /// Whether retention still has rows to delete.
    pub(super) fn has_more_to_drop(&self) -> bool {
        self.retain.has_slices()
    }

    fn write(
        &mut self,
        items: &[Entry],
        clock: BootClock,
        prune: Option<&Due>,
        has_rows: bool,
        now: Reading,
    ) -> Result<Written, StoreError> {
        let transaction = self.opened.db.transaction_with_behavior(TransactionBehavior::Immediate)?;
        let mut batch = Batch::new(&transaction, self.ids, self.segment.map_or(0, |segment| segment.id))?;
        let (mut segment, mut run) = (self.segment, self.run);
        let segment_age = self.settings.retention.segment_age().as_nanos();
        let segment_age = i64::try_from(segment_age).unwrap_or(i64::MAX);
        let is_full = |segment: &Segment| {
            segment.clock != clock
                || segment.rows >= self.settings.retention.segment_rows()
                || now.boot.saturating_sub(segment.started) >= segment_age
        };
        let needs_segment = (has_rows || prune.is_some())
            && segment
                .as_ref()
                .is_none_or(|segment| is_full(segment) || prune.is_some_and(|due| segment.id <= due.through));
        if needs_segment {
            self.interner.clear();
            segment = Some(begin_segment(&mut batch, &self.settings, (now, self.steady), clock, &mut run)?);
        }
        let mut row = RowWriter {
            clock,
            interner: &mut self.interner,
            grouping: &self.grouping,
            scratch: &mut self.scratch,
        };
        for first in self.grouping.firsts() {
            row.connection(items, *first, &mut batch)?;
        }
        for item in items.iter().take(self.grouping.taken()) {
            match item {
                Entry::Process(process, status) => {
                    row.interner.actor(
                        &Actor::leader(process.clone()),
                        Some(*status),
                        now.wall,
                        &mut batch,
                    )?;
                }
                Entry::Alert(alert) => {
                    alerts::write(alert, clock, now.wall, row.interner, &mut batch)?;
                }
                Entry::Loss(at, loss) => {
                    for (kind, count) in &loss.kinds {
                        insert_loss(&mut batch, *at, loss.reason.name(), kind, *count)?;
                    }
                }
                Entry::Stopped(at) => {
                    insert_with_segment(&mut batch, Table::Stopped, &[ValueRef::Integer(nanoseconds(*at))])?;
                }
                Entry::Event(..) | Entry::Clock(_) => {}
            }
        }
        if let Some(due) = prune {
            self.retain.prune(&transaction, &mut batch, due, now.wall)?;
        }
        let rows = batch.rows(Table::Connection);
        self.retain.slice(&transaction, rows)?;
        let is_batch = Table::ALL.iter().any(|table| batch.rows(*table) > 0);
        let (mut ids, mut link, mut is_sealed) = (self.ids, self.previous, false);
        if is_batch {
            (ids, link) = batch.end(now.wall, self.steady.now, &self.previous)?;
            if let Some(sealer) = &self.sealer {
                let items = items.iter().take(self.grouping.taken());
                let is_last = items.into_iter().any(|item| matches!(item, Entry::Stopped(_)));
                is_sealed = sealer.seal(&transaction, (ids.batch, link), (now.wall, now.boot), is_last)?;
            }
        } else {
            drop(batch);
        }
        if faults::happened() {
            return Err(StoreError::Damaged("its shared memory was truncated".into()));
        }
        transaction.commit()?;
        if let Some(sealer) = self.sealer.as_ref().filter(|_| is_sealed) {
            sealer.sealed(now.boot);
        }
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
    (now, steady): (Reading, Steady),
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
            ValueRef::Integer(now.wall),
            of_boot(clock),
            of_boot(settings.clock),
            text(Some(env!("CARGO_PKG_VERSION"))),
            text(Some(&kernel)),
            text(Some(&hostname)),
            text(settings.filter.as_deref()),
            ValueRef::Integer(i64::try_from(settings.retention.age.as_nanos()).unwrap_or(i64::MAX)),
            ValueRef::Integer(i64::try_from(settings.retention.size).unwrap_or(i64::MAX)),
            ValueRef::Integer(steady.now),
            ValueRef::Integer(steady.boot),
            steady.step.map_or(ValueRef::Null, |step| ValueRef::Integer(step.by)),
            steady.step.map_or(ValueRef::Null, |step| ValueRef::Integer(step.stood)),
        ],
    )?;
    Ok(Segment { id, started: now.boot, rows: 0, clock })
}

fn reading() -> Result<Reading, StoreError> {
    Reading::now().map_err(StoreError::Clock)
}

/// The steady clock as the last segment and the last batch have it.
fn steady(db: &Connection, boot: &str, now: Reading) -> Result<Steady, StoreError> {
    let last = "SELECT coalesce(steady, ts) FROM batch ORDER BY id DESC LIMIT 1";
    let Some(last) = db.query_row(last, [], |row| row.get(0)).optional()? else {
        return Ok(Steady::begin(now));
    };
    let segment = "SELECT boot, steady, since_boot, step, stood FROM segment ORDER BY id DESC LIMIT 1";
    let segment = db.query_row(segment, [], |row| {
        let (steady, since_boot): (Option<i64>, Option<i64>) = (row.get(1)?, row.get(2)?);
        let step: (Option<i64>, Option<i64>) = (row.get(3)?, row.get(4)?);
        let step = step.0.zip(step.1).map(|(by, stood)| Step { by, stood });
        Ok((row.get::<_, String>(0)?, steady.zip(since_boot), step))
    });
    let Some((of, began, step)) = segment.optional()? else {
        return Ok(Steady::resume_after(last, None, now));
    };
    Ok(match began.filter(|_| of == boot && !boot.is_empty()) {
        Some((at, since_boot)) => Steady::resume(Steady { now: at, boot: since_boot, step }, now),
        None => Steady::resume_after(last, step, now),
    })
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
