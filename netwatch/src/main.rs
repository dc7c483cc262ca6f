//! The netwatch command: reads the command line, runs, and turns what went wrong into one line and an exit
//! status.

use std::io::{self, Write as _};
use std::process::ExitCode;

use netwatch::blocking;
use netwatch::cli::{self, Command};
#[cfg(feature = "test-equipment")]
use netwatch::commands::generate;
use netwatch::commands::{
    alert_exec, audit, check, doctor, fleet, is_closed_pipe, list, log, record, serve, top, trace, verify,
    watch,
};
use netwatch::{rights, stderr};

/// Wrong usage.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    // For whoever works on netwatch: silent unless RUST_LOG asks, or the build is for debugging.
    let quiet = if cfg!(debug_assertions) { "info" } else { "off" };
    env_logger::Builder::from_env(env_logger::Env::default().default_filter_or(quiet))
        .target(env_logger::Target::Pipe(Box::new(stderr::Log)))
        .init();
    let command = match cli::parse(std::env::args_os()) {
        Ok(command) => command,
        Err(error) if error.use_stderr() => {
            let _ = writeln!(io::stderr(), "{}", cli::one_line(&error));
            return USAGE.into();
        }
        Err(help) => {
            // Help and version; whoever closed the pipe does not want them.
            let _ = help.print();
            return ExitCode::SUCCESS;
        }
    };
    let helper = match &command {
        Command::Log(_) | Command::Serve(_) | Command::Verify(_) | Command::Check(_) => &rights::NAMES,
        _ => &rights::HELPER,
    };
    // This process has one thread so far. What runs programs asks nothing.
    let asks = !matches!(command, Command::AlertExec(_));
    if asks && let Err(error) = blocking::fork_helper(helper) {
        stderr::print(&format!("netwatch: cannot start a process that reads file systems: {error}"));
    }
    let result = match command {
        Command::List(options) => list::run(&options, &mut io::stdout()).map(|()| ExitCode::SUCCESS),
        Command::Watch(options) => watch::run(*options).map(|()| ExitCode::SUCCESS),
        Command::Top(options) => top::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Record(options) => record::run(*options).map(|()| ExitCode::SUCCESS),
        Command::Log(options) => log::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Serve(options) => serve::run(options).map(|()| ExitCode::SUCCESS),
        Command::Verify(options) => verify::run(&options, &mut io::stdout()),
        #[cfg(feature = "test-equipment")]
        Command::Generate(options) => generate::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Trace(options) => trace::run(&options, &mut io::stdout()).map(|()| ExitCode::SUCCESS),
        Command::Audit(options) => audit::run(*options, &mut io::stdout()),
        Command::AlertExec(options) => alert_exec::run(&options).map(|()| ExitCode::SUCCESS),
        Command::Check(options) => check::run(&options, &mut io::stdout()),
        Command::Fleet(options) => fleet::run(&options, &mut io::stdout()).map(|()| ExitCode::SUCCESS),
        Command::Doctor(options) => doctor::run(&options, &mut io::stdout()),
        Command::Print(text) => io::stdout().write_all(&text).map(|()| ExitCode::SUCCESS).map_err(Into::into),
    };
    let status = result.unwrap_or_else(|error| {
        if is_closed_pipe(&error) {
            return ExitCode::SUCCESS;
        }
        stderr::print(&format!("netwatch: {error:#}"));
        ExitCode::FAILURE
    });
    stderr::finish();
    status
}
