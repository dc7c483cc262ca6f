//! The agent's processor time per event: decode, track, write JSON.

use anyhow::Result;

use super::Bench;
use super::cost::processor_time;
use super::load::Load;
use super::log::Log;
use super::table::{Goal, Table, median};

pub(super) fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let mut each = Vec::new();
    for _ in 0..bench.rounds {
        let log = Log::start(&bench.netwatch, &["watch", "--json", "--no-seed"])?;
        let before = processor_time(log.pid())?;
        Load::flood(bench.length)?;
        log.caught_up();
        let took = processor_time(log.pid())? - before;
        let events = log.finish()?.events;
        each.push(took.as_secs_f64() * 1e6 / events.max(1) as f64);
    }
    table.goal("agent's processor time per event, to JSON", median(each), "us", Goal::AtMost(3.0));
    Ok(())
}
