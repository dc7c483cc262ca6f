//! Filters.

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

/// The same on every command that prints events.
#[derive(Args)]
#[command(next_help_heading = "Filters (all have to hold; what is known does not depend on them)")]
pub(super) struct FilterArgs {
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
    event: Vec<EventKind>,
    /// tcp or udp; with tcp, no packet is looked at for UDP
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
    /// What is asked for, in words; `None`: nothing is left out.
    pub(super) fn words(&self) -> Option<String> {
        let list = |items: Vec<String>| Some(items.join(",")).filter(|items| !items.is_empty());
        let netns = match self.netns {
            Namespaces::All => None,
            Namespaces::Own => Some("self".to_owned()),
            Namespaces::Inum(inum) => Some(inum.to_string()),
        };
        let options = [
            ("pid", self.pid.map(|pid| pid.to_string())),
            ("process", self.process.as_ref().map(|process| process.glob().to_string())),
            ("user", self.user.map(|uid| uid.to_string())),
            ("port", list(self.port.iter().map(u16::to_string).collect())),
            ("local", self.local.map(|pattern| pattern.to_string())),
            ("remote", self.remote.map(|pattern| pattern.to_string())),
            ("origin", self.origin.map(|side| side.name().to_owned())),
            ("event", list(self.event.iter().map(|kind| kind.name().to_owned()).collect())),
            ("proto", self.proto.map(|proto| proto.name().to_owned())),
            ("container", self.container.clone()),
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
