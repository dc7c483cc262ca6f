//! `netwatch top`

use std::io::{self, IsTerminal as _};
use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;

use super::filter::FilterArgs;
use super::kernel::KernelArgs;
use super::values;
use crate::commands::top::TopOptions;

#[derive(Args)]
pub(super) struct TopArgs {
    /// Show the newest events of this store instead of what happens now
    #[arg(long, value_name = "PATH")]
    store: Option<PathBuf>,
    /// Let the key P panic, to test that the terminal is restored
    #[cfg(any(test, feature = "test-equipment"))]
    #[arg(long, hide = true)]
    panics: bool,
    #[command(flatten)]
    kernel: KernelArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

impl TopArgs {
    pub(super) fn options(self) -> Result<TopOptions> {
        if !can_show(std::env::var_os("TERM").as_deref()) {
            bail!(
                "top needs a terminal that can place a cursor: `netwatch watch` and `netwatch list` print lines"
            );
        }
        #[cfg(any(test, feature = "test-equipment"))]
        let panics = self.panics;
        #[cfg(not(any(test, feature = "test-equipment")))]
        let panics = false;
        let only = self.filter.words();
        let filter = self.filter.filter()?;
        let kernel = self.kernel.options(false, filter.proto());
        Ok(TopOptions { kernel, store: self.store, filter, only, colour: values::colour(), panics })
    }
}

fn can_show(term: Option<&std::ffi::OsStr>) -> bool {
    let is_dumb = term.is_none_or(|term| term.is_empty() || term == "dumb");
    !is_dumb && io::stdin().is_terminal() && io::stdout().is_terminal()
}
