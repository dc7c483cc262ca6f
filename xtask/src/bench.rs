//! `cargo xtask bench`: what netwatch costs and the rates that it can follow, compared with the tools that are used in
//! its place. Peers and netwatch take turns within one run, so that other activity of the machine affects both; figures
//! are medians, and goals are ratios where possible. No figure fails a test, since figures depend on the machine.

mod agent;
mod audit;
mod cost;
mod crowd;
mod flood;
mod growth;
mod load;
mod log;
mod peers;
mod rest;
mod snapshot;
mod store;
mod table;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use nix::unistd::geteuid;

use crate::{cargo, setup};
use table::Table;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Seconds that each measurement under load takes
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Rounds in which netwatch and its peers take turns
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=20))]
    rounds: u32,
    /// Only these: snapshot, audit, kernel, rate, agent, growth, loss, memory, start, latency, quiet, record, search
    #[arg(long, value_delimiter = ',')]
    only: Vec<String>,
    /// Measure netwatch only; install and run no other tool
    #[arg(long)]
    no_peers: bool,
    /// Write the figures to this file as one JSON object
    #[arg(long, value_name = "FILE", default_value = "target/bench.json")]
    json: PathBuf,
    /// Hold this number of connections on loopback until stdin is closed; the benchmark runs itself with this option
    #[arg(long, hide = true)]
    hold: Option<usize>,
    /// The same with this number of listeners
    #[arg(long, hide = true)]
    listen: Option<usize>,
}

/// Input of a measurement.
struct Bench {
    netwatch: PathBuf,
    length: Duration,
    rounds: u32,
    peers: bool,
    verbose: bool,
}

/// A measurement: its name and its function.
type Measurement = (&'static str, fn(&Bench, &mut Table) -> Result<()>);

const ALL: [Measurement; 13] = [
    ("snapshot", snapshot::measure),
    ("audit", audit::measure),
    ("kernel", flood::kernel_time),
    ("rate", flood::rate),
    ("agent", agent::measure),
    ("growth", growth::measure),
    ("loss", flood::loss),
    ("memory", rest::memory),
    ("start", rest::start),
    ("latency", rest::latency),
    ("quiet", rest::quiet),
    ("record", store::record),
    ("search", store::search),
];

pub(crate) fn run(args: &Args, verbose: bool) -> Result<ExitCode> {
    if let Some(connections) = args.hold {
        crowd::hold(connections)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(listeners) = args.listen {
        crowd::listen(listeners)?;
        return Ok(ExitCode::SUCCESS);
    }
    if let Some(unknown) = args.only.iter().find(|only| ALL.iter().all(|(name, _)| name != only)) {
        bail!("there is no measurement {unknown}: see --help");
    }
    if !geteuid().is_root() {
        bail!("only root can read the run time of BPF programs: run this as root");
    }
    setup::ensure(verbose)?;
    let bench = Bench {
        netwatch: cargo::build(
            &["build", "--release", "-p", "netwatch", "--features", "test-equipment"],
            "netwatch",
        )?,
        length: Duration::from_secs(args.seconds),
        rounds: args.rounds,
        peers: !args.no_peers,
        verbose,
    };
    if bench.peers {
        peers::install(verbose);
    }
    let mut table = Table::default();
    for (name, measure) in ALL {
        if args.only.is_empty() || args.only.iter().any(|only| only == name) {
            crate::exec::step(&format!("measuring: {name}"));
            if let Err(error) = measure(&bench, &mut table) {
                table.failed(name, &error);
            }
        }
    }
    table.print();
    table.save(&args.json)?;
    Ok(ExitCode::SUCCESS)
}
