//! Addresses, transport protocols and address families.

use std::fmt;
use std::net::IpAddr;
use std::sync::LazyLock;

use serde::{Serialize, Serializer};

/// An address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SockAddr {
    /// IP address; an IPv4-mapped IPv6 address is stored as IPv4.
    pub ip: IpAddr,
    /// Port in host byte order.
    pub port: u16,
}

impl fmt::Display for SockAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

/// Transport protocol, or what a socket sends in place of one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Proto {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// UDP-Lite (RFC 3828)
    UdpLite,
    /// ICMP, by a raw or ping socket
    Icmp,
    /// ICMPv6, likewise
    Icmpv6,
    /// Another IP protocol, by a raw socket
    Raw(u8),
    /// Frames, by a packet socket
    Packet,
}

/// Names of [`Proto::Raw`].
static RAW: LazyLock<Vec<String>> =
    LazyLock::new(|| (0..=u8::MAX).map(|number| format!("raw:{number}")).collect());

impl Proto {
    /// Those that have a name of their own.
    pub const NAMED: [Self; 6] =
        [Self::Tcp, Self::Udp, Self::UdpLite, Self::Icmp, Self::Icmpv6, Self::Packet];

    /// Of a socket with ports and this IP protocol. That of MPTCP is TCP.
    #[must_use]
    pub const fn with_ports(protocol: u8) -> Self {
        match protocol {
            IPPROTO_UDP => Self::Udp,
            IPPROTO_UDPLITE => Self::UdpLite,
            _ => Self::Tcp,
        }
    }

    /// Of a raw socket with this IP protocol.
    #[must_use]
    pub const fn of_raw(protocol: u8) -> Self {
        match protocol {
            IPPROTO_ICMP => Self::Icmp,
            IPPROTO_ICMPV6 => Self::Icmpv6,
            other => Self::Raw(other),
        }
    }

    /// Name in the output; where netstat and `/etc/services` know it, theirs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::UdpLite => "udplite",
            Self::Icmp => "icmp",
            Self::Icmpv6 => "icmpv6",
            Self::Raw(number) => RAW.get(usize::from(number)).map_or("raw", String::as_str),
            Self::Packet => "packet",
        }
    }

    /// Number of the IP protocol; `None` for frames.
    #[must_use]
    pub const fn number(self) -> Option<u8> {
        match self {
            Self::Tcp => Some(IPPROTO_TCP),
            Self::Udp => Some(IPPROTO_UDP),
            Self::UdpLite => Some(IPPROTO_UDPLITE),
            Self::Icmp => Some(IPPROTO_ICMP),
            Self::Icmpv6 => Some(IPPROTO_ICMPV6),
            Self::Raw(number) => Some(number),
            Self::Packet => None,
        }
    }

    /// Whether its addresses have ports.
    #[must_use]
    pub const fn has_ports(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp | Self::UdpLite)
    }

    /// An address as text: without a port where the protocol has none.
    #[must_use]
    pub fn spell(self, address: SockAddr) -> String {
        match self {
            Self::Packet => "*".to_owned(),
            _ if self.has_ports() => address.to_string(),
            _ => address.ip.to_string(),
        }
    }

    /// Whether snapshots have its sockets with their cookies.
    #[must_use]
    pub const fn is_in_snapshots(self) -> bool {
        matches!(self, Self::Tcp | Self::Udp)
    }

    /// Whether it is that of raw or ping sockets.
    #[must_use]
    pub const fn is_raw(self) -> bool {
        matches!(self, Self::Icmp | Self::Icmpv6 | Self::Raw(_))
    }
}

/// `include/uapi/linux/in.h`, `in6.h`
const IPPROTO_ICMP: u8 = 1;
const IPPROTO_TCP: u8 = 6;
const IPPROTO_UDP: u8 = 17;
const IPPROTO_ICMPV6: u8 = 58;
const IPPROTO_UDPLITE: u8 = 136;

impl Serialize for Proto {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// Address family of packets: [`Family::Ipv4`] also for an IPv6 socket with mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `AF_INET`, or IPv4 on an IPv6 socket
    Ipv4,
    /// `AF_INET6`
    Ipv6,
}

impl Family {
    /// The family of an address that was passed through [`unmap`].
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// Converts an IPv4-mapped address to IPv4; returns whether it was one.
#[must_use]
pub fn unmap(ip: IpAddr) -> (IpAddr, bool) {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or((ip, false), |v4| (IpAddr::V4(v4), true)),
        IpAddr::V4(_) => (ip, false),
    }
}
