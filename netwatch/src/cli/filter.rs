//! Filter options.

use anyhow::{Context as _, Result};
use clap::Args;
use globset::GlobMatcher;
use nix::unistd::User;

use super::values::namespaces;
use crate::commands::list::Namespaces;
use crate::escape;
use crate::filter::{
    AddressPattern, Condition, Expression, Filter, Lookup, Protos, Term, glob, host, kind, protos, side,
};
use crate::model::{Family, NetnsId};
use crate::origin::Side;
use crate::snapshot::netns;

/// The filter options of every command that prints events.
#[derive(Args)]
#[command(next_help_heading = "Filters (combined with AND; they affect output only)")]
pub(super) struct FilterArgs {
    #[command(flatten)]
    which: WhichArgs,
    /// Show only these events
    #[arg(long, value_name = "KIND[,KIND]", value_delimiter = ',', value_parser = kind)]
    event: Vec<Condition>,
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
    /// Show only tcp, udp, udplite, icmp, icmpv6, raw:N (an IP protocol), raw (icmp, icmpv6 and every raw:N) or packet;
    /// with tcp, the probes for others are not attached
    #[arg(long, value_name = "PROTO", value_parser = protos)]
    proto: Option<Protos>,
    /// Show sockets that are bound to this network interface, or have link-local addresses of it: a name or an index
    #[arg(long, value_name = "NAME")]
    device: Option<String>,
    /// Show connections with a host whose name matches, as a DNS answer on this host or a TLS client said it
    #[arg(long, value_name = "GLOB", value_parser = host)]
    name: Option<GlobMatcher>,
    /// Show what this expression selects: terms KEY:VALUE[,VALUE], combined with AND; `!` before a term negates it; a
    /// term without a key is searched for in names, paths, addresses, users and containers. Keys: pid, process, exe,
    /// user, container, port, local, remote, origin, basis, confidence, event, proto, family, netns, device, name, sign.
    /// Example: 'process:curl origin:local !port:53'
    #[arg(id = "expression", long = "filter", value_name = "EXPRESSION", value_parser = expression)]
    expression: Option<Expression>,
    /// Show connections of processes in this container
    #[arg(long, value_name = "ID")]
    container: Option<String>,
}

impl WhichArgs {
    /// The filter by these options alone.
    pub(super) fn filter(&self) -> Filter {
        let expression = self.expression.as_ref().map(|expression| expression.filter.clone());
        Filter::new([
            Term::any(self.pid.map(Condition::Pid)),
            Term::any(self.process.clone().map(Condition::Process)),
            Term::any(self.user.map(Condition::User)),
            Term::any(self.port.iter().copied().map(Condition::Port)),
            Term::any(self.local.map(Condition::Local)),
            Term::any(self.remote.map(Condition::Remote)),
            Term::any(self.origin.map(Condition::Origin)),
            Term::any(self.proto.map(Condition::Proto)),
            Term::any(self.container.clone().map(Condition::Container)),
            Term::any(self.device.clone().map(Condition::Device)),
            Term::any(self.name.clone().map(Condition::Name)),
        ])
        .and(expression.unwrap_or_default())
    }
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

/// Parses an expression of `--filter`.
pub(super) fn expression(text: &str) -> Result<Expression, String> {
    Expression::parse(text, Lookup { user: &user, own_netns: &own_netns })
}

fn own_netns() -> Result<NetnsId, String> {
    netns::own().map_err(|error| format!("cannot determine the network namespace of netwatch: {error}"))
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
            ("event", list(self.event.iter().map(|kind| kind.kind().to_owned()).collect())),
            ("proto", which.proto.map(|proto| proto.name().to_owned())),
            ("device", which.device.clone()),
            ("name", which.name.as_ref().map(|name| name.glob().to_string())),
            ("container", which.container.clone()),
            ("netns", netns),
            ("filter", which.expression.as_ref().map(|expression| escape::quoted(&expression.text))),
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
        let family = match (self.ipv4, self.ipv6) {
            (true, _) => Some(Family::Ipv4),
            (_, true) => Some(Family::Ipv6),
            _ => None,
        };
        let more = Filter::new([
            Term::any(self.event),
            Term::any(family.map(Condition::Family)),
            Term::any(netns.map(Condition::Netns)),
        ]);
        Ok(self.which.filter().and(more))
    }
}
