//! Addresses, and what they are of.

use std::fmt;
use std::net::IpAddr;

use serde::Serialize;

/// One end's address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct SockAddr {
    /// IPv4-mapped IPv6 addresses stand here as IPv4.
    pub ip: IpAddr,
    /// Host byte order.
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
}

impl Proto {
    /// As `/etc/services` and netstat spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Address family on the wire: an IPv4-mapped IPv6 socket is [`Family::Ipv4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `AF_INET`, or IPv4 on an IPv6 socket
    Ipv4,
    /// `AF_INET6`
    Ipv6,
}

impl Family {
    /// The family of an address whose mapped form was taken off already.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// Takes the IPv4-mapped form off an address; tells whether it was there.
#[must_use]
pub fn unmap(ip: IpAddr) -> (IpAddr, bool) {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or((ip, false), |v4| (IpAddr::V4(v4), true)),
        IpAddr::V4(_) => (ip, false),
    }
}
