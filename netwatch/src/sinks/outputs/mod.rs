//! Outputs: each delivers the events that its filter selects, in its format, to one place.
//!
//! ```text
//! bus ──► queue ──► encode ──► spool ──► deliver, in order, until it succeeds
//! ```
//!
//! Each has a thread and a bounded queue of its own, so none waits for another. One that cannot be reached keeps what
//! is encoded in its spool, and then items in its queue; what has no room is counted and reported as a loss, whose
//! reason is the kind of the output. An output is a type that implements [`Output`], in a file of its own.

mod file;
mod net;
mod spool;
mod syslog;
#[cfg(test)]
mod tests;
mod worker;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::bus::{Bus, Subscription};
use crate::loss::{LossReason, OutputKind};
use crate::output::LogOptions;
use crate::output::delivery::Facility;
use crate::retry::Retry;
use crate::rights::{self, Need};
use crate::stream::{Context, Item};
use crate::{clock, limits, stderr};
pub use net::Host;
use spool::{Payload, Spool};
use worker::Worker;

/// An output of the options.
#[derive(Clone, Debug)]
pub struct OutputOptions {
    /// Where to.
    pub target: Target,
    /// Format and filter.
    pub log: LogOptions,
}

/// Where events are delivered to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A file.
    File(FileOptions),
    /// A syslog server.
    Syslog {
        /// How it is reached.
        over: Transport,
        /// The facility of all messages.
        facility: Facility,
    },
}

/// How a syslog server is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Transport {
    /// A datagram socket at this path.
    Unix(PathBuf),
    /// A datagram for each message.
    Udp(Host),
    /// A connection, on which each message begins with its length.
    Tcp(Host),
}

/// A file, and when it is rotated: `PATH` becomes `PATH.1`, and so on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileOptions {
    /// Its path.
    pub path: PathBuf,
    /// It is rotated before it gets larger.
    pub size: u64,
    /// It is rotated when it is older; `None`: at no age.
    pub age: Option<Duration>,
    /// Number of rotated files that are kept.
    pub keep: u32,
}

impl Target {
    /// The kind of the output.
    #[must_use]
    pub const fn kind(&self) -> OutputKind {
        match self {
            Self::File(_) => OutputKind::File,
            Self::Syslog { .. } => OutputKind::Syslog,
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(file) => write!(f, "file:{}", file.path.display()),
            Self::Syslog { over: Transport::Unix(path), .. } => write!(f, "syslog:unix:{}", path.display()),
            Self::Syslog { over: Transport::Udp(host), .. } => write!(f, "syslog:udp:{host}"),
            Self::Syslog { over: Transport::Tcp(host), .. } => write!(f, "syslog:tcp:{host}"),
        }
    }
}

/// A capability without which a file cannot be created again after a rotation.
#[must_use]
pub fn needed_to_write(outputs: &[OutputOptions]) -> Option<Need> {
    outputs.iter().find_map(|output| match &output.target {
        Target::File(file) => rights::needed_to_write(file.path.parent()?),
        Target::Syslog { .. } => None,
    })
}

/// Why an output cannot start.
#[derive(Debug, Error)]
#[error("output {name}: {what}")]
pub struct OutputError {
    name: String,
    what: &'static str,
    #[source]
    source: io::Error,
}

/// Delivers messages to one place. It may block: it has a thread of its own.
trait Output: Send {
    /// Appends the messages of an item.
    ///
    /// # Errors
    /// If it cannot be encoded. The item counts as lost.
    fn encode(&mut self, item: &Item, context: &Context, spool: &mut Spool) -> io::Result<()>;

    /// Delivers the messages that are left in the payload. What it delivered before it failed is removed by
    /// [`Payload::advance`].
    ///
    /// # Errors
    /// If not everything was delivered.
    fn deliver(&mut self, payload: &mut Payload) -> Result<(), Undelivered>;

    /// How long items are gathered before they are encoded.
    fn gathering(&self) -> Duration {
        Duration::ZERO
    }

    /// Whether netwatch's own connections are left out, since a delivery makes some.
    fn leaves_out_own(&self) -> bool {
        false
    }

    /// The run ends.
    fn end(&mut self) {}
}

/// Why not everything was delivered.
enum Undelivered {
    /// It is tried again.
    Down {
        /// What failed.
        why: String,
        /// The pause that the receiver asked for.
        asked: Option<Duration>,
    },
    /// The next messages will never be accepted.
    Refused {
        /// What was wrong with them.
        why: String,
        /// How many they are.
        count: usize,
    },
}

impl Undelivered {
    fn down(what: &str, error: impl fmt::Display) -> Self {
        Self::Down { why: format!("{what}: {error}"), asked: None }
    }
}

/// What an output reports of itself.
#[derive(Debug, Default)]
pub struct Gauges {
    /// Messages that were delivered.
    pub delivered: AtomicU64,
    /// Items and messages that are not delivered yet, without those in the queue.
    pub waiting: AtomicUsize,
    /// Bytes that are encoded and not delivered.
    pub spooled: AtomicUsize,
    /// The last delivery failed.
    pub is_down: AtomicBool,
}

/// Names a run: with it and the number of a message or payload, one that was sent twice is recognised.
fn run_id(context: &Context) -> String {
    let start = clock::since_boot().map_or(0, |now| now.nanos());
    format!("{}-{start:x}", context.boot)
}

/// Running outputs.
#[derive(Debug, Default)]
pub struct Outputs(Vec<Running>);

#[derive(Debug)]
struct Running {
    kind: OutputKind,
    name: String,
    gauges: Arc<Gauges>,
    thread: JoinHandle<()>,
}

impl Outputs {
    /// Subscribes to the bus and starts a thread for each output.
    ///
    /// # Errors
    /// If a file cannot be opened, or a thread cannot be started.
    pub fn start(all: &[OutputOptions], bus: &mut Bus, context: &Context) -> Result<Self, OutputError> {
        let mut outputs = Self::default();
        let run = run_id(context);
        for OutputOptions { target, log } in all {
            let name = target.to_string();
            let failed = |what, source| OutputError { name: target.to_string(), what, source };
            let output: Box<dyn Output> = match target {
                Target::File(file) => {
                    Box::new(file::File::open(file, log).map_err(|error| failed("cannot open it", error))?)
                }
                Target::Syslog { over, facility } => {
                    Box::new(syslog::Syslog::new(over, *facility, log, &run))
                }
            };
            let kind = target.kind();
            let gauges = Arc::new(Gauges::default());
            let receiver = bus.subscribe(Subscription {
                reason: LossReason::Output(kind),
                most_waiting: limits::OUTPUT_ITEMS,
                is_announced: true,
                sees_all: false,
            });
            let worker = Worker {
                receiver,
                output,
                kind,
                filter: log.filter.clone(),
                name: name.clone(),
                gauges: gauges.clone(),
                say: Box::new(|line| stderr::print(&format!("netwatch: {line}"))),
                pending: VecDeque::new(),
                spool: Spool::default(),
                retry: Retry::default(),
                is_down: false,
                has_refused: false,
            };
            let thread = std::thread::Builder::new().name(format!("netwatch-{}", kind.name()));
            let thread = thread
                .spawn(move || worker.run())
                .map_err(|error| failed("cannot start its thread", error))?;
            outputs.0.push(Running { kind, name, gauges, thread });
        }
        Ok(outputs)
    }

    /// The kind of each output, and what it reports.
    pub fn gauges(&self) -> impl Iterator<Item = (OutputKind, Arc<Gauges>)> {
        self.0.iter().map(|output| (output.kind, output.gauges.clone()))
    }

    /// Waits until everything is delivered, or for a limited time. Call it when the bus is closed. Returns a line for
    /// each output that has not delivered everything.
    #[must_use]
    pub fn finish(self) -> Vec<String> {
        // The threads give up by themselves, unless one is in a call that blocks.
        let deadline = Instant::now() + limits::OUTPUT_WAIT + limits::OUTPUT_RETRY;
        while self.0.iter().any(|output| !output.thread.is_finished()) && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        let left = |output: Running| match output.gauges.waiting.load(Ordering::Relaxed) {
            0 => None,
            1 => Some(format!("output {}: 1 event was not delivered", output.name)),
            count => Some(format!("output {}: {count} events were not delivered", output.name)),
        };
        self.0.into_iter().filter_map(left).collect()
    }
}
