//! How much is kept: whole segments go, the oldest first. That they went is noted in the chain, so that it can be told
//! from somebody's having deleted them; then their rows are deleted little by little, so that recording goes on
//! meanwhile.

use std::time::{Duration, Instant};

use jiff::Timestamp;
use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _};

use super::StoreError;
use super::batch::{Batch, nanoseconds};
use super::chain::Table;
use super::open::PAGE;

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// What is older may go.
    pub age: Duration,
    /// Room on disk, bytes, that the store takes up at the most.
    pub size: u64,
}

impl Default for Retention {
    fn default() -> Self {
        const DAY: Duration = Duration::from_secs(86_400);
        Self { age: DAY * 30, size: 2 << 30 }
    }
}

/// The store is cut into as many parts at least, so that what goes is a small one.
const PARTS: u64 = 16;

/// A row of a connection with all its indexes, bytes: a little more than is usual.
const ROW: u64 = 400;

/// Rows of a segment: its indexes stay in memory while they grow.
const MOST_ROWS: i64 = 32_768;
const FEWEST_ROWS: i64 = 256;

/// Time of a segment.
const LONGEST: Duration = Duration::from_secs(3600);
const SHORTEST: Duration = Duration::from_secs(1);

/// Pages of the log that is written back from time to time: the more, the less often a page is written twice.
const MOST_WAL_PAGES: u64 = 4096;
const FEWEST_WAL_PAGES: u64 = 64;

/// It is looked this often whether something is too old.
const LOOKS: Duration = Duration::from_secs(1);

/// Rows that are deleted at once while nothing else is written.
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

    /// Pages of the database above which something has to go: the log needs room as well, and what is deleted little
    /// by little while new rows come.
    fn most_pages(&self) -> u64 {
        let pages = self.size / PAGE;
        (pages - pages / PARTS).saturating_sub(4 * self.wal_pages().cast_unsigned())
    }
}

/// Does it.
pub(super) struct Retain {
    retention: Retention,
    pending: Option<Pending>,
    looked: Option<Instant>,
    /// What is pending may not be what is in the store.
    stale: bool,
}

/// Rows that are to be deleted still: up to these ids.
#[derive(Clone, Copy)]
struct Pending {
    batch: i64,
    tables: [i64; Table::COUNT],
}

impl Retain {
    pub(super) fn new(retention: &Retention) -> Self {
        Self { retention: *retention, pending: None, looked: None, stale: false }
    }

    /// Goes on where an earlier run stopped.
    pub(super) fn resume(&mut self, db: &Connection) -> Result<(), StoreError> {
        let last = "SELECT through_batch FROM pruned ORDER BY id DESC LIMIT 1";
        let last: Option<i64> = db.query_row(last, [], |row| row.get(0)).optional()?;
        self.pending = last.map(|batch| pending(db, batch)).transpose()?.flatten();
        self.stale = false;
        Ok(())
    }

    /// What was done last was undone.
    pub(super) fn undo(&mut self) {
        self.stale = true;
    }

    /// Whether there are rows to delete still.
    pub(super) fn has_slices(&self) -> bool {
        self.pending.is_some()
    }

    /// The last of the segments that have to go, if any. `current` is the one that is written to.
    pub(super) fn due(&mut self, db: &Connection, current: Option<i64>) -> Result<Option<i64>, StoreError> {
        if self.stale {
            self.resume(db)?;
        }
        if self.has_slices() {
            return Ok(None);
        }
        if self.looked.is_none_or(|looked| looked.elapsed() >= LOOKS) {
            self.looked = Some(Instant::now());
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

    /// A segment is as old as the next one's beginning; the last one as its last batch. By their order, not by what
    /// their times say: a clock may have been set back.
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

    /// Notes that everything up to segment `through` goes, and takes the segments away, so that nobody looks into them.
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

    /// Deletes some of the rows that are to go: more than `written`, so that it comes to an end.
    pub(super) fn slice(&mut self, db: &Connection, written: i64) -> Result<(), StoreError> {
        let Some(Pending { batch, tables }) = self.pending else { return Ok(()) };
        let mut most = SLICE.max(written * 2);
        for (table, through) in Table::ALL.iter().zip(tables) {
            // They went at once.
            if *table != Table::Segment {
                most -= delete(db, table.name(), through, most)?;
            }
            if most <= 0 {
                return Ok(());
            }
        }
        // Last, and the last of them last: it says that there is something to do.
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

/// The rows up to this batch; `None` where they are gone.
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
