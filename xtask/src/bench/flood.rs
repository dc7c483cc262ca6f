//! Connections on loopback at the highest rate: the cost of the kernel side per connection, the decrease of the rate,
//! and the number of lost records.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use super::Bench;
use super::cost::{Counting, programs};
use super::load::Load;
use super::log::Log;
use super::peers::peer;
use super::table::{Goal, Table, median};

/// Number of floods in which no record may be lost.
const RUNS: u32 = 10;

/// tcplife, which does less than half of what netwatch does.
struct Peer(Child);

impl Peer {
    /// `None` if it is not installed, or does not work.
    fn start() -> Result<Option<Self>> {
        let Some(path) = peer("tcplife") else { return Ok(None) };
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", WITH_TRACEFS]).arg(path);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let peer = Self(child.context("cannot start tcplife")?);
        // Its programs must run: otherwise there is nothing to compare.
        let _counting = Counting::begin()?;
        let deadline = Instant::now() + Duration::from_secs(10);
        while programs(peer.0.id()).is_ok_and(|(_, runs)| runs == 0) && Instant::now() < deadline {
            Load::calm(Duration::from_millis(50), 100)?;
        }
        let works = programs(peer.0.id()).is_ok_and(|(_, runs)| runs > 0);
        Ok(works.then_some(peer))
    }
}

/// tcplife reads its tracepoint in tracefs, which a host may not have mounted: mounts it in a temporary mount
/// namespace.
const WITH_TRACEFS: &str =
    "test -d /sys/kernel/tracing/events || mount -t tracefs tracefs /sys/kernel/tracing; exec \"$0\"";

impl Drop for Peer {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The kernel's time per connection, both endpoints, all records.
pub(super) fn kernel_time(bench: &Bench, table: &mut Table) -> Result<()> {
    let _counting = Counting::begin()?;
    let (mut own, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        let log = Log::start(&bench.netwatch, &["watch", "--json", "--no-seed", "--event", "listen"])?;
        own.push(nanoseconds(log.pid(), bench.length)?);
        log.finish()?;
        if bench.peers
            && let Some(peer) = Peer::start()?
        {
            theirs.push(nanoseconds(peer.0.id(), bench.length)?);
        }
    }
    let own = median(own);
    table.figure("kernel time per connection", own, "ns");
    if theirs.is_empty() {
        table.skipped("kernel time per connection, tcplife", "it is not installed, or does not work");
        return Ok(());
    }
    let theirs = median(theirs);
    table.figure("kernel time per connection, tcplife", theirs, "ns");
    table.goal("kernel time, relative to tcplife's", own / theirs, "times", Goal::AtMost(0.1));
    Ok(())
}

fn nanoseconds(pid: u32, length: Duration) -> Result<f64> {
    let (before, _) = programs(pid)?;
    let load = Load::flood(length)?;
    let (after, _) = programs(pid)?;
    Ok((after - before) as f64 / load.connections.max(1) as f64)
}

/// The rate with netwatch, relative to the rate without it.
pub(super) fn rate(bench: &Bench, table: &mut Table) -> Result<()> {
    let (mut alone, mut watched, mut printed, mut peered) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..bench.rounds {
        alone.push(Load::flood(bench.length)?.rate() as f64);
        for (arguments, rates) in [(&["--event", "listen"][..], &mut watched), (&[], &mut printed)] {
            let log = Log::start(&bench.netwatch, &[&["watch", "--json", "--no-seed"], arguments].concat())?;
            rates.push(Load::flood(bench.length)?.rate() as f64);
            log.finish()?;
        }
        if bench.peers
            && let Some(_peer) = Peer::start()?
        {
            peered.push(Load::flood(bench.length)?.rate() as f64);
        }
    }
    let alone = median(alone);
    let lost = |rates: Vec<f64>| 1.0 - median(rates) / alone;
    table.figure("connections per second on loopback", alone, "/s");
    let (watched, printed) = (lost(watched), lost(printed));
    table.figure("decrease with watch, nothing printed", watched * 100.0, "%");
    table.figure("decrease with watch, all printed and read", printed * 100.0, "%");
    if peered.is_empty() {
        table.skipped("decrease with tcplife", "it is not installed, or does not work");
        return Ok(());
    }
    let peered = lost(peered);
    table.figure("decrease with tcplife", peered * 100.0, "%");
    table.goal("decrease with watch, relative to tcplife's", watched / peered, "times", Goal::AtMost(0.5));
    Ok(())
}

/// Records that are lost with the default settings.
pub(super) fn loss(bench: &Bench, table: &mut Table) -> Result<()> {
    let mut lost = 0;
    for _ in 0..RUNS {
        let log = Log::start(&bench.netwatch, &["watch", "--json", "--no-seed"])?;
        Load::flood(bench.length)?;
        lost += log.finish()?.lost();
    }
    table.goal(format!("records lost in {RUNS} floods"), lost as f64, "records", Goal::AtMost(0.0));
    Ok(())
}
