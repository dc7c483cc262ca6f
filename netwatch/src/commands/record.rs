//! `netwatch record`: the same log into the store, for days; the daemon that a service manager runs.

use std::io;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use jiff::Timestamp;
use sd_notify::NotifyState;

use super::follow::{self, FinishError, Listener, complain};
use super::watch::widen_stdout;
use crate::agent::Agent;
use crate::filter::Filter;
use crate::kernel::Options;
use crate::loss::Loss;
use crate::output::{Log, LogOptions, Ready, SinkError, boot};
use crate::process::Process;
use crate::process::found::Looks;
use crate::process::view::BootClock;
use crate::store::{Recorder, Retention, Settings, Status};
use crate::tracker::ConnectionEvent;

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
pub fn run(options: RecordOptions) -> Result<ExitCode> {
    let RecordOptions { kernel, store, retention, filter, filter_words, print } = options;
    take_precedence();
    follow::run(&kernel, true, None, || {
        let clock = BootClock::now()?;
        let looks = Looks::default();
        let settings = Settings { retention, boot: boot(), filter: filter_words, clock };
        let recorder = Recorder::start(&store, settings, looks.clone())?;
        let log = match print {
            Some(options) => {
                widen_stdout();
                Some(Log::beside(options, clock, looks.clone(), io::stdout())?)
            }
            None => None,
        };
        let watchdog = Watchdog::of_service_manager();
        let status = Status::Well;
        Ok(Recording { recorder: Some(recorder), log, store, filter, looks, clock, status, watchdog })
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

struct Recording {
    /// `None` once it has ended.
    recorder: Option<Recorder>,
    log: Option<Log>,
    store: PathBuf,
    filter: Filter,
    looks: Looks,
    clock: BootClock,
    status: Status,
    watchdog: Option<Watchdog>,
}

impl Listener for Recording {
    fn ready(&mut self, agent: &Agent, seeded: usize) -> Result<()> {
        match &mut self.log {
            Some(log) => {
                log.ready(Ready { coverage: agent.coverage(), seeded })?;
                log.flush();
            }
            None => complain(&format!("recording to {}", self.store.display())),
        }
        tell_service_manager(&[NotifyState::Ready]);
        Ok(())
    }

    fn tell(&mut self, events: &mut Vec<ConnectionEvent>) -> Result<()> {
        self.looks.refresh();
        for event in events.drain(..) {
            if !self.filter.shows(&event) {
                continue;
            }
            if let Some(log) = &mut self.log {
                log.connection(&event)?;
            }
            if let Some(recorder) = &mut self.recorder {
                recorder.event(event);
            }
        }
        self.flush()
    }

    fn started(&mut self, processes: Vec<Arc<Process>>) {
        self.looks.refresh();
        if let Some(recorder) = &mut self.recorder {
            processes
                .iter()
                .filter(|process| self.filter.shows_process(process))
                .for_each(|process| recorder.process(process));
        }
    }

    fn lost(&mut self, losses: &[Loss]) -> Result<()> {
        let now = Timestamp::now();
        for loss in losses {
            if let Some(recorder) = &mut self.recorder {
                recorder.loss(now, loss);
            }
            if let Some(log) = &mut self.log {
                log.loss(now, loss)?;
            }
        }
        Ok(())
    }

    fn tick(&mut self) -> Result<()> {
        let clock = self.clock.corrected()?;
        if clock != self.clock {
            self.clock = clock;
            if let Some(recorder) = &mut self.recorder {
                recorder.clock(clock);
            }
            if let Some(log) = &mut self.log {
                log.set_clock(clock);
            }
        }
        self.flush()?;
        if let Some(log) = &mut self.log {
            log.tell_missed()?;
            log.flush();
        }
        self.look_after_writer()?;
        if let Some(watchdog) = &mut self.watchdog {
            watchdog.feed();
        }
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.log.as_ref().is_some_and(Log::is_full)
    }

    async fn attend(&mut self) -> SinkError {
        match &mut self.log {
            Some(log) => log.sink().attend().await,
            None => std::future::pending().await,
        }
    }

    fn finish(mut self) -> Result<(), FinishError> {
        tell_service_manager(&[NotifyState::Stopping]);
        let written = self.recorder.take().map_or(Ok(()), Recorder::finish);
        let printed = self.log.take().map_or(Ok(()), Log::finish);
        written.map_err(|error| FinishError::Other(error.into()))?;
        printed.map_err(FinishError::Sink)
    }
}

impl Recording {
    fn flush(&mut self) -> Result<()> {
        let lost = self.recorder.as_mut().and_then(Recorder::flush);
        if let Some(log) = &mut self.log {
            if let Some((time, loss)) = lost {
                log.loss(time, &loss)?;
            }
            log.flush();
        }
        Ok(())
    }

    /// Says once that the store takes nothing, and once that it does again.
    fn look_after_writer(&mut self) -> Result<()> {
        let Some(recorder) = &self.recorder else { return Ok(()) };
        let status = recorder.status();
        if status == self.status {
            return Ok(());
        }
        match (&self.status, &status) {
            (_, Status::Ended) => {
                let ended = self.recorder.take().map(Recorder::finish);
                return Err(match ended {
                    Some(Err(error)) => error.into(),
                    _ => anyhow!("the store takes nothing any more: start anew"),
                });
            }
            (Status::Well, Status::Stuck(why)) => complain(&format!(
                "{why}; it is tried again, and what finds no room meanwhile is counted as lost"
            )),
            (Status::Stuck(_), Status::Well) => complain("the store takes records again"),
            _ => return Ok(()),
        }
        self.status = status;
        Ok(())
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
            tell_service_manager(&[NotifyState::Watchdog]);
        }
    }
}

fn tell_service_manager(state: &[NotifyState<'_>]) {
    // Where there is none there is nobody to tell.
    if let Err(error) = sd_notify::notify(state) {
        log::debug!("sd_notify: {error}");
    }
}
