//! The store: every connection, process and loss, in an SQLite database that is only ever appended to. See docs/store.md.
//!
//! `thread` takes in what the agent tells and never makes it wait; `writer` writes it in batches, `intern` each process
//! once, `chain` hashes them, `retain` drops the oldest segments; `read` and `verify` are for everybody else.

mod batch;
mod chain;
mod entry;
mod events;
#[cfg(any(test, feature = "test-equipment"))]
mod generate;
mod grouped;
mod history;
mod holder;
mod intern;
mod open;
mod read;
mod rebuild;
mod retain;
mod rows;
mod search;
mod sync;
#[cfg(test)]
mod tests;
mod thread;
mod verify;
mod visits;
mod words;
mod writer;

use std::path::PathBuf;

use thiserror::Error;

pub use chain::Link;
pub use events::Events;
#[cfg(any(test, feature = "test-equipment"))]
pub use generate::generate;
pub use history::History;
pub use read::{Missing, Query, Reader, Run, StoredConnection};
pub use retain::Retention;
pub use search::{Narrow, Segment};
pub use thread::{Recorder, Status};
pub use verify::{Broken, Checked, newest, verify};
pub use visits::{Visited, Visits};
pub use writer::Settings;

/// Where it is unless something else is said.
pub const DEFAULT_PATH: &str = "/var/lib/netwatch/netwatch.db";

/// `nwst`: tells a store from any other database (`PRAGMA application_id`).
const APPLICATION_ID: i32 = 0x6e77_7374;

/// Of the tables (`PRAGMA user_version`).
const VERSION: i32 = 1;

/// Why a store cannot be read or written. Each is one line that says what to do.
#[derive(Debug, Error)]
pub enum StoreError {
    /// No such file.
    #[error("there is no store at {0}: `netwatch record` makes one, --store names another")]
    Missing(PathBuf),
    /// Some other file.
    #[error("{0} is no store of netwatch's: name another file with --store")]
    Foreign(PathBuf),
    /// Made by a version to come.
    #[error(
        "{path} was made by a newer netwatch (version {version} of the store, this one knows {VERSION}): use that"
    )]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: i32,
    },
    /// Another process writes to it.
    #[error("{path} is being recorded to by {holder}: stop that, or name another file with --store")]
    Held {
        /// The file.
        path: PathBuf,
        /// Who, as `comm[pid]`, as far as can be told.
        holder: String,
    },
    /// It cannot be opened or made.
    #[error("cannot open {path}")]
    Open {
        /// The file or the folder.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// What is in there makes no sense.
    #[error(
        "the store is damaged ({0}): move it away and record into a new one; `sqlite3 FILE .recover` saves what can be read"
    )]
    Damaged(String),
    /// SQLite says.
    #[error("the store: {0}")]
    Sql(rusqlite::Error),
    /// A value that cannot be spelled, which is a fault of netwatch's.
    #[error("cannot spell a value")]
    Json(#[source] serde_json::Error),
    /// The writer's thread.
    #[error("cannot start the writer's thread")]
    Thread(#[source] std::io::Error),
}

impl From<rusqlite::Error> for StoreError {
    fn from(error: rusqlite::Error) -> Self {
        use rusqlite::ErrorCode::{DatabaseCorrupt, NotADatabase};
        match error.sqlite_error_code() {
            Some(DatabaseCorrupt | NotADatabase) => Self::Damaged(error.to_string()),
            _ => Self::Sql(error),
        }
    }
}

impl StoreError {
    /// Whether it may pass: a file system that is full or does not take anything just now.
    fn may_pass(&self) -> bool {
        use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DatabaseLocked, DiskFull, SystemIoFailure};
        let Self::Sql(error) = self else { return false };
        matches!(
            error.sqlite_error_code(),
            Some(DiskFull | SystemIoFailure | DatabaseBusy | DatabaseLocked | CannotOpen)
        )
    }
}
