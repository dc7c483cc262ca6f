//! Compares each index with its table, segment by segment: a query that uses an index finds what the index has, and the
//! chain covers tables only.
//!
//! `PRAGMA integrity_check` does the same in one transaction, which on a large store lasts for minutes and keeps the log
//! from being written back meanwhile.

use std::cmp::Ordering;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};

use rusqlite::types::ValueRef;
use rusqlite::{Connection, OptionalExtension as _, Row};

use super::batches::ReadBatch;
use crate::store::chain::{Format, Table};
use crate::store::{Reader, StoreError, open};

/// Compares the indexes with the tables, a segment at a time.
pub(super) fn compare(
    reader: &Reader,
    version: i32,
    tell: &mut dyn FnMut(u64) -> Result<(), StoreError>,
) -> Result<Option<String>, StoreError> {
    let indexes = Indexes::of(version)?;
    let format = reader.format();
    let (mut after, mut after_batch, mut done) = (0, 0, 0);
    loop {
        let transaction = reader.db().unchecked_transaction()?;
        let next = "SELECT id FROM segment WHERE id > ? ORDER BY id LIMIT 1";
        let next: Option<i64> = transaction.query_row(next, [after], |row| row.get(0)).optional()?;
        let Some(segment) = next else {
            let differs = indexes.counts(&transaction)?;
            transaction.finish()?;
            return Ok(differs);
        };
        let batches = segment_batches(&transaction, format, segment, after_batch)?;
        let range = |table: &str| Ok(batches.range(table));
        if let Some(differs) = indexes.segment(&transaction, segment, range)? {
            return Ok(Some(differs));
        }
        transaction.finish()?;
        done += batches.count;
        tell(done)?;
        (after, after_batch) = (segment, batches.batches.1.max(after_batch));
    }
}

/// The batches of a segment, and their rows.
struct SegmentBatches {
    count: u64,
    batches: (i64, i64),
    ranges: [(i64, i64); Table::COUNT],
}

impl SegmentBatches {
    fn range(&self, table: &str) -> (i64, i64) {
        match Table::ALL.iter().position(|known| known.name() == table) {
            Some(place) => self.ranges.get(place).copied().unwrap_or((1, 0)),
            None => self.batches,
        }
    }
}

/// Without the index of that table. `after`: the last batch of an earlier segment.
fn segment_batches(
    db: &Connection,
    format: Format,
    segment: i64,
    after: i64,
) -> Result<SegmentBatches, StoreError> {
    let mut found = SegmentBatches { count: 0, batches: (1, 0), ranges: [(1, 0); Table::COUNT] };
    let columns = format.batch_columns().join(",");
    let mut select = db
        .prepare_cached(&format!("SELECT {columns}, hash FROM batch NOT INDEXED WHERE id > ? ORDER BY id"))?;
    let mut rows = select.query([after])?;
    while let Some(row) = rows.next()? {
        let batch = ReadBatch::read(row, format)?;
        match batch.segment.cmp(&segment) {
            // Of a segment that retention is deleting.
            Ordering::Less => continue,
            Ordering::Equal => {}
            Ordering::Greater => break,
        }
        let join = |all: &mut (i64, i64), (from, to): (i64, i64)| {
            if from <= to {
                *all = if all.0 <= all.1 { (all.0, to) } else { (from, to) };
            }
        };
        found.count += 1;
        join(&mut found.batches, (batch.id, batch.id));
        for (all, range) in found.ranges.iter_mut().zip(batch.ranges) {
            join(all, range);
        }
    }
    Ok(found)
}

/// An index of the version's own schema.
struct Index {
    name: String,
    table: String,
    columns: Vec<String>,
    /// The condition of a partial index.
    condition: String,
}

/// All indexes.
struct Indexes {
    indexes: Vec<Index>,
    /// Sums over entries cannot be foreseen, so they cannot be made equal on purpose.
    hashes: RandomState,
}

impl Indexes {
    fn of(version: i32) -> Result<Self, StoreError> {
        let reference = open::reference(version)?;
        let mut select = reference.prepare(
            "SELECT name, tbl_name, sql FROM sqlite_schema WHERE type = 'index' AND sql IS NOT NULL",
        )?;
        let found = select.query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?;
        let mut indexes = Vec::new();
        for index in found {
            let (name, table, sql): (String, String, String) = index?;
            let mut columns = reference.prepare(&format!("PRAGMA index_info({name})"))?;
            let columns = columns.query_map([], |row| row.get(2))?.collect::<Result<_, _>>()?;
            let condition = sql.split_once("WHERE").map_or("1", |(_, condition)| condition.trim()).to_owned();
            indexes.push(Index { name, table, columns, condition });
        }
        Ok(Self { indexes, hashes: RandomState::new() })
    }

    /// The first difference among the rows of a segment. `range`: its rows of a table.
    fn segment(
        &self,
        db: &Connection,
        segment: i64,
        range: impl Fn(&str) -> Result<(i64, i64), StoreError>,
    ) -> Result<Option<String>, StoreError> {
        for index in &self.indexes {
            let (from, to) = range(&index.table)?;
            let is_well = if index.is_by_segment() {
                self.same(db, index, segment, (from, to))?
            } else {
                each_found(db, index, (from, to))?
            };
            if !is_well {
                return Ok(Some(index.differs()));
            }
        }
        Ok(None)
    }

    /// The first index over whole tables that has not as many entries as there are rows.
    fn counts(&self, db: &Connection) -> Result<Option<String>, StoreError> {
        for index in self.indexes.iter().filter(|index| !index.is_by_segment()) {
            let Index { name, table, condition, .. } = index;
            let count = |by: &str| {
                let count = format!("SELECT count(*) FROM {table} {by} WHERE {condition}");
                db.query_row(&count, [], |row| row.get::<_, i64>(0))
            };
            if count("NOT INDEXED")? != count(&format!("INDEXED BY {name}"))? {
                return Ok(Some(index.differs()));
            }
        }
        Ok(None)
    }

    /// Whether an index that begins with the segment has the same entries as the table, in order.
    fn same(
        &self,
        db: &Connection,
        index: &Index,
        segment: i64,
        (from, to): (i64, i64),
    ) -> Result<bool, StoreError> {
        let Index { name, table, columns, condition } = index;
        let columns = columns.join(",");
        let select = format!(
            "SELECT {columns}, id FROM {table} NOT INDEXED WHERE id BETWEEN ? AND ? AND segment = ? AND ({condition})"
        );
        let (mut sum, mut count) = (0_u64, 0_u64);
        let width = index.columns.len() + 1;
        let mut select = db.prepare_cached(&select)?;
        let mut rows = select.query([from, to, segment])?;
        while let Some(row) = rows.next()? {
            sum = sum.wrapping_add(self.entry(row, width)?);
            count += 1;
        }
        let select = format!(
            "SELECT {columns}, id FROM {table} INDEXED BY {name} WHERE segment = ? AND ({condition})"
        );
        let mut select = db.prepare_cached(&select)?;
        let mut rows = select.query([segment])?;
        let mut before: Vec<rusqlite::types::Value> = Vec::new();
        while let Some(row) = rows.next()? {
            sum = sum.wrapping_sub(self.entry(row, width)?);
            count = count.wrapping_sub(1);
            let values = (0..width).map(|column| row.get_ref(column)).collect::<Result<Vec<_>, _>>()?;
            let is_ordered = before.is_empty() || {
                let pairs = before.iter().map(ValueRef::from).zip(values.iter().copied());
                pairs.map(|(one, other)| order(one, other)).find(|order| order.is_ne())
                    == Some(Ordering::Less)
            };
            if !is_ordered {
                return Ok(false);
            }
            before = values
                .into_iter()
                .map(rusqlite::types::Value::try_from)
                .collect::<Result<_, _>>()
                .map_err(|error| StoreError::Damaged(error.to_string()))?;
        }
        Ok(sum == 0 && count == 0)
    }

    fn entry(&self, row: &Row<'_>, width: usize) -> Result<u64, StoreError> {
        let mut hasher = self.hashes.build_hasher();
        for column in 0..width {
            let (kind, bytes): (u8, &[u8]) = match row.get_ref(column)? {
                ValueRef::Integer(number) => {
                    hasher.write_u8(1);
                    hasher.write_i64(number);
                    continue;
                }
                ValueRef::Null => (0, &[]),
                ValueRef::Text(text) => (2, text),
                ValueRef::Blob(blob) => (3, blob),
                ValueRef::Real(_) => (4, &[]),
            };
            hasher.write_u8(kind);
            hasher.write_usize(bytes.len());
            hasher.write(bytes);
        }
        Ok(hasher.finish())
    }
}

impl Index {
    fn is_by_segment(&self) -> bool {
        self.columns.first().is_some_and(|column| column == "segment")
    }

    fn differs(&self) -> String {
        format!("index {} has other entries than table {}", self.name, self.table)
    }
}

/// Whether each row is found by an index over whole tables.
fn each_found(db: &Connection, index: &Index, (from, to): (i64, i64)) -> Result<bool, StoreError> {
    let Index { name, table, columns, condition } = index;
    let Some(column) = columns.first() else { return Ok(true) };
    let select =
        format!("SELECT {column}, id FROM {table} NOT INDEXED WHERE id BETWEEN ? AND ? AND ({condition})");
    let find =
        format!("SELECT 1 FROM {table} INDEXED BY {name} WHERE {column} = ? AND id = ? AND ({condition})");
    let mut find = db.prepare_cached(&find)?;
    let mut select = db.prepare_cached(&select)?;
    let mut rows = select.query([from, to])?;
    while let Some(row) = rows.next()? {
        let (key, id): (i64, i64) = (row.get(0)?, row.get(1)?);
        if !find.exists([key, id])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The order of SQLite: NULL, then numbers, then text by its bytes.
fn order(one: ValueRef<'_>, other: ValueRef<'_>) -> Ordering {
    let rank = |value: ValueRef<'_>| match value {
        ValueRef::Null => 0,
        ValueRef::Integer(_) | ValueRef::Real(_) => 1,
        ValueRef::Text(_) => 2,
        ValueRef::Blob(_) => 3,
    };
    match (one, other) {
        (ValueRef::Integer(one), ValueRef::Integer(other)) => one.cmp(&other),
        (ValueRef::Text(one), ValueRef::Text(other)) | (ValueRef::Blob(one), ValueRef::Blob(other)) => {
            one.cmp(other)
        }
        _ => rank(one).cmp(&rank(other)),
    }
}
