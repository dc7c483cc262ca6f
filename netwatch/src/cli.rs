//! The command line: what clap reads becomes the options of each command, checked once and here.

use std::ffi::OsString;
use std::io::{self, IsTerminal as _};
use std::time::Duration;

use anyhow::{Context as _, Result};
use clap::{ArgAction, Args, Parser, Subcommand};
use globset::{Glob, GlobMatcher};
use nix::unistd::User;

use crate::commands::doctor::DoctorOptions;
use crate::commands::list::{Letters, ListOptions, Namespaces};
use crate::commands::watch::WatchOptions;
use crate::filter::{AddressPattern, Filter};
use crate::kernel::{self, DEFAULT_RING_BYTES, DEFAULT_UDP_FLOWS, Forced, Sabotage};
use crate::model::{Family, Proto};
use crate::origin::Side;
use crate::output::{Format, LogOptions};
use crate::snapshot::netns;
use crate::tracker::Kind;

/// What was asked for.
#[derive(Debug)]
pub enum Command {
    /// One look.
    List(ListOptions),
    /// The log.
    Watch(Box<WatchOptions>),
    /// What this kernel offers.
    Doctor(DoctorOptions),
}

/// Reads the command line.
///
/// # Errors
/// clap's own error, which is also how it hands out help and version.
pub fn parse(arguments: impl IntoIterator<Item = OsString>) -> Result<Command, clap::Error> {
    Ok(match Cli::try_parse_from(arguments)?.command {
        Sub::List(list) => Command::List(list.options()),
        Sub::Watch(watch) => Command::Watch(Box::new(watch.options().map_err(|error| usage(&error))?)),
        Sub::Doctor(doctor) => Command::Doctor(DoctorOptions {
            json: doctor.format.is_json(),
            forced: doctor.probes.probe,
            sabotage: doctor.probes.sabotage,
        }),
    })
}

fn usage(error: &anyhow::Error) -> clap::Error {
    clap::Error::raw(clap::error::ErrorKind::ValueValidation, format!("{error:#}"))
}

/// clap's complaint in one line: what is wrong, and where to read on.
#[must_use]
pub fn one_line(error: &clap::Error) -> String {
    let text = error.render().to_string();
    let complaint = text.split("\n\n").next().unwrap_or_default();
    let words: Vec<_> = complaint.split_whitespace().collect();
    let complaint = words.join(" ");
    format!("netwatch: {}; see `netwatch --help`", complaint.strip_prefix("error: ").unwrap_or(&complaint))
}

/// Who originated each network connection on this host, and how that is known.
#[derive(Parser)]
#[command(name = "netwatch", version, disable_help_subcommand = true, arg_required_else_help = false)]
struct Cli {
    #[command(subcommand)]
    command: Sub,
}

#[derive(Subcommand)]
enum Sub {
    /// Sockets as netstat lists them, and who originated each connection
    List(ListArgs),
    /// The live log: each connection as it is made, with who originated it
    Watch(Box<WatchArgs>),
    /// What this kernel offers, what is therefore not seen, and a connection to prove it
    Doctor(DoctorArgs),
}

#[derive(Args)]
struct FormatArgs {
    /// How to print
    #[arg(long, value_name = "FORMAT", value_parser = format, default_value = "text")]
    format: Format,
    /// Short for --format json: one object a line
    #[arg(long, conflicts_with = "format")]
    json: bool,
}

impl FormatArgs {
    fn format(&self) -> Format {
        if self.json { Format::Json } else { self.format }
    }

    fn is_json(&self) -> bool {
        self.format() == Format::Json
    }
}

fn format(text: &str) -> Result<Format, &'static str> {
    match text {
        "text" => Ok(Format::Text),
        "json" => Ok(Format::Json),
        _ => Err("text or json"),
    }
}

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "netstat's letters, each a flag")]
struct ListArgs {
    /// TCP sockets
    #[arg(short = 't', long)]
    tcp: bool,
    /// UDP sockets
    #[arg(short = 'u', long)]
    udp: bool,
    /// Only listeners, and UDP sockets that are not connected
    #[arg(short = 'l', long)]
    listening: bool,
    /// Those and the others
    #[arg(short = 'a', long)]
    all: bool,
    /// Numbers in place of names: always so, accepted for the fingers' sake
    #[arg(short = 'n', long, conflicts_with = "resolve")]
    numeric: bool,
    /// The process of each socket
    #[arg(short = 'p', long = "programs")]
    programs: bool,
    /// IPv4 sockets
    #[arg(short = '4')]
    ipv4: bool,
    /// IPv6 sockets
    #[arg(short = '6')]
    ipv6: bool,
    /// Ask for the names of hosts and services
    #[arg(long)]
    resolve: bool,
    /// UNIX sockets are no network connections
    #[arg(short = 'x', long = "unix", hide = true, value_parser = no_unix, num_args = 0, default_missing_value = "")]
    unix: Option<String>,
    /// The network namespaces to show: an inode number, `self` or `all`
    #[arg(long, value_name = "INUM|self|all", value_parser = namespaces, default_value = "self")]
    netns: Namespaces,
    #[command(flatten)]
    format: FormatArgs,
}

fn no_unix(_: &str) -> Result<String, &'static str> {
    Err("UNIX sockets are no network connections: `ss -x` lists them")
}

fn namespaces(text: &str) -> Result<Namespaces, &'static str> {
    match text {
        "self" => Ok(Namespaces::Own),
        "all" => Ok(Namespaces::All),
        inum => inum.parse().map(Namespaces::Inum).map_err(|_| "an inode number, `self` or `all`"),
    }
}

impl ListArgs {
    fn options(&self) -> ListOptions {
        ListOptions {
            letters: Letters {
                tcp: self.tcp,
                udp: self.udp,
                listening: self.listening,
                all: self.all,
                numeric: self.numeric,
                programs: self.programs,
                ipv4: self.ipv4,
                ipv6: self.ipv6,
            },
            resolve: self.resolve,
            json: self.format.is_json(),
            namespaces: self.netns,
        }
    }
}

#[derive(Args)]
struct DoctorArgs {
    #[command(flatten)]
    format: FormatArgs,
    #[command(flatten)]
    probes: ProbeArgs,
}

#[derive(Args)]
struct ProbeArgs {
    /// Do a job by this probe and no other, or by `none`: `netwatch doctor` has the names
    #[arg(long, value_name = "JOB=RUNG", value_parser = Forced::parse)]
    probe: Vec<Forced>,
    /// What to do wrong, so that a test sees it noticed
    #[arg(long, hide = true, value_parser = Sabotage::parse)]
    sabotage: Option<Sabotage>,
}

/// The same on every command that prints events.
#[derive(Args)]
#[command(next_help_heading = "Filters (all have to hold; what is known does not depend on them)")]
struct FilterArgs {
    /// Connections of this process
    #[arg(long, value_name = "N")]
    pid: Option<u32>,
    /// Of processes whose name or executable matches
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    process: Option<GlobMatcher>,
    /// Of this user's processes
    #[arg(long, value_name = "NAME|UID", value_parser = user)]
    user: Option<u32>,
    /// With one of these ports at either end
    #[arg(long, value_name = "N[,N]", value_delimiter = ',')]
    port: Vec<u16>,
    /// With this end's address in a network
    #[arg(long, value_name = "CIDR[:PORT]")]
    local: Option<AddressPattern>,
    /// With the other end's address in a network
    #[arg(long, value_name = "CIDR[:PORT]")]
    remote: Option<AddressPattern>,
    /// Begun by this side: local, remote, both or unknown
    #[arg(long, value_name = "SIDE", value_parser = side)]
    origin: Option<Side>,
    /// Only these events
    #[arg(long, value_name = "KIND[,KIND]", value_delimiter = ',', value_parser = kind)]
    event: Vec<Kind>,
    /// tcp or udp
    #[arg(long, value_name = "PROTO", value_parser = proto)]
    proto: Option<Proto>,
    /// IPv4, mapped addresses included
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// IPv6
    #[arg(short = '6')]
    ipv6: bool,
    /// Of processes in this container
    #[arg(long, value_name = "ID")]
    container: Option<String>,
    /// In this network namespace: an inode number, `self` or `all`
    #[arg(long, value_name = "INUM|self|all", value_parser = namespaces, default_value = "all")]
    netns: Namespaces,
}

fn glob(text: &str) -> Result<GlobMatcher, String> {
    Glob::new(text).map(|glob| glob.compile_matcher()).map_err(|error| error.kind().to_string())
}

fn user(text: &str) -> Result<u32, String> {
    if let Ok(uid) = text.parse() {
        return Ok(uid);
    }
    match User::from_name(text) {
        Ok(Some(user)) => Ok(user.uid.as_raw()),
        Ok(None) => Err("no such user".into()),
        Err(error) => Err(format!("the user database: {error}")),
    }
}

fn side(text: &str) -> Result<Side, &'static str> {
    let sides = [Side::Local, Side::Remote, Side::Both, Side::Unknown];
    sides.into_iter().find(|side| side.name() == text).ok_or("local, remote, both or unknown")
}

fn kind(text: &str) -> Result<Kind, String> {
    Kind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
        let names: Vec<_> = Kind::ALL.iter().map(|kind| kind.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

fn proto(text: &str) -> Result<Proto, &'static str> {
    [Proto::Tcp, Proto::Udp].into_iter().find(|proto| proto.name() == text).ok_or("tcp or udp")
}

impl FilterArgs {
    fn filter(self) -> Result<Filter> {
        let netns = match self.netns {
            Namespaces::All => None,
            Namespaces::Inum(inum) => Some(inum),
            Namespaces::Own => {
                Some(netns::own().context("cannot tell the own network namespace (is /proc mounted?)")?)
            }
        };
        Ok(Filter {
            pid: self.pid,
            process: self.process,
            uid: self.user,
            ports: self.port,
            local: self.local,
            remote: self.remote,
            origin: self.origin,
            kinds: self.event,
            proto: self.proto,
            family: match (self.ipv4, self.ipv6) {
                (true, _) => Some(Family::Ipv4),
                (_, true) => Some(Family::Ipv6),
                _ => None,
            },
            container: self.container,
            netns,
        })
    }
}

#[derive(Args)]
struct WatchArgs {
    #[command(flatten)]
    format: FormatArgs,
    /// Also attempts, and every TCP transition
    #[arg(long)]
    states: bool,
    /// Leave out what was there before
    #[arg(long, action = ArgAction::SetTrue)]
    no_seed: bool,
    /// Stop after this time: 10s, 5m, 1h30m; a bare number is seconds
    #[arg(long, value_name = "TIME", value_parser = duration)]
    duration: Option<Duration>,
    /// Stop after so many events
    #[arg(long, value_name = "N")]
    count: Option<u64>,
    /// Size of the ring buffer, for very busy hosts; taken up to a power of two
    #[arg(long, value_name = "BYTES", default_value_t = DEFAULT_RING_BYTES, value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    ring: u32,
    /// A UDP flow without a datagram for so long is over
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2m")]
    udp_idle: Duration,
    /// UDP flows to follow at once; that there were more is told as a loss
    #[arg(long, value_name = "N", default_value_t = DEFAULT_UDP_FLOWS, value_parser = clap::value_parser!(u32).range(1..=1 << 24))]
    udp_flows: u32,
    #[command(flatten)]
    probes: ProbeArgs,
    #[command(flatten)]
    filter: FilterArgs,
}

fn duration(text: &str) -> Result<Duration, String> {
    if let Ok(seconds) = text.parse() {
        return Ok(Duration::from_secs(seconds));
    }
    let parsed: jiff::SignedDuration = text.parse().map_err(|_| "a time, like 10s, 5m or 1h30m")?;
    parsed.try_into().map_err(|_| "a time that is not negative".into())
}

impl WatchArgs {
    fn options(self) -> Result<WatchOptions> {
        let format = self.format.format();
        let colour = format == Format::Text
            && io::stdout().is_terminal()
            && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Ok(WatchOptions {
            kernel: kernel::Options {
                ring_bytes: self.ring,
                all_states: self.states,
                udp_flows: self.udp_flows,
                udp_idle: self.udp_idle,
                forced: self.probes.probe,
                sabotage: self.probes.sabotage,
            },
            seeds: !self.no_seed,
            duration: self.duration,
            log: LogOptions { format, colour, filter: self.filter.filter()?, limit: self.count },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn netstat_s_letters_are_read() {
        let Ok(Command::List(options)) = read("list -natup") else { panic!() };
        let letters =
            Letters { tcp: true, udp: true, all: true, numeric: true, programs: true, ..Letters::default() };
        assert_eq!(options.letters, letters);
        assert_eq!(options.namespaces, Namespaces::Own);
    }

    #[test]
    fn filters_are_read() {
        let line = "watch --json --pid 7 --user 0 --port 22,80 --origin local --event open,close -4 --local 10.0.0.0/8:5 --duration 1m30s --count 3 --no-seed";
        let Ok(Command::Watch(options)) = read(line) else { panic!() };
        let filter = &options.log.filter;
        assert_eq!((filter.pid, filter.uid, &filter.ports[..]), (Some(7), Some(0), &[22, 80][..]));
        assert_eq!((filter.origin, filter.netns), (Some(Side::Local), None));
        assert_eq!(filter.kinds, [Kind::Open, Kind::Close]);
        assert_eq!(options.duration, Some(Duration::from_secs(90)));
        assert_eq!((options.log.limit, options.seeds), (Some(3), false));
        assert_eq!((options.log.format, options.kernel.ring_bytes), (Format::Json, DEFAULT_RING_BYTES));
    }

    #[test]
    fn durations() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        assert!(duration("-5s").is_err() && duration("soon").is_err() && duration("").is_err());
    }

    #[test]
    fn complaints_are_one_line_and_say_what_is_wrong() {
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
            ("watch --format xml", "text or json"),
            ("watch --netns here", "inode number"),
            ("watch --probe accept=magic", "fexit, kprobe, syscall, none"),
            ("doctor --probe sleep=none", "one of the jobs"),
            ("watch -4 -6", "-6"),
            ("list -x", "ss -x"),
            ("list -n --resolve", "--resolve"),
            ("nonsense", "nonsense"),
            ("", "subcommand"),
        ] {
            let told = complaint(line);
            assert!(told.contains(part), "{line}: {told}");
            assert!(!told.contains('\n') && told.starts_with("netwatch: "), "{told}");
        }
    }
}
