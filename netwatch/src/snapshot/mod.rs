//! One look at the host: which sockets there are, who holds them, which processes run. By `sock_diag` and
//! `/proc`, so it works without a privilege and on any kernel, as far as the caller may see.
//!
//! It is a look, no history: what begins or ends meanwhile may be missing. A part that cannot be read is
//! a note, never a failure of the rest. What stays unseen: sockets of a network namespace that no process
//! and no mount names, and descriptors of a thread that does not share its group's table.

use std::fmt;
use std::io;

use crate::model::{Endpoint, Family, Proto, State};

pub mod holders;
mod listed;
mod net_files;
mod netlink;
pub mod netns;
mod parse;
pub mod processes;
pub mod sockets;

pub use holders::{Holder, Holders};
pub use listed::{Lister, Listing};
pub use net_files::{NetFiles, RawKind, RawRow, net_files};
pub use processes::ProcessRow;
pub use sockets::{Mptcp, Sockets, sockets};

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The network namespace of the calling thread; needs no privilege.
    OwnNetns,
    /// All that can be found and entered (`CAP_SYS_ADMIN`); the others are noted.
    AllNetns,
}

/// A socket at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketRow {
    /// Transport.
    pub proto: Proto,
    /// On the wire: [`Family::Ipv4`] where `mapped`.
    pub family: Family,
    /// An IPv6 socket that speaks IPv4; the addresses here are plain IPv4.
    pub mapped: bool,
    /// Network namespace inode number.
    pub netns: u32,
    /// Unique for the host's uptime; a connection keeps it from its request through TIME_WAIT.
    pub cookie: u64,
    /// 0 where no file stands for it: not yet accepted, orphaned, TIME_WAIT.
    pub inode: u64,
    /// Who made it.
    pub uid: u32,
    /// Bound address.
    pub local: Endpoint,
    /// `None` for a listener and for UDP that is not connected.
    pub remote: Option<Endpoint>,
    /// See [`State`].
    pub state: State,
    /// Bytes not read; of a listener, connections not accepted.
    pub recv_q: u32,
    /// Bytes not acknowledged; of a listener, how many may wait.
    pub send_q: u32,
    /// `IPV6_V6ONLY`; `None` where the kernel did not say: it does for IPv6 listeners and closed sockets.
    pub v6only: Option<bool>,
    /// Index of the interface that it is bound to; 0: none, or listed by an iterator.
    pub device: u32,
    /// The kernel's own, below an MPTCP socket, which is the connection.
    pub subflow: bool,
    /// An MPTCP socket. Its cookie may be that of the listener that it came from.
    pub mptcp: bool,
    /// Payload so far; TCP that is not in TIME_WAIT only.
    pub bytes: Option<Bytes>,
}

impl SocketRow {
    /// It takes connections, or datagrams from anybody.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.remote.is_none()
    }

    /// The socket's own family, which netstat shows as a 6 after the protocol; `family` is that of the wire.
    #[must_use]
    pub fn is_on_ipv6(&self) -> bool {
        self.mapped || self.local.ip.is_ipv6()
    }
}

/// Payload of a connection, each byte once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bytes {
    /// Handed to the network at least once.
    pub sent: u64,
    /// Received in order.
    pub received: u64,
}

impl Bytes {
    /// Of counts in which the peer's FIN counts once it came (`net/ipv4/tcp_input.c`, tcp_fin takes a sequence number).
    /// Which of these states had it: all that follow it.
    pub(crate) fn without_fin(sent: u64, received: u64, state: State) -> Self {
        let fin = matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        Self { sent, received: received.saturating_sub(fin.into()) }
    }
}

/// Whether a socket has another end. UDP can be connected to an address without a port (ip4_datagram_connect in
/// net/ipv4/datagram.c).
pub(crate) fn is_connected(state: State, remote: Endpoint) -> bool {
    state != State::Listen && (remote.port != 0 || !remote.ip.is_unspecified())
}

/// Something that could not be seen; displays as one line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Note {
    /// The network namespace that it is about, if it is about one.
    pub netns: Option<u32>,
    /// In words.
    pub text: String,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.netns {
            Some(netns) => write!(f, "network namespace {netns}: {}", self.text),
            None => f.write_str(&self.text),
        }
    }
}

/// Why there is nothing to show at all.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// `/proc` is not to be read: not mounted, perhaps.
    #[error("cannot read {path}")]
    Proc {
        /// Which part of it.
        path: &'static str,
        /// What the kernel said.
        source: io::Error,
    },
    /// No netlink socket, or not even one kind of socket could be listed.
    #[error("cannot ask the kernel for its sockets (sock_diag)")]
    SockDiag(#[source] io::Error),
    /// The thread that enters namespaces could not be started.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::model::tests::at;

    /// An established TCP connection on loopback, for a test to change.
    pub(crate) fn example() -> SocketRow {
        SocketRow {
            proto: Proto::Tcp,
            family: Family::Ipv4,
            mapped: false,
            netns: 1,
            cookie: 1,
            inode: 1,
            uid: 0,
            local: at("127.0.0.1:80"),
            remote: Some(at("127.0.0.1:80")),
            state: State::Established,
            recv_q: 0,
            send_q: 0,
            v6only: None,
            device: 0,
            subflow: false,
            mptcp: false,
            bytes: None,
        }
    }
}
