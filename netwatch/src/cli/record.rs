//! `netwatch record`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::filter::FilterArgs;
use super::fleet::ShipArgs;
use super::kernel::KernelArgs;
use super::output::OutputArgs;
use super::rules::RulesArgs;
use super::values::{LinesArgs, age, size};
use crate::commands::record::RecordOptions;
use crate::rules::Detect;
use crate::store::{DEFAULT_PATH, Retention};

#[derive(Args)]
pub(super) struct RecordArgs {
    /// Path of the store
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    store: PathBuf,
    /// Delete records older than AGE: 30d, 12h, 4w
    #[arg(long, value_name = "AGE", value_parser = age, default_value = "30d")]
    retain: Duration,
    /// Maximum size of the store on disk: 2GiB, 500MB, or a number of bytes; the oldest records are deleted first
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "2GiB")]
    max_size: u64,
    /// Seal the records once a minute with the key that `netwatch verify --new-key` made
    #[arg(long)]
    seal: bool,
    /// Also print the recorded events
    #[arg(long)]
    print: bool,
    /// Read options from this file; options on the command line take precedence
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    format: LinesArgs,
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    rules: RulesArgs,
    #[command(flatten)]
    filter: FilterArgs,
    #[command(flatten)]
    outputs: OutputArgs,
    #[command(flatten)]
    ship: ShipArgs,
}

impl RecordArgs {
    pub(super) fn options(self) -> Result<RecordOptions> {
        let filter_words = self.filter.words();
        let filter = self.filter.filter()?;
        let print = self.print.then(|| self.format.log(filter.clone(), None));
        Ok(RecordOptions {
            kernel: self.kernel.options(false, filter.proto()),
            store: self.store,
            seal: self.seal,
            retention: Retention { age: self.retain, size: self.max_size },
            filter,
            filter_words,
            print,
            outputs: self.outputs.outputs,
            metrics: self.outputs.metrics,
            ship: self.ship.options(),
            rules: self.rules.options(Detect::USUAL)?,
        })
    }
}
