//! Addresses, transport protocols and address families.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

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

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP
    Tcp,
    /// UDP
    Udp,
    /// A raw socket; the IP protocol is in the place of the local port. Only `list` shows them.
    Raw,
}

impl Proto {
    /// Name in `/etc/services` and netstat's output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
            Self::Raw => "raw",
        }
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
