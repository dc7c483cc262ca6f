//! `netwatch list`

use clap::Args;

use super::values::{FormatArgs, namespaces};
use crate::commands::list::{Letters, ListOptions, Namespaces, Source};

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "netstat's letters, each a flag")]
pub(super) struct ListArgs {
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
    /// What to look with: iter (the kernel's iterators), proc (/proc and sock_diag), or best: iter where it can be had
    #[arg(long, value_name = "SOURCE", value_parser = source, default_value = "best")]
    source: Source,
    #[command(flatten)]
    format: FormatArgs,
}

fn no_unix(_: &str) -> Result<String, &'static str> {
    Err("UNIX sockets are no network connections: `ss -x` lists them")
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
