//! The recorder: a subscriber of the bus with a thread of its own, which writes what waits for it in batches.

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

/// Items that wait or are being written, at most: some 400 bytes each, so that all stay well under the memory that a
/// recorder may use, and a second of the highest rate.
const MOST_WAITING: usize = 40_960;

/// How long items are gathered before a batch is written.
const GATHERING: Duration = Duration::from_millis(500);

/// With so many items a batch is written at once.
const ENOUGH: usize = 16_384;

/// Room for entries that is kept from one batch to the next.
const KEPT: usize = ENOUGH + 4096;

/// Between two tries where the disk takes nothing.
const RETRY: Duration = Duration::from_millis(500);

/// How often retention is checked.
const IDLE: Duration = Duration::from_secs(5);

/// The same while it has rows to delete.
const BUSY: Duration = Duration::from_millis(20);

/// Tries at the end of the run where the disk takes nothing.
const LAST_TRIES: u32 = 4;

/// How the writer fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Everything is written.
    #[default]
    Well,
    /// The store takes nothing at present, for this reason; it is tried again.
    Stuck(String),
    /// Nothing will be written any more: [`Recorder::finish`] says why.
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
        // No code panics between two changes that belong together.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Writes what it is given by the bus. It ends when the bus is closed.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Recorder {
    /// Opens the store, or creates it, and subscribes to `bus`.
    ///
    /// # Errors
    /// Where the store cannot be opened for writing.
    pub fn start(path: &Path, settings: Settings, bus: &mut Bus) -> Result<Self, StoreError> {
        let wal_pages = settings.retention.wal_pages();
        let clock = settings.clock;
        let mut writer = Writer::open(path, settings)?;
        // So that a store that cannot be written fails the start.
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
                // Before the writer, which moves the rest into the database and closes it: see `holder`.
                drop(syncer);
                writer.close();
            })
            .map_err(StoreError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// How the writer fares.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.lock().status.clone()
    }

    /// Waits until everything is written and the store is closed. To be called when the bus is closed.
    ///
    /// # Errors
    /// What ended the writer, now or before.
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
    /// By which the entries so far were told.
    clock: BootClock,
}

impl Writing<'_> {
    /// Until the bus is closed and everything is written, or nothing can be written any more.
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

    /// Appends what is recorded of a batch: moved where no other subscriber has it, else copied.
    fn take(&mut self, batch: Arc<Batch>, entries: &mut Vec<Entry>) {
        let batch = Arc::unwrap_or_clone(batch);
        if batch.context.clock != self.clock {
            self.clock = batch.context.clock;
            entries.push(Entry::Clock(self.clock));
        }
        entries.extend(batch.items.into_iter().filter_map(Entry::of));
    }

    /// Writes all entries, which were made of so many items; with none, does what there is to do for retention.
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
