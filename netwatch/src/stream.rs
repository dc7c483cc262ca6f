//! What flows from a source to its subscribers: batches of items, each with the context that is needed to print or
//! store them.

use std::sync::Arc;

use jiff::Timestamp;

use crate::clock::BootClock;
use crate::hash::Map;
use crate::loss::Loss;
use crate::process::{ExeStatus, Process};
use crate::tracker::ConnectionEvent;

/// Names by user id; `None` where the user database has no such user or cannot be read.
pub type UserNames = Map<u32, Option<Arc<str>>>;

/// What the items of a batch have in common.
#[derive(Clone, Debug)]
pub struct Context {
    /// The boot, as in the ids of events.
    pub boot: Arc<str>,
    /// By which the times of events become times of day.
    pub clock: BootClock,
    /// By which starts of processes do. It is the clock of the beginning of a run, however the wall clock is set later:
    /// a process has one start.
    pub run_clock: BootClock,
    /// Names of the users of all processes in the batch.
    pub users: Arc<UserNames>,
}

impl Context {
    /// For a run that begins now.
    ///
    /// # Errors
    /// Where the clock cannot be read.
    pub fn of_run(boot: &str) -> nix::Result<Self> {
        let clock = BootClock::now()?;
        Ok(Self { boot: boot.into(), clock, run_clock: clock, users: Arc::default() })
    }
}

/// That a live source runs: the first item of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Jobs of the kernel side, each with the probe that does it.
    pub probes: Vec<(&'static str, Option<&'static str>)>,
    /// What is not seen, in words.
    pub unseen: Vec<&'static str>,
    /// How many sockets existed before.
    pub seeded: usize,
}

/// One item of the stream.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all items are the large variant")]
pub enum Item {
    /// The source runs.
    Ready(Ready),
    /// Something happened to an endpoint.
    Event(ConnectionEvent),
    /// A process that was started on a network socket, with the status of its executable.
    Process(Arc<Process>, ExeStatus),
    /// Something was lost, as was noticed at that time.
    Loss(Timestamp, Loss),
    /// The whole table of a live source at this place in the stream, for the subscriber that asked for it.
    Table(Vec<ConnectionEvent>),
}

/// Items in their order.
#[derive(Clone, Debug)]
pub struct Batch {
    /// Of all items.
    pub context: Context,
    /// In their order.
    pub items: Vec<Item>,
}
