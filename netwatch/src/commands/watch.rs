//! `netwatch watch`: the live log.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::fcntl::{FcntlArg, fcntl};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until};

use crate::agent::{Agent, SelfTest, Started};
use crate::kernel::{Options, WAKE};
use crate::output::{Log, LogOptions, Ready, SinkError};

/// What to log, and for how long.
#[derive(Debug)]
pub struct WatchOptions {
    /// For the kernel side.
    pub kernel: Options,
    /// What was there before is told too.
    pub seeds: bool,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// What the log shows, and how.
    pub log: LogOptions,
}

/// Losses are looked for this often, and what a slow reader left waiting is offered to it again.
const TICK: Duration = Duration::from_millis(50);

/// What anybody may ask for: `fs.pipe-max-size`.
const PIPE_BYTES: i32 = 1 << 20;

/// Records that are taken in before anything else is looked after: a fraction of a tick's work.
const BATCH: usize = 2048;

/// Logs until it is told to stop: by a signal, the options, or a reader who closed the pipe.
///
/// # Errors
/// Where the probes cannot be had, or the output fails.
pub fn run(options: WatchOptions) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(watch(options))
}

async fn watch(options: WatchOptions) -> Result<ExitCode> {
    // From here on a signal ends the run in good order, even before there is anything to end.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let end = options.duration.map(|duration| Instant::now() + duration);

    let (mut agent, started) = Agent::start(&options.kernel)?;
    // A flood needs fewer changes between writer and reader. Refused where stdout is no pipe.
    let _ = fcntl(io::stdout(), FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    let mut log = Log::new(options.log, io::stdout())?;
    begin(&agent, &started, options.seeds, &mut log)?;
    drop(started);

    let readiness = agent.readiness()?;
    // SAFETY: an owned descriptor names the same open file until it is dropped.
    let readiness = unsafe { AsyncFd::register_with_interest(readiness, Interest::READABLE) }
        .context("cannot wait for the ring")?;
    let mut ticks = interval(TICK);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut events = Vec::new();
    // The kernel side wakes nobody for what follows soon.
    let mut looks = Looks::default();
    while !log.is_full() {
        let mut tick = false;
        tokio::select! {
            // Signals first, so that a flood does not hold them up.
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = until(end) => break,
            failure = log.sink().attend() => return closed(failure),
            _ = ticks.tick() => tick = true,
            () = looks.next() => {}
            ready = readiness.readable() => ready.context("cannot wait for the ring")?.clear_ready(),
        }
        // The readiness was cleared before the ring is emptied: what comes meanwhile sets it again.
        let before = agent.taken();
        while agent.take(BATCH, &mut events) {
            tell(&mut events, &mut log)?;
            if ticks_are_due(&mut ticks) || log.is_full() {
                tick = true;
                break;
            }
        }
        tell(&mut events, &mut log)?;
        looks.note(agent.taken() != before);
        if tick {
            match agent.tick(&mut events) {
                Ok(losses) => losses.iter().try_for_each(|loss| log.loss(jiff::Timestamp::now(), loss))?,
                Err(error) => {
                    complain(&format!("a look at the host failed, it will be tried again: {error:#}"));
                }
            }
            tell(&mut events, &mut log)?;
            log.tell_missed()?;
            log.follow_clock()?;
            log.flush();
        }
    }
    // Which detaches the probes, before the reader is waited for.
    let losses = agent.finish(&mut events)?;
    tell(&mut events, &mut log)?;
    losses.iter().try_for_each(|loss| log.loss(jiff::Timestamp::now(), loss))?;
    log.finish().map_or_else(closed, |()| Ok(ExitCode::SUCCESS))
}

/// `ready`, then what was there before, then what happened meanwhile.
fn begin(agent: &Agent, started: &Started, seeds: bool, log: &mut Log) -> Result<()> {
    for note in &started.notes {
        complain(&note.to_string());
    }
    match &started.self_test {
        SelfTest::Passed(_) => {}
        SelfTest::Missing(missing) => complain(&format!(
            "the probes are attached, but of a connection of netwatch's own no record came of: {}; \
             run `netwatch doctor`",
            missing.join(", ")
        )),
        // What is read wrongly of this is read wrongly of all.
        SelfTest::Misread(wrong) => bail!(
            "the kernel side reads what is not there, so nothing it says could be trusted: {}; please report \
             it with the kernel's version",
            wrong.join(", ")
        ),
        SelfTest::NotDone(why) => {
            complain(&format!("the self-test could not be done (is loopback up?): {why}"));
        }
    }
    log.ready(Ready { coverage: agent.coverage(), seeded: started.seeds.len() })?;
    if seeds {
        started.seeds.iter().try_for_each(|event| log.connection(event))?;
    }
    started.events.iter().try_for_each(|event| log.connection(event))?;
    log.flush();
    Ok(())
}

fn tell(events: &mut Vec<crate::tracker::ConnectionEvent>, log: &mut Log) -> Result<()> {
    log.begin();
    for event in events.drain(..) {
        log.connection(&event)?;
    }
    log.flush();
    Ok(())
}

/// Whether a tick has come due, without waiting for it.
fn ticks_are_due(ticks: &mut tokio::time::Interval) -> bool {
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    ticks.poll_tick(&mut context).is_ready()
}

/// When the ring is looked into though nobody was woken: as often as the kernel side wakes at the most, and until for
/// three times as long nothing came.
#[derive(Default)]
struct Looks {
    until: Option<Instant>,
}

impl Looks {
    fn note(&mut self, found: bool) {
        let now = Instant::now();
        if found {
            self.until = Some(now + 3 * WAKE);
        } else if self.until.is_some_and(|until| until < now) {
            self.until = None;
        }
    }

    async fn next(&self) {
        match self.until {
            Some(_) => tokio::time::sleep(WAKE).await,
            None => std::future::pending().await,
        }
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// A reader who has enough is no failure.
fn closed(failure: SinkError) -> Result<ExitCode> {
    match failure {
        SinkError::Closed => Ok(ExitCode::SUCCESS),
        failed @ SinkError::Failed(_) => Err(failed.into()),
    }
}

fn complain(line: &str) {
    // Nobody can be told that stderr is closed.
    let _ = writeln!(io::stderr(), "netwatch: {line}");
}
