//! `cargo xtask test`: format, lints, unit tests, and the end-to-end tests as root, here and on other kernels.

mod stream;

use std::process::ExitCode;

use anyhow::Result;

use crate::cargo::{self, cargo};
use crate::exec::{as_root, loudly, step, succeeds};
use crate::summary::Summary;
use crate::{debian, lint, setup, vm};

/// The kernel side is for the BPF target only; a test of it starts the agent.
const NOT_FOR_THE_HOST: [&str; 2] = ["--exclude", "netwatch-ebpf"];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run the unit tests only
    #[arg(long, conflicts_with = "e2e")]
    unit: bool,
    /// Run only the end-to-end tests, those whose name contains FILTER
    #[arg(long, value_name = "FILTER", num_args = 0..=1, default_missing_value = "")]
    e2e: Option<String>,
    /// Leave out the end-to-end tests on other kernels
    #[arg(long)]
    no_vm: bool,
    /// Arguments for the test programs (libtest's)
    #[arg(last = true)]
    libtest: Vec<String>,
}

pub(crate) fn run(args: &Args, verbose: bool) -> Result<ExitCode> {
    setup::ensure_for_tests(verbose)?;
    let everything = !args.unit && args.e2e.is_none();
    let mut summary = Summary::default();
    if everything {
        check(&mut summary, "fmt", &["--all", "--check"]);
        let lints = ["--workspace", "--all-targets", "--", "-D", "warnings"];
        check(&mut summary, "clippy", &[&NOT_FOR_THE_HOST[..], &lints].concat());
        step("lint");
        if lint::check()? > 0 {
            summary.failed();
        }
    }
    if everything || args.unit {
        unit(&mut summary, &args.libtest)?;
    }
    if everything || args.e2e.is_some() {
        let filter = args.e2e.as_deref().filter(|filter| !filter.is_empty());
        if let Err(error) = e2e(&mut summary, filter, &args.libtest, verbose) {
            step(&format!("{error:#}"));
            summary.failed();
        }
    }
    if everything && args.no_vm {
        step("SKIPPED: other kernels, as asked: netwatch is tested on this machine's alone");
        summary.skipped();
    } else if everything && let Err(error) = vm::add_to(&mut summary, verbose) {
        step(&format!("{error:#}"));
        summary.failed();
    }
    println!("{summary}");
    Ok(if summary.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a cargo subcommand that is a rustup component. Counted only where it fails or is not there:
/// it is a check, not a test.
fn check(summary: &mut Summary, subcommand: &str, args: &[&str]) {
    if !cargo(&[subcommand, "--version"]).is_ok_and(|mut version| succeeds(&mut version)) {
        step(&format!("SKIPPED: cargo {subcommand} is not installed, so it checks nothing in this run"));
        summary.skipped();
        return;
    }
    step(&format!("cargo {subcommand}"));
    if let Err(error) = cargo(&[&[subcommand], args].concat()).and_then(|mut command| loudly(&mut command)) {
        step(&format!("{error:#}"));
        summary.failed();
    }
}

fn unit(summary: &mut Summary, libtest: &[String]) -> Result<()> {
    step("unit tests");
    let mut command = cargo(&["test", "--workspace", "--exclude", "tests", "--no-fail-fast"])?;
    command.args(NOT_FOR_THE_HOST).arg("--").args(libtest);
    stream::run(&mut command, summary);
    Ok(())
}

/// Builds as whoever calls, so that nothing in the target directory ends up root's, and runs as root.
fn e2e(summary: &mut Summary, filter: Option<&str>, libtest: &[String], verbose: bool) -> Result<()> {
    step("building netwatch and its end-to-end tests");
    let netwatch = cargo::build(&["build", "--release", "-p", "netwatch"], "netwatch")?;
    let tests = cargo::build(&["test", "--no-run", "-p", "tests", "--test", "e2e"], "e2e")?;
    // A path, or why there is none: the tests that need it say so.
    let debian = debian::root(verbose);
    let (name, value) = match &debian {
        Ok(root) => ("NETWATCH_DEBIAN", root.as_os_str().to_owned()),
        Err(error) => ("NETWATCH_NO_DEBIAN", format!("{error:#}").into()),
    };
    step("end-to-end tests");
    let mut command = as_root(tests, &[("NETWATCH_BIN", netwatch.as_os_str()), (name, &value)])?;
    // Where cargo would start them; uncaptured, so that a test that hangs or skips is seen to.
    command.current_dir(cargo::workspace()?.join("tests")).args(filter).args(["--nocapture"]).args(libtest);
    stream::run(&mut command, summary);
    Ok(())
}
