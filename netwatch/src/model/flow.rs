//! UDP flows.

use std::net::IpAddr;

use super::{Cookie, SockAddr, Socket};

/// The addresses of a UDP flow. The local port is that of the socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FlowAddresses {
    /// Local address. A socket that is bound to no address may use several.
    pub local: IpAddr,
    /// Remote address and port.
    pub remote: SockAddr,
}

impl FlowAddresses {
    /// Of a socket with the addresses of a datagram; `None` without a remote address.
    #[must_use]
    pub fn of(socket: &Socket) -> Option<Self> {
        Some(Self { local: socket.local.ip, remote: socket.remote? })
    }
}

/// Identifies a UDP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Flow {
    /// Its socket.
    pub cookie: Cookie,
    /// Its addresses.
    pub addresses: FlowAddresses,
}
