//! The recorder: a subscriber with a thread of its own, which writes in batches.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime};

use super::StoreError;
use super::entry::Entry;
use super::keep::Keep;
use super::writer::Settings;
use crate::bus::{Bus, Missed, Receiver, Subscription};
use crate::clock::BootClock;
use crate::limits;
use crate::loss::LossReason;
use crate::stream::Batch;

/// The closes of all UDP flows fit in the queue.
const _: () = assert!(limits::STORE_ITEMS > netwatch_common::FLOWS_MAX);

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

/// How often it is checked that the files are where they were.
const CHECKS: Duration = Duration::from_millis(500);

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
    notices: Vec<String>,
    /// Number of notices beyond the limit.
    unnoticed: u64,
    failure: Option<StoreError>,
    /// Time of the last sync that succeeded.
    last_sync: Option<SystemTime>,
}

impl Progress {
    fn notice(&mut self, notice: String) {
        if self.notices.len() < limits::STORE_NOTICES {
            self.notices.push(notice);
        } else {
            self.unnoticed += 1;
        }
    }

    fn take_notices(&mut self) -> Vec<String> {
        let mut notices = std::mem::take(&mut self.notices);
        let more = std::mem::take(&mut self.unnoticed);
        if more > 0 {
            notices.push(format!("the same happened to files of the store {more} more times"));
        }
        notices
    }
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
        let clock = settings.clock;
        let keep = Keep::open(path, settings)?;
        let receiver = bus.subscribe(Subscription {
            reason: LossReason::Store,
            most_waiting: limits::STORE_ITEMS,
            is_announced: true,
            sees_all: false,
        });
        let shared = Arc::new(Shared::default());
        let work = shared.clone();
        let thread = std::thread::Builder::new().name("netwatch-store".into());
        let thread = thread
            .spawn(move || {
                Writing { shared: &work, receiver, clock, owed: Vec::new() }.run(keep);
            })
            .map_err(StoreError::Thread)?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Status of the writer.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.lock().status.clone()
    }

    /// Time of the last sync that succeeded.
    #[must_use]
    pub fn last_sync(&self) -> Option<SystemTime> {
        self.shared.lock().last_sync
    }

    /// What the user must know, each once.
    #[must_use]
    pub fn notices(&self) -> Vec<String> {
        self.shared.lock().take_notices()
    }

    /// Waits until everything is written and the store is closed. Call it when the bus is closed.
    pub fn wait(&mut self) {
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the writer's thread panicked");
        }
    }

    /// The same, and returns the error that ended the writer.
    ///
    /// # Errors
    /// That error.
    pub fn finish(mut self) -> Result<(), StoreError> {
        self.wait();
        self.shared.lock().failure.take().map_or(Ok(()), Err)
    }
}

/// The thread.
struct Writing<'a> {
    shared: &'a Shared,
    receiver: Receiver,
    /// The clock of the entries so far.
    clock: BootClock,
    /// Losses by interference, which are written first.
    owed: Vec<Entry>,
}

impl Writing<'_> {
    /// Writes until the bus is closed and everything is written, or until a permanent error. Then counts what is not.
    fn run(mut self, mut keep: Keep) {
        let mut unkept = Missed::default();
        let Err(error) = self.write_all(&mut keep, &mut unkept) else {
            self.shared.lock().failure = keep.close(true).err();
            return;
        };
        self.shared.lock().status = Status::Ended;
        self.receiver.give_up();
        self.owed.iter().for_each(|entry| entry.count(&mut unkept));
        unkept.merge(keep.gone());
        unkept.merge(&self.receiver.missed_until_closed());
        let count = unkept.of(LossReason::Store);
        let failure = if unkept.is_empty() {
            error
        } else {
            let noted = if keep.leave(&unkept) { ", which the next run notes in the store" } else { "" };
            StoreError::Unkept { count, noted, source: Box::new(error) }
        };
        if let Err(error) = keep.close(unkept.is_empty()) {
            self.shared.lock().notice(error.to_string());
        }
        self.shared.lock().failure = Some(failure);
    }

    /// Counts what it had received and could not write in `unkept`.
    fn write_all(&mut self, keep: &mut Keep, unkept: &mut Missed) -> Result<(), StoreError> {
        let mut entries = Vec::new();
        let mut tended = Instant::now();
        loop {
            let patience = if keep.has_more_to_drop() { BUSY } else { CHECKS };
            let gathered = self.receiver.gather(ENOUGH, GATHERING, patience);
            let is_idle = gathered.batches.is_empty() && !gathered.is_over && self.owed.is_empty();
            if is_idle {
                self.note_sync(keep);
            }
            if is_idle && !keep.has_more_to_drop() && tended.elapsed() < IDLE && keep.check().is_ok() {
                continue;
            }
            tended = Instant::now();
            let items = gathered.batches.iter().map(|batch| batch.items.len()).sum();
            for batch in gathered.batches {
                self.take(batch, &mut entries);
            }
            entries.extend(gathered.ended.map(Entry::Stopped));
            let mut written = 0;
            let result = self.write(&entries, &mut written, items, gathered.is_over, keep);
            if result.is_err() {
                entries.iter().skip(written).for_each(|entry| entry.count(unkept));
            }
            result?;
            entries.clear();
            entries.shrink_to(KEPT);
            if gathered.is_over {
                return Ok(());
            }
        }
    }

    /// The status is that of the last sync.
    fn note_sync(&self, keep: &Keep) {
        let mut shared = self.shared.lock();
        shared.status = keep.sync_failure().map_or(Status::Well, Status::Stuck);
        shared.last_sync = keep.last_sync();
        keep.sync_notice().into_iter().for_each(|notice| shared.notice(notice));
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

    /// Writes all entries, which were made of `items` items, and counts those in `written`; without entries, continues
    /// retention.
    fn write(
        &mut self,
        entries: &[Entry],
        written: &mut usize,
        mut items: usize,
        is_last: bool,
        keep: &mut Keep,
    ) -> Result<(), StoreError> {
        let mut tries = 0;
        while *written < entries.len() || !self.owed.is_empty() || (entries.is_empty() && *written == 0) {
            let begun = Instant::now();
            let is_owed = !self.owed.is_empty();
            let rest = if is_owed { &self.owed } else { entries.get(*written..).unwrap_or_default() };
            // Nothing is written to files that were truncated; what was written to one that is gone is written again.
            let checked = keep.check();
            let committed = if checked.is_ok() { keep.commit(rest) } else { Ok(0) };
            log::debug!("of {} entries {committed:?} were written in {:?}", rest.len(), begun.elapsed());
            if let Err(interference) = checked.and_then(|()| keep.check()) {
                let gone_on = keep.go_on(&interference)?;
                self.owed.extend(gone_on.lost);
                self.shared.lock().notice(gone_on.notice);
                if !gone_on.has_last || !matches!(committed, Ok(1..)) {
                    continue;
                }
            }
            keep.confirm();
            match committed {
                Ok(0) => break,
                Ok(taken) if is_owed => {
                    self.owed.drain(..taken);
                }
                Ok(taken) => {
                    *written += taken;
                    tries = 0;
                    let released = taken.min(items);
                    items -= released;
                    self.receiver.release(released);
                    self.note_sync(keep);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_beyond_the_limit_are_counted() {
        let mut progress = Progress::default();
        (0..100).for_each(|n| progress.notice(n.to_string()));
        let notices = progress.take_notices();
        assert_eq!(notices.len(), limits::STORE_NOTICES + 1);
        assert!(notices.last().unwrap().contains(&format!("{} more times", 100 - limits::STORE_NOTICES)));
        assert!(progress.take_notices().is_empty());
    }
}
