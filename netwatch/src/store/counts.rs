//! How much was recorded over time, and queries that end when nobody waits for them any more.

use super::StoreError;
use super::read::Reader;

impl Reader {
    /// From here on a query ends with an error once `is_late` says so, which is asked every some thousand steps.
    ///
    /// # Errors
    /// If the database does not take it.
    pub fn end_when(&mut self, is_late: Box<dyn Fn() -> bool + Send>) -> Result<(), StoreError> {
        /// Steps of the database: some 10 to 100 microseconds.
        const STEPS: i32 = 4096;
        Ok(self.db_mut().progress_handler(STEPS, Some(is_late))?)
    }

    /// How many endpoints were written in each of `parts` equal parts of a time, in nanoseconds since the epoch; open ends
    /// are those of the store. Returns the time, too.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn counts(
        &self,
        (since, until): (Option<i64>, Option<i64>),
        parts: usize,
    ) -> Result<((i64, i64), Vec<u64>), StoreError> {
        let mut counts = vec![0; parts];
        let ends = "SELECT min(ts), max(ts) FROM batch";
        let (first, last): (Option<i64>, Option<i64>) =
            self.db().query_row(ends, [], |row| Ok((row.get(0)?, row.get(1)?)))?;
        let (Some(first), Some(last)) = (first, last) else { return Ok(((0, 0), Vec::new())) };
        let (from, to) = (since.unwrap_or(first), until.unwrap_or_else(|| last.saturating_add(1)));
        if to <= from {
            return Ok(((from, from), Vec::new()));
        }
        let select = "SELECT ts, connection_to - connection_from + 1 FROM batch \
                      WHERE ts >= ?1 AND ts < ?2 AND connection_to >= connection_from";
        let mut select = self.db().prepare_cached(select)?;
        let mut rows = select.query([from, to])?;
        while let Some(row) = rows.next()? {
            let (ts, count): (i64, i64) = (row.get(0)?, row.get(1)?);
            let part =
                (i128::from(ts) - i128::from(from)) * parts as i128 / (i128::from(to) - i128::from(from));
            if let Some(sum) = usize::try_from(part).ok().and_then(|part| counts.get_mut(part)) {
                *sum += count.cast_unsigned();
            }
        }
        Ok(((from, to), counts))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::{Retention, Settings, generate};
    use super::*;
    use crate::clock::BootClock;

    #[test]
    fn endpoints_are_counted_by_time() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("store.db");
        let retention = Retention { age: Duration::from_secs(1 << 32), size: 1 << 40 };
        let clock = BootClock::now().unwrap();
        let settings = Settings { retention, boot: "0".into(), filter: None, clock, seal: false };
        generate(&path, settings, 3000).unwrap();
        let reader = Reader::open(&path).unwrap();
        let rows: i64 =
            reader.db().query_row("SELECT count(*) FROM connection", [], |row| row.get(0)).unwrap();
        let (span, counts) = reader.counts((None, None), 10).unwrap();
        assert_eq!((counts.len(), counts.iter().sum::<u64>()), (10, rows.cast_unsigned()));
        // A part of the time has a part of the rows, and what lies outside none.
        let half = span.0 + (span.1 - span.0) / 2;
        let of = |span| reader.counts(span, 10).unwrap().1.iter().sum::<u64>();
        assert_eq!(of((None, Some(half))) + of((Some(half), None)), rows.cast_unsigned());
        assert_eq!(of((Some(i64::MAX), None)) + of((None, Some(0))), 0);
    }
}
