//! `netwatch record`

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Result;
use clap::Args;

use super::filter::FilterArgs;
use super::kernel::KernelArgs;
use super::values::{LinesArgs, age, size};
use crate::commands::record::RecordOptions;
use crate::store::{DEFAULT_PATH, Retention};

#[derive(Args)]
pub(super) struct RecordArgs {
    /// The store
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    store: PathBuf,
    /// What is older may go: 30d, 12h, 4w
    #[arg(long, value_name = "TIME", value_parser = age, default_value = "30d")]
    retain: Duration,
    /// Room on disk that the store takes up at the most: 2GiB, 500MB, or bytes
    #[arg(long, value_name = "SIZE", value_parser = size, default_value = "2GiB")]
    max_size: u64,
    /// Also print what is recorded
    #[arg(long)]
    print: bool,
    /// Read options from this file; what the command line says goes before it
    #[arg(long, value_name = "FILE")]
    pub(super) config: Option<PathBuf>,
    #[command(flatten)]
    format: LinesArgs,
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

impl RecordArgs {
    pub(super) fn options(self) -> Result<RecordOptions> {
        let filter_words = self.filter.words();
        let filter = self.filter.filter()?;
        let print = self.print.then(|| self.format.log(filter.clone(), None));
        Ok(RecordOptions {
            kernel: self.kernel.options(false, filter.proto),
            store: self.store,
            retention: Retention { age: self.retain, size: self.max_size },
            filter,
            filter_words,
            print,
        })
    }
}
