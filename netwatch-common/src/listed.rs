//! Output of the iterators: sockets, descriptors and processes.

use crate::Sock;

/// A TCP or UDP socket, with the values that `sock_diag` reports.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// The socket.
    pub sock: Sock,
    /// Payload sent, without retransmissions; 0 for UDP, requests and TIME_WAIT.
    pub sent: u64,
    /// Payload received, including the FIN of the peer; 0 for the same.
    pub received: u64,
    /// Bytes not read yet; for a listener, connections not accepted yet.
    pub recv_queue: u32,
    /// Bytes not acknowledged yet; for a listener, the maximum of its queue.
    pub send_queue: u32,
    /// User id of the creator, in the user namespace of the reader.
    pub uid: u32,
    /// State, as in `include/net/tcp_states.h`.
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
    /// A subflow of an MPTCP socket.
    pub const SUBFLOW: u8 = 2;
    /// A socket that the kernel created for itself (`sk_kern_sock`).
    pub const KERNEL: u8 = 4;
    /// `SO_REUSEPORT`.
    pub const REUSEPORT: u8 = 8;
}

/// A descriptor of an IPv4 or IPv6 socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    /// Inode number of the socket.
    pub inode: u64,
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// Number of the descriptor.
    pub fd: u32,
}

const _: () = assert!(size_of::<Held>() == 16 && align_of::<Held>() == 8);

/// A process.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Running {
    /// Start of the thread group leader, in nanoseconds since boot (`task_struct.start_boottime`).
    pub start: u64,
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// Zero.
    pub pad: [u8; 4],
}

const _: () = assert!(size_of::<Running>() == 16 && align_of::<Running>() == 8);
