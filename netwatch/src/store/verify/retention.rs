//! Whether the limits that were in force explain what retention deleted.

use std::time::Duration;

use jiff::Timestamp;
use rusqlite::{Connection, OptionalExtension as _};

use crate::store::chain::Link;
use crate::store::pruned::{self, PrunedSegment};
use crate::store::{Retention, StoreError};

/// How far ahead of the present the steady clock may be.
const AHEAD: i64 = 86_400_000_000_000;

/// What is left of deleted segments, without the links.
#[derive(Default)]
pub(super) struct Deleted {
    segments: Vec<Segment>,
    /// The anchor, and the batch with it.
    pub(super) anchored: Option<i64>,
    /// A row that does not follow the one before it.
    pub(super) broken: Option<i64>,
}

struct Segment {
    id: i64,
    last: i64,
    ended: i64,
    link: Option<Link>,
    digest: Link,
}

/// A row of `pruned` of version 2.
pub(super) struct Row {
    pub(super) ts: i64,
    segment: i64,
    through: i64,
    batch: i64,
    link: Option<Link>,
    reason: Option<String>,
    pages: Option<i64>,
    digest: Option<Link>,
}

impl Deleted {
    pub(super) fn read(db: &Connection, anchor: Option<Link>) -> Result<Self, StoreError> {
        let mut deleted = Self::default();
        let mut before: Option<PrunedSegment> = None;
        pruned::each(db, |segment| {
            if deleted.broken.is_none() && !segment.follows(before.as_ref()) {
                deleted.broken = Some(segment.id);
            }
            if let Some(anchor) = anchor
                && let Some(batch) = segment.batch(anchor)
            {
                deleted.anchored = Some(batch);
            }
            deleted.segments.push(Segment {
                id: segment.id,
                last: segment.batches.1,
                ended: segment.ended,
                link: segment.last_link(),
                digest: segment.digest(),
            });
            before = Some(segment);
            Ok(())
        })?;
        Ok(deleted)
    }

    /// Why the limits do not explain the deletion that `row` notes, in a batch that was written at `steady`.
    pub(super) fn doubt(
        &self,
        row: &Row,
        steady: i64,
        db: &Connection,
    ) -> Result<Option<String>, StoreError> {
        let Some(segment) = self.segments.iter().find(|segment| segment.id == row.through) else {
            // The limit of the table deletes its oldest rows.
            let is_older = self.segments.first().is_some_and(|first| row.through < first.id);
            return Ok((!is_older).then(|| "the links of the deleted batches are missing".to_owned()));
        };
        if (Some(segment.digest), segment.link, segment.last) != (row.digest, row.link, row.batch) {
            return Ok(Some("the links of the deleted batches are not those that were noted".to_owned()));
        }
        let limits = "SELECT max_age, max_size FROM segment WHERE id = ?";
        let limits = db.query_row(limits, [row.segment], |row| Ok((row.get(0)?, row.get(1)?))).optional()?;
        let Some((Some(age), Some(size))) = limits else {
            return Ok(Some("the limits in force are not recorded".to_owned()));
        };
        let (age, size): (i64, i64) = (age, size);
        let retention = Retention { age: duration(age), size: size.cast_unsigned() };
        Ok(match (row.reason.as_deref(), row.pages) {
            (Some("age"), _) => {
                let old = steady.saturating_sub(segment.ended);
                let now = i64::try_from(Timestamp::now().as_nanosecond()).unwrap_or(i64::MAX);
                if old < age {
                    Some(format!("they were {} old, and the limit was {}", spell(old), spell(age)))
                } else if steady > now.saturating_add(AHEAD) {
                    Some("by a clock that is ahead of the present one".to_owned())
                } else {
                    None
                }
            }
            (Some("size"), Some(pages)) => {
                // The file never shrinks, so it has the pages still.
                let there: i64 = db.pragma_query_value(None, "page_count", |row| row.get(0))?;
                let least = retention.most_pages();
                if pages.cast_unsigned() <= least || there < pages {
                    Some(format!(
                        "the file has {there} pages, {pages} were noted, and the limit on size was {least} (VACUUM \
                         shrinks the file, too)"
                    ))
                } else {
                    None
                }
            }
            _ => Some("no reason is recorded".to_owned()),
        })
    }
}

/// The rows of `pruned` between two ids.
pub(super) fn rows(db: &Connection, from: i64, to: i64) -> Result<Vec<Row>, StoreError> {
    let select = "SELECT ts, segment, through_segment, through_batch, hash, reason, pages, digest FROM pruned \
                  WHERE id BETWEEN ? AND ? ORDER BY id";
    let mut select = db.prepare_cached(select)?;
    let link = |bytes: Option<Vec<u8>>| bytes.and_then(|bytes| Link::from_bytes(&bytes));
    let rows = select.query_map([from, to], |row| {
        Ok(Row {
            ts: row.get(0)?,
            segment: row.get(1)?,
            through: row.get(2)?,
            batch: row.get(3)?,
            link: link(row.get(4)?),
            reason: row.get(5)?,
            pages: row.get(6)?,
            digest: link(row.get(7)?),
        })
    })?;
    Ok(rows.collect::<Result<_, _>>()?)
}

impl Row {
    /// What was deleted.
    pub(super) fn through(&self) -> (i64, i64) {
        (self.through, self.batch)
    }
}

fn duration(nanoseconds: i64) -> Duration {
    Duration::from_nanos(nanoseconds.max(0).cast_unsigned())
}

/// For people: the largest unit only.
fn spell(nanoseconds: i64) -> String {
    let seconds = nanoseconds / 1_000_000_000;
    let units = [(86_400, "days"), (3600, "hours"), (60, "minutes")];
    match units.iter().find(|(unit, _)| seconds.abs() >= 2 * unit) {
        Some((unit, name)) => format!("{} {name}", seconds / unit),
        None => format!("{seconds} seconds"),
    }
}
