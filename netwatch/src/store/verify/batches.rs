//! Reads batches and hashes their rows, in the version that wrote them.

use rusqlite::Connection;

use super::Broken;
use crate::store::StoreError;
use crate::store::chain::{Contents, Format, Link, Table};

/// A row of `batch`.
pub(super) struct ReadBatch {
    pub(super) id: i64,
    pub(super) ts: i64,
    pub(super) segment: i64,
    pub(super) steady: Option<i64>,
    /// Those that are hashed.
    pub(super) columns: Vec<i64>,
    pub(super) ranges: [(i64, i64); Table::COUNT],
    pub(super) link: Option<Link>,
}

impl ReadBatch {
    /// From the columns of the newest version that the store has, and the hash.
    pub(super) fn read(row: &rusqlite::Row<'_>, format: Format) -> rusqlite::Result<Self> {
        let names = format.batch_columns();
        let all = (0..names.len()).map(|column| row.get(column)).collect::<Result<Vec<Option<i64>>, _>>()?;
        let value = |name: &str| {
            let place = names.iter().position(|known| known == name)?;
            all.get(place).copied().flatten()
        };
        let steady = value("steady");
        let own = if steady.is_some() { Format::Two } else { Format::One };
        let ranges = Table::ALL.map(|table| {
            let name = table.name();
            let at = |end: &str| value(&format!("{name}_{end}"));
            // A batch before the table existed.
            at("from").zip(at("to")).unwrap_or((1, 0))
        });
        let columns = own.batch_columns().iter().map(|name| value(name).unwrap_or(0)).collect();
        let hash: Vec<u8> = row.get(names.len())?;
        Ok(Self {
            id: value("id").unwrap_or(0),
            ts: value("ts").unwrap_or(0),
            segment: value("segment").unwrap_or(0),
            steady,
            columns,
            ranges,
            link: Link::from_bytes(&hash),
        })
    }

    pub(super) fn format(&self) -> Format {
        if self.steady.is_some() { Format::Two } else { Format::One }
    }

    /// First and last row of a table.
    pub(super) fn range(&self, table: Table) -> (i64, i64) {
        self.ranges.get(table as usize).copied().unwrap_or((1, 0))
    }

    pub(super) fn broken(&self, why: impl Into<String>) -> Broken {
        Broken { batch: self.id, ts: self.ts, why: why.into() }
    }
}

/// Hashes rows up to the first that is missing, and returns their number. Each row is searched for by its id: a table whose
/// rows are all there when it is read in order may hide one from a search.
pub(in crate::store) fn hash_rows(
    db: &Connection,
    table: Table,
    format: Format,
    from: i64,
    to: i64,
    contents: &mut Contents,
) -> Result<i64, StoreError> {
    if to < from {
        return Ok(0);
    }
    let mut select = db.prepare_cached(&format!("{} WHERE id = ?", table.select_in(format)))?;
    let width = select.column_count();
    let mut count = 0;
    for id in from..=to {
        let mut rows = select.query([id])?;
        let Some(row) = rows.next()? else { break };
        let values = (0..width).map(|column| row.get_ref(column)).collect::<Result<Vec<_>, _>>()?;
        contents.row(table, values.into_iter());
        count += 1;
    }
    Ok(count)
}
