//! `netwatch log`

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use jiff::Timestamp;

use super::filter::FilterArgs;
use super::values::{self, moment};
use crate::commands::log::SearchOptions;
use crate::store::DEFAULT_PATH;

#[derive(Args)]
pub(super) struct LogArgs {
    /// Path of the store
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    store: PathBuf,
    /// Show events at or after this time: 2h (ago), yesterday, 2026-11-24, 2026-11-24T10:00, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Show events before this time
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Show only the last N events
    #[arg(long, value_name = "N")]
    count: Option<usize>,
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
            since: self.since,
            until: self.until,
            count: self.count,
            scan: self.scan,
            log: self.format.log(self.filter.filter()?, None),
        })
    }
}
