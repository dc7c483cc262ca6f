//! `netwatch log`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

use super::filter::FilterArgs;
use super::values;
use crate::commands::log::SearchOptions;
use crate::store::DEFAULT_PATH;

#[derive(Args)]
pub(super) struct LogArgs {
    /// Path of the store
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    store: PathBuf,
    #[command(flatten)]
    range: values::RangeArgs,
    /// Read the tables without the indexes and views of the store, which may have been altered; slower
    #[arg(long)]
    scan: bool,
    #[command(flatten)]
    format: values::LinesArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

impl LogArgs {
    pub(super) fn options(self) -> Result<SearchOptions> {
        Ok(SearchOptions {
            store: self.store,
            since: self.range.since,
            until: self.range.until,
            count: self.range.count,
            scan: self.scan,
            log: self.format.log(self.filter.filter()?, None),
        })
    }
}
