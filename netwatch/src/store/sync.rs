//! Syncs in a thread of its own. An fsync() on a busy file system may block for ten seconds, which is too long for the
//! recorder. So the writer leaves its log in the page cache, which survives a kill, and this thread syncs it several
//! times a second and checkpoints it to the database now and then.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use rusqlite::Connection;

use super::files::Files;
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
    /// The connection that checkpoints. It does not write otherwise.
    db: Mutex<Option<Connection>>,
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
    /// Starts it for the store with these files. `wal_pages`: size of the log at which it is checkpointed.
    pub(super) fn start(files: Arc<Files>, wal_pages: i64) -> Result<Self, StoreError> {
        let db = open::for_syncing(&files.real())?;
        let shared = Arc::new(Shared::default());
        *lock(&shared.db) = Some(db);
        let most = wal_pages.cast_unsigned() * open::PAGE;
        let sync = Sync { shared: shared.clone(), most, files };
        let thread = std::thread::Builder::new().name("netwatch-sync".into());
        let thread = thread.spawn(move || sync.run()).map_err(StoreError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Writes the whole log back and lets the next write begin it anew. Waits for readers for some seconds; `false` if
    /// one still holds it.
    pub(super) fn restart_log(&self) -> Result<bool, StoreError> {
        let db = lock(&self.shared.db);
        let Some(db) = &*db else { return Ok(false) };
        let restarted = db.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get::<_, i64>(0));
        Ok(restarted? == 0)
    }

    /// Writes the log back as far as readers permit.
    pub(super) fn write_back(&self) -> Result<(), StoreError> {
        write_back(&self.shared)
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
        // Before the writer closes the database as the last one: see `Files`.
        drop(lock(&self.shared.db).take());
    }
}

struct Sync {
    shared: Arc<Shared>,
    /// Size of the log in bytes at which it is checkpointed.
    most: u64,
    files: Arc<Files>,
}

impl Sync {
    fn run(self) {
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

    fn sync(&self) -> Result<(), StoreError> {
        let failed = |source| StoreError::Open { path: self.files.log_path().to_owned(), source };
        self.files.sync_log().map_err(failed)?;
        let length = self.files.log_length().map_err(failed)?;
        // What was written to a truncated log must not get into the database. The writer reports it.
        if length >= self.most && self.files.check().is_ok() {
            write_back(&self.shared)?;
            if length >= self.most * MOST_BEHIND {
                // Writes since the checkpoint prevent a restart of the log. They are few, and writes are blocked now.
                let _turn = lock(&self.shared.turn);
                write_back(&self.shared)?;
            }
        }
        Ok(())
    }
}

fn write_back(shared: &Shared) -> Result<(), StoreError> {
    let db = lock(&shared.db);
    let Some(db) = &*db else { return Ok(()) };
    Ok(db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
}
