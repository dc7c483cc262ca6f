//! `netwatch list`

use std::ffi::OsString;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::{ArgAction, Args};

use super::filter::WhichArgs;
use super::values::{FormatArgs, namespaces};
use crate::commands::list::{Letters, ListOptions, Namespaces, SortKey, Source, States};
use crate::filter::Filter;

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "the single-letter flags of netstat")]
pub(super) struct ListArgs {
    /// Show TCP sockets
    #[arg(short = 't', long)]
    tcp: bool,
    /// Show UDP sockets
    #[arg(short = 'u', long)]
    udp: bool,
    /// Show raw sockets
    #[arg(short = 'w', long)]
    raw: bool,
    /// Show only listeners and unconnected UDP sockets
    #[arg(short = 'l', long)]
    listening: bool,
    /// Show all sockets, listening and connected
    #[arg(short = 'a', long)]
    all: bool,
    /// Show numeric addresses and ports (the default; accepted for compatibility with netstat)
    #[arg(short = 'n', long, visible_aliases = ["numeric-hosts", "numeric-ports", "numeric-users"], conflicts_with = "resolve")]
    numeric: bool,
    /// Show the process of each socket
    #[arg(short = 'p', long = "programs", visible_alias = "program")]
    programs: bool,
    /// Show the user and the inode number of each socket
    #[arg(short = 'e', long, action = ArgAction::Count)]
    extend: u8,
    /// Show the timer of each TCP socket
    #[arg(short = 'o', long)]
    timers: bool,
    /// Show the table again every second, or after each of this number of seconds
    #[arg(short = 'c', long, visible_alias = "watch", value_name = "SECONDS", num_args = 0..=1, default_missing_value = "1", value_parser = interval)]
    continuous: Option<Duration>,
    /// Do not truncate addresses (they never are; accepted for compatibility with netstat)
    #[arg(short = 'W', long)]
    wide: bool,
    /// Show IPv4 sockets
    #[arg(short = '4', long = "inet", visible_alias = "ipv4")]
    ipv4: bool,
    /// Show IPv6 sockets
    #[arg(short = '6', long = "inet6", visible_alias = "ipv6")]
    ipv6: bool,
    /// Resolve host and service names
    #[arg(long)]
    resolve: bool,
    /// Show sockets in these states, by the names of netstat or ss; as with ss, `state NAME` and `exclude NAME` do the same
    #[arg(long, value_name = "STATE[,STATE]", value_delimiter = ',')]
    state: Vec<States>,
    /// Sort by proto, recv-q, send-q, local, remote, state, pid, program, port, origin or user; -KEY: the greatest first
    #[arg(long, value_name = "KEY", allow_hyphen_values = true)]
    sort: Option<SortKey>,
    #[command(flatten)]
    refused: Refused,
    /// Network namespaces to show: an inode number, `self` or `all`
    #[arg(long, value_name = "INUM|self|all", value_parser = namespaces, default_value = "self")]
    netns: Namespaces,
    /// Source of the snapshot: iter (BPF iterators), proc (/proc and sock_diag) or best (iter if available, else proc)
    #[arg(long, value_name = "SOURCE", value_parser = source, default_value = "best")]
    source: Source,
    #[command(flatten)]
    which: WhichArgs,
    #[command(flatten)]
    format: FormatArgs,
    /// `state NAME` or `exclude NAME`, as with ss(8)
    #[arg(value_name = "state NAME", hide = true)]
    words: Vec<String>,
}

/// Letters of netstat that show something else than network sockets: each names the command that does.
#[derive(Args)]
struct Refused {
    #[arg(short = 'x', long = "unix", hide = true, value_parser = refused("UNIX sockets are not network connections: `ss -x` lists them"), num_args = 0, default_missing_value = "")]
    unix: Option<String>,
    #[arg(short = 'r', long = "route", hide = true, value_parser = refused("netwatch shows no routes: `ip route` lists them"), num_args = 0, default_missing_value = "")]
    route: Option<String>,
    #[arg(short = 'i', long = "interfaces", hide = true, value_parser = refused("netwatch shows no interfaces: `ip -s link` lists them"), num_args = 0, default_missing_value = "")]
    interfaces: Option<String>,
    #[arg(short = 's', long = "statistics", hide = true, value_parser = refused("netwatch shows no statistics of protocols: `nstat -a` lists them"), num_args = 0, default_missing_value = "")]
    statistics: Option<String>,
    #[arg(short = 'g', long = "groups", hide = true, value_parser = refused("netwatch shows no multicast groups: `ip maddr` lists them"), num_args = 0, default_missing_value = "")]
    groups: Option<String>,
    #[arg(short = 'M', long = "masquerade", hide = true, value_parser = refused("netwatch shows no masqueraded connections: `conntrack -L` lists them"), num_args = 0, default_missing_value = "")]
    masquerade: Option<String>,
}

/// The parser of a letter that is refused with these words.
fn refused(why: &'static str) -> impl Fn(&str) -> Result<String, &'static str> + Clone {
    move |_| Err(why)
}

fn interval(text: &str) -> Result<Duration, &'static str> {
    const FORM: &str = "a number of seconds, at least 0.1 and at most 86400";
    let seconds: f64 = text.parse().map_err(|_| FORM)?;
    if (0.1..=86_400.0).contains(&seconds) { Ok(Duration::from_secs_f64(seconds)) } else { Err(FORM) }
}

fn source(text: &str) -> Result<Source, &'static str> {
    match text {
        "best" => Ok(Source::Best),
        "iter" => Ok(Source::Iterators),
        "proc" => Ok(Source::Proc),
        _ => Err("best, iter or proc"),
    }
}

/// Whether the command line has no command but netstat's letters, as in `netwatch -tulpen`.
pub(super) fn is_meant(arguments: &[OsString]) -> bool {
    let first = arguments.get(1).and_then(|first| first.to_str());
    first
        .is_some_and(|first| first.starts_with('-') && !matches!(first, "-h" | "--help" | "-V" | "--version"))
}

impl ListArgs {
    pub(super) fn options(&self) -> Result<ListOptions> {
        Ok(ListOptions {
            letters: Letters {
                tcp: self.tcp,
                udp: self.udp,
                raw: self.raw,
                listening: self.listening,
                all: self.all,
                numeric: self.numeric,
                programs: self.programs,
                ipv4: self.ipv4,
                ipv6: self.ipv6,
                extend: self.extend > 0,
                timers: self.timers,
            },
            resolve: self.resolve,
            json: self.format.is_json(),
            namespaces: self.netns,
            source: self.source,
            filter: self.filter()?,
            states: self.states()?,
            sort: self.sort,
            again: self.continuous,
            colour: self.format.colour(),
        })
    }

    fn filter(&self) -> Result<Filter> {
        let filter = self.which.filter();
        match filter.of_events() {
            Some(condition) => {
                bail!("--filter: `{}` selects events, and `list` shows sockets", condition.key())
            }
            None => Ok(filter),
        }
    }

    /// The states of `--state` and of the words `state NAME` and `exclude NAME`.
    fn states(&self) -> Result<Option<States>> {
        let mut states: Option<States> = None;
        let mut add = |more: States| states = Some(states.map_or(more, |states| states.and(more)));
        self.state.iter().for_each(|more| add(*more));
        let mut words = self.words.iter();
        let mut excluded: Option<States> = None;
        while let Some(word) = words.next() {
            let is_included = match word.as_str() {
                "state" => true,
                "exclude" | "excl" => false,
                _ => bail!(
                    "unexpected `{word}`: only `state NAME` and `exclude NAME` may follow, filters are options"
                ),
            };
            let Some(name) = words.next() else { bail!("`{word}` is followed by the name of a state") };
            let state: States = name.parse().map_err(anyhow::Error::msg)?;
            if is_included {
                add(state);
            } else {
                excluded = Some(excluded.map_or(state, |excluded| excluded.and(state)));
            }
        }
        Ok(match (states, excluded) {
            (None, Some(excluded)) => Some(excluded.inverted()),
            (Some(states), Some(excluded)) => Some(states.without(excluded)),
            (states, None) => states,
        })
    }
}
