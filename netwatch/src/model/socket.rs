//! What a socket is, and sockets as one snapshot has them.

use std::fmt;
use std::ops::{Deref, DerefMut};

use super::{Cookie, Family, NetnsId, Proto, SockAddr, State, Via};

/// What names a socket, wherever it was seen: in a record, in a snapshot, or as the end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// A connection keeps it from its request through TIME_WAIT. `None` where nobody had asked the kernel for it.
    pub cookie: Option<Cookie>,
    /// 0 where no file stands for it: not yet accepted, orphaned, TIME_WAIT.
    pub inode: u64,
    /// Network namespace inode number.
    pub netns: NetnsId,
    /// Transport.
    pub proto: Proto,
    /// On the wire: [`Family::Ipv4`] where `mapped`.
    pub family: Family,
    /// An IPv6 socket that speaks IPv4; its addresses are plain IPv4.
    pub mapped: bool,
    /// What kind of socket or call it is, where that is not a plain system call on a plain socket.
    pub via: Option<Via>,
    /// Bound address; port 0: not bound yet.
    pub local: SockAddr,
    /// The other end's address; `None` for a listener and for UDP that is not connected.
    pub remote: Option<SockAddr>,
}

impl Socket {
    /// The socket's own family, which netstat shows as a 6 after the protocol; `family` is that of the wire.
    #[must_use]
    pub fn is_on_ipv6(&self) -> bool {
        self.mapped || self.local.ip.is_ipv6()
    }
}

/// A socket at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketRow {
    /// Which. The cookie of an MPTCP socket ([`Via::Mptcp`]) may be that of the listener that it came from.
    pub socket: Socket,
    /// Who made it.
    pub uid: u32,
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
    /// Payload so far; TCP that is not in TIME_WAIT only.
    pub bytes: Option<Payload>,
}

impl SocketRow {
    /// It takes connections, or datagrams from anybody.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.remote.is_none()
    }

    /// It is the application's end of an MPTCP connection.
    #[must_use]
    pub fn is_mptcp(&self) -> bool {
        self.via == Some(Via::Mptcp)
    }
}

impl Deref for SocketRow {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl DerefMut for SocketRow {
    fn deref_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

/// Bytes of a connection's payload, each once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Handed to the network at least once.
    pub sent: u64,
    /// Received in order.
    pub received: u64,
}

impl Payload {
    /// Of counts in which the peer's FIN counts once it came (`net/ipv4/tcp_input.c`, tcp_fin takes a sequence number).
    /// Which of these states had it: all that follow it.
    pub(crate) fn without_fin(sent: u64, received: u64, state: State) -> Self {
        let fin = matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        Self { sent, received: received.saturating_sub(fin.into()) }
    }
}

/// Whether a socket has another end. UDP can be connected to an address without a port (ip4_datagram_connect in
/// net/ipv4/datagram.c).
pub(crate) fn is_connected(state: State, remote: SockAddr) -> bool {
    state != State::Listen && (remote.port != 0 || !remote.ip.is_unspecified())
}

/// What a raw or packet socket takes in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum RawKind {
    /// `SOCK_RAW` of `AF_INET` or `AF_INET6`, with the IP protocol.
    Raw(u16),
    /// `AF_PACKET`, with the Ethernet protocol (0x0003: every frame).
    Packet(u16),
}

impl fmt::Display for RawKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        /// `include/uapi/linux/if_ether.h`
        const ETH_P_ALL: u16 = 3;
        match self {
            Self::Raw(protocol) => write!(f, "raw socket of IP protocol {protocol}"),
            Self::Packet(ETH_P_ALL) => f.write_str("packet socket for every frame"),
            Self::Packet(protocol) => write!(f, "packet socket for protocol {protocol:#06x}"),
        }
    }
}

/// A raw or packet socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawRow {
    /// Which of them.
    pub kind: RawKind,
    /// Network namespace inode number.
    pub netns: NetnsId,
    /// Of its file.
    pub inode: u64,
    /// Who made it.
    pub uid: u32,
}
