//! Syncs on a thread of its own. A file system that is busy with others' files can keep whoever syncs waiting for ten
//! seconds, and nobody who records can wait so long: so the writer leaves its log in the page cache, which a kill does not
//! touch, and this brings it to the disk several times a second, and from time to time into the database.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::{StoreError, open};

/// A power cut costs no more than this, a batch's time, and what the disk itself takes.
const OFTEN: Duration = Duration::from_millis(200);

/// Where the log has grown to so many times what it is written back at, the writer waits for that once.
const MOST_BEHIND: u64 = 3;

#[derive(Default)]
struct State {
    /// Something was written since the last sync.
    written: bool,
    closed: bool,
    /// Why the last one failed.
    failure: Option<String>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// Held while something is written, and while nothing may be.
    turn: Mutex<()>,
}

/// Nothing in there is ever half done.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread.
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// For the store at `path`, whose log is written back when it has so many pages.
    pub(super) fn start(path: &Path, wal_pages: i64) -> Result<Self, StoreError> {
        let db = open::for_syncing(path)?;
        let shared = Arc::new(Shared::default());
        let sync = Sync {
            shared: shared.clone(),
            wal: open::wal(path),
            file: None,
            most: wal_pages.cast_unsigned() * open::PAGE,
            db,
        };
        let thread = std::thread::Builder::new().name("netwatch-sync".into());
        let thread = thread.spawn(move || sync.run()).map_err(StoreError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Writes by `work`, while the log is not being taken back.
    pub(super) fn writing<T>(&self, work: impl FnOnce() -> T) -> T {
        let turn = lock(&self.shared.turn);
        let done = work();
        drop(turn);
        lock(&self.shared.state).written = true;
        self.shared.wake.notify_one();
        done
    }

    /// Why what was written is not on the disk yet, where that failed.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.shared.state).failure.clone()
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the syncing thread panicked");
        }
    }
}

struct Sync {
    shared: Arc<Shared>,
    wal: PathBuf,
    file: Option<File>,
    /// Bytes of the log at which it is written back.
    most: u64,
    db: Connection,
}

impl Sync {
    fn run(mut self) {
        loop {
            let mut state = lock(&self.shared.state);
            while !state.written && !state.closed {
                state = self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed && !state.written {
                return;
            }
            state.written = false;
            drop(state);
            let failure = self.sync().err().map(|error| error.to_string());
            let mut state = lock(&self.shared.state);
            state.failure = failure;
            if state.closed {
                return;
            }
            drop(self.shared.wake.wait_timeout_while(state, OFTEN, |state| !state.closed));
        }
    }

    fn sync(&mut self) -> Result<(), StoreError> {
        let failed = |source| StoreError::Open { path: self.wal.clone(), source };
        // The file stays the same as long as somebody has the store open.
        let file = match self.file.take() {
            Some(file) => file,
            None => File::open(&self.wal).map_err(failed)?,
        };
        file.sync_data().map_err(failed)?;
        let length = file.metadata().map_err(failed)?.len();
        self.file = Some(file);
        if length >= self.most {
            self.write_back()?;
            if length >= self.most * MOST_BEHIND {
                // What came meanwhile keeps the log from being begun anew: there is little of it, and now no more comes.
                let _turn = lock(&self.shared.turn);
                self.write_back()?;
            }
        }
        Ok(())
    }

    fn write_back(&self) -> Result<(), StoreError> {
        Ok(self.db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
    }
}
