//! Memory, start time, latency, and the cost on an idle host.

use std::time::{Duration, Instant};

use anyhow::Result;

use super::Bench;
use super::cost::{memory as resident, pages, processor_time};
use super::crowd::{Crowd, apart};
use super::load::Load;
use super::log::Log;
use super::table::{Goal, Table, median};

/// Connections that are open at once.
const LIVE: usize = 100_000;

/// Sockets that exist at the start.
const SEEDED: usize = 96_000;

/// Connections per second at which latency is measured.
const CALM: u64 = 1000;

/// Time without connections.
const QUIET: Duration = Duration::from_secs(20);

const WATCH: [&str; 3] = ["watch", "--json", "--no-seed"];

/// With many open connections whose opening was observed. Both endpoints of each are on this host, so there are twice
/// as many endpoints.
pub(super) fn memory(bench: &Bench, table: &mut Table) -> Result<()> {
    for (what, connections) in [("endpoints", LIVE / 2), ("connections, both endpoints", LIVE)] {
        let (now, most, once) = apart(|| {
            let log = Log::start(&bench.netwatch, &WATCH)?;
            let crowd = Crowd::of(connections, bench.verbose)?;
            log.caught_up();
            let ((now, most), once) = (resident(log.pid())?, pages(log.pid())?);
            drop(crowd);
            log.finish()?;
            Ok((now, most, once))
        })?;
        let what = format!("memory with {LIVE} live {what}");
        table.figure(format!("{what}, maximum"), most, "MiB");
        table.figure(format!("{what}, each page counted once"), once, "MiB");
        table.goal(what, now, "MiB", Goal::AtMost(60.0));
    }
    Ok(())
}

/// From exec to `ready`.
pub(super) fn start(bench: &Bench, table: &mut Table) -> Result<()> {
    let ready = |rounds: u32| -> Result<f64> {
        let mut times = Vec::new();
        for _ in 0..rounds {
            let begun = Instant::now();
            let log = Log::start(&bench.netwatch, &WATCH)?;
            times.push(begun.elapsed().as_secs_f64() * 1000.0);
            log.finish()?;
        }
        Ok(median(times))
    };
    table.figure("start to ready", ready(bench.rounds)?, "ms");
    let full = apart(|| {
        let _crowd = Crowd::of(SEEDED / 2, bench.verbose)?;
        ready(bench.rounds)
    })?;
    table.goal(format!("start to ready, {SEEDED} sockets"), full, "ms", Goal::AtMost(1000.0));
    Ok(())
}

/// From the kernel's record to the reader.
pub(super) fn latency(bench: &Bench, table: &mut Table) -> Result<()> {
    let log = Log::start(&bench.netwatch, &WATCH)?;
    Load::calm(bench.length, CALM)?;
    let seen = log.finish()?;
    table.figure(format!("event to reader at {CALM}/s, median"), seen.latency(500), "ms");
    table.goal(format!("event to reader at {CALM}/s, 99 %"), seen.latency(990), "ms", Goal::AtMost(20.0));
    table.goal(format!("event to reader at {CALM}/s, all"), seen.latency(1000), "ms", Goal::AtMost(100.0));
    Ok(())
}

pub(super) fn quiet(bench: &Bench, table: &mut Table) -> Result<()> {
    let log = Log::start(&bench.netwatch, &WATCH)?;
    let before = processor_time(log.pid())?;
    std::thread::sleep(QUIET);
    let took = processor_time(log.pid())? - before;
    log.finish()?;
    let share = took.as_secs_f64() / QUIET.as_secs_f64() * 100.0;
    table.goal("processor time on an idle host", share, "% of a core", Goal::AtMost(0.1));
    Ok(())
}
