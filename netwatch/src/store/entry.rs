//! Entries for the writer, in order.

use std::sync::Arc;

use jiff::Timestamp;

use crate::alert::Alert;
use crate::bus::Missed;
use crate::clock::BootClock;
use crate::loss::{Loss, LossReason};
use crate::process::{ExeStatus, Process};
use crate::stream::Item;
use crate::tracker::ConnectionEvent;

/// An entry.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
pub(crate) enum Entry {
    /// An event of an endpoint.
    Event(ConnectionEvent),
    /// A process without an event.
    Process(Arc<Process>, ExeStatus),
    /// An alert.
    Alert(Box<Alert>),
    /// A loss, with the time when it was noticed.
    Loss(Timestamp, Loss),
    /// A new clock for the following entries.
    Clock(BootClock),
    /// The run ends in order.
    Stopped(Timestamp),
}

impl Entry {
    /// `None` for items that are not recorded.
    pub(super) fn of(item: Item) -> Option<Self> {
        match item {
            Item::Event(event) => Some(Self::Event(event)),
            Item::Process(process, status) => Some(Self::Process(process, status)),
            Item::Alert(alert) => Some(Self::Alert(alert)),
            Item::Loss(at, loss) => Some(Self::Loss(at, loss)),
            Item::Ready(_) | Item::Exec(..) | Item::Table(_) => None,
        }
    }

    /// Counts an entry that was not kept, or was kept.
    pub(super) fn count(&self, counts: &mut Missed) {
        match self {
            Self::Event(event) => counts.add(LossReason::Store, event.kind.name(), 1),
            Self::Alert(_) => counts.add(LossReason::Store, "alert", 1),
            Self::Process(..) => counts.add(LossReason::Store, "process", 1),
            Self::Loss(_, loss) => counts.add_loss(loss),
            Self::Clock(_) | Self::Stopped(_) => {}
        }
    }
}
