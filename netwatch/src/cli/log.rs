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
    /// The store
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    store: PathBuf,
    /// Told since then: 2h, yesterday, 2026-11-24, 2026-11-24T10:00, or RFC 3339
    #[arg(long, value_name = "TIME", value_parser = moment)]
    since: Option<Timestamp>,
    /// Told until then
    #[arg(long, value_name = "TIME", value_parser = moment)]
    until: Option<Timestamp>,
    /// Only the last so many
    #[arg(long, value_name = "N")]
    count: Option<usize>,
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
            log: self.format.log(self.filter.filter()?, None),
        })
    }
}
