//! A batch: rows of all tables, counted and hashed as they are inserted, and the row of the batch.

use jiff::Timestamp;
use rusqlite::types::{ToSqlOutput, ValueRef};
use rusqlite::{CachedStatement, Connection};

use super::StoreError;
use super::chain::{Contents, Format, Link, Table};

/// The greatest id of each table, and of the batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ids {
    pub(super) tables: [i64; Table::COUNT],
    pub(super) batch: i64,
}

/// A batch in an open transaction.
pub(super) struct Batch<'c> {
    db: &'c Connection,
    inserts: Vec<CachedStatement<'c>>,
    contents: Contents,
    before: Ids,
    ids: Ids,
    segment: i64,
}

impl<'c> Batch<'c> {
    pub(super) fn new(db: &'c Connection, ids: Ids, segment: i64) -> Result<Self, StoreError> {
        let inserts = Table::ALL.iter().map(|table| db.prepare_cached(&table.insert()));
        let inserts = inserts.collect::<Result<_, _>>()?;
        Ok(Self { db, inserts, contents: Contents::new(), before: ids, ids, segment })
    }

    /// The current segment.
    pub(super) fn segment(&self) -> i64 {
        self.segment
    }

    /// Sets the segment of the following rows.
    pub(super) fn begin_segment(&mut self, segment: i64) {
        self.segment = segment;
    }

    /// Id of the next row of a table.
    pub(super) fn next_id(&self, table: Table) -> i64 {
        self.ids.tables.get(table as usize).map_or(1, |id| id + 1)
    }

    /// Number of rows of a table so far.
    pub(super) fn rows(&self, table: Table) -> i64 {
        let at = |ids: &Ids| ids.tables.get(table as usize).copied().unwrap_or(0);
        at(&self.ids) - at(&self.before)
    }

    /// Inserts a row; its id is [`Batch::next_id`].
    pub(super) fn insert(&mut self, table: Table, values: &[ValueRef<'_>]) -> Result<(), StoreError> {
        if let Some(statement) = self.inserts.get_mut(table as usize) {
            for (index, value) in values.iter().enumerate() {
                statement.raw_bind_parameter(index + 1, ToSqlOutput::Borrowed(*value))?;
            }
            statement.raw_execute()?;
        }
        self.contents.row(table, values.iter().copied());
        if let Some(id) = self.ids.tables.get_mut(table as usize) {
            *id += 1;
        }
        Ok(())
    }

    /// Inserts the row of the batch at `ts`, in nanoseconds since the epoch, and `steady`, by the steady clock. Returns
    /// the state for the next one.
    pub(super) fn end(self, ts: i64, steady: i64, previous: &Link) -> Result<(Ids, Link), StoreError> {
        let ids = Ids { batch: self.ids.batch + 1, ..self.ids };
        let mut columns = vec![ids.batch, self.segment, ts, steady];
        for (before, after) in self.before.tables.iter().zip(ids.tables) {
            columns.extend([before + 1, after]);
        }
        let link = self.contents.link(Format::NEWEST, previous, &columns);
        let mut insert = self.db.prepare_cached(&insert_batch())?;
        for (index, column) in columns.iter().enumerate() {
            insert.raw_bind_parameter(index + 1, column)?;
        }
        insert.raw_bind_parameter(columns.len() + 1, link.bytes())?;
        insert.raw_execute()?;
        Ok((ids, link))
    }
}

fn insert_batch() -> String {
    let columns = Format::NEWEST.batch_columns();
    let marks = vec!["?"; columns.len() + 1].join(",");
    format!("INSERT INTO batch ({}, hash) VALUES ({marks})", columns.join(","))
}

/// Nanoseconds since the epoch; valid until the year 2262.
pub(super) fn nanoseconds(time: Timestamp) -> i64 {
    time.as_nanosecond().try_into().unwrap_or(i64::MAX)
}
