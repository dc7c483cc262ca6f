//! Counts of items that a subscriber did not get.

use std::collections::BTreeMap;

use crate::loss::{Loss, LossReason};
use crate::stream::Item;

/// Counts by reason and kind.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missed(BTreeMap<LossReason, BTreeMap<&'static str, u64>>);

impl Missed {
    /// Counts an item that was dropped for `reason`. A loss that was dropped stays a loss of its own reason: the number
    /// remains, the sockets in it do not.
    pub fn count(&mut self, item: &Item, reason: LossReason) {
        match item {
            Item::Loss(_, loss) => self.add_loss(loss),
            Item::Table(_) => {}
            Item::Event(_) | Item::Alert(_) | Item::Exec(..) | Item::Process(..) | Item::Ready(_) => {
                self.add(reason, item.kind(), 1);
            }
        }
    }

    /// Adds a number of one kind.
    pub fn add(&mut self, reason: LossReason, kind: &'static str, count: u64) {
        let sum = self.0.entry(reason).or_default().entry(kind).or_default();
        *sum = sum.saturating_add(count);
    }

    /// Adds a loss.
    pub fn add_loss(&mut self, loss: &Loss) {
        loss.kinds.iter().for_each(|(kind, count)| self.add(loss.reason, kind, *count));
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        other.losses().for_each(|loss| self.add_loss(&loss));
    }

    /// Subtracts all of `other`, which was added before.
    pub fn remove(&mut self, other: &Self) {
        for (reason, kinds) in &other.0 {
            for (kind, count) in kinds {
                if let Some(sum) = self.0.get_mut(reason).and_then(|own| own.get_mut(kind)) {
                    *sum = sum.saturating_sub(*count);
                }
            }
        }
    }

    /// Whether nothing was counted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.values().flat_map(BTreeMap::values).all(|count| *count == 0)
    }

    /// The sum of all kinds that were lost for `reason`.
    #[must_use]
    pub fn of(&self, reason: LossReason) -> u64 {
        self.0.get(&reason).into_iter().flat_map(BTreeMap::values).sum()
    }

    /// One loss for each reason.
    pub fn losses(&self) -> impl Iterator<Item = Loss> {
        let lost = |kinds: &BTreeMap<&'static str, u64>| {
            kinds.iter().filter(|(_, count)| **count > 0).map(|(kind, count)| (*kind, *count)).collect()
        };
        let losses = self.0.iter().map(move |(reason, kinds)| Loss::new(*reason, lost(kinds)));
        losses.filter(|loss| !loss.kinds.is_empty())
    }
}
