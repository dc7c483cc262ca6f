//! Counts events for Prometheus, and serves the counts.

mod server;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::bus::{Bus, Depth, Receiver, Subscription};
use crate::limits;
use crate::loss::{LossReason, OutputKind};
use crate::output::metrics::{self, Counts, OutputVitals, QueueVitals, RunVitals, StoreVitals};
use crate::sinks::outputs::{Gauges, Outputs};

/// Where metrics are served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MetricsAddress {
    /// TCP, on loopback.
    Tcp(SocketAddr),
    /// A socket at this path.
    Unix(PathBuf),
}

/// Why metrics cannot be served.
#[derive(Debug, Error)]
#[error("cannot serve metrics at {address}")]
pub struct MetricsError {
    address: String,
    #[source]
    source: io::Error,
}

/// How often the state of the run is noted.
const OFTEN: Duration = Duration::from_secs(1);

/// How long the thread waits for items; it has no periodic work.
const IDLE: Duration = Duration::from_secs(60);

/// What is served.
#[derive(Default)]
struct Shared {
    counts: Mutex<Counts>,
    run: Mutex<RunVitals>,
}

impl Shared {
    fn text(&self) -> String {
        metrics::text(&lock(&self.counts), &lock(&self.run))
    }
}

/// The values are always consistent.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The running server. It ends with the process.
pub struct Metrics {
    shared: Arc<Shared>,
    outputs: Vec<(String, Arc<Gauges>)>,
    noted: Option<Instant>,
}

impl Metrics {
    /// Subscribes to the bus, and serves what is counted.
    ///
    /// # Errors
    /// If the address cannot be listened on.
    pub fn start(address: &MetricsAddress, outputs: &Outputs, bus: &mut Bus) -> Result<Self, MetricsError> {
        let name = match address {
            MetricsAddress::Tcp(address) => address.to_string(),
            MetricsAddress::Unix(path) => path.display().to_string(),
        };
        let failed = |source| MetricsError { address: name.clone(), source };
        let receiver = bus.subscribe(Subscription {
            reason: LossReason::Output(OutputKind::Metrics),
            most_waiting: limits::METRICS_ITEMS,
            is_announced: true,
            sees_all: false,
        });
        let shared = Arc::<Shared>::default();
        let served = shared.clone();
        server::start(address, move || served.text()).map_err(failed)?;
        let counted = shared.clone();
        let thread = std::thread::Builder::new().name("netwatch-count".into());
        thread.spawn(move || count(&receiver, &counted)).map_err(failed)?;
        let mut names = BTreeMap::<_, usize>::new();
        let outputs = outputs.gauges().map(|(kind, gauges)| {
            let nth = names.entry(kind).and_modify(|nth| *nth += 1).or_insert(1);
            let name = if *nth == 1 { kind.name().to_owned() } else { format!("{}-{nth}", kind.name()) };
            (name, gauges)
        });
        let outputs = outputs.collect();
        Ok(Self { shared, outputs, noted: None })
    }

    /// Notes the state of the run, at most once a second.
    pub fn note(&mut self, records: u64, depths: Vec<Depth>, store: impl FnOnce() -> Option<StoreVitals>) {
        if self.noted.is_some_and(|noted| noted.elapsed() < OFTEN) {
            return;
        }
        self.noted = Some(Instant::now());
        let mut queues = BTreeMap::<_, QueueVitals>::new();
        for depth in depths {
            let queue = queues.entry(depth.reason.name()).or_default();
            queue.waiting += depth.waiting;
            queue.most += depth.most;
        }
        let outputs = self.outputs.iter().map(|(name, gauges)| OutputVitals {
            name: name.clone(),
            delivered: gauges.delivered.load(Ordering::Relaxed),
            spooled: gauges.spooled.load(Ordering::Relaxed),
            is_up: !gauges.is_down.load(Ordering::Relaxed),
        });
        let run = RunVitals { records, queues, outputs: outputs.collect(), store: store() };
        *lock(&self.shared.run) = run;
    }
}

fn count(receiver: &Receiver, shared: &Shared) {
    loop {
        let gathered = receiver.gather(1, Duration::ZERO, IDLE);
        for batch in gathered.batches {
            let mut counts = lock(&shared.counts);
            batch.items.iter().for_each(|item| counts.add(item));
            drop(counts);
            receiver.release(batch.items.len());
        }
        if gathered.is_over {
            return;
        }
    }
}
