//! What is recorded, as it waits to be written.

use std::sync::Arc;

use jiff::Timestamp;

use super::roles::Roles;
use crate::loss::Loss;
use crate::process::view::BootClock;
use crate::process::{Found, Process};
use crate::tracker::ConnectionEvent;

/// Something to be written.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are the large one")]
pub(crate) enum Item {
    /// Something happened to an end, and what was found out about its processes' programs.
    Event(ConnectionEvent, Roles<Option<Found>>),
    /// A process that is of interest by itself.
    Process(Arc<Process>, Found),
    /// Something was lost, as was noticed then.
    Loss(Timestamp, Loss),
    /// From now on times are told by this clock.
    Clock(BootClock),
    /// Recording ends in good order.
    Stopped(Timestamp),
}
