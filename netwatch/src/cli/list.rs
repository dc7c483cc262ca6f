//! `netwatch list`

use clap::Args;

use super::values::{FormatArgs, namespaces};
use crate::commands::list::{Letters, ListOptions, Namespaces, Source};

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "the single-letter flags of netstat")]
pub(super) struct ListArgs {
    /// Show TCP sockets
    #[arg(short = 't', long)]
    tcp: bool,
    /// Show UDP sockets
    #[arg(short = 'u', long)]
    udp: bool,
    /// Show only listeners and unconnected UDP sockets
    #[arg(short = 'l', long)]
    listening: bool,
    /// Show all sockets, listening and connected
    #[arg(short = 'a', long)]
    all: bool,
    /// Show numeric addresses and ports (the default; accepted for compatibility with netstat)
    #[arg(short = 'n', long, conflicts_with = "resolve")]
    numeric: bool,
    /// Show the process of each socket
    #[arg(short = 'p', long = "programs")]
    programs: bool,
    /// Show IPv4 sockets
    #[arg(short = '4')]
    ipv4: bool,
    /// Show IPv6 sockets
    #[arg(short = '6')]
    ipv6: bool,
    /// Resolve host and service names
    #[arg(long)]
    resolve: bool,
    /// Rejected: UNIX sockets are not network connections
    #[arg(short = 'x', long = "unix", hide = true, value_parser = no_unix, num_args = 0, default_missing_value = "")]
    unix: Option<String>,
    /// Network namespaces to show: an inode number, `self` or `all`
    #[arg(long, value_name = "INUM|self|all", value_parser = namespaces, default_value = "self")]
    netns: Namespaces,
    /// Source of the snapshot: iter (BPF iterators), proc (/proc and sock_diag) or best (iter if available, else proc)
    #[arg(long, value_name = "SOURCE", value_parser = source, default_value = "best")]
    source: Source,
    #[command(flatten)]
    format: FormatArgs,
}

fn no_unix(_: &str) -> Result<String, &'static str> {
    Err("UNIX sockets are not network connections: `ss -x` lists them")
}

fn source(text: &str) -> Result<Source, &'static str> {
    match text {
        "best" => Ok(Source::Best),
        "iter" => Ok(Source::Iterators),
        "proc" => Ok(Source::Proc),
        _ => Err("best, iter or proc"),
    }
}

impl ListArgs {
    pub(super) fn options(&self) -> ListOptions {
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
            source: self.source,
        }
    }
}
