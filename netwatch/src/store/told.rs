//! Everything that was told, in its order: page by page, so that neither memory nor the store's log grows with a reader
//! who takes his time.

use std::sync::Arc;

use jiff::Timestamp;

use super::StoreError;
use super::read::{Missing, Reader};
use super::search::{Narrow, Search, Segment};
use crate::model::BootTime;
use crate::tracker::ConnectionEvent;

/// Something that was told.
#[derive(Clone, Debug)]
pub enum Line {
    /// Something happened to an end.
    Event(Box<ConnectionEvent>),
    /// Something was lost.
    Loss(Missing),
}

/// What was told by one clock, oldest first.
#[derive(Clone, Debug)]
pub struct Page {
    /// Where that was recorded.
    pub segment: Arc<Segment>,
    /// Each with its time of day.
    pub lines: Vec<(Timestamp, Line)>,
}

/// Of what is asked for, what is to come.
pub struct Told<'r> {
    reader: &'r Reader,
    search: Search,
    since: Option<i64>,
    until: Option<i64>,
}

impl Reader {
    /// What was told between two times, nanoseconds since the epoch, that `narrow` may mean: whoever asks has to look
    /// again. Pages come in their order, or the newest first; lines in a page are always in theirs.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn told(
        &self,
        narrow: Narrow,
        since: Option<i64>,
        until: Option<i64>,
        newest_first: bool,
    ) -> Result<Told<'_>, StoreError> {
        let search = Search::new(narrow, None, since, until, newest_first, self.db())?;
        Ok(Told { reader: self, search, since, until })
    }
}

impl Told<'_> {
    /// The next page; `None` where there are no more.
    ///
    /// # Errors
    /// Where the store cannot be read.
    pub fn page(&mut self) -> Result<Option<Page>, StoreError> {
        // One state of the store for each page: what it refers to is there as long.
        let transaction = self.reader.db().unchecked_transaction()?;
        let page = self.read()?;
        transaction.finish()?;
        Ok(page)
    }

    fn read(&mut self) -> Result<Option<Page>, StoreError> {
        let Some(found) = self.search.page(self.reader.db())? else { return Ok(None) };
        let segment = found.segment;
        let mut lines: Vec<(BootTime, Timestamp, Line)> = Vec::new();
        for row in &found.rows {
            for event in self.reader.events_of(row, &segment)? {
                let time = segment.clock.time(event.at).unwrap_or_default();
                lines.push((event.at, time, Line::Event(Box::new(event))));
            }
        }
        let (from, to) = found.losses;
        if from <= to {
            let range = "id BETWEEN ?1 AND ?2 AND segment = ?3";
            for missing in self.reader.losses_of(&segment, range, [from, to, segment.id])? {
                lines.push((missing.at, missing.time, Line::Loss(missing)));
            }
        }
        // By the time since boot, which nobody sets back; where that is the same, as they were written.
        lines.sort_by_key(|(at, ..)| *at);
        let is_meant = |time: &Timestamp| {
            let time = time.as_nanosecond();
            self.since.is_none_or(|since| time >= since.into())
                && self.until.is_none_or(|until| time <= until.into())
        };
        let lines = lines.into_iter().map(|(_, time, line)| (time, line));
        let lines = lines.filter(|(time, _)| is_meant(time)).collect();
        Ok(Some(Page { segment, lines }))
    }
}
