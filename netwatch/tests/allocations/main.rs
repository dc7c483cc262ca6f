//! Allocations from a record to a line, and to the store: a count, which does not depend on the speed of the machine,
//! and which increases if something shared is copied. The bounds are slightly above what was counted; whoever lowers
//! the cost lowers them.

#![cfg(test)]

mod counted;
mod script;

use std::io;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

use netwatch::bus::Bus;
use netwatch::decode::{Event, decode};
use netwatch::enrich::{self, Executables, Stage};
use netwatch::model::Nat;
use netwatch::output::{Format, Log, LogOptions};
use netwatch::process::ProcessTable;
use netwatch::store::{Ask, Recorder, Retention, Settings, verify};
use netwatch::stream::{Batch, Context, Item};
use netwatch::tracker::{ConnectionEvent, Tracker};

use counted::Alone;
use script::{EVENTS, Script};

/// Connections whose cost is counted, after as many that fill tables and caches. Few enough that the store writes them
/// at once, even to a slow disk: so the allocations of a batch are counted once.
const CONNECTIONS: u64 = 2000;

/// Events per publish.
const BATCH: usize = 1000;

/// 0: a new endpoint reuses the memory of a closed one. The bound allows for a table that grows.
const TRACKED: f64 = 0.002;

/// 0: the writer returns the buffers of lines.
const TO_JSON: f64 = 0.002;

/// 0.011, on all threads: the batches, and closing the store.
const TO_STORE: f64 = 0.02;

/// 38.0, of a process that is forked, executes a program, makes a connection and exits: its strings as decoded and as
/// stored, the check of its executable, and its object, printed once.
const PROCESS: f64 = 42.0;

/// The agent without a kernel: what it does with a record, except that it never reads `/proc`.
struct Agent {
    tracker: Tracker,
    processes: ProcessTable,
    events: Vec<ConnectionEvent>,
}

impl Default for Agent {
    fn default() -> Self {
        Self { tracker: Tracker::new(false), processes: ProcessTable::default(), events: Vec::new() }
    }
}

impl Agent {
    /// Applies the records, and passes the events to `emit`; returns their number.
    fn take(&mut self, records: &[Vec<u8>], mut emit: impl FnMut(ConnectionEvent)) -> u64 {
        let mut told = 0;
        for record in records {
            let record = decode(record).unwrap();
            match &record.event {
                Event::Process(event) => self.processes.apply(record.at, event),
                Event::Name(_) | Event::Netns(_) => {}
                Event::Socket(event) => {
                    let actor = event.act.task().map(|task| self.processes.acting(task));
                    self.tracker.apply(record.at, event, actor.as_ref(), &self.processes, &mut self.events);
                }
            }
            for event in self.events.drain(..) {
                told += 1;
                emit(event);
            }
        }
        told
    }
}

fn log() -> Log<io::Sink> {
    let options = LogOptions { format: Format::Json, ..LogOptions::default() };
    Log::new(&options, io::sink())
}

/// From events to a subscriber.
struct Flow {
    /// With one fixed time: how often files are checked again depends on the speed of the machine.
    executables: Executables,
    now: Instant,
    stages: Vec<Box<dyn Stage>>,
    batch: Batch,
}

impl Default for Flow {
    fn default() -> Self {
        let context = Context::of_run("0123abcd").unwrap();
        let batch = Batch { context, items: Vec::new() };
        Self { executables: Executables::default(), now: Instant::now(), stages: enrich::recorded(), batch }
    }
}

impl Flow {
    fn push(&mut self, mut event: ConnectionEvent, deliver: &mut dyn FnMut(&mut Batch)) {
        // As if the connection tracking table had been asked.
        if event.endpoint.remote.is_some() {
            event.endpoint.nat = Nat::None;
        }
        self.executables.complete_event(&mut event, self.now);
        self.batch.items.push(Item::Event(event));
        if self.batch.items.len() >= BATCH {
            self.flush(deliver);
        }
    }

    fn flush(&mut self, deliver: &mut dyn FnMut(&mut Batch)) {
        self.stages.iter_mut().for_each(|stage| stage.enrich(&mut self.batch));
        deliver(&mut self.batch);
    }
}

/// Fails if there are more than `most` allocations for each of `times`.
fn at_most(most: f64, what: &str, allocations: u64, times: u64) {
    let each = allocations as f64 / times as f64;
    println!("{each:.4} allocations for {what}");
    assert!(each <= most, "{each:.4} allocations for {what}: more than {most}");
    // A bound that is far too high guards nothing.
    let lower = most < 0.01 || each >= most * 0.5;
    assert!(lower, "{each:.4} allocations for {what}: lower the bound of {most}");
}

#[test]
fn a_record_is_decoded_and_tracked() {
    let alone = Alone::now();
    let mut script = Script::default();
    let mut agent = Agent::default();
    agent.take(&script.beginning(), drop);
    agent.take(&script.connections(CONNECTIONS), drop);
    let records = script.connections(CONNECTIONS);
    let mut events = 0;
    let allocations = alone.count(|| events = agent.take(&records, drop));
    assert_eq!(events, EVENTS * CONNECTIONS);
    at_most(TRACKED, "an event, tracked", allocations, events);
}

/// The allocations of a scene with this number of connections on its way to lines, after as many as warm-up.
fn to_lines(scene: fn(&mut Script, u64) -> Vec<Vec<u8>>) -> u64 {
    let alone = Alone::now();
    let mut script = Script::default();
    let (mut agent, mut log, mut flow) = (Agent::default(), log(), Flow::default());
    let mut print = |batch: &mut Batch| {
        log.batch(batch).unwrap();
        batch.items.clear();
    };
    let mut take = |records: &[Vec<u8>]| {
        let events = agent.take(records, |event| flow.push(event, &mut print));
        flow.flush(&mut print);
        events
    };
    take(&script.beginning());
    take(&scene(&mut script, CONNECTIONS));
    let records = scene(&mut script, CONNECTIONS);
    let mut events = 0;
    let allocations = alone.count(|| events = take(&records));
    assert_eq!(events, EVENTS * CONNECTIONS);
    allocations
}

#[test]
fn an_event_becomes_a_line() {
    at_most(TO_JSON, "an event to JSON", to_lines(Script::connections), EVENTS * CONNECTIONS);
}

#[test]
fn an_event_goes_to_the_store() {
    let alone = Alone::now();
    let place = tempfile::tempdir().unwrap();
    let path = place.path().join("netwatch.db");
    let mut flow = Flow::default();
    let clock = flow.batch.context.clock;
    let retention = Retention::default();
    let settings = Settings { retention, boot: "0123abcd".into(), filter: None, clock, seal: false };
    let mut bus = Bus::default();
    let recorder = Recorder::start(&path, settings, &mut bus).unwrap();
    let mut script = Script::default();
    let mut agent = Agent::default();
    let mut take = |records: &[Vec<u8>], bus: &mut Bus| {
        let mut publish = |batch: &mut Batch| bus.publish(batch);
        let events = agent.take(records, |event| flow.push(event, &mut publish));
        flow.flush(&mut publish);
        events
    };
    take(&script.beginning(), &mut bus);
    // Processes are written once, and tables grow.
    take(&script.connections(CONNECTIONS), &mut bus);
    let deadline = Instant::now() + Duration::from_secs(60);
    let rows = || {
        netwatch::store::Reader::open(&path)
            .ok()
            .and_then(|reader| verify(&reader, Ask::default(), &mut |_| ControlFlow::Continue(())).ok())
    };
    while rows().is_none_or(|verified| verified.rows < 2 * CONNECTIONS) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    let records = script.connections(CONNECTIONS);
    let mut events = 0;
    // Including its thread, which has written everything when it has finished.
    let allocations = alone.count(|| {
        events = take(&records, &mut bus);
        bus.close(&Context::of_run("0123abcd").unwrap());
        recorder.finish().unwrap();
    });
    assert_eq!(events, EVENTS * CONNECTIONS);
    let reader = netwatch::store::Reader::open(&path).unwrap();
    assert!(
        verify(&reader, Ask::default(), &mut |_| ControlFlow::Continue(())).unwrap().rows >= 4 * CONNECTIONS
    );
    at_most(TO_STORE, "an event to the store", allocations, events);
}

#[test]
fn a_process_lives_for_one_connection() {
    at_most(PROCESS, "a process with one connection", to_lines(Script::processes), CONNECTIONS);
}
