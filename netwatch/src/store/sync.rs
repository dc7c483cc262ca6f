//! Syncs in a thread of its own. An fsync() on a busy file system may block for ten seconds, which is too long for the
//! recorder. So the writer leaves its log in the page cache, which survives a kill, and this thread syncs it several
//! times a second and checkpoints it to the database now and then.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::{StoreError, open};

/// Interval between syncs: a power failure loses this time, plus that of a batch and of the disk.
const OFTEN: Duration = Duration::from_millis(200);

/// If the log exceeds its checkpoint size by this factor, the writer waits for a checkpoint.
const MOST_BEHIND: u64 = 3;

#[derive(Default)]
struct State {
    /// Data was written since the last sync.
    written: bool,
    closed: bool,
    /// Error of the last sync.
    failure: Option<String>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    /// Held during writes, and while writes must not happen.
    turn: Mutex<()>,
}

/// The state is always consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The thread.
pub(super) struct Syncer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Syncer {
    /// Starts it for the store at `path`. `wal_pages`: size of the log at which it is checkpointed.
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

    /// Runs `work`, which writes, while the log is not being restarted.
    pub(super) fn writing<T>(&self, work: impl FnOnce() -> T) -> T {
        let turn = lock(&self.shared.turn);
        let done = work();
        drop(turn);
        lock(&self.shared.state).written = true;
        self.shared.wake.notify_one();
        done
    }

    /// The error of the last sync, if it failed.
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
    /// Size of the log in bytes at which it is checkpointed.
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
        // The log file is not replaced while a connection is open.
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
                // Writes since the checkpoint prevent a restart of the log. They are few, and writes are blocked now.
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
