//! Set-up, build, run, test, other kernels and benchmarks: `cargo xtask <command>`, one file per command.
//!
//! Progress goes to stderr, so that stdout has only the program's output (`cargo xtask run -- watch --json | jq`).

mod bench;
mod cargo;
mod debian;
mod exec;
mod judges;
mod lint;
mod output;
mod package;
mod programs;
mod run;
mod setup;
mod summary;
mod test;
mod vm;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Set-up, build, run, test and bench of netwatch")]
struct Cli {
    #[command(subcommand)]
    command: Task,
    /// Show the output of every tool, not only of those that fail
    #[arg(short, long, global = true)]
    verbose: bool,
}

#[derive(Subcommand)]
enum Task {
    /// Install what building netwatch needs and this machine lacks
    Setup(setup::Args),
    /// Build netwatch and run it as root
    Run(run::Args),
    /// Check format, lints and rooms, run the unit tests, then the end-to-end tests as root
    Test(test::Args),
    /// Compare the imports between rooms with ARCHITECTURE.md, and check the length of files
    Lint(lint::Args),
    /// Run the end-to-end tests on other kernels, in QEMU
    Vm(vm::Args),
    /// Make packages: deb, rpm, tarball, container image
    Package(package::Args),
    /// Measure netwatch's latency, its cost, and what it loses under a flood of connections
    Bench(bench::Args),
}

fn main() -> ExitCode {
    let Cli { command, verbose } = Cli::parse();
    let result = match command {
        Task::Setup(args) => setup::run(&args, verbose),
        Task::Run(args) => run::run(&args, verbose),
        Task::Test(args) => test::run(&args, verbose),
        Task::Lint(args) => lint::run(&args),
        Task::Vm(args) => vm::run(&args, verbose),
        Task::Package(args) => package::run(&args, verbose),
        Task::Bench(args) => bench::run(&args, verbose),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error:#}");
        ExitCode::FAILURE
    })
}
