//! The queue of one subscriber.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use tokio::sync::Notify;

use super::{Missed, Subscription};
use crate::loss::LossReason;
use crate::stream::{Batch, Context, Item};

/// State shared by the bus and one receiver.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Condvar,
    reason: LossReason,
    most_waiting: usize,
    /// Wakes the owner of the bus.
    notify: Arc<Notify>,
}

#[derive(Debug, Default)]
struct State {
    batches: VecDeque<Arc<Batch>>,
    /// Number of items in `batches`.
    waiting: usize,
    /// Number of items that were received and not released yet.
    under_way: usize,
    /// When the first queued batch was added.
    since: Option<Instant>,
    /// What was dropped since the last notification. While it is not empty everything is dropped, so that items after a
    /// gap are not delivered before the notification.
    missed: Missed,
    /// Number of items that the receiver waits for.
    wanted: Option<usize>,
    wants_table: bool,
    closed: Option<Closed>,
    /// The receiver was dropped, or gave up.
    abandoned: bool,
    /// It gave up, and wants to know what it misses from then on.
    counts_on: bool,
}

/// How a stream ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    InGoodOrder(Timestamp),
    ByFailure,
}

impl Queue {
    pub(super) fn new(subscription: &Subscription, notify: Arc<Notify>) -> Self {
        let Subscription { reason, most_waiting, .. } = *subscription;
        Self { state: Mutex::default(), wake: Condvar::new(), reason, most_waiting, notify }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code panics between related changes.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a batch, or counts its items as missed. Returns what [`Queue::report_missed`] would have, if that was due.
    pub(super) fn push(&self, batch: Arc<Batch>) -> Option<Item> {
        let mut state = self.lock();
        if state.abandoned {
            if state.counts_on {
                batch.items.iter().for_each(|item| state.missed.count(item, self.reason));
            }
            return None;
        }
        let own = self.release_missed(&mut state, &batch.context, false);
        let held = state.waiting + state.under_way;
        if state.missed.is_empty() && held + batch.items.len() <= self.most_waiting {
            self.add(&mut state, batch);
        } else {
            batch.items.iter().for_each(|item| state.missed.count(item, self.reason));
        }
        own
    }

    /// Number of items that are queued or being processed, and the bound on it.
    pub(super) fn depth(&self) -> (usize, usize) {
        let state = self.lock();
        (state.waiting + state.under_way, self.most_waiting)
    }

    /// Adds a batch regardless of the bound: one that the receiver requested.
    pub(super) fn push_unbounded(&self, batch: Arc<Batch>) {
        let mut state = self.lock();
        state.wants_table = false;
        if !state.abandoned {
            self.add(&mut state, batch);
        }
    }

    fn add(&self, state: &mut State, batch: Arc<Batch>) {
        state.waiting += batch.items.len();
        state.since.get_or_insert_with(Instant::now);
        state.batches.push_back(batch);
        if state.wanted.is_some_and(|wanted| state.waiting >= wanted) {
            state.wanted = None;
            self.wake.notify_one();
        }
    }

    /// Adds the notification of what was missed, once half of the queue is free, or at once if it is the last chance.
    /// Returns the loss of this queue's own reason; other subscribers received the losses that this one missed.
    pub(super) fn report_missed(&self, context: &Context, is_last: bool) -> Option<Item> {
        let mut state = self.lock();
        self.release_missed(&mut state, context, is_last)
    }

    fn release_missed(&self, state: &mut State, context: &Context, is_last: bool) -> Option<Item> {
        let is_relieved = state.waiting + state.under_way <= self.most_waiting / 2;
        if state.missed.is_empty() || state.abandoned || !(is_relieved || is_last) {
            return None;
        }
        let missed = std::mem::take(&mut state.missed);
        let now = Timestamp::now();
        let items: Vec<Item> = missed.losses().map(|loss| Item::Loss(now, loss)).collect();
        let is_own = |item: &&Item| matches!(item, Item::Loss(_, loss) if loss.reason == self.reason);
        let own = items.iter().find(is_own).cloned();
        self.add(state, Arc::new(Batch { context: context.clone(), items }));
        own
    }

    /// Whether so many items could wait, or nobody waits for them.
    pub(super) fn has_room(&self, items: usize) -> bool {
        let state = self.lock();
        state.abandoned || state.waiting + state.under_way + items <= self.most_waiting
    }

    pub(super) fn is_abandoned(&self) -> bool {
        self.lock().abandoned
    }

    pub(super) fn wants_table(&self) -> bool {
        self.lock().wants_table
    }

    /// Ends the stream. `at`: when it ended, if in order. Only the first call counts.
    pub(super) fn close(&self, at: Option<Timestamp>) {
        let mut state = self.lock();
        state.closed.get_or_insert(at.map_or(Closed::ByFailure, Closed::InGoodOrder));
        state.wanted = None;
        drop(state);
        self.wake.notify_one();
    }
}

/// Received batches.
#[derive(Debug, Default)]
pub struct Gathered {
    /// Batches in order.
    pub batches: Vec<Arc<Batch>>,
    /// When the stream ended in order; then these are the last batches.
    pub ended: Option<Timestamp>,
    /// The stream ended, in order or not.
    pub is_over: bool,
}

/// The subscriber's side of its queue. Dropping it ends the subscription.
#[derive(Debug)]
pub struct Receiver {
    queue: Arc<Queue>,
}

impl Receiver {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue }
    }

    /// Waits until `enough` items are queued, the first was queued for `gathering`, nothing was added for `patience`,
    /// or the stream ended; then takes all. They count against the bound until released.
    #[must_use]
    pub fn gather(&self, enough: usize, gathering: Duration, patience: Duration) -> Gathered {
        let idle_until = Instant::now() + patience;
        let mut state = self.queue.lock();
        loop {
            let now = Instant::now();
            let until = state.since.map_or(idle_until, |since| since + gathering);
            if state.closed.is_some() || (state.waiting >= enough && state.waiting > 0) || now >= until {
                break;
            }
            // The first item need not wake the receiver if it gathers for longer.
            state.wanted = Some(if gathering.is_zero() || state.since.is_some() { enough } else { 1 });
            let patience = until.saturating_duration_since(now);
            state = self.queue.wake.wait_timeout(state, patience).unwrap_or_else(PoisonError::into_inner).0;
        }
        state.wanted = None;
        state.under_way += std::mem::take(&mut state.waiting);
        state.since = None;
        let ended = match state.closed {
            Some(Closed::InGoodOrder(at)) => Some(at),
            Some(Closed::ByFailure) | None => None,
        };
        Gathered { batches: state.batches.drain(..).collect(), ended, is_over: state.closed.is_some() }
    }

    /// Whether the stream ended; the queue has the rest of it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.queue.lock().closed.is_some()
    }

    /// Releases items.
    pub fn release(&self, items: usize) {
        let mut state = self.queue.lock();
        state.under_way = state.under_way.saturating_sub(items);
    }

    /// Waits until the stream ended, or for so long. Returns whether it ended.
    #[must_use]
    pub fn wait_for_end(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.queue.lock();
        while state.closed.is_none() {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return false };
            (state, _) = self.queue.wake.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
        true
    }

    /// Counts what was taken and then lost: it is reported like what did not fit, before what is published next.
    pub fn count_lost(&self, lost: &Missed) {
        self.queue.lock().missed.merge(lost);
    }

    /// Ends the subscription without dropping the receiver: what is queued and what is published later is only counted.
    pub fn give_up(&self) {
        let mut state = self.queue.lock();
        (state.abandoned, state.counts_on) = (true, true);
        state.waiting = 0;
        for batch in std::mem::take(&mut state.batches) {
            batch.items.iter().for_each(|item| state.missed.count(item, self.queue.reason));
        }
        drop(state);
        self.queue.notify.notify_one();
    }

    /// Waits for the end of the stream. Returns what was missed and not notified of.
    #[must_use]
    pub fn missed_until_closed(&self) -> Missed {
        let mut state = self.queue.lock();
        while state.closed.is_none() {
            state = self.queue.wake.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        std::mem::take(&mut state.missed)
    }

    /// Requests the table of the source, which is delivered as an item.
    pub fn request_table(&self) {
        self.queue.lock().wants_table = true;
        self.queue.notify.notify_one();
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let mut state = self.queue.lock();
        state.abandoned = true;
        let batches = std::mem::take(&mut state.batches);
        drop(state);
        drop(batches);
        self.queue.notify.notify_one();
    }
}
