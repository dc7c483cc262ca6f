//! Verifies the chain: hashes every batch again, and checks that every row belongs to a batch.

use rusqlite::{Connection, OptionalExtension as _};

use super::batch::batch_columns;
use super::chain::{Contents, Link, Table};
use super::{Reader, StoreError};
use crate::limits;

/// The result.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    /// Number of batches that were hashed.
    pub batches: u64,
    /// Number of rows in them.
    pub rows: u64,
    /// First and last batch.
    pub range: Option<(i64, i64)>,
    /// The last batch that retention deleted, and when, in nanoseconds since the epoch.
    pub pruned: Option<(i64, i64)>,
    /// The newest link.
    pub newest: Option<Link>,
    /// The first inconsistency.
    pub broken: Option<Broken>,
    /// The batch of the anchor, if one was given and found.
    pub anchored: Option<i64>,
}

/// An inconsistency.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// The batch.
    pub batch: i64,
    /// The batch's own time, in nanoseconds since the epoch.
    pub ts: i64,
    /// What is wrong.
    pub why: String,
}

struct ReadBatch {
    id: i64,
    ts: i64,
    columns: Vec<i64>,
    link: Option<Link>,
}

impl ReadBatch {
    /// First and last row of a table.
    fn range(&self, table: Table) -> (i64, i64) {
        let at = |place: usize| self.columns.get(3 + 2 * table as usize + place).copied().unwrap_or(0);
        (at(0), at(1))
    }

    fn broken(&self, why: impl Into<String>) -> Broken {
        Broken { batch: self.id, ts: self.ts, why: why.into() }
    }
}

/// Verifies the chain, in pieces: the log of a recorder grows while a transaction is open. `anchor`: a link that must be
/// in it.
///
/// # Errors
/// If the store cannot be read.
pub fn verify(reader: &Reader, anchor: Option<Link>) -> Result<Checked, StoreError> {
    verify_with(reader, anchor, limits::VERIFIED_AT_ONCE, || ())
}

/// `most`: rows after which a piece ends with a batch. `between`: called between two pieces.
pub(super) fn verify_with(
    reader: &Reader,
    anchor: Option<Link>,
    most: u64,
    mut between: impl FnMut(),
) -> Result<Checked, StoreError> {
    let mut chain = Chain { anchor, ..Chain::default() };
    loop {
        let transaction = reader.db().unchecked_transaction()?;
        let is_over = chain.piece(&transaction, most)?;
        transaction.finish()?;
        if is_over {
            return Ok(chain.checked);
        }
        between();
    }
}

/// The newest link, its batch, and when that was written, in nanoseconds since the epoch.
///
/// # Errors
/// If the store cannot be read.
pub fn newest(reader: &Reader) -> Result<Option<(Link, i64, i64)>, StoreError> {
    let select = "SELECT hash, id, ts FROM batch ORDER BY id DESC LIMIT 1";
    let newest =
        reader.db().query_row(select, [], |row| Ok((row.get::<_, Vec<u8>>(0)?, row.get(1)?, row.get(2)?)));
    let newest = newest.optional()?;
    Ok(newest.and_then(|(hash, id, ts)| Some((Link::from_bytes(&hash)?, id, ts))))
}

#[derive(Default)]
struct Chain {
    anchor: Option<Link>,
    checked: Checked,
    previous: Link,
    /// The batch before the next one to be read, by retention or by the chain.
    through: i64,
    /// The previous batch, and the last row of each table in it; `None` at the beginning, and after a part that
    /// retention deleted before it was read.
    last: Option<(i64, [i64; Table::COUNT])>,
    /// The first segment that retention has kept.
    kept_since: i64,
}

impl Chain {
    /// Verifies the next batches, with `most` rows or a little more. Returns whether it is done: at the end, or at the
    /// first inconsistency.
    fn piece(&mut self, db: &Connection, most: u64) -> Result<bool, StoreError> {
        self.skip_pruned(db)?;
        let begun = self.checked.rows;
        let columns = batch_columns().join(",");
        let select = format!("SELECT {columns}, hash FROM batch WHERE id > ? ORDER BY id");
        let mut select = db.prepare_cached(&select)?;
        let mut rows = select.query([self.through])?;
        while let Some(row) = rows.next()? {
            if self.checked.rows - begun >= most {
                return Ok(false);
            }
            let width = batch_columns().len();
            let columns = (0..width).map(|column| row.get(column)).collect::<Result<Vec<i64>, _>>()?;
            let hash: Vec<u8> = row.get(width)?;
            let (id, ts) = (columns.first().copied().unwrap_or(0), columns.get(2).copied().unwrap_or(0));
            let batch = ReadBatch { id, ts, columns, link: Link::from_bytes(&hash) };
            if let Err(broken) = self.batch(&batch, db)? {
                self.checked.broken = Some(broken);
                return Ok(true);
            }
        }
        self.checked.broken = self.beyond(db)?;
        Ok(true)
    }

    /// Continues after what retention has deleted, or is deleting, since the last piece. The row that says so is in the
    /// chain itself, in a later batch.
    fn skip_pruned(&mut self, db: &Connection) -> Result<(), StoreError> {
        let pruned = "SELECT through_batch, ts, hash, through_segment FROM pruned ORDER BY id DESC LIMIT 1";
        let pruned: Option<(i64, i64, Vec<u8>, i64)> = db
            .query_row(pruned, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?)))
            .optional()?;
        let Some((batch, ts, hash, segment)) = pruned else { return Ok(()) };
        self.kept_since = segment + 1;
        self.checked.pruned = Some((batch, ts));
        let link = Link::from_bytes(&hash).unwrap_or(Link::NONE);
        if self.anchor == Some(link) {
            self.checked.anchored = Some(batch);
        }
        if batch > self.through {
            (self.through, self.previous, self.last) = (batch, link, None);
        }
        Ok(())
    }

    fn batch(&mut self, batch: &ReadBatch, db: &Connection) -> Result<Result<(), Broken>, StoreError> {
        let expected = self.through + 1;
        if batch.id != expected {
            return Ok(Err(batch.broken(match self.last {
                Some(_) => format!("batches {expected} to {} are missing", batch.id - 1),
                None => format!(
                    "the batches before it, from {expected}, are missing, and retention did not delete them"
                ),
            })));
        }
        let mut contents = Contents::new();
        let mut ends = [0; Table::COUNT];
        for table in Table::ALL {
            let (from, to) = batch.range(table);
            let before = self.last.map(|(_, ends)| ends).and_then(|ends| ends.get(table as usize).copied());
            if before.is_some_and(|before| from != before + 1) || to < from - 1 {
                let (table, before) = (table.name(), batch.id - 1);
                let why = format!("its rows of table {table} do not follow those of batch {before}");
                return Ok(Err(batch.broken(why)));
            }
            if before.is_none() && self.strangers(table, from, db)? > 0 {
                let why = format!("table {} has earlier rows that belong to no batch", table.name());
                return Ok(Err(batch.broken(why)));
            }
            let rows = hash_rows(db, table, from, to, &mut contents)?;
            // Retention deletes whole segments with their batches, so it is not the cause.
            if rows != to - from + 1 {
                let missing = to - from + 1 - rows;
                return Ok(
                    Err(batch.broken(format!("{missing} rows of table {} are missing", table.name()))),
                );
            }
            self.checked.rows += rows.cast_unsigned();
            if let Some(end) = ends.get_mut(table as usize) {
                *end = to;
            }
        }
        let link = contents.link(&self.previous, &batch.columns);
        if batch.link != Some(link) {
            return Ok(Err(batch.broken("the hash does not match: its rows or earlier ones were changed")));
        }
        if self.anchor == Some(link) {
            self.checked.anchored = Some(batch.id);
        }
        self.previous = link;
        self.last = Some((batch.id, ends));
        self.through = batch.id;
        self.checked.batches += 1;
        self.checked.newest = Some(link);
        let first = self.checked.range.map_or(batch.id, |(first, _)| first);
        self.checked.range = Some((first, batch.id));
        Ok(Ok(()))
    }

    /// Rows before the first batch that retention is not about to delete.
    fn strangers(&self, table: Table, from: i64, db: &Connection) -> Result<i64, StoreError> {
        let segment = if table == Table::Segment { "id" } else { "segment" };
        let count = format!("SELECT count(*) FROM {} WHERE id < ? AND {segment} >= ?", table.name());
        Ok(db.query_row(&count, [from, self.kept_since], |row| row.get(0))?)
    }

    /// Rows after the last batch.
    fn beyond(&self, db: &Connection) -> Result<Option<Broken>, StoreError> {
        let (last, ends) = self.last.unwrap_or_default();
        for (table, end) in Table::ALL.iter().zip(ends) {
            let count = format!("SELECT count(*) FROM {} WHERE id > ?", table.name());
            let count: i64 = db.query_row(&count, [end], |row| row.get(0))?;
            if count > 0 {
                let why = format!("{count} rows of table {} follow the last batch", table.name());
                return Ok(Some(Broken { batch: last, ts: 0, why }));
            }
        }
        Ok(None)
    }
}

pub(super) fn hash_rows(
    db: &Connection,
    table: Table,
    from: i64,
    to: i64,
    contents: &mut Contents,
) -> Result<i64, StoreError> {
    if to < from {
        return Ok(0);
    }
    let select = format!("{} WHERE id BETWEEN ? AND ? ORDER BY id", table.select());
    let mut select = db.prepare_cached(&select)?;
    let width = select.column_count();
    let mut rows = select.query([from, to])?;
    let mut count = 0;
    while let Some(row) = rows.next()? {
        let values = (0..width).map(|column| row.get_ref(column)).collect::<Result<Vec<_>, _>>()?;
        contents.row(table, values.into_iter());
        count += 1;
    }
    Ok(count)
}
