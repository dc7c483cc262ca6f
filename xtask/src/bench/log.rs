//! Reads the output of `netwatch watch --json` while it runs.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::Path;
use std::process::{Child, Stdio};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

use crate::exec::as_root;

/// A running `netwatch watch`.
pub(crate) struct Log {
    child: Child,
    reader: JoinHandle<std::io::Result<Seen>>,
}

/// Result of reading its output.
#[derive(Default)]
pub(crate) struct Seen {
    /// Lines after `ready`.
    pub(crate) events: u64,
    latencies: Vec<Duration>,
    lost: BTreeMap<String, u64>,
}

/// The latency is read from one line of this number, since parsing all of them would affect the measurement.
const SAMPLE: u64 = 16;

impl Log {
    /// Starts netwatch and waits for `ready`.
    pub(crate) fn start(netwatch: &Path, arguments: &[&str]) -> Result<Self> {
        let mut command = as_root(netwatch, &[])?;
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().context("cannot start netwatch")?;
        let mut out = BufReader::with_capacity(1 << 20, child.stdout.take().context("no stdout")?);
        let mut ready = Vec::new();
        if out.read_until(b'\n', &mut ready)? == 0 {
            bail!("netwatch exited before it was ready ({})", child.wait()?);
        }
        Ok(Self { child, reader: std::thread::spawn(move || read(out)) })
    }

    /// The pid of netwatch itself.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Events in flight arrive within the time of the ring and the reader.
    pub(crate) fn caught_up(&self) {
        std::thread::sleep(Duration::from_secs(1));
    }

    /// Stops netwatch and reads the rest of the log.
    pub(crate) fn finish(mut self) -> Result<Seen> {
        self.caught_up();
        kill(Pid::from_raw(self.child.id().cast_signed()), Signal::SIGINT)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("netwatch failed ({status})");
        }
        Ok(self.reader.join().map_err(|_| anyhow::anyhow!("the reader panicked"))??)
    }
}

fn read(mut out: BufReader<impl std::io::Read>) -> std::io::Result<Seen> {
    let mut seen = Seen::default();
    let mut line = Vec::new();
    loop {
        line.clear();
        if out.by_ref().read_until(b'\n', &mut line)? == 0 {
            return Ok(seen);
        }
        let now = jiff::Timestamp::now();
        seen.events += 1;
        // `loss` is among the first keys.
        let is_loss = line.get(..120).unwrap_or(&line).windows(14).any(|key| key == br#""event":"loss""#);
        if !is_loss && seen.events % SAMPLE != 0 {
            continue;
        }
        let Ok(event) = serde_json::from_slice::<Value>(&line) else { continue };
        if is_loss {
            let reason = event.get("reason").and_then(Value::as_str).unwrap_or("no reason");
            for (kind, count) in event.get("kinds").and_then(Value::as_object).into_iter().flatten() {
                *seen.lost.entry(format!("{kind} ({reason})")).or_default() += count.as_u64().unwrap_or(0);
            }
        } else if let Some(at) =
            event.get("ts").and_then(Value::as_str).and_then(|ts| ts.parse::<jiff::Timestamp>().ok())
        {
            seen.latencies.extend(Duration::try_from(now.duration_since(at)));
        }
    }
}

impl Seen {
    /// Lost records of all kinds.
    pub(crate) fn lost(&self) -> u64 {
        self.lost.values().sum()
    }

    /// The latency that this many of a thousand events do not exceed, in milliseconds.
    pub(crate) fn latency(&self, share: usize) -> f64 {
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let index = (sorted.len() * share / 1000).min(sorted.len().saturating_sub(1));
        sorted.get(index).map_or(f64::NAN, |latency| latency.as_secs_f64() * 1000.0)
    }
}
