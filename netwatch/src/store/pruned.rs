//! The links of deleted batches, which stay in `pruned_segment` so that older anchors are still found. No batch covers
//! that table; a digest in the rows of `pruned` does.

use rusqlite::{Connection, OptionalExtension as _};

use super::StoreError;
use super::chain::Link;
use crate::limits;

/// A deleted segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PrunedSegment {
    pub(super) id: i64,
    /// First and last batch.
    pub(super) batches: (i64, i64),
    /// When it ended, by the steady clock.
    pub(super) ended: i64,
    /// The links of its batches, one after the other.
    links: Vec<u8>,
    /// The digest of the segments before it.
    before: Link,
}

impl PrunedSegment {
    /// The digest of this segment and those before it.
    pub(super) fn digest(&self) -> Link {
        let mut hasher = blake3::Hasher::new();
        hasher.update(self.before.bytes());
        for number in [self.id, self.batches.0, self.batches.1, self.ended] {
            hasher.update(&number.to_le_bytes());
        }
        hasher.update(&self.links);
        Link(hasher.finalize())
    }

    /// The link of its last batch.
    pub(super) fn last_link(&self) -> Option<Link> {
        self.links.last_chunk::<{ blake3::OUT_LEN }>().and_then(|link| Link::from_bytes(link))
    }

    /// The batch with this link.
    pub(super) fn batch(&self, link: Link) -> Option<i64> {
        let place = self.links.chunks_exact(blake3::OUT_LEN).position(|known| known == link.bytes())?;
        Some(self.batches.0 + i64::try_from(place).ok()?)
    }

    /// Whether it follows `before`, with a link for each batch.
    pub(super) fn follows(&self, before: Option<&Self>) -> bool {
        let follows = before.is_none_or(|before| {
            before.digest() == self.before && before.batches.1 + 1 == self.batches.0 && before.id < self.id
        });
        let count = self.batches.1 - self.batches.0 + 1;
        let length = i64::try_from(self.links.len()).unwrap_or(i64::MAX);
        follows && count > 0 && length == count * blake3::OUT_LEN as i64
    }
}

/// The table, one row at a time.
pub(super) fn each(
    db: &Connection,
    mut with: impl FnMut(PrunedSegment) -> Result<(), StoreError>,
) -> Result<(), StoreError> {
    let select = "SELECT id, batch_from, batch_to, ended, links, before FROM pruned_segment ORDER BY id";
    let mut select = db.prepare_cached(select)?;
    let mut rows = select.query([])?;
    while let Some(row) = rows.next()? {
        let before: Vec<u8> = row.get(5)?;
        with(PrunedSegment {
            id: row.get(0)?,
            batches: (row.get(1)?, row.get(2)?),
            ended: row.get(3)?,
            links: row.get(4)?,
            before: Link::from_bytes(&before).unwrap_or(Link::NONE),
        })?;
    }
    Ok(())
}

/// Adds the batches of `segment`, which ended at `ended`, and returns the digest; `None` if it has no batches.
pub(super) fn add(db: &Connection, segment: i64, ended: i64) -> Result<Option<Link>, StoreError> {
    let mut select = db.prepare_cached("SELECT id, hash FROM batch WHERE segment = ? ORDER BY id")?;
    let mut rows = select.query([segment])?;
    let (mut batches, mut links) = (None, Vec::new());
    while let Some(row) = rows.next()? {
        let id: i64 = row.get(0)?;
        batches = Some((batches.map_or(id, |(first, _)| first), id));
        links.extend(row.get::<_, Vec<u8>>(1)?);
    }
    let Some(batches) = batches else { return Ok(None) };
    let before = last(db)?.map_or(Link::NONE, |last| last.digest());
    let added = PrunedSegment { id: segment, batches, ended, links, before };
    db.prepare_cached("INSERT INTO pruned_segment VALUES (?, ?, ?, ?, ?, ?)")?.execute((
        segment,
        batches.0,
        batches.1,
        ended,
        &added.links,
        before.bytes(),
    ))?;
    Ok(Some(added.digest()))
}

fn last(db: &Connection) -> Result<Option<PrunedSegment>, StoreError> {
    let select =
        "SELECT id, batch_from, batch_to, ended, links, before FROM pruned_segment ORDER BY id DESC LIMIT 1";
    let last = db.prepare_cached(select)?.query_row([], |row| {
        let before: Vec<u8> = row.get(5)?;
        Ok(PrunedSegment {
            id: row.get(0)?,
            batches: (row.get(1)?, row.get(2)?),
            ended: row.get(3)?,
            links: row.get(4)?,
            before: Link::from_bytes(&before).unwrap_or(Link::NONE),
        })
    });
    Ok(last.optional()?)
}

/// Deletes the oldest rows until the links take no more than `size` permits.
pub(super) fn limit(db: &Connection, size: u64) -> Result<(), StoreError> {
    let most = i64::try_from(size / limits::LINKS_PART).unwrap_or(i64::MAX);
    let used = "SELECT coalesce(sum(length(links)), 0) FROM pruned_segment";
    let mut used: i64 = db.prepare_cached(used)?.query_row([], |row| row.get(0))?;
    let mut oldest = db.prepare_cached("SELECT id, length(links) FROM pruned_segment ORDER BY id LIMIT 1")?;
    while used > most {
        let (id, length): (i64, i64) = oldest.query_row([], |row| Ok((row.get(0)?, row.get(1)?)))?;
        db.prepare_cached("DELETE FROM pruned_segment WHERE id = ?")?.execute([id])?;
        used -= length;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Connection {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(concat!(include_str!("schema.sql"), include_str!("schema-2.sql"))).unwrap();
        db.execute_batch("DROP TABLE batch; CREATE TABLE batch (id INTEGER PRIMARY KEY, segment, hash)")
            .unwrap();
        for batch in 1_u8..=9 {
            let link = blake3::hash(&[batch]);
            db.execute(
                "INSERT INTO batch VALUES (?, ?, ?)",
                (batch, 1 + (batch - 1) / 3, &link.as_bytes()[..]),
            )
            .unwrap();
        }
        db
    }

    fn all(db: &Connection) -> Vec<PrunedSegment> {
        let mut all = Vec::new();
        each(db, |segment| {
            all.push(segment);
            Ok(())
        })
        .unwrap();
        all
    }

    #[test]
    fn links_are_found_and_follow_each_other() {
        let db = store();
        for segment in 1..=3 {
            let digest = add(&db, segment, segment * 10).unwrap();
            assert_eq!(digest, all(&db).last().map(PrunedSegment::digest));
        }
        assert_eq!(add(&db, 4, 40).unwrap(), None);
        let all = all(&db);
        assert!(all[0].follows(None) && all[1].follows(Some(&all[0])) && all[2].follows(Some(&all[1])));
        assert!(!all[2].follows(Some(&all[0])));
        let found = |batch: u8| all.iter().find_map(|segment| segment.batch(Link(blake3::hash(&[batch]))));
        assert_eq!((found(1), found(5), found(9), found(10)), (Some(1), Some(5), Some(9), None));
        assert_eq!(all[1].last_link(), Some(Link(blake3::hash(&[6]))));
        for change in ["ended = 1", "batch_from = 2", "links = x'00'"] {
            let db = store();
            (1..=3).for_each(|segment| _ = add(&db, segment, segment * 10).unwrap());
            db.execute_batch(&format!("UPDATE pruned_segment SET {change} WHERE id = 1")).unwrap();
            let all = self::all(&db);
            assert!(!all[0].follows(None) || !all[1].follows(Some(&all[0])), "{change}");
        }
    }

    #[test]
    fn links_are_limited() {
        let db = store();
        (1..=3).for_each(|segment| _ = add(&db, segment, segment * 10).unwrap());
        limit(&db, 200 * limits::LINKS_PART).unwrap();
        assert_eq!(all(&db).iter().map(|segment| segment.id).collect::<Vec<_>>(), [2, 3]);
    }
}
