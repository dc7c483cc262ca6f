//! The thread of an output: takes items from its queue, encodes them, and delivers what is encoded in order.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::spool::Spool;
use super::{Gauges, Output, Undelivered};
use crate::bus::{self, Missed, Receiver};
use crate::filter::Filter;
use crate::limits;
use crate::loss::{LossReason, OutputKind};
use crate::retry::Retry;
use crate::stream::{Batch, Item};

/// How long the thread waits for items; it has no periodic work.
const IDLE: Duration = Duration::from_secs(60);

pub(super) struct Worker {
    /// Taken last, so that what it waits for counts as queued.
    pub(super) receiver: Receiver,
    pub(super) output: Box<dyn Output>,
    pub(super) kind: OutputKind,
    pub(super) filter: Filter,
    /// Where it delivers to, for lines on stderr.
    pub(super) name: String,
    pub(super) gauges: Arc<Gauges>,
    /// Prints a line on stderr.
    pub(super) say: Box<dyn Fn(&str) + Send>,
    /// Batches that are not encoded yet, since the spool is full. They count as queued.
    pub(super) pending: VecDeque<Arc<Batch>>,
    pub(super) spool: Spool,
    pub(super) retry: Retry,
    /// What was said last: it cannot be reached.
    pub(super) is_down: bool,
    /// It was said that it refused something.
    pub(super) has_refused: bool,
}

impl Worker {
    /// Works until the stream has ended and everything is delivered, or for a limited time after the end.
    pub(super) fn run(mut self) {
        let mut give_up = None;
        loop {
            let is_over = self.take(give_up.is_some());
            self.encode();
            if is_over && give_up.is_none() {
                let now = Instant::now();
                give_up = Some(now + limits::OUTPUT_WAIT);
                self.retry.hurry(now);
            }
            self.deliver();
            // What was encoded meanwhile may have made room.
            let is_done = self.spool.is_empty() && self.pending.is_empty();
            if give_up.is_some_and(|deadline| is_done || Instant::now() >= deadline) {
                self.output.end();
                return;
            }
        }
    }

    /// Takes items, or waits for the next try. Returns whether the stream has ended.
    fn take(&mut self, is_over: bool) -> bool {
        let now = Instant::now();
        let until_retry = if self.spool.is_empty() { IDLE } else { self.retry.wait(now) };
        if is_over {
            // A pause of a run that ends is short.
            std::thread::sleep(until_retry.min(limits::OUTPUT_RETRY));
            return true;
        }
        if !self.pending.is_empty() {
            return self.receiver.wait_for_end(until_retry) || self.receiver.is_over();
        }
        let gathering = self.output.gathering();
        let enough = if gathering.is_zero() { 1 } else { limits::OUTPUT_MESSAGES };
        let gathered = self.receiver.gather(enough, gathering, until_retry);
        self.pending.extend(gathered.batches);
        gathered.is_over
    }

    /// Encodes what there is room for.
    fn encode(&mut self) {
        while self.spool.has_room()
            && let Some(batch) = self.pending.pop_front()
        {
            for item in batch.items.iter().filter(|item| bus::is_shown(item, &self.filter)) {
                if self.output.leaves_out_own() && is_own(item) {
                    continue;
                }
                if let Err(error) = self.output.encode(item, &batch.context, &mut self.spool) {
                    log::debug!("{}: {error}", self.name);
                    self.count_lost([item.kind()]);
                }
            }
            self.receiver.release(batch.items.len());
        }
        self.report();
    }

    /// Delivers until there is nothing left or it fails.
    fn deliver(&mut self) {
        while self.retry.wait(Instant::now()).is_zero() {
            let Some(payload) = self.spool.front() else { break };
            let before = payload.left();
            let delivered = self.output.deliver(payload);
            let after = payload.left();
            match delivered {
                Ok(()) => {
                    self.gauges.delivered.fetch_add(before as u64, Ordering::Relaxed);
                    log::debug!("output {}: payload {} delivered", self.name, payload.number);
                    self.spool.pop();
                    self.succeeded();
                }
                Err(Undelivered::Down { why, asked }) => {
                    self.gauges.delivered.fetch_add((before - after) as u64, Ordering::Relaxed);
                    self.failed(&why, asked);
                }
                Err(Undelivered::Refused { why, count }) => {
                    self.gauges.delivered.fetch_add((before - after) as u64, Ordering::Relaxed);
                    let kinds: Vec<_> = payload.advance(count).collect();
                    if payload.left() == 0 {
                        self.spool.pop();
                    }
                    self.count_lost(kinds);
                    self.refused(&why);
                }
            }
            self.report();
            // Makes room while there is more.
            if !self.pending.is_empty() {
                self.encode();
            }
        }
    }

    fn count_lost(&self, kinds: impl IntoIterator<Item = &'static str>) {
        let mut lost = Missed::default();
        kinds.into_iter().for_each(|kind| lost.add(LossReason::Output(self.kind), kind, 1));
        self.receiver.count_lost(&lost);
    }

    fn succeeded(&mut self) {
        self.retry.succeeded();
        if std::mem::take(&mut self.is_down) {
            (self.say)(&format!("output {}: delivers again", self.name));
        }
    }

    fn failed(&mut self, why: &str, asked: Option<Duration>) {
        self.retry.failed(Instant::now(), asked);
        log::debug!("output {}: {why}", self.name);
        if !std::mem::replace(&mut self.is_down, true) {
            (self.say)(&format!(
                "output {}: {why}; retrying; events that cannot be queued meanwhile are counted as lost",
                self.name
            ));
        }
    }

    fn refused(&mut self, why: &str) {
        self.retry.succeeded();
        if !std::mem::replace(&mut self.has_refused, true) {
            (self.say)(&format!("output {}: {why}; such events are counted as lost", self.name));
        }
    }

    fn report(&self) {
        let waiting = self.pending.iter().map(|batch| batch.items.len()).sum::<usize>() + self.spool.left();
        self.gauges.waiting.store(waiting, Ordering::Relaxed);
        self.gauges.spooled.store(self.spool.bytes(), Ordering::Relaxed);
        self.gauges.is_down.store(self.is_down, Ordering::Relaxed);
    }
}

/// Whether an event is about a connection that netwatch itself has: its delivery would be an event that has to be
/// delivered, for ever.
fn is_own(item: &Item) -> bool {
    let Item::Event(event) = item else { return false };
    let actors = event.endpoint.actors();
    let own = std::process::id();
    [actors.process, actors.peer].into_iter().flatten().any(|actor| actor.process.key.pid == own)
}
