//! What the writer is given, in its order.

use std::sync::Arc;

use jiff::Timestamp;

use crate::clock::BootClock;
use crate::loss::Loss;
use crate::process::{ExeStatus, Process};
use crate::stream::Item;
use crate::tracker::ConnectionEvent;

/// Something to be written.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
pub(crate) enum Entry {
    /// Something happened to an endpoint.
    Event(ConnectionEvent),
    /// A process that is of interest by itself.
    Process(Arc<Process>, ExeStatus),
    /// Something was lost, as was noticed then.
    Loss(Timestamp, Loss),
    /// From now on times of day are by this clock.
    Clock(BootClock),
    /// Recording ends in good order.
    Stopped(Timestamp),
}

impl Entry {
    /// `None` of what is not recorded.
    pub(super) fn of(item: Item) -> Option<Self> {
        match item {
            Item::Event(event) => Some(Self::Event(event)),
            Item::Process(process, status) => Some(Self::Process(process, status)),
            Item::Loss(at, loss) => Some(Self::Loss(at, loss)),
            Item::Ready(_) | Item::Table(_) => None,
        }
    }
}
