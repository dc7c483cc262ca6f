//! How far a store was shipped: a file beside it. It is in no table of the store, whose rows never change.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::store::{Link, Reader, StoreError};
use crate::{bounded, limits, replace};

/// The state of shipping.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Cursor {
    /// Names the store: another one at the same path begins with row 1 again.
    pub store: u64,
    /// The server.
    pub server: String,
    /// The last batch that the server has acknowledged; 0: none.
    pub batch: i64,
    /// Its link.
    pub link: String,
    /// Batches that retention deleted before they were shipped.
    pub dropped: u64,
}

/// The file of a store.
#[must_use]
pub(super) fn path(store: &Path) -> PathBuf {
    let mut name = store.as_os_str().to_owned();
    name.push("-ship");
    name.into()
}

impl Cursor {
    /// Of a store that was never shipped.
    fn new(server: &str) -> Self {
        // Random enough: it only has to differ from those of other stores of this host.
        let store = u64::from_le_bytes(random());
        Self { store: store >> 1, server: server.to_owned(), batch: 0, link: String::new(), dropped: 0 }
    }

    /// The cursor of this store, which is written if it is new: rows that are sent twice are known by the name of the
    /// store.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub(super) fn begin(store: &Path, server: &str, reader: &Reader) -> Result<Self, StoreError> {
        let cursor = Self::of(store, server, reader)?;
        if cursor.batch == 0
            && let Err(error) = cursor.write(store)
        {
            log::warn!("the state of shipping cannot be written: {error}");
        }
        Ok(cursor)
    }

    /// That of another store is not used, and a new server gets everything.
    fn of(store: &Path, server: &str, reader: &Reader) -> Result<Self, StoreError> {
        let text = bounded::text(path(store), limits::SHIP_FILE).unwrap_or_default();
        let Ok(mut cursor) = serde_json::from_str::<Self>(&text) else { return Ok(Self::new(server)) };
        let newest = reader.newest_batch()?.map_or(0, |(id, _)| id);
        let is_of_this = match reader.link_of(cursor.batch)? {
            Some(link) => link.to_string() == cursor.link,
            // Retention deleted it, unless the store is another one, which is behind it.
            None => cursor.batch <= newest,
        };
        if !is_of_this {
            return Ok(Self::new(server));
        }
        if cursor.server != server {
            cursor = Self { server: server.to_owned(), batch: 0, link: String::new(), dropped: 0, ..cursor };
        }
        Ok(cursor)
    }

    /// Notes that the server has everything up to this batch.
    pub(super) fn advance(&mut self, batch: i64, link: Link) {
        (self.batch, self.link) = (batch, link.to_string());
    }

    /// Writes the file.
    ///
    /// # Errors
    /// If it cannot be written; then what is shipped from here on is shipped twice, which the server undoes.
    pub(super) fn write(&self, store: &Path) -> std::io::Result<()> {
        replace::file(&path(store), serde_json::to_string(self)?.as_bytes(), 0o600)
    }
}

fn random() -> [u8; 8] {
    let mut bytes = [0; 8];
    if rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty()) != Ok(bytes.len()) {
        let now = crate::clock::since_boot().map_or(1, |now| now.nanos());
        bytes = now.to_le_bytes();
    }
    bytes
}
