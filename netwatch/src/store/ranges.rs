//! The rows of each batch of a segment.

use std::collections::VecDeque;

use rusqlite::{Connection, Row};

use super::StoreError;
use super::chain::Format;
use super::scan::each_batch;

/// The first and the last row of connections, of losses and of alerts; a last one before the first: none.
pub(super) type Ranges = [i64; 6];

/// Those of the batches of a segment, in order.
pub(super) fn of_batches(
    segment: i64,
    is_scan: bool,
    db: &Connection,
) -> Result<VecDeque<Ranges>, StoreError> {
    // Version 1 has no alerts.
    let alerts = match Format::of(db.pragma_query_value(None, "user_version", |row| row.get(0))?) {
        Format::One => "1, 0",
        Format::Two => "coalesce(alert_from, 1), coalesce(alert_to, 0)",
    };
    let columns = &format!("connection_from, connection_to, loss_from, loss_to, {alerts}");
    if is_scan {
        let mut all = VecDeque::new();
        each_batch(columns, segment, db, |row| {
            all.push_back(ranges(row)?);
            Ok(())
        })?;
        return Ok(all);
    }
    let mut select =
        db.prepare_cached(&format!("SELECT {columns} FROM batch WHERE segment = ? ORDER BY id"))?;
    let ranges = select.query_map([segment], ranges)?;
    Ok(ranges.collect::<Result<_, _>>()?)
}

fn ranges(row: &Row<'_>) -> rusqlite::Result<Ranges> {
    Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?, row.get(4)?, row.get(5)?])
}

/// The range that covers two; an empty one counts for nothing.
pub(super) fn both(one: (i64, i64), other: (i64, i64)) -> (i64, i64) {
    match (one.0 <= one.1, other.0 <= other.1) {
        (true, true) => (one.0.min(other.0), one.1.max(other.1)),
        (false, true) => other,
        _ => one,
    }
}
