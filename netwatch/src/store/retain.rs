//! Retention: deletes whole segments, the oldest first. The deletion is noted in the chain, to distinguish it from
//! tampering; then the rows are deleted in small steps, so that recording continues.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};

use super::StoreError;
use super::batch::{Batch, nanoseconds};
use super::chain::Table;
use super::open::PAGE;
use crate::limits;

/// Limits of retention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Maximum age.
    pub age: Duration,
    /// Maximum size on disk in bytes.
    pub size: u64,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self { age: DAY * 30, size: 2 << 30 }
    }
}

/// Minimum number of segments of a full store, so that each deletion is a small part.
const PARTS: u64 = 16;

/// Bytes of a connection row with its indexes, estimated slightly high.
const ROW: u64 = 400;

/// Maximum rows of a segment, so that its indexes fit in memory while they grow.
const MOST_ROWS: i64 = 32_768;
const FEWEST_ROWS: i64 = 256;

/// Maximum duration of a segment.
const LONGEST: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_secs(1);

/// Size of the log in pages at which it is checkpointed; a larger log writes fewer pages twice.
const MOST_WAL_PAGES: u64 = 4096;
const FEWEST_WAL_PAGES: u64 = 64;

/// Interval between checks of the age limit.
const CHECKS: Duration = Duration::from_secs(1);

/// Rows that are deleted per step while nothing else is written.
const SLICE: i64 = 2048;

impl Retention {
    pub(super) fn segment_rows(&self) -> i64 {
        let rows = i64::try_from(self.size / PARTS / ROW).unwrap_or(MOST_ROWS);
        rows.clamp(FEWEST_ROWS, MOST_ROWS)
    }

    pub(super) fn segment_age(&self) -> Duration {
        let parts = u32::try_from(PARTS).unwrap_or(1);
        (self.age / parts).clamp(SHORTEST, LONGEST)
    }

    pub(super) fn wal_pages(&self) -> i64 {
        let pages = (self.size / 64 / PAGE).clamp(FEWEST_WAL_PAGES, MOST_WAL_PAGES);
        i64::try_from(pages).unwrap_or(i64::MAX)
    }

    /// Size of the log in bytes at which nothing more is written before it was written back.
    pub(super) fn most_log(&self) -> u64 {
        (self.size / limits::LOG_PART).max(4 * self.wal_pages().cast_unsigned() * PAGE)
    }

    /// Size of the database in pages above which segments are deleted; leaves space for the log, and for new rows
    /// during the deletion.
    fn most_pages(&self) -> u64 {
        let pages = self.size / PAGE;
        (pages - pages / PARTS).saturating_sub(self.most_log() / PAGE)
    }
}

/// Applies the limits.
pub(super) struct Retain {
    retention: Retention,
    pending: Option<Pending>,
    checked: Option<Instant>,
    /// The pending state may differ from the store.
    stale: bool,
}

/// Rows still to be deleted: up to these ids.
#[derive(Clone, Copy)]
struct Pending {
    batch: i64,
    tables: [i64; Table::COUNT],
}

impl Retain {
    pub(super) fn new(retention: &Retention) -> Self {
        Self { retention: *retention, pending: None, checked: None, stale: false }
    }

    /// Continues the deletions of an earlier run.
    pub(super) fn resume(&mut self, db: &Connection) -> Result<(), StoreError> {
        let last = "SELECT through_batch FROM pruned ORDER BY id DESC LIMIT 1";
        let last: Option<i64> = db.query_row(last, [], |row| row.get(0)).optional()?;
        self.pending = last.map(|batch| pending(db, batch)).transpose()?.flatten();
        self.stale = false;
        Ok(())
    }

    /// The last transaction was rolled back.
    pub(super) fn undo(&mut self) {
        self.stale = true;
    }

    /// Whether rows are still to be deleted.
    pub(super) fn has_slices(&self) -> bool {
        self.pending.is_some()
    }

    /// The last segment that exceeds the limits, if any. `current` is being written to.
    pub(super) fn due(&mut self, db: &Connection, current: Option<i64>) -> Result<Option<i64>, StoreError> {
        if self.stale {
            self.resume(db)?;
        }
        if self.has_slices() {
            return Ok(None);
        }
        if self.checked.is_none_or(|checked| checked.elapsed() >= CHECKS) {
            self.checked = Some(Instant::now());
            let aged = self.aged(db)?;
            if aged.is_some() {
                return Ok(aged);
            }
        }
        let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let used = pragma("page_count")? - pragma("freelist_count")?;
        if used.cast_unsigned() <= self.retention.most_pages() {
            return Ok(None);
        }
        let oldest: Option<i64> = db.query_row("SELECT min(id) FROM segment", [], |row| row.get(0))?;
        Ok(oldest.filter(|oldest| current.is_none_or(|current| *oldest < current)))
    }

    /// A segment ends at the start of the next one, and the last one at its last batch. Ordered by id, not by time: the
    /// clock may have been set back.
    fn aged(&self, db: &Connection) -> Result<Option<i64>, StoreError> {
        let age = i64::try_from(self.retention.age.as_nanos()).unwrap_or(i64::MAX);
        let since = nanoseconds(Timestamp::now()).saturating_sub(age);
        let mut query = db.prepare_cached("SELECT id, started FROM segment ORDER BY id")?;
        let mut rows = query.query([])?;
        let (mut before, mut aged) = (None, None);
        while let Some(row) = rows.next()? {
            let (id, started): (i64, i64) = (row.get(0)?, row.get(1)?);
            if started >= since {
                return Ok(aged);
            }
            aged = before.replace(id);
        }
        let last = "SELECT ts FROM batch ORDER BY id DESC LIMIT 1";
        let last: Option<i64> = db.query_row(last, [], |row| row.get(0)).optional()?;
        Ok(if last.is_some_and(|last| last < since) { before } else { aged })
    }

    /// Notes the deletion of everything up to segment `through`, and deletes the rows of the segments, so that readers
    /// skip them.
    pub(super) fn prune(
        &mut self,
        db: &Connection,
        batch: &mut Batch<'_>,
        through: i64,
        ts: i64,
    ) -> Result<(), StoreError> {
        let last = "SELECT id, hash FROM batch WHERE segment <= ? ORDER BY segment DESC, id DESC LIMIT 1";
        let last: Option<(i64, Vec<u8>)> =
            db.query_row(last, [through], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((last, hash)) = last else { return Ok(()) };
        let integer = ValueRef::Integer;
        let (id, segment) = (batch.next_id(Table::Pruned), batch.segment());
        batch.insert(
            Table::Pruned,
            &[
                integer(id),
                integer(segment),
                integer(ts),
                integer(through),
                integer(last),
                ValueRef::Blob(&hash),
            ],
        )?;
        db.execute("DELETE FROM segment WHERE id <= ?", [through])?;
        self.pending = pending(db, last)?;
        Ok(())
    }

    /// Deletes some rows: more than were `written`, so that the deletion ends.
    pub(super) fn slice(&mut self, db: &Connection, written: i64) -> Result<(), StoreError> {
        let Some(Pending { batch, tables }) = self.pending else { return Ok(()) };
        let mut most = SLICE.max(written * 2);
        for (table, through) in Table::ALL.iter().zip(tables) {
            // They were deleted already.
            if *table != Table::Segment {
                most -= delete(db, table.name(), through, most)?;
            }
            if most <= 0 {
                return Ok(());
            }
        }
        // This table last, and its last row last, since it marks pending deletions.
        if delete(db, "batch", batch, most)? < most {
            self.pending = None;
        }
        Ok(())
    }
}

fn delete(db: &Connection, table: &str, through: i64, most: i64) -> Result<i64, StoreError> {
    let rows = format!("SELECT id FROM {table} WHERE id <= ?1 ORDER BY id LIMIT ?2");
    let mut delete = db.prepare_cached(&format!("DELETE FROM {table} WHERE id IN ({rows})"))?;
    let deleted = delete.execute([through, most])?;
    Ok(i64::try_from(deleted).unwrap_or(most))
}

/// The last rows up to this batch; `None` if it is gone.
fn pending(db: &Connection, batch: i64) -> Result<Option<Pending>, StoreError> {
    let columns: Vec<_> = Table::ALL.iter().map(|table| format!("{}_to", table.name())).collect();
    let query = format!("SELECT {} FROM batch WHERE id = ?", columns.join(","));
    let pending = db.query_row(&query, [batch], |row| {
        let mut tables = [0; Table::COUNT];
        for (column, to) in tables.iter_mut().enumerate() {
            *to = row.get(column)?;
        }
        Ok(Pending { batch, tables })
    });
    Ok(pending.optional()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_store_is_cut_into_small_parts() {
        let default = Retention::default();
        assert_eq!((default.segment_rows(), default.segment_age()), (MOST_ROWS, LONGEST));
        let small = Retention { age: Duration::from_secs(160), size: 16 << 20 };
        assert_eq!((small.segment_rows(), small.segment_age()), (2621, Duration::from_secs(10)));
        assert_eq!(small.wal_pages(), 64);
        assert!(small.most_pages() * PAGE < small.size);
        let none = Retention { age: Duration::ZERO, size: 0 };
        assert_eq!((none.segment_rows(), none.segment_age(), none.most_pages()), (256, SHORTEST, 0));
    }
}
