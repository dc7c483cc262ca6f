//! What the iterators write: sockets as they are, and who has them open.

use crate::Sock;

/// A TCP or UDP socket at one moment, as `sock_diag` would list it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The socket.
    pub sock: Sock,
    /// Payload, each byte once; 0 of UDP and of what has no socket behind it any more.
    pub sent: u64,
    /// Likewise, the peer's FIN included.
    pub received: u64,
    /// Bytes not read; of a listener, connections not accepted.
    pub recv_queue: u32,
    /// Bytes not acknowledged; of a listener, how many may wait.
    pub send_queue: u32,
    /// Who made it, in the reader's user namespace.
    pub uid: u32,
    /// `include/net/tcp_states.h`
    pub state: u8,
    /// [`listed_flags`].
    pub flags: u8,
    /// Zero.
    pub pad: [u8; 2],
}

const _: () = assert!(size_of::<Listed>() == 96 && align_of::<Listed>() == 8);

/// Bits of [`Listed::flags`].
pub mod listed_flags {
    /// `IPV6_V6ONLY`.
    pub const V6ONLY: u8 = 1;
    /// The kernel's own, below an MPTCP socket.
    pub const SUBFLOW: u8 = 2;
}

/// A descriptor of an IPv4 or IPv6 socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// The socket's inode.
    pub inode: u64,
    /// Thread group, in the initial pid namespace.
    pub tgid: u32,
    /// Descriptor.
    pub fd: u32,
}

const _: () = assert!(size_of::<Held>() == 16 && align_of::<Held>() == 8);
