//! The store: connections, processes and losses in an append-only SQLite database. See docs/store.md.
//!
//! `thread` receives events without blocking the agent, `writer` writes them in batches, `intern` stores each process
//! once, `chain` hashes the batches, `retain` deletes the oldest segments; `files` notices if the files are moved,
//! deleted or truncated, and `keep` goes on then; `read` and `verify` are for readers.

mod alerts;
mod batch;
mod chain;
mod counts;
mod entry;
mod events;
mod faults;
mod files;
#[cfg(any(test, feature = "test-equipment"))]
mod generate;
mod grouped;
mod history;
mod intern;
mod keep;
mod lock;
mod open;
mod place;
mod predict;
mod pruned;
mod query;
mod ranges;
mod raw;
mod read;
mod readback;
mod rebuild;
mod retain;
mod rows;
#[cfg(test)]
pub(crate) use rows::tests::any_event;
mod runs;
mod scan;
mod seal;
mod search;
mod share;
mod steady;
mod sync;
#[cfg(test)]
mod tests;
mod thread;
mod unkept;
mod verify;
mod visits;
mod words;
mod writer;

use std::path::PathBuf;

use thiserror::Error;

use place::shown;

pub use chain::Link;
pub use events::Events;
pub use files::files;
#[cfg(any(test, feature = "test-equipment"))]
pub use generate::generate;
pub use history::History;
pub use query::{Query, StoredConnection};
pub use raw::Span;
pub use read::{Missing, Reader};
pub use retain::Retention;
pub use runs::Run;
pub use seal::{Key, SealFile, new_key};
pub use search::{Narrow, Segment};
pub use thread::{Recorder, Status};
pub use verify::{Anchored, Ask, Broken, Checked, Seals, newest, verify, verify_schema};
pub use visits::{Visited, Visits};
pub use words::Words;
pub use writer::Settings;

/// How far long work is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Parts that are done.
    pub done: u64,
    /// All parts.
    pub total: u64,
}

/// The default path.
pub const DEFAULT_PATH: &str = "/var/lib/netwatch/netwatch.db";

/// `PRAGMA application_id`, which distinguishes a store from other databases: `nwst`.
const APPLICATION_ID: i32 = 0x6e77_7374;

/// Schema version (`PRAGMA user_version`).
const VERSION: i32 = 2;

/// Why a store cannot be read or written. Each message is one line that says what to do.
#[derive(Debug, Error)]
pub enum StoreError {
    /// The file does not exist.
    #[error("no store at {}: create one with `netwatch record`, or select another with --store", shown(.0))]
    Missing(PathBuf),
    /// The file is empty.
    #[error("{} is empty, and no netwatch store: remove it, or select another file with --store", shown(.0))]
    Empty(PathBuf),
    /// Another user may write to it.
    #[error("{} {why}: it is not used as a store", shown(.path))]
    Untrusted {
        /// The file, link or directory.
        path: PathBuf,
        /// Why it is not used.
        why: String,
    },
    /// There is no sealing key.
    #[error("there is no sealing key at {}: make one with `netwatch verify --new-key`", shown(.0))]
    NoKey(PathBuf),
    /// There is space, but no inode.
    #[error("cannot create {}: the file system has no inode left: delete some files", shown(.0))]
    NoInode(PathBuf),
    /// The file is not a database.
    #[error(
        "the store is damaged (its first page is not that of a database): move it away and record to a new one; \
         `sqlite3 FILE .recover` recovers what is readable"
    )]
    NotADatabase,
    /// The file is not a store.
    #[error("{} is not a netwatch store: select another file with --store", shown(.0))]
    Foreign(PathBuf),
    /// The store was written by a newer version.
    #[error(
        "{} was written by a newer netwatch (store version {version}, this one supports {VERSION}): use the newer one",
        shown(.path)
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i32,
    },
    /// Another process has the store open for writing.
    #[error("{holder} is recording to {}: stop it, or select another file with --store", shown(.path))]
    Held {
        /// The file.
        path: PathBuf,
        /// The process as `comm[pid]`, if known.
        holder: String,
    },
    /// The store cannot be opened or created.
    #[error("cannot open {}", shown(.path))]
    Open {
        /// The file or the directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// This user may not read the store.
    #[error("you may not read {}: {how}", shown(.path))]
    Refused {
        /// The file.
        path: PathBuf,
        /// What gives the right.
        how: String,
    },
    /// A sync failed.
    #[error("cannot sync {}: {why}; what was written last does not count as stored until it was read back", shown(.path))]
    Sync {
        /// The log.
        path: PathBuf,
        /// Why.
        why: std::io::Error,
    },
    /// The run ended before everything was synced.
    #[error("{count} events were written, but may not be on the disk: {why}")]
    Unsynced {
        /// Their number.
        count: u64,
        /// The error of the last sync.
        why: String,
    },
    /// The content is invalid.
    #[error(
        "the store is damaged ({0}): move it away and record to a new one; `sqlite3 FILE .recover` recovers what is readable"
    )]
    Damaged(String),
    /// The caller ended it.
    #[error("interrupted before the end")]
    Interrupted,
    /// The clocks cannot be read.
    #[error("cannot read the clock")]
    Clock(#[source] std::io::Error),
    /// Any other error of SQLite.
    #[error("cannot access the store: {0}")]
    Sql(rusqlite::Error),
    /// A value cannot be serialised, which is a bug.
    #[error("cannot serialise a value")]
    Json(#[source] serde_json::Error),
    /// A reader keeps the log from being written back.
    #[error(
        "the log of the store has {length} MiB, and a program that reads the store in a long transaction keeps it from being written back"
    )]
    LogFull {
        /// Its length in MiB.
        length: u64,
    },
    /// The files were moved, deleted or truncated, and recording cannot go on.
    #[error("{what}, and recording cannot go on there")]
    Interfered {
        /// What happened.
        what: String,
        /// Why it cannot go on.
        #[source]
        source: Box<StoreError>,
    },
    /// The run ended before everything was written.
    #[error("{count} events could not be recorded{noted}")]
    Unkept {
        /// Their number.
        count: u64,
        /// What becomes of the number.
        noted: &'static str,
        /// Why they could not be recorded.
        #[source]
        source: Box<StoreError>,
    },
    /// The writer thread cannot be started.
    #[error("cannot start the writer thread")]
    Thread(#[source] std::io::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        // Its text has the whole statement.
        let error = match error {
            rusqlite::Error::SqlInputError { error, msg, .. } => {
                rusqlite::Error::SqliteFailure(error, Some(msg))
            }
            other => other,
        };
        match error.sqlite_error_code() {
            Some(NotADatabase) => Self::NotADatabase,
            Some(DatabaseCorrupt) => Self::Damaged(error.to_string()),
            _ => Self::Sql(error),
        }
    }
}

impl StoreError {
    /// Whether a read, a write or a sync failed.
    fn is_io(&self) -> bool {
        let Self::Sql(error) = self else { return false };
        error.sqlite_error_code() == Some(rusqlite::ErrorCode::SystemIoFailure)
    }

    /// Whether the error may be temporary, like a full file system.
    fn may_pass(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
        if matches!(self, Self::LogFull { .. }) {
            return true;
        }
        let Self::Sql(error) = self else { return false };
        matches!(
            error.sqlite_error_code(),
            Some(DiskFull | SystemIoFailure | DatabaseBusy | DatabaseLocked | CannotOpen)
        )
    }
}
