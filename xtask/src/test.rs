//! `cargo xtask test`: format, lints, unit tests, and the end-to-end tests as root, here and on other kernels.

mod stream;

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::cargo::cargo;
use crate::exec::{as_root, ensure_root, step, succeeds};
use crate::output::Output;
use crate::programs::Programs;
use crate::summary::Summary;
use crate::{debian, judges, lint, setup, vm};

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
    if !args.unit {
        ensure_root()?;
    }
    setup::ensure_for_tests(verbose)?;
    let everything = !args.unit && args.e2e.is_none();
    let mut summary = Summary::default();
    let output = Output::new()?;
    if everything {
        check(&mut summary, &output, "fmt", &["--all", "--check"]);
        let lints = ["--workspace", "--all-targets", "--", "-D", "warnings"];
        check(&mut summary, &output, "clippy", &[&NOT_FOR_THE_HOST[..], &lints].concat());
        rooms(&mut summary, &output)?;
    }
    if everything || args.unit {
        unit(&mut summary, &output, &args.libtest)?;
    }
    if everything || args.e2e.is_some() {
        let filter = args.e2e.as_deref().filter(|filter| !filter.is_empty());
        if let Err(error) = e2e(&mut summary, &output, filter, &args.libtest, verbose) {
            step(&format!("{error:#}"));
            summary.failed(&format!("end-to-end tests: {error:#}"));
        }
    }
    if everything && args.no_vm {
        step("SKIPPED: other kernels, as asked: netwatch is tested on this machine's alone");
        summary.skipped();
    } else if everything && let Err(error) = vm::add_to(&mut summary, &output, verbose) {
        step(&format!("{error:#}"));
        summary.failed(&format!("other kernels: {error:#}"));
    }
    print!("{}", summary.failure_list());
    println!("{summary}");
    Ok(if summary.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Runs a cargo subcommand that is a rustup component. It is a check, not a test, so it is counted only if it fails or
/// is not installed.
fn check(summary: &mut Summary, output: &Output, subcommand: &str, args: &[&str]) {
    if !cargo(&[subcommand, "--version"]).is_ok_and(|mut version| succeeds(&mut version)) {
        step(&format!("SKIPPED: cargo {subcommand} is not installed, so it checks nothing in this run"));
        summary.skipped();
        return;
    }
    step(&format!("cargo {subcommand}"));
    let checked = cargo(&[&[subcommand], args].concat())
        .and_then(|mut command| stream::check(&mut command, output, subcommand));
    if let Err(error) = checked {
        let what = format!("cargo {subcommand}");
        step(&format!("{what}: {error:#}"));
        summary.output_in(&output.file(subcommand));
        summary.failed(&what);
    }
}

fn rooms(summary: &mut Summary, output: &Output) -> Result<()> {
    step("cargo xtask lint");
    let report = lint::check()?;
    print!("{report}");
    if report.is_clean() {
        return Ok(());
    }
    let (mut file, path) = output.create("lint")?;
    write!(file, "{report}").context("cannot keep the output")?;
    summary.output_in(&path);
    summary.failed("cargo xtask lint");
    Ok(())
}

fn unit(summary: &mut Summary, output: &Output, libtest: &[String]) -> Result<()> {
    step("unit tests");
    let mut command = cargo(&["test", "--workspace", "--exclude", "tests", "--no-fail-fast"])?;
    command.args(NOT_FOR_THE_HOST).arg("--").args(libtest);
    stream::run(&mut command, summary, "unit tests", output, "unit");
    Ok(())
}

/// Runs the tests of packages, which are in this folder, as root.
pub(crate) fn packages(folder: &Path, netwatch: PathBuf, verbose: bool) -> Result<ExitCode> {
    ensure_root()?;
    setup::install_for_packages(verbose)?;
    let (mut summary, output) = (Summary::default(), Output::new()?);
    let (place, programs) = Programs::with(netwatch)?.staged()?;
    let (debian, kubernetes) = (debian::root(verbose)?, judges::kubernetes(verbose)?);
    let variables = [
        ("NETWATCH_BIN", programs.netwatch.as_os_str()),
        ("NETWATCH_ACTOR", programs.actor.as_os_str()),
        ("NETWATCH_PACKAGES", folder.as_os_str()),
        ("NETWATCH_DEBIAN", debian.as_os_str()),
        ("NETWATCH_KUBERNETES", kubernetes.as_os_str()),
    ];
    let mut command = as_root(&programs.tests, &variables)?;
    command.current_dir(place.path()).args(["packages::", "--nocapture"]);
    stream::run(&mut command, &mut summary, "tests of packages", &output, "packages");
    print!("{}", summary.failure_list());
    println!("{summary}");
    Ok(if summary.is_success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds the end-to-end tests as the caller and runs them as root.
fn e2e(
    summary: &mut Summary,
    output: &Output,
    filter: Option<&str>,
    libtest: &[String],
    verbose: bool,
) -> Result<()> {
    step("building netwatch and its end-to-end tests");
    let (folder, programs) = Programs::build()?.staged()?;
    // A path, or why there is none, which the tests that need it print.
    let debian = debian::root(verbose);
    let (name, value) = match &debian {
        Ok(root) => ("NETWATCH_DEBIAN", root.as_os_str().to_owned()),
        Err(error) => ("NETWATCH_NO_DEBIAN", format!("{error:#}").into()),
    };
    let clickhouse = debian::clickhouse(verbose);
    let (clickhouse_name, clickhouse_value) = match &clickhouse {
        Ok(root) => ("NETWATCH_CLICKHOUSE", root.as_os_str().to_owned()),
        Err(error) => ("NETWATCH_NO_CLICKHOUSE", format!("{error:#}").into()),
    };
    let judges = judges::python(verbose);
    let (judges_name, judges_value) = match &judges {
        Ok(python) => ("NETWATCH_JUDGES", python.as_os_str().to_owned()),
        Err(error) => ("NETWATCH_NO_JUDGES", format!("{error:#}").into()),
    };
    step("end-to-end tests");
    let variables = [
        ("NETWATCH_BIN", programs.netwatch.as_os_str()),
        ("NETWATCH_ACTOR", programs.actor.as_os_str()),
        (name, &value),
        (clickhouse_name, &clickhouse_value),
        (judges_name, &judges_value),
    ];
    let mut command = as_root(&programs.tests, &variables)?;
    // Uncaptured, so that the output shows which test hangs or is skipped.
    command.current_dir(folder.path()).args(filter).args(["--nocapture"]).args(libtest);
    stream::run(&mut command, summary, "end-to-end tests", output, "e2e");
    Ok(())
}
