//! Syncs in a thread of its own. An fsync() on a busy file system may block for ten seconds, which is too long for the
//! recorder. So the writer leaves its log in the page cache, which survives a kill, and this thread syncs it several
//! times a second and checkpoints it to the database now and then.

use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use rusqlite::Connection;

use super::files::Files;
use super::seal::Sealer;
use super::{StoreError, open, readback};
use crate::escape;

/// Interval between syncs: a power failure loses this time, plus that of a batch and of the disk.
const OFTEN: Duration = Duration::from_millis(200);

/// Tries to sync the rest at the end of the run.
const LAST_TRIES: u32 = 4;

/// If the log exceeds its checkpoint size by this factor, the writer waits for a checkpoint.
const MOST_BEHIND: u64 = 3;

#[derive(Default)]
struct State {
    /// Data was written since the last sync.
    written: bool,
    closed: bool,
    /// Error of the last sync. Nothing since the sync before counts as stored.
    failure: Option<String>,
    /// The log was written again and read back.
    notice: Option<String>,
    /// Number of writes, and how many of them were synced.
    writes: u64,
    synced: u64,
    /// Time of the last sync that succeeded.
    synced_at: Option<SystemTime>,
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
    pub(super) fn start(
        files: Arc<Files>,
        wal_pages: i64,
        sealer: Option<Arc<Sealer>>,
    ) -> Result<Self, StoreError> {
        let db = open::for_syncing(&files.real())?;
        let shared = Arc::new(Shared::default());
        *lock(&shared.db) = Some(db);
        let most = wal_pages.cast_unsigned() * open::PAGE;
        let sync = Sync { shared: shared.clone(), most, files, sealer };
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
        let mut state = lock(&self.shared.state);
        (state.written, state.writes) = (true, state.writes + 1);
        drop(state);
        self.shared.wake.notify_one();
        done
    }

    /// The error of the last sync, if it failed.
    pub(super) fn failure(&self) -> Option<String> {
        lock(&self.shared.state).failure.clone()
    }

    /// What the user must know, once.
    pub(super) fn notice(&self) -> Option<String> {
        lock(&self.shared.state).notice.take()
    }

    /// Time of the last sync that succeeded.
    pub(super) fn last(&self) -> Option<SystemTime> {
        lock(&self.shared.state).synced_at
    }

    /// Whether everything that was written is on the disk.
    pub(super) fn is_synced(&self) -> bool {
        let state = lock(&self.shared.state);
        state.failure.is_none() && state.synced == state.writes
    }

    /// Syncs the rest, and ends. Returns the error if that failed.
    pub(super) fn finish(mut self) -> Option<String> {
        self.end();
        let state = lock(&self.shared.state);
        state.failure.clone().filter(|_| state.synced < state.writes)
    }

    fn end(&mut self) {
        lock(&self.shared.state).closed = true;
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the syncing thread panicked");
        }
    }
}

impl Drop for Syncer {
    fn drop(&mut self) {
        self.end();
        // Before the writer closes the database as the last one: see `Files`.
        drop(lock(&self.shared.db).take());
    }
}

struct Sync {
    shared: Arc<Shared>,
    /// Size of the log in bytes at which it is checkpointed.
    most: u64,
    files: Arc<Files>,
    sealer: Option<Arc<Sealer>>,
}

impl Sync {
    fn run(self) {
        let (mut is_in_doubt, mut last_tries) = (false, 0);
        loop {
            let mut state = lock(&self.shared.state);
            while !state.written && !state.closed {
                state = self.shared.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            if state.closed && !state.written {
                return;
            }
            state.written = false;
            let writes = state.writes;
            drop(state);
            let synced = if is_in_doubt { self.restore() } else { self.sync() };
            let mut state = lock(&self.shared.state);
            match synced {
                Ok(()) => {
                    if is_in_doubt {
                        let log = escape::path(self.files.log_path());
                        state.notice =
                            Some(format!("{log} was written again, synced, and read back from the disk"));
                    }
                    (is_in_doubt, state.failure, state.synced) = (false, None, writes);
                    state.synced_at = Some(SystemTime::now());
                }
                Err(error) => {
                    // The next sync would succeed without writing anything.
                    (is_in_doubt, state.failure, state.written) = (true, Some(error.to_string()), true);
                    last_tries += u32::from(state.closed);
                    if last_tries > LAST_TRIES {
                        return;
                    }
                }
            }
            if state.closed && state.written {
                drop(state);
                std::thread::sleep(OFTEN);
                continue;
            }
            if state.closed {
                return;
            }
            drop(self.shared.wake.wait_timeout_while(state, OFTEN, |state| !state.closed));
        }
    }

    fn failed(&self) -> impl Fn(io::Error) -> StoreError + use<> {
        let path = self.files.log_path().to_owned();
        move |why| StoreError::Sync { path: path.clone(), why }
    }

    fn sync(&self) -> Result<(), StoreError> {
        let failed = self.failed();
        let sealed = self.sealer.as_ref().filter(|sealer| sealer.is_waiting());
        self.files.sync_log().map_err(&failed)?;
        if let Some(sealer) = sealed {
            // Its seal is on the disk now.
            sealer.advance().map_err(&failed)?;
        }
        let length = self.files.log_length().map_err(&failed)?;
        let (is_due, is_behind) = what_is_due(length, self.most);
        // What was written to a truncated log must not get into the database. The writer reports it.
        if is_due && self.files.check().is_ok() {
            self.write_back()?;
            if is_behind {
                // Writes since the checkpoint prevent a restart of the log. They are few, and writes are blocked now.
                let _turn = lock(&self.shared.turn);
                self.write_back()?;
            }
        }
        Ok(())
    }

    /// A sync of the database may fail as well. What was copied to it is copied again then, which SQLite does only with a
    /// new index of the log.
    fn write_back(&self) -> Result<(), StoreError> {
        let done = write_back(&self.shared);
        if done.as_ref().is_err_and(StoreError::is_io) {
            self.files.database_is_unsynced();
        }
        done
    }

    /// After a sync that failed: writes the log again, while nothing else is written to it, and reads it back.
    fn restore(&self) -> Result<(), StoreError> {
        let failed = self.failed();
        let _turn = lock(&self.shared.turn);
        // If the files are not where they were, the writer begins others.
        if self.files.check().is_err() {
            return Err(failed(io::Error::other("its files are being replaced")));
        }
        let (log, path) = (self.files.log(), self.files.log_path());
        let end = self.files.frames_end().unwrap_or(0);
        let lost = || failed(io::Error::other("the disk does not return what was written"));
        if !readback::is_valid(log, end).map_err(&failed)? {
            // The pages were dropped from memory and were never on the disk.
            self.files.log_is_unsynced();
            return Err(lost());
        }
        readback::write_again(log, end).map_err(&failed)?;
        if readback::is_on_disk(path, log, end).map_err(&failed)? { Ok(()) } else { Err(lost()) }
    }
}

fn write_back(shared: &Shared) -> Result<(), StoreError> {
    let db = lock(&shared.db);
    let Some(db) = &*db else { return Ok(()) };
    Ok(db.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?)
}

/// Whether a log of this length is written back, and whether writes wait for that. `most`: see [`Sync::most`].
fn what_is_due(length: u64, most: u64) -> (bool, bool) {
    (length >= most, length >= most.saturating_mul(MOST_BEHIND))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_wait_for_a_log_that_is_far_behind() {
        let due = [99, 100, 299, 300, u64::MAX].map(|length| what_is_due(length, 100));
        assert_eq!(due, [(false, false), (true, false), (true, false), (true, true), (true, true)]);
    }
}
