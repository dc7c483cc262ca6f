//! What an audit knows of the host, for `judge`. Values only.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

pub use super::program::{Owner, Ownership, Program, Script};
use super::views::{Disagreement, View};
use crate::hash::Map;
use crate::model::{NetnsId, Proto, RawKind, SockAddr};
use crate::process::Actor;

/// All of it.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The namespace that netwatch runs in.
    pub own_netns: NetnsId,
    /// The ports that the kernel gives to clients, by namespace; both ends included.
    pub port_ranges: Map<NetnsId, (u16, u16)>,
    /// Sockets that take connections, or datagrams from anybody.
    pub servers: Vec<Arc<Server>>,
    /// Raw and packet sockets.
    pub raw: Vec<Raw>,
    /// Network sockets on standard descriptors.
    pub stdio: Vec<Stdio>,
    /// Processes that have a network socket open.
    pub programs: Vec<Arc<Program>>,
    /// Connections whose originator is not known, by program.
    pub unknown: Vec<Unknown>,
    /// What one view shows and another does not.
    pub disagreements: Vec<Disagreement>,
    /// Namespaces that every view saw whole.
    pub whole: HashSet<NetnsId>,
    /// Views of sockets that were had.
    pub views: Vec<View>,
    /// What could not be seen or asked, a line each.
    pub notes: Vec<String>,
}

/// The RPC program that the portmapper is itself, PMAP_PROG of RFC 1833 section 3.1.
pub(crate) const PORTMAPPER: u32 = 100_000;

/// A socket that takes connections, or datagrams from anybody.
#[derive(Clone, Debug)]
pub struct Server {
    /// Transport.
    pub proto: Proto,
    /// Bound address.
    pub local: SockAddr,
    /// An IPv6 wildcard takes no IPv4.
    pub v6only: bool,
    /// Network namespace inode number.
    pub netns: NetnsId,
    /// Of the socket's file; 0 where there is none.
    pub inode: u64,
    /// Who made the socket.
    pub uid: u32,
    /// Who has it open, the oldest first.
    pub holders: Vec<Arc<Program>>,
    /// Everybody's descriptors could be seen: without a holder it is the kernel's own.
    pub holders_seen: bool,
    /// Interface that it is bound to; 0: none, or not known.
    pub device: u32,
    /// Of the port, in `/etc/services`.
    pub service: Option<String>,
    /// RPC programs that the portmapper has there: number, and name where it has one.
    pub rpc: Vec<(u32, Option<String>)>,
    /// The port is one of those that the kernel gives to clients.
    pub is_ephemeral: bool,
    /// What was recorded of it.
    pub history: Option<History>,
}

/// How far a socket can be reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// From this host only.
    Loopback,
    /// By one address.
    Address,
    /// By all.
    All,
}

impl Server {
    /// How far it can be reached, by its address alone.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self.local.ip {
            ip if ip.is_unspecified() => Reach::All,
            ip if ip.is_loopback() => Reach::Loopback,
            _ => Reach::Address,
        }
    }

    /// It is the kernel's own: nobody has it open, and nobody could hide that he has.
    #[must_use]
    pub fn is_kernels(&self) -> bool {
        self.holders.is_empty() && self.holders_seen && self.uid == 0
    }

    /// Whether a package answers for everybody who has it open.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        !self.holders.is_empty() && self.holders.iter().all(|program| program.package().is_some())
    }

    /// The oldest holder: the opener, or the nearest to it that still lives.
    #[must_use]
    pub fn program(&self) -> Option<&Arc<Program>> {
        self.holders.first()
    }
}

/// What the store has of a listener.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// When it began to listen; `None`: before recording did.
    pub since: Option<Timestamp>,
    /// The process that called listen(), as it was recorded, and the name of its user.
    pub by: Option<(Actor, Option<Arc<str>>)>,
    /// Connections that came to its port since then, as far as they were counted.
    pub connections: u64,
    /// There were more than were counted.
    pub more: bool,
    /// From where, the most first.
    pub from: Vec<(IpAddr, u64)>,
    /// All of them came from this host.
    pub only_local: bool,
}

/// A raw or packet socket.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Which kind.
    pub kind: RawKind,
    /// Network namespace inode number.
    pub netns: NetnsId,
    /// Of its file; 0 where there is none.
    pub inode: u64,
    /// Everybody's descriptors could be seen.
    pub holders_seen: bool,
    /// Who has it open, the oldest first.
    pub holders: Vec<Arc<Program>>,
}

/// A process with a network socket for stdin, stdout or stderr.
#[derive(Clone, Debug)]
pub struct Stdio {
    /// Which.
    pub program: Arc<Program>,
    /// Which of 0, 1, 2.
    pub fds: Vec<u32>,
    /// The socket, in words.
    pub what: String,
    /// Its transport, where it has one.
    pub proto: Option<Proto>,
    /// Its own address.
    pub local: Option<SockAddr>,
    /// Network namespace inode number.
    pub netns: Option<NetnsId>,
}

/// Connections of one program whose originator is not known.
#[derive(Clone, Debug)]
pub struct Unknown {
    /// Whose; `None`: nobody holds them.
    pub program: Option<Arc<Program>>,
    /// How many.
    pub count: usize,
    /// One of them.
    pub proto: Proto,
    /// Its own address.
    pub local: SockAddr,
    /// The other end's.
    pub remote: SockAddr,
    /// Network namespace inode number.
    pub netns: NetnsId,
}
