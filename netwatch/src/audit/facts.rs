//! The facts that `judge` needs about the host. Values only.

use std::collections::HashSet;
use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;

pub use super::program::{Owner, Ownership, Program, Script};
use super::views::{Disagreement, View};
use crate::hash::Map;
use crate::model::{DeviceName, NetnsId, Proto, RawKind, SockAddr, StreamKind};
use crate::process::Actor;

/// All facts of an audit.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// The network namespace of netwatch.
    pub own_netns: NetnsId,
    /// Ephemeral port range of each network namespace, inclusive.
    pub port_ranges: Map<NetnsId, (u16, u16)>,
    /// Listeners and unconnected datagram sockets.
    pub servers: Vec<Arc<Server>>,
    /// Raw and packet sockets.
    pub raw: Vec<Raw>,
    /// Network sockets on standard descriptors.
    pub stdio: Vec<Stdio>,
    /// Processes that have a network socket open.
    pub programs: Vec<Arc<Program>>,
    /// Connections whose originator is not known, by program.
    pub unknown: Vec<Unknown>,
    /// Entries that one view shows and another does not.
    pub disagreements: Vec<Disagreement>,
    /// Network namespaces that every view listed completely.
    pub whole: HashSet<NetnsId>,
    /// Views of sockets that were available.
    pub views: Vec<View>,
    /// What could not be read, one line each.
    pub notes: Vec<String>,
}

/// The RPC program number of the portmapper: PMAP_PROG of RFC 1833, section 3.1.
pub(crate) const PORTMAPPER: u32 = 100_000;

/// A listener or an unconnected datagram socket.
#[derive(Clone, Debug)]
pub struct Server {
    /// Transport.
    pub proto: Proto,
    /// Bound address.
    pub local: SockAddr,
    /// An IPv6 socket that does not accept IPv4 (IPV6_V6ONLY).
    pub v6only: bool,
    /// Network namespace inode number.
    pub netns: NetnsId,
    /// Inode number of the socket's file; 0 if it has none.
    pub inode: u64,
    /// User who created the socket.
    pub uid: u32,
    /// Programs that have it open, the oldest first.
    pub holders: Vec<Arc<Program>>,
    /// The descriptors of all processes could be read, so a socket without a holder belongs to the kernel.
    pub holders_seen: bool,
    /// Interface that it is bound to; 0 if none or not known.
    pub device: u32,
    /// Name of that interface.
    pub device_name: Option<DeviceName>,
    /// That interface is loopback.
    pub on_loopback: bool,
    /// The kernel created the socket for itself; `None` if not known.
    pub kernel: Option<bool>,
    /// `SO_REUSEPORT`; `None` if not known.
    pub reuseport: Option<bool>,
    /// The device or subsystem of the kernel that has it, in words.
    pub owner: Option<String>,
    /// For a listener that sshd(8) opened for a client (`ssh -R`): the address of that client.
    pub client: Option<SockAddr>,
    /// Service of the port in `/etc/services`.
    pub service: Option<String>,
    /// RPC programs registered for the port: number, and name if known.
    pub rpc: Vec<(u32, Option<String>)>,
    /// The port is in the ephemeral range.
    pub is_ephemeral: bool,
    /// What the store has about the listener.
    pub history: Option<History>,
}

/// From where a socket can be reached, by its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Reach {
    /// A loopback address: from this host only.
    Loopback,
    /// One address.
    Address,
    /// Whoever reaches the interface that it is bound to.
    Device,
    /// All addresses.
    All,
}

impl Server {
    /// From where it can be reached, by its address and the interface that it is bound to.
    #[must_use]
    pub fn reach(&self) -> Reach {
        match self.local.ip {
            _ if self.on_loopback => Reach::Loopback,
            ip if ip.is_unspecified() && self.device != 0 => Reach::Device,
            ip if ip.is_unspecified() => Reach::All,
            ip if ip.is_loopback() => Reach::Loopback,
            _ => Reach::Address,
        }
    }

    /// The socket belongs to the kernel: no process has it open, and the kernel created it or, where that is not known,
    /// all descriptors could be read.
    #[must_use]
    pub fn is_kernels(&self) -> bool {
        self.holders.is_empty() && self.kernel.unwrap_or(self.holders_seen && self.uid == 0)
    }

    /// Whether a package owns the program of every holder.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        !self.holders.is_empty() && self.holders.iter().all(|program| program.package().is_some())
    }

    /// The oldest holder: the process that opened it, or its oldest heir that still runs.
    #[must_use]
    pub fn program(&self) -> Option<&Arc<Program>> {
        self.holders.first()
    }
}

/// What the store has about a listener.
#[derive(Clone, Debug, Default)]
pub struct History {
    /// When listen() was called; `None`: before recording began.
    pub since: Option<Timestamp>,
    /// The recorded process that called listen(), and the name of its user.
    pub by: Option<(Actor, Option<Arc<str>>)>,
    /// Number of connections to its port since then, up to a limit.
    pub connections: u64,
    /// The limit was exceeded.
    pub more: bool,
    /// Connections by remote address, in descending order of count.
    pub from: Vec<(IpAddr, u64)>,
    /// All connections came from this host.
    pub only_local: bool,
}

/// A raw or packet socket.
#[derive(Clone, Debug)]
pub struct Raw {
    /// Raw or packet.
    pub kind: RawKind,
    /// Network namespace inode number.
    pub netns: NetnsId,
    /// Inode number of its file; 0 if it has none.
    pub inode: u64,
    /// The descriptors of all processes could be read.
    pub holders_seen: bool,
    /// Programs that have it open, the oldest first.
    pub holders: Vec<Arc<Program>>,
}

/// A process with a network socket for stdin, stdout or stderr, or a shell whose stdin and output another process with
/// a connection has.
#[derive(Clone, Debug)]
pub struct Stdio {
    /// The process.
    pub program: Arc<Program>,
    /// The descriptors, of 0, 1 and 2.
    pub fds: Vec<u32>,
    /// The socket in words; of a relay its connection.
    pub what: String,
    /// What stands between the process and the connection.
    pub relay: Option<Relay>,
    /// Transport, if it has one.
    pub proto: Option<Proto>,
    /// Local address.
    pub local: Option<SockAddr>,
    /// Network namespace inode number.
    pub netns: Option<NetnsId>,
}

/// A process that passes on what it receives to a shell, and back.
#[derive(Clone, Debug)]
pub struct Relay {
    /// The process with the connection.
    pub holder: Arc<Program>,
    /// Names of the processes between the shell and the holder.
    pub between: Vec<String>,
    /// What the standard input of the shell is.
    pub kind: StreamKind,
}

/// Connections of one program whose originator is not known.
#[derive(Clone, Debug)]
pub struct Unknown {
    /// The program; `None` if no process has them open.
    pub program: Option<Arc<Program>>,
    /// Number of connections.
    pub count: usize,
    /// Transport of one of them.
    pub proto: Proto,
    /// Local address.
    pub local: SockAddr,
    /// Its remote address.
    pub remote: SockAddr,
    /// Network namespace inode number.
    pub netns: NetnsId,
}
