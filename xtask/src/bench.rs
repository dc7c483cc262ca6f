//! `cargo xtask bench`: what netwatch costs, and how much it keeps up with. Nothing here fails a test: the
//! figures depend on the machine and on what else it does.

mod load;
mod log;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Result;

use crate::{cargo, setup};
use load::Load;
use log::Log;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds that each measurement takes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Rounds of the flood, with and without netwatch in turn
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
}

/// Connections a second while latency is measured: far from any limit.
const CALM: u64 = 200;

pub(crate) fn run(args: &Args, verbose: bool) -> Result<ExitCode> {
    setup::ensure(verbose)?;
    let netwatch = cargo::build(&["build", "--release", "-p", "netwatch"], "netwatch")?;
    let length = Duration::from_secs(args.seconds);

    let log = Log::start(&netwatch, &[])?;
    let connections = Load::calm(length, CALM)?;
    let seen = log.finish()?;
    println!(
        "latency, {connections} connections at {CALM} a second, from the kernel's record to the reader:"
    );
    println!("  {}", seen.latencies());

    println!("flood, as many connections as loopback carries, {} s each:", args.seconds);
    for _ in 0..args.rounds {
        let alone = Load::flood(length)?;
        // Everything decoded and joined, nothing printed; then everything printed and read.
        for (what, arguments) in [("nothing printed", &["--event", "listen"][..]), ("all printed", &[])] {
            let log = Log::start(&netwatch, arguments)?;
            let watched = Load::flood(length)?;
            let seen = log.finish()?;
            println!(
                "  {}/s alone, {}/s watched ({what}): {} opened, {} events read, lost: {}",
                alone.rate(),
                watched.rate(),
                watched.connections,
                seen.events,
                seen.losses()
            );
        }
    }
    Ok(ExitCode::SUCCESS)
}
