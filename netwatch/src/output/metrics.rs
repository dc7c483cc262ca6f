//! Metrics in the text format of Prometheus. No label names a process or an address: their number has no bound.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use crate::alert::Level;
use crate::loss::Loss;
use crate::model::Proto;
use crate::stream::Item;
use crate::tracker::{ConnectionEvent, EventKind};
use crate::{errno, origin::Basis};

/// Upper bounds of the histogram, seconds: from a local network to the longest retries.
const BUCKETS: [(&str, u64); 12] = [
    ("0.0001", 100),
    ("0.0005", 500),
    ("0.001", 1000),
    ("0.005", 5000),
    ("0.01", 10_000),
    ("0.025", 25_000),
    ("0.05", 50_000),
    ("0.1", 100_000),
    ("0.25", 250_000),
    ("0.5", 500_000),
    ("1", 1_000_000),
    ("5", 5_000_000),
];

/// Labels of an event.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Labels {
    event: &'static str,
    proto: &'static str,
    side: &'static str,
    basis: &'static str,
    errno: String,
}

/// Counts of what was published.
#[derive(Debug, Default)]
pub struct Counts {
    events: BTreeMap<Labels, u64>,
    lost: BTreeMap<(&'static str, &'static str), u64>,
    /// By level, and by code of the built-in detection, if it was one.
    alerts: BTreeMap<(Level, Option<Arc<str>>), u64>,
    /// Of each bucket, without those below.
    handshakes: [u64; BUCKETS.len()],
    handshake_count: u64,
    handshake_micros: u64,
    /// Jobs of the kernel side, and whether a probe does them.
    probes: BTreeMap<&'static str, bool>,
}

impl Counts {
    /// Counts an item.
    pub fn add(&mut self, item: &Item) {
        match item {
            Item::Event(event) => self.event(event),
            Item::Loss(_, loss) => self.loss(loss),
            Item::Ready(ready) => {
                self.probes = ready.probes.iter().map(|(job, probe)| (*job, probe.is_some())).collect();
            }
            Item::Alert(alert) => {
                *self.alerts.entry((alert.rule.level, alert.rule.code.clone())).or_default() += 1;
            }
            Item::Process(..) | Item::Exec(..) | Item::Table(_) => {}
        }
    }

    fn event(&mut self, event: &ConnectionEvent) {
        let endpoint = &event.endpoint;
        let (side, basis) = match endpoint.side() {
            Some(side) => (side.name(), endpoint.verdict.basis.name()),
            None => ("", Basis::None.name()),
        };
        let errno = event.outcome.errno.map(|number| errno::name(number).into_owned());
        let labels = Labels {
            event: event.kind.name(),
            proto: match endpoint.proto {
                Proto::Raw(_) => "raw",
                named => named.name(),
            },
            side,
            basis,
            errno: errno.unwrap_or_default(),
        };
        *self.events.entry(labels).or_default() += 1;
        if event.kind == EventKind::Open
            && let Some(handshake) = endpoint.handshake
        {
            let micros = handshake.get() / 1000;
            self.handshake_count += 1;
            self.handshake_micros += micros;
            let place = BUCKETS.iter().position(|(_, bound)| micros <= *bound);
            if let Some(count) = place.and_then(|place| self.handshakes.get_mut(place)) {
                *count += 1;
            }
        }
    }

    fn loss(&mut self, loss: &Loss) {
        for (kind, count) in &loss.kinds {
            *self.lost.entry((loss.reason.name(), kind)).or_default() += count;
        }
    }
}

/// The queue of a subscriber.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QueueVitals {
    /// Items in it.
    pub waiting: usize,
    /// The bound on it.
    pub most: usize,
}

/// The state of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutputVitals {
    /// Its kind, with a number from the second one on.
    pub name: String,
    /// Messages that were delivered.
    pub delivered: u64,
    /// Bytes that are encoded and not delivered.
    pub spooled: usize,
    /// The last delivery succeeded.
    pub is_up: bool,
}

/// The state of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StoreVitals {
    /// Size of its files.
    pub bytes: u64,
    /// Time of the last sync that succeeded.
    pub last_sync: Option<SystemTime>,
    /// It accepts writes.
    pub is_well: bool,
}

/// The state of a run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RunVitals {
    /// Records that were read from the ring.
    pub records: u64,
    /// By name of the subscriber.
    pub queues: BTreeMap<&'static str, QueueVitals>,
    /// The outputs.
    pub outputs: Vec<OutputVitals>,
    /// The store, if there is one.
    pub store: Option<StoreVitals>,
}

/// Everything in the text format.
#[must_use]
pub fn text(counts: &Counts, run: &RunVitals) -> String {
    let mut out = Out(String::new());
    let version = env!("CARGO_PKG_VERSION");
    out.family("build_info", "gauge", "Version of netwatch.", [(labels(&[("version", version)]), 1)]);
    let event = |(of, count): (&Labels, &u64)| {
        let Labels { event, proto, side, basis, errno } = of;
        let all = [("event", *event), ("proto", proto), ("side", side), ("basis", basis), ("errno", errno)];
        (labels(&all), *count)
    };
    out.family(
        "events_total",
        "counter",
        "Events of connections and listeners, by the side that originated the connection and how that is known.",
        counts.events.iter().map(event),
    );
    out.handshakes(counts);
    out.family(
        "records_total",
        "counter",
        "Records that were read from the kernel.",
        [(String::new(), run.records)],
    );
    let lost = |((reason, kind), count): (&(&str, &str), &u64)| {
        (labels(&[("reason", reason), ("kind", kind)]), *count)
    };
    out.family(
        "lost_total",
        "counter",
        "Records and events that were lost, by reason and kind.",
        counts.lost.iter().map(lost),
    );
    let alert = |((level, code), count): (&(Level, Option<Arc<str>>), &u64)| {
        (labels(&[("level", level.name()), ("code", code.as_deref().unwrap_or_default())]), *count)
    };
    out.family(
        "alerts_total",
        "counter",
        "Alerts, by level, and by code of the built-in detection if it was one.",
        counts.alerts.iter().map(alert),
    );
    let probe = |(job, has): (&&str, &bool)| (labels(&[("job", job)]), u64::from(*has));
    out.family(
        "probe_attached",
        "gauge",
        "Whether a probe was attached for the job at the start.",
        counts.probes.iter().map(probe),
    );
    out.queues(run);
    out.outputs(run);
    if let Some(store) = &run.store {
        out.store(store);
    }
    out.0
}

/// The values are words of netwatch, which need no escapes.
fn labels(all: &[(&str, &str)]) -> String {
    let pairs = all.iter().map(|(name, value)| format!("{name}=\"{value}\""));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

struct Out(String);

impl Out {
    fn head(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = write!(self.0, "# HELP netwatch_{name} {help}\n# TYPE netwatch_{name} {kind}\n");
    }

    fn family(
        &mut self,
        name: &str,
        kind: &str,
        help: &str,
        samples: impl IntoIterator<Item = (String, u64)>,
    ) {
        self.head(name, kind, help);
        for (labels, value) in samples {
            let _ = writeln!(self.0, "netwatch_{name}{labels} {value}");
        }
    }

    fn handshakes(&mut self, counts: &Counts) {
        self.head("handshake_seconds", "histogram", "Duration of TCP handshakes that this host began.");
        let mut sum = 0;
        for ((bound, _), count) in BUCKETS.iter().zip(counts.handshakes) {
            sum += count;
            let _ = writeln!(self.0, "netwatch_handshake_seconds_bucket{{le=\"{bound}\"}} {sum}");
        }
        let count = counts.handshake_count;
        let seconds = Duration::from_micros(counts.handshake_micros).as_secs_f64();
        let _ = writeln!(self.0, "netwatch_handshake_seconds_bucket{{le=\"+Inf\"}} {count}");
        let _ = writeln!(self.0, "netwatch_handshake_seconds_sum {seconds}");
        let _ = writeln!(self.0, "netwatch_handshake_seconds_count {count}");
    }

    fn queues(&mut self, run: &RunVitals) {
        let each = |value: fn(&QueueVitals) -> usize| {
            let sample = move |(name, queue): (&&str, &QueueVitals)| {
                (labels(&[("subscriber", name)]), value(queue) as u64)
            };
            run.queues.iter().map(sample).collect::<Vec<_>>()
        };
        let help = "Events that wait in the queue of a subscriber.";
        self.family("queue_events", "gauge", help, each(|queue| queue.waiting));
        let help = "How many events fit into the queue of a subscriber.";
        self.family("queue_limit_events", "gauge", help, each(|queue| queue.most));
    }

    fn outputs(&mut self, run: &RunVitals) {
        let each = |value: fn(&OutputVitals) -> u64| {
            let sample = move |output: &OutputVitals| (labels(&[("output", &output.name)]), value(output));
            run.outputs.iter().map(sample).collect::<Vec<_>>()
        };
        let help = "Whether the last delivery of an output succeeded.";
        self.family("output_up", "gauge", help, each(|output| u64::from(output.is_up)));
        let help = "Events that an output has delivered.";
        self.family("output_delivered_total", "counter", help, each(|output| output.delivered));
        let help = "Bytes that an output has encoded and not delivered.";
        self.family("output_spool_bytes", "gauge", help, each(|output| output.spooled as u64));
    }

    fn store(&mut self, store: &StoreVitals) {
        let one = |value| [(String::new(), value)];
        self.family("store_up", "gauge", "Whether the store accepts writes.", one(u64::from(store.is_well)));
        self.family("store_size_bytes", "gauge", "Size of the files of the store.", one(store.bytes));
        let since = store.last_sync.and_then(|at| at.duration_since(SystemTime::UNIX_EPOCH).ok());
        let help = "When the store was last synced to the disk.";
        let seconds = since.map(|since| (String::new(), since.as_secs()));
        self.family("store_last_sync_timestamp_seconds", "gauge", help, seconds);
    }
}
