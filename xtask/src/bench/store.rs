//! The store: the cost of recording at the highest rate, and the time of a search in a large store.

use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use super::Bench;
use super::cost::{memory, processor_time};
use super::load::Load;
use super::table::{Goal, Table, median};

/// Connections in the stores that are searched.
const SIZES: [u64; 3] = [10_000, 100_000, 1_000_000];

/// A port of some of them.
const PORT: &str = "33000";

/// Events per connection, both endpoints: two opens, an accept, two closes.
const EVENTS: f64 = 5.0;

/// A running recorder.
pub(super) struct Recorder(Child);

impl Recorder {
    pub(super) fn start(netwatch: &Path, store: &Path) -> Result<Self> {
        // In its own session, as a service manager starts it: see `take_precedence` in commands/record.rs.
        let mut command = Command::new("setsid");
        command
            .arg(netwatch)
            .arg("record")
            .arg("--store")
            .arg(store)
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        let mut recorder = Self(command.spawn().context("cannot start netwatch")?);
        let mut stderr = BufReader::new(recorder.0.stderr.take().context("no stderr")?);
        let mut line = String::new();
        while stderr.read_line(&mut line)? != 0 && !line.contains("recording to") {}
        if !line.contains("recording to") {
            bail!("netwatch exited before it recorded: {line}");
        }
        // Its other messages are printed for the user.
        std::thread::spawn(move || std::io::copy(&mut stderr, &mut std::io::stderr()));
        Ok(recorder)
    }

    pub(super) fn finish(mut self) -> Result<()> {
        kill(Pid::from_raw(self.0.id().cast_signed()), Signal::SIGTERM)?;
        let status = self.0.wait()?;
        if status.success() { Ok(()) } else { bail!("netwatch failed ({status})") }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Records connections at the highest rate.
pub(super) fn record(bench: &Bench, table: &mut Table) -> Result<()> {
    let place = tempfile::tempdir()?;
    let store = place.path().join("netwatch.db");
    let recorder = Recorder::start(&bench.netwatch, &store)?;
    let pid = recorder.0.id();
    let before = processor_time(pid)?;
    let begun = Instant::now();
    let load = Load::flood(bench.length)?;
    // Events in flight are written within the time of a batch.
    std::thread::sleep(Duration::from_secs(2));
    let took = (processor_time(pid)? - before).as_secs_f64();
    let (_, most) = memory(pid)?;
    let cores = took / begun.elapsed().as_secs_f64();
    recorder.finish()?;
    let connections = load.connections.max(1) as f64;
    let disk = std::fs::metadata(&store)?.len() as f64;
    table.figure("connections per second, recorded", load.rate() as f64, "/s");
    table.goal("records lost while recording", lost(bench, &store)? as f64, "records", Goal::AtMost(0.0));
    table.goal("disk per connection, both endpoints", disk / connections, "B", Goal::AtMost(700.0));
    table.goal("the recorder's maximum memory", most, "MiB", Goal::AtMost(100.0));
    table.goal("the recorder's processor time, of one core", cores, "cores", Goal::AtMost(1.0));
    let each = took * 1e6 / connections / EVENTS;
    table.goal("the recorder's processor time per event", each, "us", Goal::AtMost(6.0));
    Ok(())
}

/// Number of lost records, according to the store.
fn lost(bench: &Bench, store: &Path) -> Result<u64> {
    let mut command = Command::new(&bench.netwatch);
    // No filter excludes losses; this one excludes everything else.
    command.args(["log", "--json", "--event", "attempt", "--store"]).arg(store).stdout(Stdio::piped());
    let mut child = command.spawn()?;
    let mut text = String::new();
    child.stdout.take().context("no stdout")?.read_to_string(&mut text)?;
    if !child.wait()?.success() {
        bail!("netwatch log failed");
    }
    let counts = text.lines().map(|line| Ok(serde_json::from_str::<Value>(line)?));
    let counts =
        counts.map(|line: Result<Value>| Ok(line?.get("count").and_then(Value::as_u64).unwrap_or(0)));
    counts.sum::<Result<u64>>()
}

/// A search by port, and a trace from it, in stores of several sizes.
pub(super) fn search(bench: &Bench, table: &mut Table) -> Result<()> {
    let place = tempfile::tempdir()?;
    for connections in SIZES {
        let store = place.path().join(format!("{connections}.db"));
        let mut generate = Command::new(&bench.netwatch);
        generate.args(["generate", "--connections", &connections.to_string(), "--store"]).arg(&store);
        if !generate.status()?.success() {
            bail!("cannot make a store of {connections} connections");
        }
        let traced = format!(":{PORT}");
        for (what, question) in
            [("log --port", &["log", "--port", PORT][..]), ("trace :PORT", &["trace", &traced])]
        {
            let mut times = Vec::new();
            for _ in 0..bench.rounds {
                let mut ask = Command::new(&bench.netwatch);
                ask.args(question).arg("--json").arg("--store").arg(&store).stdout(Stdio::null());
                let begun = Instant::now();
                if !ask.status()?.success() {
                    bail!("netwatch {what} failed");
                }
                times.push(begun.elapsed().as_secs_f64() * 1e3);
            }
            let what = format!("{what} in {connections} connections");
            table.goal(what, median(times), "ms", Goal::AtMost(200.0));
        }
        std::fs::remove_file(&store)?;
    }
    Ok(())
}
