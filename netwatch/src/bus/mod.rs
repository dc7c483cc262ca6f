//! The bus: delivers each batch of the stream to every subscriber. Each has a bounded queue and a counter of what did
//! not fit, so that a slow or blocked subscriber delays neither the source nor other subscribers, and is notified of
//! what it missed.

mod missed;
mod queue;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::filter::Filter;
use crate::loss::LossReason;
use crate::stream::{Batch, Item};
pub use missed::Missed;
use queue::Queue;
pub use queue::{Gathered, Receiver};

/// Maximum number of items in a batch; larger ones are split, so that a batch is a small part of any queue.
pub const BATCH: usize = 2048;

/// Options of a subscription.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// The reason in `loss` events of this subscriber.
    pub reason: LossReason,
    /// Maximum number of items that are queued or being processed.
    pub most_waiting: usize,
    /// Its losses are reported to the other subscribers, too.
    pub is_announced: bool,
    /// It receives what the filter hides as well.
    pub sees_all: bool,
}

/// How full a queue is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    /// The subscriber.
    pub reason: LossReason,
    /// Number of items that are queued or being processed.
    pub waiting: usize,
    /// The bound on it.
    pub most: usize,
}

/// Delivers batches to subscribers.
#[derive(Debug, Default)]
pub struct Bus {
    /// What subscribers receive, but for those that see all.
    filter: Filter,
    subscribers: Vec<Subscriber>,
    notify: Arc<Notify>,
}

#[derive(Debug)]
struct Subscriber {
    subscription: Subscription,
    queue: Arc<Queue>,
}

impl Bus {
    /// A bus whose subscribers receive what passes a filter.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        Self { filter, subscribers: Vec::new(), notify: Arc::default() }
    }

    /// Wakes the owner of the bus: see [`Bus::attention`].
    #[must_use]
    pub fn notifier(&self) -> Arc<Notify> {
        self.notify.clone()
    }

    /// Adds a subscriber, until its receiver is dropped.
    pub fn subscribe(&mut self, subscription: Subscription) -> Receiver {
        let queue = Arc::new(Queue::new(&subscription, self.notify.clone()));
        self.subscribers.push(Subscriber { subscription, queue: queue.clone() });
        Receiver::new(queue)
    }

    /// Delivers the items of `batch`, and leaves it empty.
    pub fn publish(&mut self, batch: &mut Batch) {
        if !self.subscribers.iter().any(|subscriber| subscriber.subscription.sees_all) {
            batch.items.retain(|item| is_shown(item, &self.filter));
        }
        if batch.items.is_empty() {
            return;
        }
        let room = Vec::with_capacity(batch.items.len().min(BATCH));
        let items = std::mem::replace(&mut batch.items, room);
        if items.len() <= BATCH {
            self.publish_one(Batch { context: batch.context.clone(), items });
            return;
        }
        let mut rest = items.into_iter();
        loop {
            let items: Vec<_> = rest.by_ref().take(BATCH).collect();
            if items.is_empty() {
                break;
            }
            self.publish_one(Batch { context: batch.context.clone(), items });
        }
    }

    /// Whether every subscriber has room for a batch of [`BATCH`] items.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.subscribers.iter().all(|subscriber| subscriber.queue.has_room(BATCH))
    }

    fn publish_one(&mut self, batch: Batch) {
        self.tell_what_was_missed(&batch.context);
        let whole = Arc::new(batch);
        let shown = if whole.items.iter().all(|item| is_shown(item, &self.filter)) {
            whole.clone()
        } else {
            let items = whole.items.iter().filter(|item| is_shown(item, &self.filter)).cloned().collect();
            Arc::new(Batch { context: whole.context.clone(), items })
        };
        let mut losses = VecDeque::new();
        for (place, Subscriber { queue, subscription }) in self.subscribers.iter().enumerate() {
            let batch = if subscription.sees_all { &whole } else { &shown };
            if !batch.items.is_empty() {
                losses.extend(queue.push(batch.clone()).map(|loss| (place, loss)));
            }
        }
        self.tell_others(losses, &whole.context);
    }

    /// Ends the stream for those that see all: what they find in the rest of it can still be published.
    pub fn close_for_those_that_see_all(&self, context: &crate::stream::Context) {
        let mut losses = VecDeque::new();
        for (place, Subscriber { queue, subscription }) in self.subscribers.iter().enumerate() {
            if subscription.sees_all {
                losses.extend(queue.report_missed(context, true).map(|loss| (place, loss)));
                queue.close(Some(Timestamp::now()));
            }
        }
        self.tell_others(losses, context);
    }

    /// Notifies each subscriber of what it missed once it has caught up, and the others if configured. Call it several
    /// times a second if nothing is published; `context` is that of the stream.
    pub fn report_missed(&mut self, context: &crate::stream::Context) {
        self.tell_what_was_missed(context);
    }

    fn tell_what_was_missed(&self, context: &crate::stream::Context) {
        let mut losses = VecDeque::new();
        for (place, Subscriber { queue, .. }) in self.subscribers.iter().enumerate() {
            losses.extend(queue.report_missed(context, false).map(|loss| (place, loss)));
        }
        self.tell_others(losses, context);
    }

    /// Delivers losses, one for each subscriber that had one, to the other subscribers if that is configured.
    fn tell_others(&self, mut losses: VecDeque<(usize, Item)>, context: &crate::stream::Context) {
        while let Some((place, loss)) = losses.pop_front() {
            let is_announced = |subscriber: &Subscriber| subscriber.subscription.is_announced;
            if !self.subscribers.get(place).is_some_and(is_announced) {
                continue;
            }
            let batch = Arc::new(Batch { context: context.clone(), items: vec![loss] });
            for (other, Subscriber { queue, .. }) in self.subscribers.iter().enumerate() {
                if other != place {
                    // Whoever is told may have a loss of its own to tell of.
                    losses.extend(queue.push(batch.clone()).map(|loss| (other, loss)));
                }
            }
        }
    }

    /// The queue of each subscriber.
    pub fn depths(&self) -> impl Iterator<Item = Depth> {
        self.subscribers.iter().map(|Subscriber { subscription, queue }| {
            let (waiting, most) = queue.depth();
            Depth { reason: subscription.reason, waiting, most }
        })
    }

    /// Whether a subscriber has dropped its receiver: it is done or it failed.
    #[must_use]
    pub fn has_lost_one(&self) -> bool {
        self.subscribers.iter().any(|subscriber| subscriber.queue.is_abandoned())
    }

    /// Waits until a subscriber has dropped its receiver or requested the table.
    pub async fn attention(&self) {
        self.notify.notified().await;
    }

    /// Delivers the table to each subscriber that requested it.
    pub fn answer_requests(&self, table: impl FnOnce() -> Batch) {
        let mut asking =
            self.subscribers.iter().filter(|subscriber| subscriber.queue.wants_table()).peekable();
        if asking.peek().is_none() {
            return;
        }
        let table = Arc::new(table());
        asking.for_each(|subscriber| subscriber.queue.push_unbounded(table.clone()));
    }

    /// Ends the stream in order: subscribers receive what is queued and what they missed. If the bus is dropped without
    /// this, they receive what is queued and know that the run failed.
    pub fn close(self, context: &crate::stream::Context) {
        for subscriber in &self.subscribers {
            subscriber.queue.report_missed(context, true);
            subscriber.queue.close(Some(Timestamp::now()));
        }
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        for subscriber in &self.subscribers {
            subscriber.queue.close(None);
        }
    }
}

/// Whether an item passes a filter. Losses always pass.
#[must_use]
pub fn is_shown(item: &Item, filter: &Filter) -> bool {
    match item {
        Item::Event(event) => filter.shows(event),
        Item::Alert(alert) => filter.shows_alert(alert),
        Item::Exec(..) => false,
        Item::Process(process, _) => filter.shows_process(process),
        Item::Ready(_) | Item::Loss(..) | Item::Table(_) => true,
    }
}
