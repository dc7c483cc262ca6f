//! `netwatch generate`: a store to measure with; hidden.

use std::path::PathBuf;

use clap::Args;

use crate::commands::generate::GenerateOptions;

#[derive(Args)]
pub(super) struct GenerateArgs {
    /// The store, which must not be there yet
    #[arg(long, value_name = "PATH")]
    store: PathBuf,
    /// How many, both ends of each
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
}

impl GenerateArgs {
    pub(super) fn options(self) -> GenerateOptions {
        GenerateOptions { store: self.store, connections: self.connections }
    }
}
