//! `netwatch verify`

use std::path::PathBuf;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;

use super::values::FormatArgs;
use crate::commands::verify::{Anchor, VerifyOptions};
use crate::store::{DEFAULT_PATH, Key, Link};
use crate::{blocking, limits};

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// Path of the store
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    store: PathBuf,
    /// Without HASH: print the newest link of the hash chain, to be kept off this host. With HASH: verify that this
    /// link is still in the chain
    #[arg(long, value_name = "HASH", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "how clap represents an option whose value is optional")]
    anchor: Option<Option<Link>>,
    /// Verify the seals with this verification key
    #[arg(long, value_name = "KEY", conflicts_with = "key_file")]
    key: Option<Key>,
    /// The same with the key in this file
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    /// Make a sealing key for `record --seal`, and print its verification key once: keep that off this host
    #[arg(long, conflicts_with_all = ["key", "key_file", "anchor"])]
    new_key: bool,
    #[command(flatten)]
    format: FormatArgs,
}

impl VerifyArgs {
    pub(super) fn options(self) -> Result<VerifyOptions> {
        let key = match (self.key, &self.key_file) {
            (None, Some(path)) => {
                let text = blocking::text(path, limits::PROC_FILE, limits::READ_WAIT);
                let text = text.with_context(|| format!("cannot read the key {}", path.display()))?;
                Some(text.parse().map_err(|what| anyhow!("{}: {what}", path.display()))?)
            }
            (key, _) => key,
        };
        Ok(VerifyOptions {
            key,
            new_key: self.new_key,
            anchor: match self.anchor {
                None => Anchor::None,
                Some(None) => Anchor::Print,
                Some(Some(link)) => Anchor::Check(link),
            },
            json: self.format.is_json(),
            store: self.store,
        })
    }
}
