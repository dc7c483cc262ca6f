//! Rows as they lie in the tables: for what copies a store elsewhere, and a store in memory that is made of such rows.

use rusqlite::types::Value;
use rusqlite::{OptionalExtension as _, Row, params_from_iter};

use super::chain::{Format, Link, Table};
use super::read::Reader;
use super::{APPLICATION_ID, StoreError, VERSION, open};

/// A batch: the rows of each table that it covers.
#[derive(Clone, Debug)]
pub struct Span {
    /// Its number; numbers have no gaps.
    pub id: i64,
    /// The link of the chain.
    pub link: Link,
    ranges: [(i64, i64); Table::COUNT],
}

impl Span {
    /// The first and the last row of a table; a last one before the first: none.
    #[must_use]
    pub fn range(&self, table: &str) -> (i64, i64) {
        let mut tables = Table::ALL.into_iter().zip(self.ranges);
        tables.find(|(known, _)| known.name() == table).map_or((1, 0), |(_, range)| range)
    }

    /// Number of rows of all tables.
    #[must_use]
    pub fn rows(&self) -> i64 {
        self.ranges.iter().map(|(from, to)| (to - from + 1).max(0)).sum()
    }

    fn read(row: &Row<'_>) -> Result<Self, StoreError> {
        let hash: Vec<u8> = row.get(1)?;
        let mut ranges = [(1, 0); Table::COUNT];
        for (place, range) in ranges.iter_mut().enumerate() {
            let (from, to): (Option<i64>, Option<i64>) = (row.get(2 + 2 * place)?, row.get(3 + 2 * place)?);
            *range = (from.unwrap_or(1), to.unwrap_or(0));
        }
        let link = Link::from_bytes(&hash).ok_or_else(|| StoreError::Damaged("a link has no hash".into()))?;
        Ok(Self { id: row.get(0)?, link, ranges })
    }
}

impl Reader {
    /// The batches after this one, oldest first, until they have this many rows; at least one, if there is one.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn spans(&self, after: i64, most_rows: i64) -> Result<Vec<Span>, StoreError> {
        let ranges = Table::ALL.map(|table| format!("{0}_from, {0}_to", table.name())).join(", ");
        let select = format!("SELECT id, hash, {ranges} FROM batch WHERE id > ? ORDER BY id");
        let mut select = self.db().prepare_cached(&select)?;
        let mut rows = select.query([after])?;
        let (mut spans, mut count) = (Vec::new(), 0);
        while count < most_rows
            && let Some(row) = rows.next()?
        {
            let span = Span::read(row)?;
            count += span.rows();
            spans.push(span);
        }
        Ok(spans)
    }

    /// The link of a batch, if the store has it.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn link_of(&self, batch: i64) -> Result<Option<Link>, StoreError> {
        let mut select = self.db().prepare_cached("SELECT hash FROM batch WHERE id = ?")?;
        let hash: Option<Vec<u8>> = select.query_row([batch], |row| row.get(0)).optional()?;
        Ok(hash.and_then(|hash| Link::from_bytes(&hash)))
    }

    /// The newest batch and its time, in nanoseconds since the epoch.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn newest_batch(&self) -> Result<Option<(i64, i64)>, StoreError> {
        let mut select = self.db().prepare_cached("SELECT id, ts FROM batch ORDER BY id DESC LIMIT 1")?;
        Ok(select.query_row([], |row| Ok((row.get(0)?, row.get(1)?))).optional()?)
    }

    /// Gives each row of a query to `with`; its two parameters are the first and the last row.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn each_row(
        &self,
        select: &str,
        (from, to): (i64, i64),
        with: &mut dyn FnMut(&Row<'_>) -> Result<(), StoreError>,
    ) -> Result<(), StoreError> {
        let mut select = self.db().prepare_cached(select)?;
        let mut rows = select.query([from, to])?;
        while let Some(row) = rows.next()? {
            with(row)?;
        }
        Ok(())
    }

    /// Does `work` on one state of the store.
    ///
    /// # Errors
    /// As `work`.
    pub fn at_once<T>(&self, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
        let transaction = self.db().unchecked_transaction()?;
        let done = work()?;
        transaction.finish()?;
        Ok(done)
    }

    /// An empty store in memory.
    ///
    /// # Errors
    /// If there is no memory.
    pub fn in_memory() -> Result<Self, StoreError> {
        let db = open::reference(VERSION)?;
        db.pragma_update(None, "application_id", APPLICATION_ID)?;
        db.pragma_update(None, "user_version", VERSION)?;
        db.set_prepared_statement_cache_capacity(64);
        Ok(Self::of(db, VERSION))
    }

    /// Adds a row to a store in memory; one that it has already is left as it is.
    ///
    /// # Errors
    /// If the row does not fit the table.
    pub fn put(&self, table: &str, columns: &[&str], row: Vec<Value>) -> Result<(), StoreError> {
        let marks = vec!["?"; columns.len()].join(",");
        let insert = format!("INSERT OR IGNORE INTO {table} ({}) VALUES ({marks})", columns.join(","));
        self.db().prepare_cached(&insert)?.execute(params_from_iter(row))?;
        Ok(())
    }

    /// Makes each segment of a store in memory one batch, of all rows that it has by now. `last`: when the last batch
    /// of a segment was written.
    ///
    /// # Errors
    /// If the store cannot be changed.
    pub fn bind_together(&self, last: &[(i64, i64)]) -> Result<(), StoreError> {
        let mut columns = vec!["id".to_owned(), "segment".to_owned(), "ts".to_owned(), "hash".to_owned()];
        let mut values =
            vec!["s.id".to_owned(), "s.id".to_owned(), "?2".to_owned(), "zeroblob(32)".to_owned()];
        for table in Format::NEWEST.tables() {
            let name = table.name();
            columns.extend([format!("{name}_from"), format!("{name}_to")]);
            let of = if table == Table::Segment { "id" } else { "segment" };
            let bound = |what: &str, none: i64| {
                format!("(SELECT coalesce({what}(id), {none}) FROM {name} WHERE {of} = s.id)")
            };
            values.extend([bound("min", 1), bound("max", 0)]);
        }
        let insert = format!(
            "INSERT OR REPLACE INTO batch ({}) SELECT {} FROM segment s WHERE s.id = ?1",
            columns.join(","),
            values.join(",")
        );
        let mut insert = self.db().prepare_cached(&insert)?;
        for (segment, ts) in last {
            insert.execute([segment, ts])?;
        }
        Ok(())
    }
}
