//! `netwatch verify`

use std::path::PathBuf;

use clap::Args;

use super::values::FormatArgs;
use crate::commands::verify::{Anchor, VerifyOptions};
use crate::store::{DEFAULT_PATH, Link};

#[derive(Args)]
pub(super) struct VerifyArgs {
    /// The store
    #[arg(long, value_name = "PATH", default_value = DEFAULT_PATH)]
    store: PathBuf,
    /// Alone: print the newest link, to be kept elsewhere. With such a link: it has to be there still
    #[arg(long, value_name = "HASH", num_args = 0..=1)]
    #[expect(clippy::option_option, reason = "clap's way to tell an option without its value")]
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
