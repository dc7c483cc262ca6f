//! `cargo xtask run`: builds netwatch and becomes it, as root.

use std::os::unix::process::CommandExt as _;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::{cargo, exec, setup};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Build without optimisation, with the kernel side's log lines
    #[arg(long)]
    debug: bool,
    /// Arguments for netwatch [default: watch]
    #[arg(last = true)]
    netwatch: Vec<String>,
}

pub(crate) fn run(args: &Args, verbose: bool) -> Result<ExitCode> {
    exec::ensure_root()?;
    setup::ensure(verbose)?;
    let build: &[&str] = if args.debug { &["build"] } else { &["build", "--release"] };
    let netwatch = cargo::build(&[build, &["-p", "netwatch"]].concat(), "netwatch")?;
    let mut command = exec::as_root(netwatch, &[])?;
    if args.netwatch.is_empty() {
        command.arg("watch");
    } else {
        command.args(&args.netwatch);
    }
    // exec, so that signals and the exit status are those of netwatch.
    Err(command.exec()).context("cannot start netwatch")
}
