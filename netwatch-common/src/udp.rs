//! Records about UDP, and the table of its flows, which the agent reads.

use crate::{Header, Sock};

/// The first datagram of a flow: of a socket and a remote address.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Flow {
    /// [`kind::FLOW`](crate::kind::FLOW).
    pub header: Header,
    /// The socket, with the addresses of the datagram.
    pub sock: Sock,
    /// [`flow_flags`].
    pub flags: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Flow>() == 88 && align_of::<Flow>() == 8);

/// Bits of [`Flow::flags`].
pub mod flow_flags {
    /// The datagram came in; else it went out.
    pub const RECEIVED: u32 = 1;
    /// The socket was not seen to be made: it may be older than the probes, and so may the flow.
    pub const OLD: u32 = 2;
}

/// A UDP socket of which something was told is closed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Release {
    /// [`kind::RELEASE`](crate::kind::RELEASE).
    pub header: Header,
    /// The socket; its addresses are what they happen to be by then.
    pub sock: Sock,
}

const _: () = assert!(size_of::<Release>() == 80 && align_of::<Release>() == 8);

/// Key of the table of flows.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowKey {
    /// The socket's.
    pub cookie: u64,
    /// Remote address as on the wire, network byte order, IPv4 in the first four bytes.
    pub remote: [u8; 16],
    /// Remote port, host byte order.
    pub port: u16,
    /// Zero.
    pub pad: [u8; 6],
}

const _: () = assert!(size_of::<FlowKey>() == 32 && align_of::<FlowKey>() == 8);

/// What the table has of a flow. Two CPUs that count the same flow at once can lose one of the two counts:
/// BPF code for any kernel has no atomic addition.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCount {
    /// Payload that went out, bytes.
    pub sent: u64,
    /// Payload that came in.
    pub received: u64,
    /// When the last datagram passed, nanoseconds since boot.
    pub last: u64,
    /// [`flow_flags`] of the first.
    pub flags: u32,
    /// The flow's record found room in the ring.
    pub told: u32,
}

const _: () = assert!(size_of::<FlowCount>() == 32 && align_of::<FlowCount>() == 8);

/// Flows that are followed at once, where the agent does not say otherwise.
pub const FLOWS_MAX: usize = 65536;
