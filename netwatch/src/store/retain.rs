//! Retention: deletes whole segments, the oldest first. The deletion is noted in the chain, to distinguish it from
//! tampering; then the rows are deleted in small steps, so that recording continues.

use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};

use super::batch::Batch;
use super::chain::{Link, Table};
use super::open::PAGE;
use super::steady::Steady;
use super::{StoreError, pruned};
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

/// Interval between checks of the age limit, in nanoseconds.
const CHECKS: i64 = 1_000_000_000;

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
    pub(super) fn most_pages(&self) -> u64 {
        let pages = self.size / PAGE;
        (pages - pages / PARTS).saturating_sub(self.most_log() / PAGE)
    }
}

/// Which limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Age,
    /// With this many pages in use.
    Size(i64),
}

/// What is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Due {
    /// Everything up to this segment.
    pub(super) through: i64,
    reason: Reason,
    /// The segments, and when each ended.
    ended: Vec<Ended>,
}

/// Applies the limits.
pub(super) struct Retain {
    retention: Retention,
    pending: Option<Pending>,
    /// When the age was checked last, in nanoseconds since boot.
    checked: Option<i64>,
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

    /// What exceeds the limits, if anything. `current`: the segment that is being written to.
    pub(super) fn due(
        &mut self,
        db: &Connection,
        current: Option<i64>,
        steady: &Steady,
    ) -> Result<Option<Due>, StoreError> {
        if self.stale {
            self.resume(db)?;
        }
        if self.has_slices() {
            return Ok(None);
        }
        if self.checked.is_none_or(|checked| steady.boot.saturating_sub(checked) >= CHECKS) {
            self.checked = Some(steady.boot);
            if let Some(due) = self.aged(db, steady.now)? {
                return Ok(Some(due));
            }
        }
        let pragma = |name: &str| db.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
        let used = pragma("page_count")? - pragma("freelist_count")?;
        if used.cast_unsigned() <= self.retention.most_pages() {
            return Ok(None);
        }
        let oldest: Option<i64> = db.query_row("SELECT min(id) FROM segment", [], |row| row.get(0))?;
        let oldest = oldest.filter(|oldest| current.is_none_or(|current| *oldest < current));
        let Some(through) = oldest else { return Ok(None) };
        let ended = ended(db)?.into_iter().filter(|ended| ended.segment <= through).collect();
        Ok(Some(Due { through, reason: Reason::Size(used), ended }))
    }

    /// What is too old: up to the last segment that is. Everything before it is older, whatever the clock said. Of segments of version
    /// 1, whose times are those of the wall clock, the first one that is not too old ends it.
    fn aged(&self, db: &Connection, steady: i64) -> Result<Option<Due>, StoreError> {
        let age = i64::try_from(self.retention.age.as_nanos()).unwrap_or(i64::MAX);
        let since = steady.saturating_sub(age);
        let mut ended = ended(db)?;
        let (mut aged, mut is_blocked) = (0, false);
        for (place, Ended { at, is_steady, .. }) in ended.iter().enumerate() {
            let is_old = *at < since;
            is_blocked |= !is_steady && !is_old;
            if is_old && (*is_steady || !is_blocked) {
                aged = place + 1;
            }
        }
        ended.truncate(aged);
        let through = ended.last().map(|ended| ended.segment);
        Ok(through.map(|through| Due { through, reason: Reason::Age, ended }))
    }

    /// Notes the deletion of what is due, keeps the links of its batches, and deletes the rows of the segments, so that
    /// readers skip them.
    pub(super) fn prune(
        &mut self,
        db: &Connection,
        batch: &mut Batch<'_>,
        due: &Due,
        ts: i64,
    ) -> Result<(), StoreError> {
        let through = due.through;
        let last = "SELECT id, hash FROM batch WHERE segment <= ? ORDER BY segment DESC, id DESC LIMIT 1";
        let last: Option<(i64, Vec<u8>)> =
            db.query_row(last, [through], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((last, hash)) = last else { return Ok(()) };
        let mut digest = Link::NONE;
        for Ended { segment, at, .. } in &due.ended {
            digest = pruned::add(db, *segment, *at)?.unwrap_or(digest);
        }
        pruned::limit(db, self.retention.size)?;
        let integer = ValueRef::Integer;
        let (id, segment) = (batch.next_id(Table::Pruned), batch.segment());
        let (reason, pages): (&[u8], _) = match due.reason {
            Reason::Age => (b"age", ValueRef::Null),
            Reason::Size(pages) => (b"size", integer(pages)),
        };
        batch.insert(
            Table::Pruned,
            &[
                integer(id),
                integer(segment),
                integer(ts),
                integer(through),
                integer(last),
                ValueRef::Blob(&hash),
                ValueRef::Text(reason),
                pages,
                ValueRef::Blob(digest.bytes()),
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
        most -= delete_where(db, "seal", "batch", batch, most)?;
        if most <= 0 {
            return Ok(());
        }
        // This table last, and its last row last, since it marks pending deletions.
        if delete(db, "batch", batch, most)? < most {
            self.pending = None;
        }
        Ok(())
    }
}

/// The end of a segment: the start of the next one, or the last batch.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ended {
    segment: i64,
    at: i64,
    /// By the steady clock, and not by the wall clock as in version 1.
    is_steady: bool,
}

/// The ends of all segments, in order.
fn ended(db: &Connection) -> Result<Vec<Ended>, StoreError> {
    let starts = "SELECT id, coalesce(steady, started), steady IS NOT NULL FROM segment ORDER BY id";
    let mut starts = db.prepare_cached(starts)?;
    let mut rows = starts.query([])?;
    let (mut ended, mut open) = (Vec::new(), None);
    while let Some(row) = rows.next()? {
        let (segment, at, is_steady): (i64, i64, bool) = (row.get(0)?, row.get(1)?, row.get(2)?);
        ended.extend(open.map(|open| Ended { segment: open, at, is_steady }));
        open = Some(segment);
    }
    let Some(segment) = open else { return Ok(ended) };
    let last = "SELECT coalesce(steady, ts), steady IS NOT NULL FROM batch ORDER BY id DESC LIMIT 1";
    let last = db.prepare_cached(last)?.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
    ended.extend(last.map(|(at, is_steady)| Ended { segment, at, is_steady }));
    Ok(ended)
}

fn delete(db: &Connection, table: &str, through: i64, most: i64) -> Result<i64, StoreError> {
    delete_where(db, table, "id", through, most)
}

fn delete_where(
    db: &Connection,
    table: &str,
    column: &str,
    through: i64,
    most: i64,
) -> Result<i64, StoreError> {
    let rows = format!("SELECT id FROM {table} WHERE {column} <= ?1 ORDER BY id LIMIT ?2");
    let mut delete = db.prepare_cached(&format!("DELETE FROM {table} WHERE id IN ({rows})"))?;
    let deleted = delete.execute([through, most])?;
    Ok(i64::try_from(deleted).unwrap_or(most))
}

/// The last rows up to this batch; `None` if it is gone.
fn pending(db: &Connection, batch: i64) -> Result<Option<Pending>, StoreError> {
    // Batches of older versions have no range of newer tables.
    let columns: Vec<_> =
        Table::ALL.iter().map(|table| format!("coalesce({}_to, 0)", table.name())).collect();
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
        assert_eq!(default.wal_pages().cast_unsigned(), MOST_WAL_PAGES);
        let small = Retention { age: Duration::from_secs(160), size: 16 << 20 };
        assert_eq!((small.segment_rows(), small.segment_age()), (2621, Duration::from_secs(10)));
        assert_eq!(small.wal_pages(), 64);
        assert!(small.most_pages() * PAGE < small.size);
        let none = Retention { age: Duration::ZERO, size: 0 };
        assert_eq!((none.segment_rows(), none.segment_age(), none.most_pages()), (256, SHORTEST, 0));
    }
}
