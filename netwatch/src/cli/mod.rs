//! The command line. Arguments are validated here, once, and converted to the options of each command.

mod audit;
mod check;
mod config;
mod doctor;
mod examples;
mod filter;
mod fleet;
#[cfg(any(test, feature = "test-equipment"))]
mod generate;
mod generated;
mod kernel;
mod list;
mod log;
mod output;
mod record;
mod rules;
mod serve;
mod top;
mod trace;
mod values;
mod verify;
mod version;
mod watch;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

use crate::commands::alert_exec::AlertExecOptions;
use crate::commands::audit::AuditOptions;
use crate::commands::check::CheckOptions;
use crate::commands::doctor::DoctorOptions;
use crate::commands::fleet::FleetOptions;
#[cfg(any(test, feature = "test-equipment"))]
use crate::commands::generate::GenerateOptions;
use crate::commands::list::ListOptions;
use crate::commands::log::SearchOptions;
use crate::commands::record::RecordOptions;
use crate::commands::serve::ServeOptions;
use crate::commands::top::TopOptions;
use crate::commands::trace::TraceOptions;
use crate::commands::verify::VerifyOptions;
use crate::commands::watch::WatchOptions;
use crate::escape;
use crate::rules::EXEC_COMMAND;

/// The command to run, with its validated options.
#[derive(Debug)]
pub enum Command {
    /// List sockets from one snapshot.
    List(Box<ListOptions>),
    /// Print events as they happen.
    Watch(Box<WatchOptions>),
    /// Show the live screen.
    Top(Box<TopOptions>),
    /// Write events to the store.
    Record(Box<RecordOptions>),
    /// Print events from the store.
    Log(Box<SearchOptions>),
    /// Show the store in a browser.
    Serve(ServeOptions),
    /// Verify the hash chain of the store.
    Verify(VerifyOptions),
    /// Generate a store for benchmarks.
    #[cfg(any(test, feature = "test-equipment"))]
    Generate(GenerateOptions),
    /// Trace a connection back to its cause.
    Trace(TraceOptions),
    /// Audit listening ports.
    Audit(Box<AuditOptions>),
    /// Report the probes that this kernel supports.
    Doctor(DoctorOptions),
    /// Check rules.
    Check(CheckOptions),
    /// The record of many hosts.
    Fleet(FleetOptions),
    /// Run a program for each alert on stdin.
    AlertExec(AlertExecOptions),
    /// Print a text that is generated from the command line.
    Print(Vec<u8>),
}

/// Parses the command line.
///
/// # Errors
/// clap's error, which is also how it returns the texts of `--help` and `--version`.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    let mut arguments: Vec<_> = arguments.into_iter().collect();
    // What `--alert-exec` starts is no command for people, and in no help, page or completion.
    if let [_, command, program @ ..] = &arguments[..]
        && command == EXEC_COMMAND
        && !program.is_empty()
    {
        return Ok(Command::AlertExec(AlertExecOptions { program: program.to_vec() }));
    }
    if list::is_meant(&arguments) {
        arguments.insert(1, "list".into());
    }
    let usage = |error: anyhow::Error| usage(&error);
    Ok(match Cli::try_parse_from(&arguments)?.command {
        Sub::List(list) => Command::List(Box::new(list.options().map_err(usage)?)),
        Sub::Watch(watch) => Command::Watch(Box::new(watch.options().map_err(usage)?)),
        Sub::Top(top) => Command::Top(Box::new(top.options().map_err(usage)?)),
        Sub::Record(record) => {
            let record = config::complete(*record, &arguments)?;
            Command::Record(Box::new(record.options().map_err(usage)?))
        }
        Sub::Log(log) => Command::Log(Box::new(log.options().map_err(usage)?)),
        Sub::Serve(serve) => Command::Serve(serve.options().map_err(usage)?),
        Sub::Verify(verify) => Command::Verify(verify.options().map_err(usage)?),
        #[cfg(any(test, feature = "test-equipment"))]
        Sub::Generate(generate) => Command::Generate(generate.options()),
        Sub::Trace(trace) => Command::Trace(trace.options()),
        Sub::Audit(audit) => Command::Audit(Box::new(audit.options().map_err(usage)?)),
        Sub::Doctor(doctor) => Command::Doctor(doctor.options()),
        Sub::Fleet(fleet) => Command::Fleet(fleet.options().map_err(usage)?),
        Sub::Rules(rules) => Command::Check(rules.options()),
        Sub::Completions(completions) => Command::Print(completions.text()),
        Sub::Man(man) => Command::Print(man.text().map_err(usage)?),
    })
}

fn usage(error: &anyhow::Error) -> clap::Error {
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{error:#}"))
}

/// clap's error message as one line, with a pointer to the help.
#[must_use]
pub fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let complaint = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = complaint.split_whitespace().collect();
    let complaint = words.join(" ");
    let complaint = complaint.strip_prefix("error: ").unwrap_or(&complaint);
    let tip = text.split("\n\n").find_map(|paragraph| paragraph.trim().strip_prefix("tip: "));
    let tip = tip.and_then(|tip| tip.lines().next()).map(|tip| format!(" ({tip})")).unwrap_or_default();
    format!("netwatch: {}{}; see `netwatch --help`", escape::terminal(complaint), escape::terminal(&tip))
}

/// Report which process originated each network connection on this host, and on what evidence.
#[derive(Parser)]
#[command(name = "netwatch", version = version::SHORT, long_version = version::long(), disable_help_subcommand = true, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// List sockets as netstat does, with the originator of each connection
    #[command(after_help = examples::LIST)]
    List(Box<list::ListArgs>),
    /// Print each connection and its originator as it is made
    #[command(after_help = examples::WATCH)]
    Watch(Box<watch::WatchArgs>),
    /// Show connections, processes and originators on a live screen
    ///
    /// Screen readers do better with the lines of `netwatch watch` and `netwatch list`.
    #[command(after_help = examples::TOP)]
    Top(Box<top::TopArgs>),
    /// Record connections to a store
    #[command(after_help = examples::RECORD)]
    Record(Box<record::RecordArgs>),
    /// Print and search recorded events
    #[command(after_help = examples::LOG)]
    Log(Box<log::LogArgs>),
    /// Show the record in a browser
    #[command(after_help = examples::SERVE)]
    Serve(serve::ServeArgs),
    /// Verify that the store has not been altered
    #[command(after_help = examples::VERIFY)]
    Verify(verify::VerifyArgs),
    /// Generate a store of synthetic connections
    #[cfg(any(test, feature = "test-equipment"))]
    #[command(hide = true)]
    Generate(generate::GenerateArgs),
    /// Trace a connection back to the process that caused it
    #[command(after_help = examples::TRACE)]
    Trace(trace::TraceArgs),
    /// Audit listening ports: explain each one, and report those that cannot be explained
    #[command(after_help = examples::AUDIT)]
    Audit(Box<audit::AuditArgs>),
    /// Show which probes this kernel supports and what is not seen, and run a self-test
    #[command(after_help = examples::DOCTOR)]
    Doctor(doctor::DoctorArgs),
    /// Search and trace the records of many hosts on a ClickHouse server
    #[command(after_help = examples::FLEET)]
    Fleet(fleet::FleetCommand),
    /// Check rules that raise alerts
    #[command(after_help = examples::RULES)]
    Rules(check::RulesCommand),
    /// Print completions for a shell
    #[command(after_help = examples::COMPLETIONS)]
    Completions(generated::CompletionsArgs),
    /// Print the manual page of netwatch or of one of its commands
    #[command(after_help = examples::MAN)]
    Man(generated::ManArgs),
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::commands::list::{Letters, Namespaces};
    use crate::kernel::Forced;
    use crate::limits;
    use crate::output::Format;

    fn read(line: &str) -> Result<Command, String> {
        let arguments = line.split_whitespace().map(OsString::from);
        parse(std::iter::once("netwatch".into()).chain(arguments)).map_err(|error| one_line(&error))
    }

    fn complaint(line: &str) -> String {
        read(line).unwrap_err()
    }

    #[test]
    fn the_command_line_is_well_formed() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }

    #[test]
    fn the_flags_of_netstat_are_parsed() {
        let Ok(Command::List(options)) = read("list -natup") else { panic!() };
        let letters =
            Letters { tcp: true, udp: true, all: true, numeric: true, programs: true, ..Letters::default() };
        assert_eq!(options.letters, letters);
        assert_eq!(options.namespaces, Namespaces::Own);
    }

    #[test]
    fn a_protocol_that_is_not_shown_needs_no_probe() {
        let forced = |line: &str| match read(line) {
            Ok(Command::Watch(options)) => options.kernel.forced,
            Ok(Command::Record(options)) => options.kernel.forced,
            _ => panic!("{line}"),
        };
        for command in ["watch", "record"] {
            assert_eq!(forced(command), []);
            assert_eq!(forced(&format!("{command} --proto udp")), []);
            assert_eq!(forced(&format!("{command} --proto tcp")), [Forced::NO_UDP]);
        }
        let own = forced("watch --proto tcp --probe udp=cgroup");
        assert_eq!(own, [Forced::NO_UDP, Forced::parse("udp=cgroup").unwrap()]);
    }

    #[test]
    fn filters_are_read() {
        let line = "watch --json --pid 7 --user 0 --port 22,80 --origin local --event open,close -4 --local 10.0.0.0/8:5 --duration 1m30s --count 3 --no-seed";
        let Ok(Command::Watch(options)) = read(line) else { panic!() };
        assert_eq!(
            options.log.filter.to_string(),
            "pid:7 user:0 port:22,80 local:[10.0.0.0/8]:5 origin:local event:open,close family:4"
        );
        assert_eq!(options.duration, Some(Duration::from_secs(90)));
        assert_eq!((options.log.limit, options.seeds), (Some(3), false));
        assert_eq!((options.log.format, options.kernel.ring_bytes), (Format::Json, limits::RING_BYTES));
    }

    #[test]
    fn error_messages_are_one_line_and_name_the_error() {
        for (line, part) in [
            ("watch --port 99999", "99999"),
            ("watch --event opened", "one of seed, listen"),
            ("watch --local 10.0.0.0/99", "CIDR"),
            ("watch --user nobody-here-of-that-name", "no such user"),
            ("watch --origin sideways", "local, remote, both or unknown"),
            ("watch --duration soon", "10s"),
            ("watch --ring 0", "0"),
            ("watch --udp-flows 0", "0"),
            ("watch --udp-idle never", "10s"),
            ("watch --process [", "--process"),
            ("watch --format xml", "one of text, json, ecs, ocsf, zeek, zeek-json, sysmon"),
            ("list --format ecs", "text or json"),
            ("log --ocsf 2", "1.8 or 1.9"),
            ("watch --netns here", "inode number"),
            ("watch --filter port:x", "`port:x`: expected a port number up to 65535"),
            ("list --filter event:open", "`event` selects events"),
            ("watch --probe accept=magic", "fexit, kprobe, syscall, none"),
            ("doctor --probe sleep=none", "one of the jobs"),
            ("watch -4 -6", "-6"),
            ("record --max-size 5", "at least 1MiB"),
            ("record --retain forever", "30d"),
            ("record --config /nowhere/at/all", "/nowhere/at/all"),
            ("log --since soon", "yesterday"),
            ("verify --anchor abc", "64 hexadecimal digits"),
            ("list -x", "ss -x"),
            ("list -n --resolve", "--resolve"),
            ("nonsense", "nonsense"),
            ("lst", "a similar subcommand exists: 'list'"),
            ("verfy", "'verify'"),
            ("watch --proces x", "a similar argument exists: '--process'"),
            ("", "subcommand"),
        ] {
            let message = complaint(line);
            assert!(message.contains(part), "{line}: {message}");
            assert!(!message.contains('\n') && message.starts_with("netwatch: "), "{message}");
        }
    }
}
