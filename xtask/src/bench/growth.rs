//! The cost as a function of the rate of connections, up to the highest rate.

use anyhow::Result;

use super::Bench;
use super::cost::{Counting, processor_time, programs};
use super::load::Load;
use super::log::Log;
use super::table::Table;

/// Connections per second.
const RATES: [u64; 5] = [1_000, 2_000, 4_000, 8_000, 16_000];

/// At each rate: the kernel's time and the agent's per connection, both endpoints, everything printed and read.
pub(super) fn measure(bench: &Bench, table: &mut Table) -> Result<()> {
    let _counting = Counting::begin()?;
    for rate in RATES.into_iter().map(Some).chain([None]) {
        let log = Log::start(&bench.netwatch, &["watch", "--json", "--no-seed"])?;
        let (before, _) = programs(log.pid())?;
        let begun = processor_time(log.pid())?;
        let connections = match rate {
            Some(rate) => Load::calm(bench.length, rate)?,
            None => Load::flood(bench.length)?.connections,
        };
        let (after, _) = programs(log.pid())?;
        let took = processor_time(log.pid())?.saturating_sub(begun);
        log.finish()?;
        let each = |nanoseconds: u128| nanoseconds as f64 / connections.max(1) as f64;
        let reached = connections / bench.length.as_secs().max(1);
        table.figure(
            format!("kernel time per connection, at {reached} per second"),
            each(u128::from(after - before)),
            "ns",
        );
        table.figure(
            format!("agent's time per connection, at {reached} per second"),
            each(took.as_nanos()),
            "ns",
        );
    }
    Ok(())
}
