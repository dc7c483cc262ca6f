//! Processes that ended recently.

use std::collections::VecDeque;
use std::sync::Arc;

use smallvec::SmallVec;

use super::Process;
use crate::hash::Map;
use crate::limits;
use crate::model::ProcessKey;

/// The last [`limits::MOST_ENDED_PROCESSES`] of them.
#[derive(Debug, Default)]
pub(super) struct Ended {
    /// By the key that `/proc` gives: usually one each, and no more than can have one pid within a clock tick.
    by_key: Map<ProcessKey, SmallVec<[Arc<Process>; 1]>>,
    order: VecDeque<ProcessKey>,
}

impl Ended {
    /// The process with this key. If a start is not exact, the last one that it may be.
    pub(super) fn find(&self, key: ProcessKey) -> Option<&Arc<Process>> {
        let same = self.by_key.get(&key.coarse())?;
        let exact = same.iter().find(|process| process.key == key);
        exact.or_else(|| same.iter().rfind(|process| process.key.may_be(key)))
    }

    /// Whether a process with exactly this key is there.
    pub(super) fn has(&self, key: ProcessKey) -> bool {
        self.find(key).is_some_and(|process| process.key == key)
    }

    pub(super) fn add(&mut self, process: Arc<Process>) {
        if self.has(process.key) {
            self.replace(process);
            return;
        }
        if self.order.len() >= limits::MOST_ENDED_PROCESSES
            && let Some(oldest) = self.order.pop_front()
        {
            self.remove_first(oldest);
        }
        let key = process.key.coarse();
        self.order.push_back(key);
        self.by_key.entry(key).or_default().push(process);
    }

    fn remove_first(&mut self, key: ProcessKey) {
        let Some(same) = self.by_key.get_mut(&key) else { return };
        if same.len() > 1 {
            same.remove(0);
        } else {
            self.by_key.remove(&key);
        }
    }

    /// Replaces the value of a process.
    pub(super) fn replace(&mut self, process: Arc<Process>) {
        let Some(same) = self.by_key.get_mut(&process.key.coarse()) else { return };
        let exact = same.iter().position(|known| known.key == process.key);
        let place = exact.or_else(|| same.iter().rposition(|known| known.key.may_be(process.key)));
        if let Some(known) = place.and_then(|place| same.get_mut(place)) {
            *known = process;
        }
    }
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_key.values().map(SmallVec::len).sum()
    }
}
