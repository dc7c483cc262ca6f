//! `netwatch record`: the same log into the store, for days; the daemon that a service manager runs.

use std::io;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::Result;
use sd_notify::NotifyState;

use super::watch::widen_stdout;
use crate::boot;
use crate::engine::{self, Pipeline, Supervisor, complain};
use crate::enrich;
use crate::filter::Filter;
use crate::kernel::Options;
use crate::output::LogOptions;
use crate::sinks::Print;
use crate::store::{Recorder, Retention, Settings, Status};
use crate::stream::Context;

/// What to record, where, and how much of it is kept.
#[derive(Debug)]
pub struct RecordOptions {
    /// For the kernel side.
    pub kernel: Options,
    /// The database.
    pub store: PathBuf,
    /// How much is kept.
    pub retention: Retention,
    /// What is recorded.
    pub filter: Filter,
    /// The same in words, for whoever reads the store; `None`: everything.
    pub filter_words: Option<String>,
    /// How to print what is recorded, where that is asked for. What the filter hides is hidden here as well.
    pub print: Option<LogOptions>,
}

/// Records until it is told to stop, by a signal or by a reader who closed the pipe.
///
/// # Errors
/// Where the store or the probes cannot be had, or nothing can be written any more.
pub fn run(options: RecordOptions) -> Result<()> {
    let RecordOptions { kernel, store, retention, filter, filter_words, print } = options;
    take_precedence();
    let context = Context::of_run(&boot::id())?;
    let settings =
        Settings { retention, boot: context.boot.to_string(), filter: filter_words, clock: context.clock };
    let stages = enrich::live();
    let pipeline = Pipeline { kernel: &kernel, seeds: true, duration: None, filter, stages, context };
    engine::run(pipeline, |bus| {
        let recorder = Recorder::start(&store, settings, bus)?;
        let print = match print {
            Some(options) => {
                widen_stdout();
                Some(Print::start(&options, bus, io::stdout())?)
            }
            None => None,
        };
        let watchdog = Watchdog::of_service_manager();
        Ok(RecordSupervisor { recorder, print, store, status: Status::Well, watchdog })
    })
}

/// Little as a recorder takes, it has to have it soon: behind a few programs that take all there is it would wait for
/// seconds, and what happens meanwhile would find no room. Where it may not, it does without.
fn take_precedence() {
    const NICE: i32 = -10;
    if let Err(error) = rustix::process::setpriority_process(None, NICE) {
        log::debug!("cannot take precedence: {error}");
    }
    // The scheduler shares processors among sessions first (sched(7), autogroup). As a service it is one by itself; in
    // somebody's terminal the session is not for it to change.
    if rustix::process::getsid(None) == Ok(rustix::process::getpid())
        && let Err(error) = std::fs::write("/proc/self/autogroup", NICE.to_string())
    {
        log::debug!("cannot take precedence over other sessions: {error}");
    }
}

struct RecordSupervisor {
    recorder: Recorder,
    print: Option<Print>,
    store: PathBuf,
    status: Status,
    watchdog: Option<Watchdog>,
}

impl Supervisor for RecordSupervisor {
    fn ready(&mut self) {
        if self.print.is_none() {
            complain(&format!("recording to {}", self.store.display()));
        }
        notify_service_manager(&[NotifyState::Ready]);
    }

    fn tick(&mut self) -> Result<()> {
        self.report_status();
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed();
        }
        Ok(())
    }

    fn finish(self) -> Result<()> {
        notify_service_manager(&[NotifyState::Stopping]);
        let written = self.recorder.finish();
        let printed = self.print.map_or(Ok(()), Print::finish);
        written?;
        Ok(printed?)
    }
}

impl RecordSupervisor {
    /// Says once that the store takes nothing, and once that it does again.
    fn report_status(&mut self) {
        let status = self.recorder.status();
        match (&self.status, &status) {
            (Status::Well, Status::Stuck(why)) => complain(&format!(
                "{why}; it is tried again, and what finds no room meanwhile is counted as lost"
            )),
            (Status::Stuck(_), Status::Well) => complain("the store takes records again"),
            // A writer that ended has ended its subscription, and so the run.
            _ => {}
        }
        self.status = status;
    }
}

/// The service manager restarts whoever does not say often enough that he is well.
struct Watchdog {
    often: Duration,
    fed: Instant,
}

impl Watchdog {
    /// `None` where nobody asks for it.
    fn of_service_manager() -> Option<Self> {
        // Twice within the time, as sd_watchdog_enabled(3) advises.
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
    // Where there is none there is nobody to tell.
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("sd_notify: {error}");
    }
}
