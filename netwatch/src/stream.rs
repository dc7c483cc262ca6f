//! The event stream from a source to its subscribers: batches of items, each with the context for printing or storing
//! them.

use std::sync::Arc;

use jiff::Timestamp;

use crate::alert::Alert;
use crate::clock::BootClock;
use crate::hash::Map;
use crate::loss::Loss;
use crate::model::BootTime;
use crate::process::{ExeStatus, Process};
use crate::tracker::ConnectionEvent;

/// Names by user id; `None` if the user database has no such user or cannot be read.
pub type UserNames = Map<u32, Option<Arc<str>>>;

/// The context of a batch.
#[derive(Clone, Debug)]
pub struct Context {
    /// Boot id, as in the ids of events.
    pub boot: Arc<str>,
    /// Converts times of events to times of day.
    pub clock: BootClock,
    /// Converts start times of processes. It is the clock at the start of the run, even if the wall clock is set later,
    /// so that a process has one start time.
    pub run_clock: BootClock,
    /// Names of the users of all processes in the batch.
    pub users: Arc<UserNames>,
}

impl Context {
    /// The context of a run that starts now.
    ///
    /// # Errors
    /// If the clock cannot be read.
    pub fn of_run(boot: &str) -> nix::Result<Self> {
        let clock = BootClock::now()?;
        Ok(Self { boot: boot.into(), clock, run_clock: clock, users: Arc::default() })
    }
}

/// A live source is running: the first item of its stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Jobs of the kernel side, each with the probe that does it.
    pub probes: Vec<(&'static str, Option<&'static str>)>,
    /// What is not seen, as sentences.
    pub unseen: Vec<&'static str>,
    /// Number of existing sockets at the start.
    pub seeded: usize,
}

/// One item of the stream.
#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all items are the large variant")]
pub enum Item {
    /// The source is running.
    Ready(Ready),
    /// An event of an endpoint.
    Event(ConnectionEvent),
    /// A process that was started with a network socket as stdin, stdout or stderr, with the status of its executable.
    Process(Arc<Process>, ExeStatus),
    /// A program was executed. Only for rules: nothing else gets it.
    Exec(BootTime, Arc<Process>),
    /// What a rule found. After the event that it is about.
    Alert(Box<Alert>),
    /// A loss, with the time when it was noticed.
    Loss(Timestamp, Loss),
    /// The table of endpoints at this place in the stream, for a subscriber that requested it.
    Table(Vec<ConnectionEvent>),
}

impl Item {
    /// Name of its kind, as `event` in the output.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Ready(_) => "ready",
            Self::Event(event) => event.kind.name(),
            Self::Process(..) => "process",
            Self::Exec(..) => "exec",
            Self::Alert(_) => "alert",
            Self::Loss(..) => "loss",
            Self::Table(_) => "table",
        }
    }
}

/// A batch of items in order.
#[derive(Clone, Debug)]
pub struct Batch {
    /// The context of all items.
    pub context: Context,
    /// The items in order.
    pub items: Vec<Item>,
}
