//! The writer's thread, and the queue before it. The agent never waits: what the queue cannot take is counted, and told
//! and recorded as lost once there is room again.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::StoreError;
use super::item::Item;
use super::roles::Roles;
use super::sync::Syncer;
use super::writer::{Settings, Writer};
use crate::loss::{Loss, LossReason};
use crate::process::view::BootClock;
use crate::process::{Found, Process, found::Looks};
use crate::tracker::{ConnectionEvent, End};

/// How many wait or are being written at the most: some 400 bytes each, so that all stay well under the memory that a
/// recorder may use, and a second of the highest rate.
const MOST_WAITING: usize = 40_960;

/// So long is waited for more before a batch is written.
const GATHERING: Duration = Duration::from_millis(500);

/// With so many a batch is written at once.
const ENOUGH: usize = 16_384;

/// The queue grows by so many.
const STEP: usize = 4096;

/// Between two tries where the disk does not take it.
const RETRY: Duration = Duration::from_millis(500);

/// It is looked this often whether retention has something to do.
const IDLE: Duration = Duration::from_secs(5);

/// The same while it has.
const BUSY: Duration = Duration::from_millis(20);

/// How the end of the run waits for a disk that takes nothing.
const LAST_TRIES: u32 = 4;

#[derive(Default)]
struct Queue {
    items: Vec<Item>,
    /// Taken out and not written yet.
    under_way: usize,
    /// When the first of the items came.
    since: Option<Instant>,
    closed: bool,
    status: Status,
    ended: Option<StoreError>,
}

/// How the writer fares.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Status {
    /// Everything is written.
    #[default]
    Well,
    /// The store takes nothing just now, for this reason; it is tried again.
    Stuck(String),
    /// Nothing will be written any more: [`Recorder::finish`] says why.
    Ended,
}

#[derive(Default)]
struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // Nothing in there is ever half done.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Takes what is to be recorded.
pub struct Recorder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
    looks: Looks,
    waiting: Vec<Item>,
    missed: BTreeMap<&'static str, u64>,
}

impl Recorder {
    /// Opens the store, or makes it, and starts to write. `looks` is shared with whoever prints what is recorded.
    ///
    /// # Errors
    /// Where the store cannot be had.
    pub fn start(path: &Path, settings: Settings, looks: Looks) -> Result<Self, StoreError> {
        let wal_pages = settings.retention.wal_pages();
        let mut writer = Writer::open(path, settings)?;
        // So that whoever cannot write learns it at once.
        writer.commit(&[])?;
        let syncer = Syncer::start(path, wal_pages)?;
        writer.leave_syncing()?;
        let shared = Arc::new(Shared::default());
        let work = shared.clone();
        let thread = std::thread::Builder::new().name("netwatch-store".into());
        let thread = thread
            .spawn(move || {
                write_all(&work, &mut writer, &syncer);
                // Before the writer, which brings the rest into the database and closes it: see `holder`.
                drop(syncer);
                writer.close();
            })
            .map_err(StoreError::Thread)?;
        let (waiting, missed) = (Vec::new(), BTreeMap::new());
        Ok(Self { shared, thread: Some(thread), looks, waiting, missed })
    }

    /// Something happened to an end.
    pub fn event(&mut self, event: ConnectionEvent) {
        let found = look(&event.end, &self.looks);
        self.waiting.push(Item::Event(event, found));
    }

    /// A process that is of interest though no connection of it may ever be told.
    pub fn process(&mut self, process: &Arc<Process>) {
        self.waiting.push(Item::Process(process.clone(), self.looks.of(process)));
    }

    /// Something was lost, as was noticed at `at`.
    pub fn loss(&mut self, at: Timestamp, loss: &Loss) {
        self.waiting.push(Item::Loss(at, loss.clone()));
    }

    /// The wall clock was set.
    pub fn clock(&mut self, clock: BootClock) {
        self.waiting.push(Item::Clock(clock));
    }

    /// Hands over what came since the last call. To be called whenever there is nothing else to do. Returns what was lost,
    /// once there is room again.
    pub fn flush(&mut self) -> Option<(Timestamp, Loss)> {
        let mut queue = self.shared.lock();
        let room = MOST_WAITING.saturating_sub(queue.items.len() + queue.under_way);
        let lost = if !self.missed.is_empty() && room > MOST_WAITING / 2 {
            let loss = Loss { reason: LossReason::Store, kinds: std::mem::take(&mut self.missed) };
            let now = Timestamp::now();
            queue.items.push(Item::Loss(now, loss.clone()));
            Some((now, loss))
        } else {
            None
        };
        if self.waiting.is_empty() && lost.is_none() {
            return None;
        }
        let was_empty = queue.since.is_none();
        let was_few = queue.items.len() < ENOUGH;
        // While something is being lost all is: what is told after a gap must not look as if there were none.
        let room = if self.missed.is_empty() { room } else { 0 };
        let taken = room.min(self.waiting.len());
        let spare = queue.items.capacity() - queue.items.len();
        if spare < taken {
            // By doubling, half of what it takes up would be of no use.
            queue.items.reserve_exact(taken.max(STEP));
        }
        queue.items.extend(self.waiting.drain(..taken));
        for item in self.waiting.drain(..) {
            match item {
                Item::Event(event, _) => *self.missed.entry(event.kind.name()).or_default() += 1,
                Item::Process(..) => *self.missed.entry("process").or_default() += 1,
                Item::Loss(_, loss) => {
                    // What was missed before is missing still.
                    for (kind, count) in loss.kinds {
                        *self.missed.entry(kind).or_default() += count;
                    }
                }
                // Small and few, and without them times would be wrong.
                kept @ (Item::Clock(_) | Item::Stopped(_)) => queue.items.push(kept),
            }
        }
        if queue.items.is_empty() {
            return lost;
        }
        queue.since.get_or_insert_with(Instant::now);
        if was_empty || (was_few && queue.items.len() >= ENOUGH) {
            self.shared.wake.notify_one();
        }
        lost
    }

    /// How the writer fares.
    #[must_use]
    pub fn status(&self) -> Status {
        self.shared.lock().status.clone()
    }

    /// Writes what is left, notes that recording ended, and closes the store.
    ///
    /// # Errors
    /// What ended the writer, now or before.
    pub fn finish(mut self) -> Result<(), StoreError> {
        let now = Timestamp::now();
        self.flush();
        if !self.missed.is_empty() {
            let loss = Loss { reason: LossReason::Store, kinds: std::mem::take(&mut self.missed) };
            self.shared.lock().items.push(Item::Loss(now, loss));
        }
        self.close(Some(now));
        self.shared.lock().ended.take().map_or(Ok(()), Err)
    }

    fn close(&mut self, stopped: Option<Timestamp>) {
        {
            let mut queue = self.shared.lock();
            queue.items.extend(stopped.map(Item::Stopped));
            queue.closed = true;
        }
        self.shared.wake.notify_one();
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            log::error!("the writer's thread panicked");
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if self.thread.is_some() {
            self.close(None);
        }
    }
}

/// What has become of the programs of an end's processes.
pub(super) fn look(end: &End, looks: &Looks) -> Roles<Option<Found>> {
    Roles::of(end).map(|actor| looks.of(&actor.process))
}

/// The thread: until the queue is closed and empty, or nothing can be written any more.
fn write_all(shared: &Shared, writer: &mut Writer, syncer: &Syncer) {
    let mut items = Vec::new();
    loop {
        let patience = if writer.has_more_to_drop() { BUSY } else { IDLE };
        let closed = gather(shared, &mut items, patience);
        let mut written = 0;
        let mut tries = 0;
        while written < items.len() || (items.is_empty() && written == 0) {
            let begun = Instant::now();
            let rest = items.get(written..).unwrap_or_default();
            let committed = syncer.writing(|| writer.commit(rest));
            log::debug!(
                "{} items, of which {committed:?} were written in {:?}",
                items.len(),
                begun.elapsed()
            );
            match committed {
                Ok(0) => break,
                Ok(taken) => {
                    written += taken;
                    tries = 0;
                    let mut queue = shared.lock();
                    queue.under_way = queue.under_way.saturating_sub(taken);
                    queue.status = syncer.failure().map_or(Status::Well, Status::Stuck);
                }
                Err(error) if error.may_pass() => {
                    let mut queue = shared.lock();
                    queue.status = Status::Stuck(error.to_string());
                    tries += 1;
                    if queue.closed && tries > LAST_TRIES {
                        return end(queue, error);
                    }
                    drop(queue);
                    std::thread::sleep(RETRY);
                }
                Err(error) => return end(shared.lock(), error),
            }
        }
        items.clear();
        items.shrink_to(ENOUGH + STEP);
        if closed && shared.lock().items.is_empty() {
            return;
        }
    }
}

fn end(mut queue: MutexGuard<'_, Queue>, error: StoreError) {
    queue.status = Status::Ended;
    queue.ended = Some(error);
}

/// Waits until there is enough to write, or it has waited long enough, and takes it. Returns whether the queue is closed.
fn gather(shared: &Shared, items: &mut Vec<Item>, patience: Duration) -> bool {
    let idle_until = Instant::now() + patience;
    let mut queue = shared.lock();
    loop {
        let now = Instant::now();
        let until = queue.since.map_or(idle_until, |since| since + GATHERING);
        if queue.closed || queue.items.len() >= ENOUGH || now >= until {
            break;
        }
        let patience = until.saturating_duration_since(now);
        queue = shared.wake.wait_timeout(queue, patience).unwrap_or_else(PoisonError::into_inner).0;
    }
    std::mem::swap(items, &mut queue.items);
    queue.under_way = items.len();
    queue.since = None;
    queue.closed
}
