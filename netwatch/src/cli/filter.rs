//! Filter options.

use anyhow::{Context as _, Result};
use clap::Args;
use globset::{Glob, GlobMatcher};
use nix::unistd::User;

use super::values::namespaces;
use crate::commands::list::Namespaces;
use crate::filter::{AddressPattern, Filter};
use crate::model::{Family, Proto};
use crate::origin::Side;
use crate::snapshot::netns;
use crate::tracker::EventKind;

/// The filter options of every command that prints events.
#[derive(Args)]
#[command(next_help_heading = "Filters (combined with AND; they affect output only)")]
pub(super) struct FilterArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Show only these events
    #[arg(long, value_name = "KIND[,KIND]", value_delimiter = ',', value_parser = kind)]
    event: Vec<EventKind>,
    /// Show IPv4 only, including IPv4-mapped IPv6 addresses
    #[arg(short = '4', conflicts_with = "ipv6")]
    ipv4: bool,
    /// Show IPv6 only
    #[arg(short = '6')]
    ipv6: bool,
    /// Show connections in this network namespace: an inode number, `self` or `all`
    #[arg(long, value_name = "INUM|self|all", value_parser = namespaces, default_value = "all")]
    netns: Namespaces,
}

/// The filter options that also make sense for sockets of a snapshot.
#[derive(Args)]
pub(super) struct WhichArgs {
    /// Show connections of this process
    #[arg(long, value_name = "N")]
    pid: Option<u32>,
    /// Show connections of processes whose name or executable matches
    #[arg(long, value_name = "GLOB", value_parser = glob)]
    process: Option<GlobMatcher>,
    /// Show connections of this user's processes
    #[arg(long, value_name = "NAME|UID", value_parser = user)]
    user: Option<u32>,
    /// Show connections with one of these ports on either side
    #[arg(long, value_name = "N[,N]", value_delimiter = ',')]
    port: Vec<u16>,
    /// Show connections whose local address is in this network
    #[arg(long, value_name = "CIDR[:PORT]")]
    local: Option<AddressPattern>,
    /// Show connections whose remote address is in this network
    #[arg(long, value_name = "CIDR[:PORT]")]
    remote: Option<AddressPattern>,
    /// Show connections originated by this side: local, remote, both or unknown
    #[arg(long, value_name = "SIDE", value_parser = side)]
    origin: Option<Side>,
    /// Show only tcp or udp; with tcp, the UDP probes are not attached
    #[arg(long, value_name = "PROTO", value_parser = proto)]
    proto: Option<Proto>,
    /// Show sockets that are bound to this network interface, or have link-local addresses of it: a name or an index
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Show connections of processes in this container
    #[arg(long, value_name = "ID")]
    container: Option<String>,
}

impl WhichArgs {
    /// The filter by these options alone.
    pub(super) fn filter(&self) -> Filter {
        Filter {
            pid: self.pid,
            process: self.process.clone(),
            uid: self.user,
            ports: self.port.clone(),
            local: self.local,
            remote: self.remote,
            origin: self.origin,
            proto: self.proto,
            container: self.container.clone(),
            device: self.device.clone(),
            ..Filter::default()
        }
    }
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
        Err(error) => Err(format!("cannot read the user database: {error}")),
    }
}

fn side(text: &str) -> Result<Side, &'static str> {
    let sides = [Side::Local, Side::Remote, Side::Both, Side::Unknown];
    sides.into_iter().find(|side| side.name() == text).ok_or("local, remote, both or unknown")
}

fn kind(text: &str) -> Result<EventKind, String> {
    EventKind::ALL.into_iter().find(|kind| kind.name() == text).ok_or_else(|| {
        let names: Vec<_> = EventKind::ALL.iter().map(|kind| kind.name()).collect();
        format!("one of {}", names.join(", "))
    })
}

fn proto(text: &str) -> Result<Proto, &'static str> {
    [Proto::Tcp, Proto::Udp].into_iter().find(|proto| proto.name() == text).ok_or("tcp or udp")
}

impl FilterArgs {
    /// The filter as command line options; `None`: everything passes.
    pub(super) fn words(&self) -> Option<String> {
        let list = |items: Vec<String>| Some(items.join(",")).filter(|items| !items.is_empty());
        let netns = match self.netns {
            Namespaces::All => None,
            Namespaces::Own => Some("self".to_owned()),
            Namespaces::Inum(inum) => Some(inum.to_string()),
        };
        let which = &self.which;
        let options = [
            ("pid", which.pid.map(|pid| pid.to_string())),
            ("process", which.process.as_ref().map(|process| process.glob().to_string())),
            ("user", which.user.map(|uid| uid.to_string())),
            ("port", list(which.port.iter().map(u16::to_string).collect())),
            ("local", which.local.map(|pattern| pattern.to_string())),
            ("remote", which.remote.map(|pattern| pattern.to_string())),
            ("origin", which.origin.map(|side| side.name().to_owned())),
            ("event", list(self.event.iter().map(|kind| kind.name().to_owned()).collect())),
            ("proto", which.proto.map(|proto| proto.name().to_owned())),
            ("device", which.device.clone()),
            ("container", which.container.clone()),
            ("netns", netns),
        ];
        let letters = [(self.ipv4, "-4"), (self.ipv6, "-6")];
        let letters = letters.into_iter().filter(|(is_set, _)| *is_set).map(|(_, letter)| letter.to_owned());
        let options =
            options.into_iter().filter_map(|(name, value)| value.map(|value| format!("--{name} {value}")));
        Some(options.chain(letters).collect::<Vec<_>>().join(" ")).filter(|words| !words.is_empty())
    }

    pub(super) fn filter(self) -> Result<Filter> {
        let netns = match self.netns {
            Namespaces::All => None,
            Namespaces::Inum(inum) => Some(inum),
            Namespaces::Own => Some(
                netns::own()
                    .context("cannot determine the network namespace of netwatch (is /proc mounted?)")?,
            ),
        };
        Ok(Filter {
            kinds: self.event,
            family: match (self.ipv4, self.ipv6) {
                (true, _) => Some(Family::Ipv4),
                (_, true) => Some(Family::Ipv6),
                _ => None,
            },
            netns,
            ..self.which.filter()
        })
    }
}
