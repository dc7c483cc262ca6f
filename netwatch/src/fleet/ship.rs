//! Ships a store to a server: from the store, which is the spool, on a thread of its own.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::check::Checked;
use super::cursor::Cursor;
use super::identity::Identity;
use super::server::{Insertion, Server, ServerError, ServerOptions};
use super::shipment::{Part, Shipment, Sign, sign};
use crate::retry::Retry;
use crate::store::{Reader, StoreError};
use crate::{limits, rights, stderr};

/// What is shipped, and where to.
#[derive(Clone, Debug)]
pub struct ShipOptions {
    /// The server.
    pub server: ServerOptions,
    /// Bytes a second at most, before compression; `None`: no limit.
    pub rate: Option<u64>,
    /// The name of this host; `None`: the host name.
    pub name: Option<String>,
    /// Labels of this host.
    pub labels: Vec<String>,
}

/// A running shipper.
#[derive(Debug)]
pub struct Shipper {
    thread: JoinHandle<()>,
    end: Arc<AtomicBool>,
    is_begun: Arc<AtomicBool>,
}

impl Shipper {
    /// Starts the thread.
    ///
    /// # Errors
    /// If a file of the options cannot be used, or this host has no id.
    pub fn start(options: &ShipOptions, store: PathBuf, boot: String) -> anyhow::Result<Self> {
        let host =
            Identity::of_this_host(options.name.as_deref(), &options.labels).map_err(anyhow::Error::msg)?;
        let server = Server::new(&options.server)?;
        let end = Arc::new(AtomicBool::new(false));
        let mut worker = Worker {
            url: server.url().to_string(),
            server,
            host,
            store,
            boot,
            rate: options.rate,
            checked: None,
            is_down: false,
            retry: Retry::default(),
            signed: None,
            has_said_dropped: 0,
            end: end.clone(),
        };
        let port = options.server.url.port;
        let is_begun = Arc::new(AtomicBool::new(false));
        let begun = is_begun.clone();
        let thread = std::thread::Builder::new().name("netwatch-ship".into()).spawn(move || {
            while !begun.load(Ordering::Relaxed) {
                std::thread::park();
            }
            rights::connect_to_port_only(port);
            worker.run();
        })?;
        Ok(Self { thread, end, is_begun })
    }

    /// Begins, once recording has.
    pub fn begin(&self) {
        self.is_begun.store(true, Ordering::Relaxed);
        self.thread.thread().unpark();
    }

    /// Ships what is left, for a limited time. Call it when the store is written.
    pub fn finish(self) {
        self.end.store(true, Ordering::Relaxed);
        self.begin();
        let deadline = Instant::now() + limits::SHIP_END;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

struct Worker {
    server: Server,
    url: String,
    host: Identity,
    store: PathBuf,
    boot: String,
    rate: Option<u64>,
    checked: Option<Checked>,
    is_down: bool,
    retry: Retry,
    /// When the host last said that it is there.
    signed: Option<Instant>,
    has_said_dropped: u64,
    end: Arc<AtomicBool>,
}

/// Why a round ends early.
enum Stop {
    /// The server has not taken everything.
    Server(ServerError),
    /// The store cannot be read.
    Store(StoreError),
}

impl From<ServerError> for Stop {
    fn from(error: ServerError) -> Self {
        Self::Server(error)
    }
}

impl From<StoreError> for Stop {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Worker {
    fn run(&mut self) {
        loop {
            let is_last = self.end.load(Ordering::Relaxed);
            let pause = match self.round(is_last) {
                Ok(true) => Duration::ZERO,
                Ok(false) => {
                    if self.is_down {
                        self.is_down = false;
                        say(&format!("ship {}: the server takes rows again", self.url));
                    }
                    self.retry.succeeded();
                    jittered(limits::SHIP_PAUSE)
                }
                Err(stop) => {
                    let why = match stop {
                        Stop::Server(error) => error.to_string(),
                        Stop::Store(error) => error.to_string(),
                    };
                    // It may be another server, with other tables, when it is back.
                    self.checked = None;
                    if !self.is_down {
                        self.is_down = true;
                        say(&format!("ship: {why}; retrying; the store keeps what is not shipped"));
                    }
                    let now = Instant::now();
                    self.retry.failed(now, None);
                    jittered(self.retry.wait(now))
                }
            };
            if is_last && (pause > Duration::ZERO || self.is_down) {
                return;
            }
            if !self.end.load(Ordering::Relaxed) {
                std::thread::park_timeout(pause);
            }
        }
    }

    /// Ships what the store has, up to one insertion of each table. Returns whether there is more.
    fn round(&mut self, is_last: bool) -> Result<bool, Stop> {
        let checked = match self.checked {
            Some(checked) => checked,
            None => *self.checked.insert(self.server.check()?),
        };
        // The recorder may have begun another file at this path.
        let reader = Reader::open(&self.store)?;
        let mut cursor = Cursor::begin(&self.store, &self.url, &reader)?;
        let is_due = self.signed.is_none_or(|signed| signed.elapsed() >= limits::SHIP_SIGN);
        // What only shipping causes waits until the host says that it is there.
        let shipment = Shipment::next(&cursor, &self.host, &reader)?
            .filter(|shipment| !shipment.is_own || is_due || is_last || shipment.is_full);
        let is_full = shipment.as_ref().is_some_and(|shipment| shipment.is_full);
        if let Some(shipment) = shipment {
            for part in &shipment.parts {
                self.insert(part, checked)?;
            }
            cursor.dropped += shipment.missing;
            cursor.advance(shipment.last.0, shipment.last.1);
            if let Err(error) = cursor.write(&self.store) {
                log::warn!("the state of shipping cannot be written: {error}");
            }
            if shipment.missing > 0 && cursor.dropped > self.has_said_dropped {
                self.has_said_dropped = cursor.dropped;
                say(&format!(
                    "ship {}: retention deleted {} batches before they were shipped",
                    self.url, shipment.missing
                ));
            }
        }
        if is_due || is_last {
            self.sign(&cursor, &reader, checked)?;
        }
        Ok(is_full)
    }

    fn sign(&mut self, cursor: &Cursor, reader: &Reader, checked: Checked) -> Result<(), Stop> {
        let now = jiff::Timestamp::now().as_nanosecond().try_into().unwrap_or(0);
        let (newest, recorded) = reader.newest_batch()?.unwrap_or((cursor.batch, 0));
        let waiting = newest.saturating_sub(cursor.batch).max(0).cast_unsigned();
        self.insert(&sign(&self.host, cursor, Sign { boot: &self.boot, now, recorded, waiting }), checked)?;
        self.signed = Some(Instant::now());
        Ok(())
    }

    fn insert(&self, part: &Part, checked: Checked) -> Result<(), ServerError> {
        let begun = Instant::now();
        let how = Insertion {
            is_distributed: checked.is_distributed,
            is_gathered: checked.dialect == super::Dialect::Modern && part.rows < GATHERED,
        };
        self.server.insert(part.table.name, &part.table.names(), &part.bytes, how)?;
        if let Some(rate) = self.rate {
            // The next one waits until this one is paid for.
            let costs = Duration::from_secs_f64(part.bytes.len() as f64 / rate.max(1) as f64);
            self.sleep(costs.saturating_sub(begun.elapsed()));
        }
        Ok(())
    }

    /// Until the time is over, or the run ends.
    fn sleep(&self, time: Duration) {
        let until = Instant::now() + time;
        while !self.end.load(Ordering::Relaxed) {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            std::thread::park_timeout(left);
        }
    }
}

/// Rows below which a server of many hosts does better to gather them.
const GATHERED: u64 = 5000;

/// Up to half as much more, so that hosts that lost a server together do not come back together.
fn jittered(pause: Duration) -> Duration {
    let mut byte = [0];
    let _ = rustix::rand::getrandom(&mut byte, rustix::rand::GetRandomFlags::NONBLOCK);
    pause + pause.mul_f64(f64::from(byte[0]) / 512.0)
}

fn say(line: &str) {
    stderr::print(&format!("netwatch: {line}"));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_in_order() {
        // A server that is away costs a round less than it takes to be seen as silent.
        assert!(limits::FLEET_CONNECT < limits::SHIP_SIGN && limits::FLEET_CONNECT < limits::FLEET_ANSWER);
        assert!(limits::SHIP_PAUSE < limits::SHIP_SIGN && limits::SHIP_END <= limits::OUTPUT_WAIT);
        assert!(
            limits::FLEET_APART < limits::FLEET_APART_AT_MOST && limits::FLEET_ROW > Duration::from_secs(1)
        );
        for _ in 0..99 {
            let pause = jittered(limits::SHIP_PAUSE);
            assert!((limits::SHIP_PAUSE..limits::SHIP_PAUSE * 3 / 2).contains(&pause), "{pause:?}");
        }
    }
}
