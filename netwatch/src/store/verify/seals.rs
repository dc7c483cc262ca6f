//! Verifies seals with the first key.

use rusqlite::{Connection, OptionalExtension as _};

use crate::store::chain::Link;
use crate::store::pruned;
use crate::store::seal::{self, Key};
use crate::store::{Reader, SealFile, StoreError};

/// What the seals say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seals {
    /// Number of seals.
    pub count: u64,
    /// The batch and the time of the last one, in nanoseconds since the epoch.
    pub last: Option<(i64, i64)>,
    /// Batches after it, which no seal covers.
    pub unsealed: i64,
    /// The first inconsistency.
    pub broken: Option<String>,
}

/// Verifies the seals in a store, whose chain was verified. `file` was read before the seals, of which a recorder makes
/// more meanwhile. `is_pruned`: retention has deleted batches, and seals with them.
pub(super) fn verify(
    reader: &Reader,
    file: &SealFile,
    key: &Key,
    is_pruned: bool,
) -> Result<Seals, StoreError> {
    let mut seals = Seals::default();
    let (series, mut now, mut epoch) = (key.series(), key.clone(), 0);
    let db = reader.db();
    let transaction = db.unchecked_transaction()?;
    let mut select =
        db.prepare("SELECT epoch, ts, batch, link, mac FROM seal NOT INDEXED WHERE series = ? ORDER BY id")?;
    let mut rows = select.query([series])?;
    while let Some(row) = rows.next()? {
        let Some((seal, mac)) = seal::read(row)? else {
            seals.broken = Some("a seal is damaged".into());
            return Ok(seals);
        };
        let is_first_left = seals.count == 0 && is_pruned && seal.epoch > 0 && seal.epoch < MOST;
        if is_first_left {
            (epoch..seal.epoch).for_each(|_| now.advance());
            epoch = seal.epoch;
        }
        if seal.epoch != epoch {
            seals.broken = Some(format!("the seal of epoch {epoch} is missing"));
            return Ok(seals);
        }
        if now.mac(&seal) != mac {
            seals.broken = Some(format!("the seal of epoch {epoch} was not made with this key"));
            return Ok(seals);
        }
        if link_of(db, seal.batch, seal.link)?.is_some_and(|link| link != seal.link) {
            let batch = seal.batch;
            seals.broken =
                Some(format!("batch {batch} or an earlier one is not what the seal of epoch {epoch} has"));
            return Ok(seals);
        }
        seals.count += 1;
        seals.last = Some((seal.batch, seal.ts));
        now.advance();
        epoch += 1;
    }
    let last: i64 = db.query_row("SELECT coalesce(max(id), 0) FROM batch", [], |row| row.get(0))?;
    seals.unsealed = last - seals.last.map_or(0, |(batch, _)| batch);
    drop(rows);
    drop(select);
    transaction.finish()?;
    seals.broken = match &file.0 {
        None => Some("the file with the next key (-seal) is missing, so later seals may be, too".into()),
        Some(state) if state.series != series => Some("the next key (-seal) is of another series".into()),
        Some(state) if state.epoch > epoch => {
            Some(format!("the seals of epochs {epoch} to {} are missing", state.epoch - 1))
        }
        Some(state) if !is_key_of(key, state) => {
            Some("the next key (-seal) does not follow from this one".into())
        }
        Some(_) => None,
    };
    Ok(seals)
}

/// Epochs of a thousand years.
const MOST: i64 = 1 << 29;

fn is_key_of(key: &Key, state: &seal::State) -> bool {
    let mut key = key.clone();
    (0..state.epoch.min(MOST)).for_each(|_| key.advance());
    key.is(&state.key)
}

/// The link of a batch: [`Link::NONE`] if it is not there, `None` if retention deleted it and the link is not kept.
fn link_of(db: &Connection, batch: i64, sealed: Link) -> Result<Option<Link>, StoreError> {
    let hash = "SELECT hash FROM batch NOT INDEXED WHERE id = ?";
    let hash: Option<Vec<u8>> = db.prepare_cached(hash)?.query_row([batch], |row| row.get(0)).optional()?;
    if let Some(hash) = hash {
        return Ok(Some(Link::from_bytes(&hash).unwrap_or(Link::NONE)));
    }
    let first: Option<i64> = db.query_row("SELECT min(id) FROM batch", [], |row| row.get(0))?;
    if first.is_none_or(|first| batch > first) {
        return Ok(Some(Link::NONE));
    }
    let mut link = None;
    pruned::each(db, |segment| {
        if (segment.batches.0..=segment.batches.1).contains(&batch) {
            link = Some(if segment.batch(sealed) == Some(batch) { sealed } else { Link::NONE });
        }
        Ok(())
    })?;
    Ok(link)
}
