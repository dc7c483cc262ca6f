//! `netwatch record`: writes events to the store. This is the daemon that a service manager runs.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::Result;
use sd_notify::NotifyState;

use super::rules::{self, RulesOptions};
use super::watch::widen_stdout;
use crate::boot;
use crate::engine::{self, Pipeline, Supervisor, Vitals, complain};
use crate::enrich;
use crate::filter::Filter;
use crate::fleet::{ShipOptions, Shipper};
use crate::kernel::Options;
use crate::output::LogOptions;
use crate::output::metrics::StoreVitals;
use crate::rights;
use crate::rules::Rules;
use crate::sinks::Print;
use crate::sinks::metrics::{Metrics, MetricsAddress};
use crate::sinks::outputs::{self, OutputOptions, Outputs};
use crate::store::{self, Recorder, Retention, Settings, Status};
use crate::stream::Context;

/// Options of `record`.
#[derive(Debug)]
pub struct RecordOptions {
    /// Options of the kernel side.
    pub kernel: Options,
    /// Path of the store.
    pub store: PathBuf,
    /// Seal what is recorded.
    pub seal: bool,
    /// Limits on age and size.
    pub retention: Retention,
    /// Events to record.
    pub filter: Filter,
    /// The filter as command line options, stored with the run; `None`: everything is recorded.
    pub filter_words: Option<String>,
    /// How to print recorded events; `None`: not printed. The filter applies to both.
    pub print: Option<LogOptions>,
    /// Where events are delivered to as well.
    pub outputs: Vec<OutputOptions>,
    /// Where metrics are served.
    pub metrics: Option<MetricsAddress>,
    /// Where what is recorded is shipped to.
    pub ship: Option<ShipOptions>,
    /// Rules that raise alerts.
    pub rules: RulesOptions,
}

/// Records until a signal, or until the reader of the printed events closes the pipe.
///
/// # Errors
/// If the store cannot be opened, the probes cannot be attached, or the writer fails.
pub fn run(options: RecordOptions) -> Result<()> {
    let RecordOptions {
        kernel,
        store,
        seal,
        retention,
        filter,
        filter_words,
        print,
        outputs,
        metrics,
        ship,
        rules,
    } = options;
    let setup = rules.read()?;
    take_precedence();
    let context = Context::of_run(&boot::id())?;
    let (boot, clock) = (context.boot.to_string(), context.clock);
    let settings = Settings { retention, boot, filter: filter_words, clock, seal };
    let stages = enrich::live();
    let folder = store.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
    let also = rights::needed_to_write(folder).or_else(|| outputs::needed_to_write(&outputs));
    let started = context.clone();
    let pipeline = Pipeline {
        kernel: &kernel,
        seeds: true,
        duration: None,
        filter,
        stages,
        context,
        command: "record",
        also,
        serves: metrics.is_some(),
    };
    engine::run(pipeline, |bus| {
        let recorder = Recorder::start(&store, settings, bus)?;
        let print = match print {
            Some(options) => {
                widen_stdout();
                Some(Print::start(&options, bus, io::stdout())?)
            }
            None => None,
        };
        let outputs = Outputs::start(&outputs, bus, &started)?;
        let metrics = match &metrics {
            Some(address) => Some(Metrics::start(address, &outputs, bus)?),
            None => None,
        };
        let boot = started.boot.to_string();
        let rules = rules::start(setup, started, bus)?;
        let shipper = ship.map(|ship| Shipper::start(&ship, store.clone(), boot)).transpose()?;
        let watchdog = Watchdog::of_service_manager();
        let status = Status::Well;
        Ok(RecordSupervisor { recorder, print, outputs, metrics, rules, shipper, store, status, watchdog })
    })
}

/// Raises the scheduling priority. The recorder needs little CPU time, but if it waits for seconds behind busy programs
/// the ring overflows. Without the privilege it runs at normal priority.
fn take_precedence() {
    const NICE: i32 = -10;
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        log::debug!("cannot raise the scheduling priority: {error}");
    }
    // The scheduler divides CPU time among sessions first (sched(7), autogroup). A service is the leader of its
    // session; the session of a user's terminal is left alone.
    if rustix::process::getsid(None) == Ok(rustix::process::getpid())
        && let Err(error) = std::fs::write("/proc/self/autogroup", NICE.to_string())
    {
        log::debug!("cannot raise the priority of the session: {error}");
    }
}

struct RecordSupervisor {
    recorder: Recorder,
    print: Option<Print>,
    outputs: Outputs,
    metrics: Option<Metrics>,
    rules: Option<Rules>,
    shipper: Option<Shipper>,
    store: PathBuf,
    status: Status,
    watchdog: Option<Watchdog>,
}

impl Supervisor for RecordSupervisor {
    fn ready(&mut self) {
        if self.print.is_none() {
            complain(&format!("recording to {}", self.store.display()));
        }
        if let Some(shipper) = &self.shipper {
            shipper.begin();
        }
        notify_service_manager(&[NotifyState::Ready]);
    }

    fn rules(&mut self) -> Option<&mut Rules> {
        self.rules.as_mut()
    }

    fn tick(&mut self, vitals: Vitals) {
        self.report_status();
        if let Some(metrics) = &mut self.metrics {
            let (store, recorder, status) = (&self.store, &self.recorder, &self.status);
            metrics.note(vitals.records, vitals.queues, || {
                Some(StoreVitals {
                    bytes: store::files(store)
                        .iter()
                        .filter_map(|path| Some(path.metadata().ok()?.len()))
                        .sum(),
                    last_sync: recorder.last_sync(),
                    is_well: *status == Status::Well,
                })
            });
        }
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed();
        }
    }

    fn finish(mut self) -> Result<()> {
        notify_service_manager(&[NotifyState::Stopping]);
        self.recorder.wait();
        self.report_notices();
        let written = self.recorder.finish();
        let printed = self.print.map_or(Ok(()), Print::finish);
        self.outputs.finish().iter().for_each(|line| complain(line));
        if let Some(shipper) = self.shipper {
            shipper.finish();
        }
        written?;
        Ok(printed?)
    }
}

impl RecordSupervisor {
    fn report_notices(&self) {
        self.recorder.notices().iter().for_each(|notice| complain(notice));
    }

    /// Reports each change between a store that accepts writes and one that does not, once.
    fn report_status(&mut self) {
        self.report_notices();
        let status = self.recorder.status();
        match (&self.status, &status) {
            (Status::Well, Status::Stuck(why)) => complain(&format!(
                "{why}; retrying; events that cannot be queued meanwhile are counted as lost"
            )),
            (Status::Stuck(_), Status::Well) => complain("the store accepts writes again"),
            // A writer that ended dropped its subscription, which ends the run.
            _ => {}
        }
        self.status = status;
    }
}

/// Sends keep-alive notifications; the service manager restarts a service that stops sending them.
struct Watchdog {
    often: Duration,
    fed: Instant,
}

impl Watchdog {
    /// `None` if the service manager does not use a watchdog.
    fn of_service_manager() -> Option<Self> {
        // Half the timeout, as sd_watchdog_enabled(3) recommends.
        let often = sd_notify::watchdog_enabled()? / 2;
        Some(Self { often, fed: Instant::now() })
    }

    fn feed(&mut self) {
        if self.fed.elapsed() >= self.often / 2 {
            self.fed = Instant::now();
            notify_service_manager(&[NotifyState::Watchdog]);
        }
    }
}

fn notify_service_manager(state: &[NotifyState<'_>]) {
    // Without a service manager this does nothing.
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("sd_notify: {error}");
    }
}
