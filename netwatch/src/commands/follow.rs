//! The loop of whatever runs as long as it is let: turns the agent's crank, and hands on what it tells.

use std::io::{self, Write as _};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::agent::{Agent, SelfTest, Started};
use crate::kernel::{Options, WAKE};
use crate::loss::Loss;
use crate::output::SinkError;
use crate::process::Process;
use crate::tracker::ConnectionEvent;

/// Where what the agent tells goes.
pub(super) trait Listener {
    /// It runs. What was there before, and what happened meanwhile, is told next.
    fn ready(&mut self, agent: &Agent, seeded: usize) -> Result<()>;

    /// Something happened; takes all of it.
    fn tell(&mut self, events: &mut Vec<ConnectionEvent>) -> Result<()>;

    /// Processes were started on sockets.
    fn started(&mut self, processes: Vec<Arc<Process>>);

    /// Something was lost.
    fn lost(&mut self, losses: &[Loss]) -> Result<()>;

    /// Several times a second, or now and then while nothing happens.
    fn tick(&mut self) -> Result<()>;

    /// It wants no more.
    fn is_full(&self) -> bool;

    /// Waits until nothing more can be printed, perhaps forever.
    async fn attend(&mut self) -> SinkError;

    /// The end: everything was told.
    fn finish(self) -> Result<(), FinishError>;
}

/// Why what was told did not get where it belongs.
pub(super) enum FinishError {
    /// The output.
    Sink(SinkError),
    /// Anything else.
    Other(anyhow::Error),
}

/// Losses are looked for this often, what waits for something to become known is told, and what a slow reader left
/// waiting is offered to it again.
const TICK: Duration = Duration::from_millis(50);

/// The same while nothing happens of which there could be anything to tell: it is most of what a quiet host pays.
const QUIET_TICK: Duration = Duration::from_millis(500);

/// For so long after a record something may have to be told that no other record brings: what the tracker holds back, and
/// a loss, which is looked for four times a second.
const LIVELY: Duration = Duration::from_millis(300);

/// Records that are taken in before anything else is looked after: a fraction of a tick's work.
const BATCH: usize = 2048;

/// Runs until it is told to stop: by a signal, the options, or a reader who closed the pipe. `listener` is made once
/// signals are looked after, and before the agent starts.
///
/// # Errors
/// Where the probes cannot be had, or the listener fails.
pub(super) fn run<L: Listener>(
    kernel: &Options,
    seeds: bool,
    duration: Option<Duration>,
    listener: impl FnOnce() -> Result<L>,
) -> Result<ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(follow(kernel, seeds, duration, listener))
}

async fn follow<L: Listener>(
    kernel: &Options,
    seeds: bool,
    duration: Option<Duration>,
    listener: impl FnOnce() -> Result<L>,
) -> Result<ExitCode> {
    // From here on a signal ends the run in good order, even before there is anything to end.
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    let end = duration.map(|duration| Instant::now() + duration);

    let mut listener = listener()?;
    let (mut agent, started) = Agent::start(kernel)?;
    begin(&agent, started, seeds, &mut listener)?;

    let readiness = agent.readiness()?;
    // SAFETY: an owned descriptor names the same open file until it is dropped.
    let readiness = unsafe { AsyncFd::register_with_interest(readiness, Interest::READABLE) }
        .context("cannot wait for the ring")?;
    let mut ticks = Ticks::begin();
    let mut events = Vec::new();
    // The kernel side wakes nobody for what follows soon.
    let mut looks = Looks::default();
    while !listener.is_full() {
        let mut tick = false;
        tokio::select! {
            // Signals first, so that a flood does not hold them up.
            biased;
            _ = interrupt.recv() => break,
            _ = terminate.recv() => break,
            () = until(end) => break,
            failure = listener.attend() => {
                // A reader who has enough is no failure, and whatever else listens ends in good order.
                drop(agent);
                return ended(listener.finish().and(Err(FinishError::Sink(failure))));
            }
            () = sleep_until(ticks.due) => tick = true,
            () = looks.next() => {}
            ready = readiness.readable() => ready.context("cannot wait for the ring")?.clear_ready(),
        }
        // The readiness was cleared before the ring is emptied: what comes meanwhile sets it again.
        let before = agent.taken();
        while agent.take(BATCH, &mut events) {
            listener.tell(&mut events)?;
            if ticks.due <= Instant::now() || listener.is_full() {
                tick = true;
                break;
            }
        }
        listener.tell(&mut events)?;
        let found = agent.taken() != before;
        looks.note(found);
        ticks.note(found);
        if tick {
            match agent.tick(&mut events) {
                Ok(losses) => listener.lost(&losses)?,
                Err(error) => {
                    complain(&format!("a look at the host failed, it will be tried again: {error:#}"));
                }
            }
            listener.tell(&mut events)?;
            listener.started(agent.started_on_sockets());
            listener.tick()?;
            ticks.done(agent.is_healing());
        }
    }
    // Which detaches the probes, before any reader is waited for.
    let losses = agent.finish(&mut events)?;
    listener.tell(&mut events)?;
    listener.lost(&losses)?;
    ended(listener.finish())
}

/// `ready`, then what was there before, then what happened meanwhile.
fn begin(agent: &Agent, mut started: Started, seeds: bool, listener: &mut impl Listener) -> Result<()> {
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
    listener.ready(agent, started.seeds.len())?;
    if seeds {
        listener.tell(&mut started.seeds)?;
    }
    listener.tell(&mut started.events)
}

/// When everything is looked after that no record brings about.
struct Ticks {
    due: Instant,
    lively_until: Instant,
}

impl Ticks {
    fn begin() -> Self {
        let now = Instant::now();
        Self { due: now, lively_until: now + LIVELY }
    }

    fn note(&mut self, found: bool) {
        if found {
            let now = Instant::now();
            self.lively_until = now + LIVELY;
            self.due = self.due.min(now + TICK);
        }
    }

    fn done(&mut self, is_healing: bool) {
        let now = Instant::now();
        self.due = now + if is_healing || now < self.lively_until { TICK } else { QUIET_TICK };
    }
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

fn ended(finished: Result<(), FinishError>) -> Result<ExitCode> {
    match finished {
        Ok(()) | Err(FinishError::Sink(SinkError::Closed)) => Ok(ExitCode::SUCCESS),
        Err(FinishError::Sink(failed @ SinkError::Failed(_))) => Err(failed.into()),
        Err(FinishError::Other(error)) => Err(error),
    }
}

pub(super) fn complain(line: &str) {
    // Nobody can be told that stderr is closed.
    let _ = writeln!(io::stderr(), "netwatch: {line}");
}
