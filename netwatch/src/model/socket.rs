//! Identity of a socket, and sockets in a snapshot.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::ops::{Deref, DerefMut};

use super::{Cookie, Device, Family, Nat, NetnsId, Proto, SockAddr, State, Tuple, Via};

/// Identity of a socket, the same in a record, a snapshot, and the endpoint of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Socket {
    /// The same from request socket through TIME_WAIT. `None` if none was requested from the kernel yet.
    pub cookie: Option<Cookie>,
    /// Inode number; 0 without a file: not accepted yet, orphaned, TIME_WAIT.
    pub inode: u64,
    /// Network namespace inode number.
    pub netns: NetnsId,
    /// Transport.
    pub proto: Proto,
    /// Family of the packets: [`Family::Ipv4`] if `mapped`.
    pub family: Family,
    /// An IPv6 socket that uses IPv4; its addresses are IPv4.
    pub mapped: bool,
    /// How it was created or used, if not by a plain system call on a plain socket.
    pub via: Option<Via>,
    /// Interface that it is bound to.
    pub device: Option<Device>,
    /// Bound address; port 0 if not bound yet.
    pub local: SockAddr,
    /// Remote address; `None` for a listener and unconnected UDP.
    pub remote: Option<SockAddr>,
}

impl Socket {
    /// The addresses of the packets that it sends; `None` without a remote address.
    #[must_use]
    pub fn tuple(&self) -> Option<Tuple> {
        Some(Tuple { proto: self.proto, source: self.local, destination: self.remote? })
    }

    /// The interface of its link-local addresses, if it has one.
    #[must_use]
    pub fn scope(&self) -> Option<Device> {
        let is_link_local = |address: SockAddr| match address.ip {
            IpAddr::V4(_) => false,
            IpAddr::V6(ip) => ip.is_unicast_link_local() || is_link_multicast(ip),
        };
        let has_scope = is_link_local(self.local) || self.remote.is_some_and(is_link_local);
        self.device.filter(|_| has_scope)
    }

    /// Index of the interface that it is bound to; 0 if none.
    #[must_use]
    pub fn bound_device(&self) -> u32 {
        self.device.filter(|device| device.is_bound()).map_or(0, Device::index)
    }

    /// Whether the socket itself is IPv6, which netstat shows as a 6 after the protocol; `family` is that of the
    /// packets.
    #[must_use]
    pub fn is_on_ipv6(&self) -> bool {
        self.mapped || self.local.ip.is_ipv6()
    }
}

/// Whether a multicast address is of one link: scope 1 or 2 of RFC 4291, section 2.7.
fn is_link_multicast(ip: Ipv6Addr) -> bool {
    let [first, second, ..] = ip.octets();
    first == 0xff && matches!(second & 0xf, 1 | 2)
}

/// A socket in a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketRow {
    /// Its identity. The cookie of an MPTCP socket ([`Via::Mptcp`]) may be that of its listener.
    pub socket: Socket,
    /// User id of its creator.
    pub uid: u32,
    /// See [`State`].
    pub state: State,
    /// Bytes not read yet; for a listener, connections not accepted yet.
    pub recv_q: u32,
    /// Bytes not acknowledged yet; for a listener, the maximum of its queue.
    pub send_q: u32,
    /// `IPV6_V6ONLY`; `None` if not reported: the kernel reports it for listening and closed IPv6 sockets.
    pub v6only: Option<bool>,
    /// The kernel created it for itself; `None` if not known: only iterators report it.
    pub kernel: Option<bool>,
    /// `SO_REUSEPORT`; likewise.
    pub reuseport: Option<bool>,
    /// A subflow of an MPTCP socket, which is the connection.
    pub subflow: bool,
    /// Payload so far; only for TCP not in TIME_WAIT.
    pub bytes: Option<Payload>,
    /// The translation of its addresses.
    pub nat: Nat,
}

impl SocketRow {
    /// Whether it is a listener or an unconnected datagram socket.
    #[must_use]
    pub fn is_server(&self) -> bool {
        self.remote.is_none()
    }

    /// Whether it is an MPTCP socket of an application.
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

/// Payload of a connection in bytes, without retransmissions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Sent.
    pub sent: u64,
    /// Received in order.
    pub received: u64,
}

impl Payload {
    /// From counters that include the FIN of the peer, which has a sequence number (net/ipv4/tcp_input.c, tcp_fin(),
    /// v6.12).
    pub(crate) fn without_fin(sent: u64, received: u64, state: State) -> Self {
        let fin = matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
        Self { sent, received: received.saturating_sub(fin.into()) }
    }
}

/// Whether a socket is connected. UDP can be connected to an address without a port (net/ipv4/datagram.c,
/// ip4_datagram_connect(), v6.12).
pub(crate) fn is_connected(state: State, remote: SockAddr) -> bool {
    state != State::Listen && (remote.port != 0 || !remote.ip.is_unspecified())
}

/// What a raw or packet socket receives.
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
    /// Raw or packet, with the protocol.
    pub kind: RawKind,
    /// Network namespace inode number.
    pub netns: NetnsId,
    /// Inode number of its file.
    pub inode: u64,
    /// User id of its creator.
    pub uid: u32,
}
