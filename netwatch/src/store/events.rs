//! Recorded events in order, page by page, so that a slow reader makes neither memory nor the log of the store grow.

use std::sync::Arc;

use jiff::Timestamp;

use super::StoreError;
use super::read::Reader;
use super::search::{Narrow, Search};
use crate::model::BootTime;
use crate::stream::{Batch, Context, Item};

/// The state of a search.
pub struct Events<'r> {
    reader: &'r Reader,
    search: Search,
    since: Option<i64>,
    until: Option<i64>,
}

impl Reader {
    /// Events and losses between two times in nanoseconds since the epoch that `narrow` may select; the caller applies
    /// the filter. Batches are in order, or the newest first; items in a batch are always in order.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn events(
        &self,
        narrow: Narrow,
        since: Option<i64>,
        until: Option<i64>,
        newest_first: bool,
    ) -> Result<Events<'_>, StoreError> {
        let search = Search::new(narrow, self.is_scan(), None, since, until, newest_first, self.db())?;
        Ok(Events { reader: self, search, since, until })
    }
}

impl Events<'_> {
    /// The next batch, which has one clock; `None` at the end.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn next_batch(&mut self) -> Result<Option<Batch>, StoreError> {
        // One consistent state of the store per page, so that referenced rows exist.
        let transaction = self.reader.db().unchecked_transaction()?;
        let batch = self.read()?;
        transaction.finish()?;
        self.reader.tell(&self.search)?;
        Ok(batch)
    }

    fn read(&mut self) -> Result<Option<Batch>, StoreError> {
        let Some(page) = self.search.page(self.reader.db())? else { return Ok(None) };
        let segment = page.segment;
        let mut items: Vec<(BootTime, Timestamp, Item)> = Vec::new();
        for row in &page.rows {
            for event in self.reader.events_of(row, &segment)? {
                let time = segment.clock.time(event.at).unwrap_or_default();
                items.push((event.at, time, Item::Event(event)));
            }
        }
        let (from, to) = page.losses;
        if from <= to {
            for missing in self.reader.losses_of(&segment, (from, to))? {
                items.push((missing.at, missing.time, Item::Loss(missing.time, missing.loss)));
            }
        }
        for alert in self.reader.alerts_of(&segment, page.alerts)? {
            let time = segment.clock.time(alert.at).unwrap_or_default();
            items.push((alert.at, time, Item::Alert(Box::new(alert))));
        }
        // Sorted by time since boot, which never goes back; equal times in the order of writing.
        items.sort_by_key(|(at, ..)| *at);
        let is_meant = |time: &Timestamp| {
            let time = time.as_nanosecond();
            self.since.is_none_or(|since| time >= since.into())
                && self.until.is_none_or(|until| time <= until.into())
        };
        let items = items.into_iter().filter(|(_, time, _)| is_meant(time)).map(|(.., item)| item).collect();
        let context = Context {
            boot: Arc::clone(&segment.boot),
            clock: segment.clock,
            run_clock: segment.run_clock,
            users: Arc::default(),
        };
        Ok(Some(Batch { context, items }))
    }
}
