//! The bus: hands each batch of the stream to every subscriber. Each has a queue of its own with a bound, and a counter
//! of its own for what found no room in it: a subscriber that is slow, stuck or gone never holds up the source or
//! another subscriber, and is told what it missed.

mod queue;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::filter::Filter;
use crate::loss::LossReason;
use crate::stream::{Batch, Item};
use queue::Queue;
pub use queue::{Gathered, Receiver};

/// Items that are published at once: more are cut into batches of so many, so that one batch is a small part of any
/// queue.
pub const BATCH: usize = 2048;

/// How one subscriber is served.
#[derive(Clone, Debug)]
pub struct Subscription {
    /// What a loss of this subscriber is called.
    pub reason: LossReason,
    /// Items that wait for it or that it is working on, at most.
    pub most_waiting: usize,
    /// Which events it is given; `None`: all.
    pub filter: Option<Filter>,
    /// The other subscribers are told of its losses too.
    pub is_announced: bool,
}

/// Hands batches to subscribers.
#[derive(Debug, Default)]
pub struct Bus {
    subscribers: Vec<Subscriber>,
    notify: Arc<Notify>,
}

#[derive(Debug)]
struct Subscriber {
    subscription: Subscription,
    queue: Arc<Queue>,
}

impl Bus {
    /// Adds a subscriber. It is served until its receiver is dropped.
    pub fn subscribe(&mut self, subscription: Subscription) -> Receiver {
        let queue = Arc::new(Queue::new(&subscription, self.notify.clone()));
        self.subscribers.push(Subscriber { subscription, queue: queue.clone() });
        Receiver::new(queue)
    }

    /// Hands on what is in `batch`, and leaves it empty.
    pub fn publish(&mut self, batch: &mut Batch) {
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
        self.announce(&batch);
        let whole = Arc::new(batch);
        for Subscriber { subscription, queue } in &self.subscribers {
            match subscription.filter.as_ref().and_then(|filter| selected(&whole, filter)) {
                Some(selected) if selected.items.is_empty() => {}
                Some(selected) => queue.push(Arc::new(selected)),
                None => queue.push(whole.clone()),
            }
        }
    }

    /// Tells each subscriber what it missed, once it has caught up; and the others, where they are to know. To be called
    /// several times a second where nothing is published; `context` is that of the stream.
    pub fn tell_missed(&mut self, context: &crate::stream::Context) {
        let empty = Batch { context: context.clone(), items: Vec::new() };
        self.announce(&empty);
        for subscriber in &self.subscribers {
            subscriber.queue.tell_missed(context, false);
        }
    }

    fn announce(&self, batch: &Batch) {
        for (place, Subscriber { subscription, queue }) in self.subscribers.iter().enumerate() {
            if !subscription.is_announced {
                continue;
            }
            let Some(loss) = queue.tell_missed(&batch.context, false) else { continue };
            for (_, other) in self.subscribers.iter().enumerate().filter(|(other, _)| *other != place) {
                let items = vec![loss.clone()];
                other.queue.push(Arc::new(Batch { context: batch.context.clone(), items }));
            }
        }
    }

    /// Whether a subscriber has dropped its receiver: it wants no more, or it failed.
    #[must_use]
    pub fn has_lost_one(&self) -> bool {
        self.subscribers.iter().any(|subscriber| subscriber.queue.is_abandoned())
    }

    /// Waits until a subscriber has dropped its receiver or asked for the table.
    pub async fn attention(&self) {
        self.notify.notified().await;
    }

    /// Gives the table to each subscriber that asked for it, at this place in its stream.
    pub fn answer_requests(&self, table: impl FnOnce() -> Batch) {
        let mut asking =
            self.subscribers.iter().filter(|subscriber| subscriber.queue.wants_table()).peekable();
        if asking.peek().is_none() {
            return;
        }
        let table = Arc::new(table());
        asking.for_each(|subscriber| subscriber.queue.push_unbounded(table.clone()));
    }

    /// Ends the stream in good order: subscribers are given what waits for them, and what they missed. Without this
    /// they end with what waits for them as well, but know that the run failed.
    pub fn close(self, context: &crate::stream::Context) {
        for subscriber in &self.subscribers {
            subscriber.queue.tell_missed(context, true);
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

/// Whether a filter lets an item pass. It hides no loss.
#[must_use]
pub fn is_shown(item: &Item, filter: &Filter) -> bool {
    match item {
        Item::Event(event) => filter.shows(event),
        Item::Process(process, _) => filter.shows_process(process),
        Item::Ready(_) | Item::Loss(..) | Item::Table(_) => true,
    }
}

/// What a filter leaves of a batch; `None`: all of it.
fn selected(batch: &Batch, filter: &Filter) -> Option<Batch> {
    let is_shown = |item: &&Item| is_shown(item, filter);
    let shown = batch.items.iter().filter(is_shown).count();
    if shown == batch.items.len() {
        return None;
    }
    let mut items = Vec::with_capacity(shown);
    items.extend(batch.items.iter().filter(is_shown).cloned());
    Some(Batch { context: batch.context.clone(), items })
}
