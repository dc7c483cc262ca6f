//! Runs a live pipeline: events of the agent pass the enrichment stages and the filter and are published on the bus,
//! until a signal, the time limit or a subscriber ends the run.
//!
//! ```text
//! agent ──► enrich* ──► filter ──► bus ──► subscribers
//! ```

mod schedule;
mod vitals;

use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep_until};

use crate::agent::{Agent, Started};
use crate::bus::{self, Bus};
use crate::enrich::Stage;
use crate::filter::Filter;
use crate::kernel::Options;
use crate::loss::{Loss, LossReason};
use crate::process::ExeStatus;
use crate::rights::{self, Need};
use crate::rules::Rules;
use crate::stderr;
use crate::stream::{Batch, Context, Item, Ready};
use crate::tracker::ConnectionEvent;
use schedule::{Polls, Ticks};

pub use vitals::Vitals;
use vitals::report_self_test;

/// Maximum number of records that are read before the loop checks signals and ticks.
const BATCH: usize = 2048;

/// How long the start waits for subscribers to take in what existed before.
const SEED_PATIENCE: Duration = Duration::from_secs(2);

/// Pause between two checks whether they have.
const SEED_PAUSE: Duration = Duration::from_millis(1);

/// A live run.
pub struct Pipeline<'a> {
    /// Options of the kernel side.
    pub kernel: &'a Options,
    /// Whether to emit `seed` events for existing sockets.
    pub seeds: bool,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Events that are published.
    pub filter: Filter,
    /// Enrichment, which runs before the filter.
    pub stages: Vec<Box<dyn Stage>>,
    /// Boot id, clock and user names at the start.
    pub context: Context,
    /// The command, for errors.
    pub command: &'static str,
    /// A capability that its subscribers need besides those of the engine.
    pub also: Option<Need>,
    /// Whether a subscriber takes connections.
    pub serves: bool,
}

/// The hooks of a command, which run on the thread of the engine and must not block.
pub trait Supervisor {
    /// Called when the probes are attached.
    fn ready(&mut self) {}

    /// Called at each tick: 20 times a second, or twice on an idle host.
    fn tick(&mut self, _: Vitals) {}

    /// The rules, whose alerts are published.
    fn rules(&mut self) -> Option<&mut Rules> {
        None
    }

    /// Called when the bus is closed; waits for the subscribers.
    ///
    /// # Errors
    /// The error of a subscriber.
    fn finish(self) -> Result<()>;
}

/// Runs until a signal, the time limit, or until a subscriber ends. `compose` subscribes to the bus; it is called after
/// the signal handlers are installed and before the probes are attached.
///
/// # Errors
/// If the probes cannot be attached, or a subscriber failed.
pub fn run<S: Supervisor>(pipeline: Pipeline<'_>, compose: impl FnOnce(&mut Bus) -> Result<S>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(drive(pipeline, compose))
}

async fn drive<S: Supervisor>(
    pipeline: Pipeline<'_>,
    compose: impl FnOnce(&mut Bus) -> Result<S>,
) -> Result<()> {
    let Pipeline { kernel, seeds, duration, filter, stages, context, command, also, serves } = pipeline;
    report_missing(command)?;
    // From here on a signal ends the run in order.
    let mut stop = Stop {
        interrupt: signal(SignalKind::interrupt())?,
        terminate: signal(SignalKind::terminate())?,
        end: duration.map(|duration| Instant::now() + duration),
    };
    let mut bus = Bus::new(filter);
    let mut supervisor = compose(&mut bus)?;
    let mut flow = Flow { stages, bus, batch: Batch { context, items: Vec::new() } };
    let start = Start { kernel, seeds, also, serves };
    let followed = follow(start, &mut stop, &mut flow, &mut supervisor).await;
    // Subscribers end when the bus is closed, whatever happened, and are given the time to.
    if followed.is_ok() {
        flow.last_alerts(&mut supervisor);
        flow.bus.close(&flow.batch.context);
    } else {
        drop(flow);
    }
    let finished = supervisor.finish();
    followed.and(finished)
}

/// What ends a run from outside.
struct Stop {
    interrupt: Signal,
    terminate: Signal,
    end: Option<Instant>,
}

/// How a run starts.
struct Start<'a> {
    kernel: &'a Options,
    seeds: bool,
    also: Option<Need>,
    serves: bool,
}

/// Reports capabilities without which a command with probes sees less.
///
/// # Errors
/// Names those without which it cannot run.
pub fn report_missing(command: &str) -> Result<()> {
    match rights::require() {
        Err(lacks) => bail!("{command} lacks {lacks}: run it as root"),
        Ok(Some(lacks)) => complain(&format!("{command} lacks {lacks}: it sees less of other users")),
        Ok(None) => {}
    }
    Ok(())
}

/// Hands on what the agent emits until the run ends.
async fn follow(
    start: Start<'_>,
    stop: &mut Stop,
    flow: &mut Flow,
    supervisor: &mut impl Supervisor,
) -> Result<()> {
    let (mut agent, started) = Agent::start(start.kernel)?;
    let has_rules = supervisor.rules().is_some();
    if has_rules {
        agent.note_executed();
    }
    let stage = if start.serves { &rights::SCRAPED } else { &rights::LIVE };
    rights::give_up(stage, &[], start.also);
    flow.begin(&agent, started, start.seeds)?;
    supervisor.ready();

    let readiness = agent.readiness()?;
    // SAFETY: an owned descriptor refers to the same open file until it is dropped.
    let readiness = unsafe { AsyncFd::register_with_interest(readiness, Interest::READABLE) }
        .context("cannot wait for the ring")?;
    let mut ticks = Ticks::begin();
    let mut polls = Polls::default();
    let mut events = Vec::new();
    while !flow.bus.has_lost_one() {
        let mut is_tick = false;
        tokio::select! {
            // Signals first, so that a flood of records does not delay them.
            biased;
            _ = stop.interrupt.recv() => break,
            _ = stop.terminate.recv() => break,
            () = until(stop.end) => break,
            () = flow.bus.attention() => {}
            () = sleep_until(ticks.due) => is_tick = true,
            () = polls.next() => {}
            ready = readiness.readable() => ready.context("cannot wait for the ring")?.clear_ready(),
        }
        // Readiness was cleared before the ring is drained: a record that arrives in between sets it again.
        let before = agent.taken();
        while agent.take(BATCH, &mut events) {
            flow.publish(&mut events);
            flow.executed(&mut agent, has_rules);
            if ticks.due <= Instant::now() || flow.bus.has_lost_one() {
                is_tick = true;
                break;
            }
        }
        flow.publish(&mut events);
        flow.executed(&mut agent, has_rules);
        flow.alerts(supervisor);
        let came = agent.taken() != before;
        polls.note(came);
        ticks.note(came);
        flow.answer_requests(&agent);
        if is_tick {
            flow.tick(&mut agent, &mut events)?;
            supervisor.tick(Vitals { records: agent.taken(), queues: flow.bus.depths().collect() });
            ticks.done(agent.is_healing());
        }
    }
    // Detaches the probes before waiting for subscribers.
    let losses = agent.finish(&mut events)?;
    flow.publish(&mut events);
    flow.lost(losses);
    flow.alerts(supervisor);
    Ok(())
}

/// The path from the agent to the bus.
struct Flow {
    stages: Vec<Box<dyn Stage>>,
    bus: Bus,
    /// Reused for every publication.
    batch: Batch,
}

impl Flow {
    /// Publishes `ready`, then the seeds, then the events since the probes were attached.
    fn begin(&mut self, agent: &Agent, mut started: Started, seeds: bool) -> Result<()> {
        for note in &started.notes {
            complain(&note.to_string());
        }
        report_self_test(&started.self_test)?;
        let coverage = agent.coverage();
        self.batch.items.push(Item::Ready(Ready {
            probes: coverage.jobs.iter().map(|(job, covered)| (*job, covered.probe)).collect(),
            unseen: coverage.unseen(),
            seeded: started.seeds.len(),
        }));
        if seeds {
            self.publish_seeds(started.seeds);
        }
        self.publish(&mut started.events);
        Ok(())
    }

    /// Publishes what existed before, which may be more than a queue holds: this waits for subscribers, but not for
    /// long, since the ring fills up meanwhile.
    fn publish_seeds(&mut self, seeds: Vec<ConnectionEvent>) {
        let deadline = Instant::now() + SEED_PATIENCE;
        let mut seeds = seeds.into_iter();
        loop {
            let mut events: Vec<_> = seeds.by_ref().take(bus::BATCH).collect();
            if events.is_empty() {
                return;
            }
            self.publish(&mut events);
            until_room(|| self.bus.has_room(), deadline);
        }
    }

    /// Publishes what is in the batch, then `events`.
    fn publish(&mut self, events: &mut Vec<ConnectionEvent>) {
        self.batch.items.extend(events.drain(..).map(Item::Event));
        if self.batch.items.is_empty() {
            return;
        }
        for stage in &mut self.stages {
            stage.enrich(&mut self.batch);
        }
        self.bus.publish(&mut self.batch);
    }

    /// Publishes programs that were executed.
    fn executed(&mut self, agent: &mut Agent, has_rules: bool) {
        if !has_rules {
            return;
        }
        let (programs, missed) = agent.executed();
        self.batch.items.extend(programs.into_iter().map(|(at, process)| Item::Exec(at, process)));
        self.publish(&mut Vec::new());
        if missed > 0 {
            self.lost(vec![Loss::new(LossReason::Rules, [("exec", missed)].into())]);
        }
    }

    /// Publishes what rules have found.
    fn alerts(&mut self, supervisor: &mut impl Supervisor) {
        let Some(rules) = supervisor.rules() else { return };
        self.batch.items.extend(rules.take().into_iter().map(|alert| Item::Alert(Box::new(alert))));
        self.publish(&mut Vec::new());
    }

    /// Lets rules see the rest of the stream, and publishes what they find in it.
    fn last_alerts(&mut self, supervisor: &mut impl Supervisor) {
        self.bus.close_for_those_that_see_all(&self.batch.context);
        if let Some(rules) = supervisor.rules() {
            rules.wait();
        }
        self.alerts(supervisor);
    }

    fn lost(&mut self, losses: Vec<Loss>) {
        let now = Timestamp::now();
        self.batch.items.extend(losses.into_iter().map(|loss| Item::Loss(now, loss)));
        self.publish(&mut Vec::new());
    }

    /// Publishes losses, then events of a repair, then processes.
    fn tick(&mut self, agent: &mut Agent, events: &mut Vec<ConnectionEvent>) -> Result<()> {
        let (losses, repaired) = agent.tick(events);
        self.lost(losses);
        if let Err(error) = repaired {
            complain(&format!("cannot take a snapshot of the host, will retry: {error:#}"));
        }
        self.publish(events);
        for process in agent.started_on_sockets() {
            let (state, world_writable) = (process.image.exe_state, false);
            self.batch.items.push(Item::Process(process, ExeStatus { state, world_writable }));
        }
        self.publish(events);
        let context = &mut self.batch.context;
        context.clock = context.clock.corrected()?;
        self.bus.report_missed(context);
        Ok(())
    }

    /// Sends the table of endpoints to subscribers that requested it.
    fn answer_requests(&mut self, agent: &Agent) {
        let Self { bus, stages, batch, .. } = self;
        bus.answer_requests(|| {
            let mut table = Batch { context: batch.context.clone(), items: vec![Item::Table(agent.table())] };
            stages.iter_mut().for_each(|stage| stage.enrich(&mut table));
            table
        });
    }
}

async fn until(end: Option<Instant>) {
    match end {
        Some(end) => sleep_until(end).await,
        None => std::future::pending().await,
    }
}

/// Prints one line on stderr, without waiting for it.
pub fn complain(line: &str) {
    stderr::print(&format!("netwatch: {line}"));
}

fn until_room(has_room: impl Fn() -> bool, deadline: Instant) {
    while !has_room() && Instant::now() < deadline {
        std::thread::sleep(SEED_PAUSE);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn subscribers_are_waited_for_until_the_deadline() {
        let looks = Cell::new(0);
        let has_room = |enough: u32| {
            looks.set(looks.get() + 1);
            looks.get() >= enough
        };
        until_room(|| has_room(3), Instant::now() + Duration::from_secs(20));
        assert_eq!(looks.take(), 3);
        // It ends although nobody takes anything.
        let deadline = Instant::now() + Duration::from_millis(5);
        until_room(|| has_room(u32::MAX), deadline);
        assert!(Instant::now() >= deadline && looks.take() > 0);
        until_room(|| has_room(u32::MAX), deadline);
        assert_eq!(looks.get(), 1);
    }
}
