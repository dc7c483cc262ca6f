//! Records about flows of datagrams (UDP, UDP-Lite, raw, ping and packet sockets), and their map, which the agent reads.

use crate::{Header, Sock};

/// The first datagram of a flow. A flow is a socket, a local and a remote address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// [`kind::FLOW`](crate::kind::FLOW).
    pub header: Header,
    /// The socket, with the addresses of the datagram.
    pub sock: Sock,
    /// Thread group of the task in whose context the datagram left the socket; 0 if it was received. This is the sender
    /// unless the datagram was delayed, for example by NFQUEUE: a `USE` record of the same thread confirms it.
    pub tgid: u32,
    /// Thread of that task.
    pub tid: u32,
    /// [`flow_flags`].
    pub flags: u32,
    /// Index of the interface by which the datagram came or went.
    pub interface: u32,
}

const _: () = assert!(size_of::<Flow>() == 96 && align_of::<Flow>() == 8);

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// The first datagram was received; otherwise it was sent.
    pub const RECEIVED: u32 = 1;
    /// The creation of the socket was not observed: it may be older than the probes, and so may the flow.
    pub const OLD: u32 = 2;
    /// The first datagram answers another one or reports an error about it, so its sender originated nothing.
    pub const ANSWER: u32 = 4;
}

/// A UDP socket about which a record was sent is closed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// [`kind::RELEASE`](crate::kind::RELEASE).
    pub header: Header,
    /// The socket, with its current addresses.
    pub sock: Sock,
}

const _: () = assert!(size_of::<Release>() == 80 && align_of::<Release>() == 8);

/// Key of the map of flows. Addresses are as on the wire, in network byte order, IPv4 in the first four bytes. The
/// local address is part of the key because a socket that is bound to no address may use several; its port does not
/// change.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// Cookie of the socket.
    pub cookie: u64,
    /// Local address.
    pub local: [u8; 16],
    /// Remote address.
    pub remote: [u8; 16],
    /// Remote port, host byte order.
    pub port: u16,
    /// Zero.
    pub pad: [u8; 6],
}

const _: () = assert!(size_of::<FlowKey>() == 48 && align_of::<FlowKey>() == 8);

/// Counters of a flow, which are added to atomically.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// Payload sent, in bytes.
    pub sent: u64,
    /// Payload received, in bytes.
    pub received: u64,
    /// Time of the last datagram, in nanoseconds since boot.
    pub last: u64,
    /// [`flow_flags`] of the first datagram.
    pub flags: u32,
    /// The record of the flow was sent.
    pub reported: u32,
}

const _: () = assert!(size_of::<FlowCount>() == 32 && align_of::<FlowCount>() == 8);

/// Default maximum number of flows.
pub const FLOWS_MAX: usize = 65536;

/// Maximum number of flows of one socket, so that one socket cannot take the places of all others.
pub const SOCKET_FLOWS_MAX: u32 = 16384;

/// Number of sockets whose flows without a place are counted each by itself; the least recently counted are forgotten.
pub const NOT_FOLLOWED_MAX: usize = 1024;
