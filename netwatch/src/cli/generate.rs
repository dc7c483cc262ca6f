//! `netwatch generate`: writes a store for benchmarks; hidden from the help.

use std::path::PathBuf;

use clap::Args;

use crate::commands::generate::GenerateOptions;

#[derive(Args)]
pub(super) struct GenerateArgs {
    /// Path of the store, which must not exist
    #[arg(long, value_name = "PATH")]
    store: PathBuf,
    /// Number of connections; both endpoints of each are written
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    connections: u64,
}

impl GenerateArgs {
    pub(super) fn options(self) -> GenerateOptions {
        GenerateOptions { store: self.store, connections: self.connections }
    }
}
