//! The recorder: a subscriber with a thread of its own, which writes in batches.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::StoreError;
use super::entry::Entry;
use super::sync::Syncer;
use super::writer::{Settings, Writer};
use crate::bus::{Bus, Receiver, Subscription};
use crate::clock::BootClock;
use crate::loss::LossReason;
use crate::stream::Batch;

/// Maximum number of items queued or being written: some 400 bytes each, which is within the memory limit of a recorder
/// and a second of the highest rate.
const MOST_WAITING: usize = 40_960;

/// How long items are gathered before a batch is written.
const GATHERING: Duration = Duration::from_millis(500);

/// Number of items at which a batch is written at once.
const ENOUGH: usize = 16_384;

/// Capacity of the buffer that is kept between batches.
const KEPT: usize = ENOUGH + 4096;

/// Time between retries if the disk rejects writes.
const RETRY: Duration = Duration::from_millis(500);

/// How often retention is checked.
const IDLE: Duration = Duration::from_secs(5);

/// The same while it has rows to delete.
const BUSY: Duration = Duration::from_millis(20);

/// Number of retries at the end of the run.
const LAST_TRIES: u32 = 4;

/// Status of the writer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Writes succeed.
    #[default]
    Well,
    /// Writes fail for this reason and are retried.
    Stuck(String),
    /// The writer ended: see [`Recorder::finish`].
    Ended,
}

#[derive(Default)]
struct Progress {
    status: Status,
    failure: Option<StoreError>,
}

#[derive(Default)]
struct Shared(Mutex<Progress>);

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Progress> {
        // No code panics between related changes.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes the stream. Ends when the bus is closed.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Opens the store, or creates it, and subscribes to `bus`.
    ///
    /// # Errors
    /// If the store cannot be opened for writing.
    pub fn start(path: &Path, settings: Settings, bus: &mut Bus) -> Result<Self, StoreError> {
        let wal_pages = settings.retention.wal_pages();
        let clock = settings.clock;
        let mut writer = Writer::open(path, settings)?;
        // A store that cannot be written must fail the start.
        writer.commit(&[])?;
        let syncer = Syncer::start(path, wal_pages)?;
        writer.leave_syncing()?;
        let receiver = bus.subscribe(Subscription {
            reason: LossReason::Store,
            most_waiting: MOST_WAITING,
            filter: None,
            is_announced: true,
        });
        let shared = Arc::new(Shared::default());
        let work = shared.clone();
        let thread = std::thread::Builder::new().name("netwatch-store".into());
        let thread = thread
            .spawn(move || {
                Writing { shared: &work, receiver, clock }.write_all(&mut writer, &syncer);
                // Before the writer, which checkpoints and closes the database: see `holder`.
                drop(syncer);
                writer.close();
            })
            .map_err(StoreError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Status of the writer.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.lock().status.clone()
    }

    /// Waits until everything is written and the store is closed. Call it when the bus is closed.
    ///
    /// # Errors
    /// The error that ended the writer.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.join();
        self.shared.lock().failure.take().map_or(Ok(()), Err)
    }

    fn join(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the writer's thread panicked");
        }
    }
}

/// The thread.
struct Writing<'a> {
    shared: &'a Shared,
    receiver: Receiver,
    /// The clock of the entries so far.
    clock: BootClock,
}

impl Writing<'_> {
    /// Writes until the bus is closed and everything is written, or until a permanent error.
    fn write_all(mut self, writer: &mut Writer, syncer: &Syncer) {
        let mut entries = Vec::new();
        loop {
            let patience = if writer.has_more_to_drop() { BUSY } else { IDLE };
            let gathered = self.receiver.gather(ENOUGH, GATHERING, patience);
            let items = gathered.batches.iter().map(|batch| batch.items.len()).sum();
            for batch in gathered.batches {
                self.take(batch, &mut entries);
            }
            entries.extend(gathered.ended.map(Entry::Stopped));
            let written = self.write(&entries, items, gathered.is_over, writer, syncer);
            if let Err(error) = written {
                let mut progress = self.shared.lock();
                progress.status = Status::Ended;
                progress.failure = Some(error);
                return;
            }
            entries.clear();
            entries.shrink_to(KEPT);
            if gathered.is_over {
                return;
            }
        }
    }

    /// Appends the recorded items of a batch; moved if no other subscriber has it, else copied.
    fn take(&mut self, batch: Arc<Batch>, entries: &mut Vec<Entry>) {
        let batch = Arc::unwrap_or_clone(batch);
        if batch.context.clock != self.clock {
            self.clock = batch.context.clock;
            entries.push(Entry::Clock(self.clock));
        }
        entries.extend(batch.items.into_iter().filter_map(Entry::of));
    }

    /// Writes all entries, which were made of `items` items; without entries, continues retention.
    fn write(
        &self,
        entries: &[Entry],
        mut items: usize,
        is_last: bool,
        writer: &mut Writer,
        syncer: &Syncer,
    ) -> Result<(), StoreError> {
        let mut written = 0;
        let mut tries = 0;
        while written < entries.len() || (entries.is_empty() && written == 0) {
            let begun = Instant::now();
            let rest = entries.get(written..).unwrap_or_default();
            let committed = syncer.writing(|| writer.commit(rest));
            log::debug!(
                "{} entries, of which {committed:?} were written in {:?}",
                entries.len(),
                begun.elapsed()
            );
            match committed {
                Ok(0) => break,
                Ok(taken) => {
                    written += taken;
                    tries = 0;
                    let released = taken.min(items);
                    items -= released;
                    self.receiver.release(released);
                    self.shared.lock().status = syncer.failure().map_or(Status::Well, Status::Stuck);
                }
                Err(error) if error.may_pass() => {
                    self.shared.lock().status = Status::Stuck(error.to_string());
                    tries += 1;
                    if (is_last || self.receiver.is_over()) && tries > LAST_TRIES {
                        return Err(error);
                    }
                    std::thread::sleep(RETRY);
                }
                Err(error) => return Err(error),
            }
        }
        self.receiver.release(items);
        Ok(())
    }
}
