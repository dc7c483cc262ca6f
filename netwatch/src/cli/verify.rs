//! `netwatch verify`

use std::path::PathBuf;

use clap::Args;

use super::values::FormatArgs;
use crate::commands::verify::{Anchor, VerifyOptions};
use crate::store::{DEFAULT_PATH, Link};

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
    #[command(flatten)]
    format: FormatArgs,
}

impl VerifyArgs {
    pub(super) fn options(self) -> VerifyOptions {
        VerifyOptions {
            anchor: match self.anchor {
                None => Anchor::None,
                Some(None) => Anchor::Print,
                Some(Some(link)) => Anchor::Check(link),
            },
            json: self.format.is_json(),
            store: self.store,
        }
    }
}
