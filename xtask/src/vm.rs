//! `cargo xtask vm`: the end-to-end tests on other kernels, in QEMU.
//!
//! They run with the same test binary and the same netwatch as on the host, on kernels of Debian, on every rung of
//! probes that a kernel supports. Nothing is built for the guests: they get programs of the host with their libraries.

mod cached;
mod emulator;
mod fetch;
mod guest;
mod kernels;
mod mirror;
mod modules;
mod report;
mod root;
mod rungs;
mod table;
mod version;

use std::collections::VecDeque;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};

use anyhow::{Result, anyhow};
use clap::builder::PossibleValuesParser;

use crate::exec::step;
use crate::output::Output;
use crate::programs::Programs;
use crate::setup;
use crate::summary::Summary;
use cached::Cached;
pub(crate) use fetch::said;
use kernels::{KERNELS, Kernel};
use mirror::Mirror;
pub(crate) use mirror::Source;
use root::{Asked, Base};
use rungs::{RUNGS, Rung, SHORT};
use table::Row;

#[derive(Default, clap::Args)]
pub(crate) struct Args {
    /// Kernels to test on [default: all]
    #[arg(value_name = "KERNEL", value_parser = PossibleValuesParser::new(KERNELS.iter().map(|kernel| kernel.name)))]
    kernels: Vec<String>,
    /// Rungs of probes to test [default: all]
    #[arg(long, value_name = "RUNG", value_parser = PossibleValuesParser::new(RUNGS.iter().map(|rung| rung.name)))]
    rung: Vec<String>,
    /// Only the tests that differ most between kernels, on the best rung
    #[arg(long)]
    short: bool,
    /// Also run in the guests the tests that do not depend on the kernel (store, command line, output), which otherwise
    /// run on the host only
    #[arg(long)]
    everything: bool,
    /// How to print the results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Test this program instead of building one, for example that of a package. Tests that need its test equipment fail
    #[arg(long, value_name = "PROGRAM")]
    netwatch: Option<PathBuf>,
    /// Arguments for the test program (libtest's); filters replace those of the rungs
    #[arg(last = true)]
    libtest: Vec<String>,
}

#[derive(Clone, Copy, Default, clap::ValueEnum)]
enum Format {
    #[default]
    Text,
    Json,
}

/// Runs one guest per core, since the emulator uses one core.
const GUESTS_AT_ONCE: usize = 2;

/// The cache of downloads.
pub(crate) fn cache() -> Result<PathBuf> {
    fetch::cache()
}

/// The Debian suite of this machine, and the source of its packages.
pub(crate) fn own_suite() -> Result<(String, Source)> {
    mirror::own_suite()
}

/// Installs the programs that boot other kernels; an error if this machine cannot run them.
pub(crate) fn ensure(verbose: bool) -> Result<()> {
    setup::ensure_for_guests(verbose)?;
    emulator::ensure(&fetch::cache()?, verbose)
}

pub(crate) fn run(args: &Args, verbose: bool) -> Result<ExitCode> {
    setup::ensure_for_tests(verbose)?;
    if let Err(error) = ensure(verbose) {
        step(&format!("SKIPPED: no kernel is tested: {error:#}"));
        return Ok(ExitCode::SUCCESS);
    }
    let output = Output::new()?;
    let rows = matrix(args, &output, verbose)?;
    match args.format {
        Format::Text => print!("{}", table::text(&rows)),
        Format::Json => print!("{}", table::json(&rows)),
    }
    if is_success(&rows) {
        return Ok(ExitCode::SUCCESS);
    }
    step(&format!("the full output of each guest is in {}", output.folder().display()));
    Ok(ExitCode::FAILURE)
}

/// Runs a part of the matrix as part of a test run; the whole takes twice as long. Rows that did not run count as
/// skipped.
pub(crate) fn add_to(summary: &mut Summary, output: &Output, verbose: bool) -> Result<()> {
    if let Err(error) = ensure(verbose) {
        step(&format!("SKIPPED: no other kernel is tested: {error:#}"));
        summary.skipped();
        return Ok(());
    }
    step("end-to-end tests on other kernels");
    let rows = matrix(&Args { short: true, ..Args::default() }, output, verbose)?;
    print!("{}", table::text(&rows));
    count(summary, output, &rows);
    Ok(())
}

fn count(summary: &mut Summary, output: &Output, rows: &[Row]) {
    for row in rows {
        summary.output_in(&output.file(&row.kernel));
        summary.name(row.failures());
        summary.add(row.passed, row.failed, row.skipped + usize::from(row.is_empty()));
    }
    if rows.iter().all(Row::is_empty) {
        step("no other kernel was available, so none was tested");
        summary.failed("other kernels: none was available");
    }
}

/// A kernel that is not available is no failure, unless none ran.
fn is_success(rows: &[Row]) -> bool {
    rows.iter().any(|row| !row.is_empty()) && rows.iter().all(|row| row.failed == 0)
}

/// All rows, sorted by kernel and rung.
fn matrix(args: &Args, output: &Output, verbose: bool) -> Result<Vec<Row>> {
    let asked = |names: &[String], name: &str| names.is_empty() || names.iter().any(|one| one == name);
    let ladder = if args.short { SHORT } else { RUNGS };
    let rungs: Vec<_> = ladder.iter().filter(|rung| asked(&args.rung, rung.name)).collect();
    let (mirror, cache) = (Mirror::of_this_machine(), fetch::cache()?);
    let mut rows = Vec::new();
    let mut queue = VecDeque::new();
    for kernel in KERNELS.iter().filter(|kernel| asked(&args.kernels, kernel.name)) {
        let mirror = mirror.as_ref().map_err(|error| anyhow!("{error:#}"));
        match mirror.and_then(|mirror| fetch::obtain(kernel, mirror, &cache, verbose)) {
            Ok(kernel) => queue.push_back(kernel),
            Err(error) => {
                step(&format!("SKIPPED: kernel {} is not available: {error:#}", kernel.name));
                rows.extend(rungs.iter().map(|rung| skipped(kernel, rung, &error)));
            }
        }
    }
    if queue.is_empty() {
        return Ok(rows);
    }
    step("building netwatch and its end-to-end tests");
    let programs = args.netwatch.clone().map_or_else(Programs::build, Programs::with)?;
    let base = Base::build(&programs, verbose)?;
    let asked = Asked { libtest: &args.libtest, everything: args.everything };
    let (queue, done) = (Mutex::new(queue), Mutex::new(rows));
    std::thread::scope(|scope| {
        for _ in 0..GUESTS_AT_ONCE {
            scope.spawn(|| {
                while let Some(kernel) = next(&queue) {
                    let ran = boot(&kernel, &base, &rungs, &asked, output, verbose);
                    done.lock().unwrap_or_else(PoisonError::into_inner).extend(ran);
                }
            });
        }
    });
    let mut rows = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    rows.sort_by(|one, other| version::compare(&one.kernel, &other.kernel));
    Ok(rows)
}

fn next(queue: &Mutex<VecDeque<Cached>>) -> Option<Cached> {
    queue.lock().unwrap_or_else(PoisonError::into_inner).pop_front()
}

fn skipped(kernel: &Kernel, rung: &Rung, why: &anyhow::Error) -> Row {
    let reason = format!("skipped: {why:#}");
    Row { kernel: kernel.name.to_owned(), rung: rung.name.to_owned(), reason: Some(reason), ..Row::default() }
}

/// Runs one guest to its end. An error of the guest itself is a failure in its rows.
fn boot(
    kernel: &Cached,
    base: &Base,
    rungs: &[&Rung],
    asked: &Asked<'_>,
    output: &Output,
    verbose: bool,
) -> Vec<Row> {
    let ran = base.with(kernel, rungs, asked, verbose).and_then(|initramfs| {
        let (mut file, _) = output.create(&kernel.release)?;
        guest::run(&kernel.image(), &initramfs, rungs, &mut file, &|row| print(row, verbose))
    });
    let why = match ran {
        Ok(report) if report.release.is_some() => return report.rows,
        Ok(_) => "the guest did not report".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    let row = |rung: &&Rung| Row {
        kernel: kernel.release.clone(),
        rung: rung.name.to_owned(),
        failed: 1,
        reason: Some(why.clone()),
        ..Row::default()
    };
    let rows: Vec<_> = rungs.iter().map(row).collect();
    rows.iter().for_each(|row| print(row, verbose));
    rows
}

/// Prints the result of a rung.
fn print(row: &Row, verbose: bool) {
    step(&row.line());
    if row.failed > 0 {
        row.output.iter().for_each(|line| eprintln!("    {line}"));
    }
    if verbose {
        row.skips.iter().for_each(|skip| eprintln!("    SKIP {skip}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_kernels_are_no_failure_unless_all_are_missing() {
        let missing = Row { reason: Some("skipped: no network".to_owned()), ..Row::default() };
        let passed = Row { passed: 1, ..Row::default() };
        let failed = Row { passed: 1, failed: 1, ..Row::default() };
        assert!(is_success(&[missing.clone(), passed.clone()]));
        assert!(!is_success(&[missing.clone(), missing]));
        assert!(!is_success(&[passed, failed]));
        assert!(!is_success(&[]));
    }

    #[test]
    fn rows_are_added_to_the_summary() {
        let missing = Row { reason: Some("skipped: no network".to_owned()), ..Row::default() };
        let names = vec!["fail::three".to_owned()];
        let (kernel, rung) = ("6.1".to_owned(), "best".to_owned());
        let ran = Row { kernel, rung, passed: 3, failed: 1, skipped: 2, names, ..Row::default() };
        let summary_of = |rows: &[Row]| {
            let place = tempfile::tempdir().unwrap();
            let output = Output::at(place.path().join("output")).unwrap();
            let mut summary = Summary::default();
            count(&mut summary, &output, rows);
            (summary.names().collect::<Vec<_>>().join("; "), summary.to_string())
        };
        let (names, counts) = summary_of(&[ran, missing.clone()]);
        assert_eq!(names, "6.1, best: fail::three");
        assert_eq!(counts, "3 passed, 1 failed, 3 skipped");
        assert_eq!(summary_of(&[missing]).1, "0 passed, 1 failed, 1 skipped");
    }
}
