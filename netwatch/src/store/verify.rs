//! Verifies a store: its schema, the chain (every batch is hashed again, and every row must belong to a batch), whether the
//! limits explain what retention deleted, and the content of the indexes.

mod batches;
mod indexes;
mod retention;
mod schema;
mod seals;

use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension as _};

use super::chain::{Contents, Format, Link, Table};
use super::{Key, Progress, Reader, SealFile, StoreError};
use crate::limits;
use batches::ReadBatch;
pub(super) use batches::hash_rows;
use retention::Deleted;
pub use seals::Seals;

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
    /// That was in a version that did not record its limits, so they cannot explain it.
    pub is_pruned_without_limits: bool,
    /// The newest link.
    pub newest: Option<Link>,
    /// The first inconsistency of the chain.
    pub broken: Option<Broken>,
    /// The first difference of the schema from the version's own. Nothing else was verified then.
    pub schema: Option<String>,
    /// The first index that differs from its table.
    pub index: Option<String>,
    /// The first deletion that the limits do not explain.
    pub unexplained: Option<Broken>,
    /// The batch of the anchor, if one was given and found.
    pub anchored: Option<Anchored>,
    /// What the seals say, if a key was given and the chain is consistent.
    pub seals: Option<Seals>,
}

/// What to compare the store with.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// A link that must be in the chain.
    pub anchor: Option<Link>,
    /// The verification key, and the sealing key of the store.
    pub key: Option<(&'a Key, &'a SealFile)>,
}

/// Where an anchor was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Anchored {
    /// The batch.
    pub batch: i64,
    /// Retention deleted it, and only its link is left.
    pub is_deleted: bool,
}

impl Checked {
    /// Whether nothing speaks against the store itself.
    #[must_use]
    pub fn is_well(&self) -> bool {
        let seals = self.seals.as_ref();
        seals.is_none_or(|seals| seals.broken.is_none())
            && self.broken.is_none()
            && self.schema.is_none()
            && self.index.is_none()
            && self.unexplained.is_none()
    }
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

/// Verifies a store, in pieces: the log of a recorder grows while a transaction is open. `watch` is told how far it is, and may end it.
///
/// # Errors
/// If the store cannot be read, or `watch` ended it.
pub fn verify(
    reader: &Reader,
    ask: Ask<'_>,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Checked, StoreError> {
    let mut checked = verify_with(reader, ask.anchor, limits::VERIFIED_AT_ONCE, watch)?;
    if let Some((key, file)) = ask.key.filter(|_| checked.is_well()) {
        checked.seals = Some(if reader.format() < Format::Two {
            Seals { broken: Some("a store of version 1 has no seals".into()), ..Seals::default() }
        } else {
            seals::verify(reader, file, key, checked.pruned.is_some())?
        });
    }
    Ok(checked)
}

/// Verifies only that the tables, indexes, views and triggers are those of the version.
///
/// # Errors
/// If the store cannot be read.
pub fn verify_schema(reader: &Reader) -> Result<Checked, StoreError> {
    let schema = schema::difference(reader.db(), reader.version())?;
    Ok(Checked { schema, ..Checked::default() })
}

/// `most`: rows after which a piece ends with a batch.
pub(super) fn verify_with(
    reader: &Reader,
    anchor: Option<Link>,
    most: u64,
    watch: &mut dyn FnMut(Progress) -> ControlFlow<()>,
) -> Result<Checked, StoreError> {
    let version = reader.version();
    let mut chain = Chain { anchor, ..Chain::new(reader.format()) };
    chain.checked.schema = schema::difference(reader.db(), version)?;
    if chain.checked.schema.is_some() {
        return Ok(chain.checked);
    }
    let bounds = "SELECT coalesce(min(id), 1), coalesce(max(id), 0) FROM batch";
    let bounds: (i64, i64) = reader.db().query_row(bounds, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
    // Each batch is read twice.
    let total = 2 * (bounds.1 - bounds.0 + 1).max(0).cast_unsigned();
    let mut tell = |done: u64| match watch(Progress { done: done.min(total), total }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(StoreError::Interrupted),
    };
    loop {
        let transaction = reader.db().unchecked_transaction()?;
        let is_over = chain.piece(&transaction, most)?;
        transaction.finish()?;
        if is_over {
            break;
        }
        tell(chain.checked.batches)?;
    }
    let mut checked = chain.checked;
    if checked.is_well() {
        let begun = checked.batches;
        checked.index = indexes::compare(reader, version, &mut |done| tell(begun + done))?;
    }
    Ok(checked)
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

struct Chain {
    /// The newest that the store has.
    format: Format,
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
    deleted: Deleted,
    /// A batch of version 2 was read, so no later one is of version 1.
    is_two: bool,
}

impl Chain {
    fn new(format: Format) -> Self {
        Self {
            format,
            anchor: None,
            checked: Checked::default(),
            previous: Link::NONE,
            through: 0,
            last: None,
            kept_since: 0,
            deleted: Deleted::default(),
            is_two: false,
        }
    }

    /// Verifies the next batches, with `most` rows or a little more. Returns whether it is done: at the end, or at the
    /// first inconsistency.
    fn piece(&mut self, db: &Connection, most: u64) -> Result<bool, StoreError> {
        self.skip_pruned(db)?;
        let begun = self.checked.rows;
        let columns = self.format.batch_columns().join(",");
        let select = format!("SELECT {columns}, hash FROM batch WHERE id > ? ORDER BY id");
        let mut select = db.prepare_cached(&select)?;
        let mut find = db.prepare_cached("SELECT 1 FROM batch NOT INDEXED WHERE id = ?")?;
        let mut rows = select.query([self.through])?;
        while let Some(row) = rows.next()? {
            if self.checked.rows - begun >= most {
                return Ok(false);
            }
            let batch = ReadBatch::read(row, self.format)?;
            if !find.exists([batch.id])? {
                self.checked.broken = Some(batch.broken("a search for it does not find it"));
                return Ok(true);
            }
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
        if self.format >= Format::Two && self.checked.pruned != Some((batch, ts)) {
            self.deleted = Deleted::read(db, self.anchor)?;
            if let Some(batch) = self.deleted.anchored {
                self.checked.anchored = Some(Anchored { batch, is_deleted: true });
            }
        }
        self.kept_since = segment + 1;
        self.checked.pruned = Some((batch, ts));
        let link = Link::from_bytes(&hash).unwrap_or(Link::NONE);
        if self.anchor == Some(link) {
            self.checked.anchored = Some(Anchored { batch, is_deleted: true });
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
        if self.is_two && batch.format() == Format::One {
            return Ok(Err(batch.broken("it is of an older version than the one before it")));
        }
        self.is_two = batch.format() == Format::Two;
        let mut contents = Contents::new();
        let mut ends = [0; Table::COUNT];
        for table in batch.format().tables() {
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
            let rows = hash_rows(db, table, batch.format(), from, to, &mut contents)?;
            // Retention deletes whole segments with their batches, so it is not the cause.
            if rows != to - from + 1 {
                let (missing, table) = (from + rows, table.name());
                return Ok(Err(batch.broken(format!("row {missing} of table {table} is missing"))));
            }
            self.checked.rows += rows.cast_unsigned();
            if let Some(end) = ends.get_mut(table as usize) {
                *end = to;
            }
        }
        let link = contents.link(batch.format(), &self.previous, &batch.columns);
        if batch.link != Some(link) {
            return Ok(Err(batch.broken("the hash does not match: its rows or earlier ones were changed")));
        }
        if self.anchor == Some(link) {
            self.checked.anchored = Some(Anchored { batch: batch.id, is_deleted: false });
        }
        self.explain(batch, db)?;
        self.previous = link;
        self.last = Some((batch.id, ends));
        self.through = batch.id;
        self.checked.batches += 1;
        self.checked.newest = Some(link);
        let first = self.checked.range.map_or(batch.id, |(first, _)| first);
        self.checked.range = Some((first, batch.id));
        Ok(Ok(()))
    }

    /// Whether the limits explain the deletions that a batch notes.
    fn explain(&mut self, batch: &ReadBatch, db: &Connection) -> Result<(), StoreError> {
        let (from, to) = batch.range(Table::Pruned);
        if from > to || self.checked.unexplained.is_some() {
            return Ok(());
        }
        let Some(steady) = batch.steady else {
            self.checked.is_pruned_without_limits = true;
            return Ok(());
        };
        for row in retention::rows(db, from, to)? {
            let mut doubt = self.deleted.doubt(&row, steady, db)?;
            if let Some(segment) = self.deleted.broken {
                doubt = Some(format!("the links of deleted segment {segment} were changed"));
            }
            if let Some(doubt) = doubt {
                let (segment, through) = row.through();
                let why = format!("batches up to {through} (segment {segment}) were deleted, but {doubt}");
                self.checked.unexplained = Some(Broken { batch: batch.id, ts: row.ts, why });
                return Ok(());
            }
        }
        Ok(())
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
        for table in self.format.tables() {
            let end = ends.get(table as usize).copied().unwrap_or(0);
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
