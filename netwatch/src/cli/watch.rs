//! `netwatch watch`

use std::time::Duration;

use anyhow::Result;
use clap::{ArgAction, Args};

use super::filter::FilterArgs;
use super::kernel::KernelArgs;
use super::output::OutputArgs;
use super::rules::RulesArgs;
use super::values::{LinesArgs, duration};
use crate::commands::watch::WatchOptions;

#[derive(Args)]
pub(super) struct WatchArgs {
    #[command(flatten)]
    format: LinesArgs,
    /// Also print connection attempts and every TCP state transition
    #[arg(long)]
    states: bool,
    /// Do not print the sockets that exist at the start
    #[arg(long, action = ArgAction::SetTrue)]
    no_seed: bool,
    /// Stop after this time: 10s, 5m, 1h30m; a bare number is seconds
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Stop after N events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    rules: RulesArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    outputs: OutputArgs,
}

impl WatchArgs {
    pub(super) fn options(self) -> Result<WatchOptions> {
        let filter = self.filter.filter()?;
        Ok(WatchOptions {
            kernel: self.kernel.options(self.states, filter.proto()),
            seeds: !self.no_seed,
            duration: self.duration,
            rules: self.rules.options("none")?,
            log: self.format.log(filter, self.count),
            outputs: self.outputs.outputs,
            metrics: self.outputs.metrics,
        })
    }
}
