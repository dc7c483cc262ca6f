//! Records about sockets.

use crate::process::Task;
use crate::{Header, kind};

/// What a socket is, as read from `struct sock` at the time of the record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sock {
    /// `bpf_get_socket_cookie`; 0 where nobody asked for the cookie yet and the probe may not.
    pub cookie: u64,
    /// Inode of the socket, 0 while no file stands for it (a child not yet accepted).
    pub inode: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Local port, host byte order; 0 while unbound.
    pub local_port: u16,
    /// Remote port, host byte order.
    pub remote_port: u16,
    /// `IPPROTO_TCP` (of MPTCP too), or `IPPROTO_UDP`.
    pub protocol: u8,
    /// [`sock_flags`].
    pub flags: u8,
    /// Zero.
    pub pad: [u8; 4],
    /// Local address, network byte order, IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// Remote address, likewise.
    pub remote: [u8; 16],
}

const _: () = assert!(size_of::<Sock>() == 64 && align_of::<Sock>() == 8);

/// Bits of [`Sock::flags`].
pub mod sock_flags {
    /// An MPTCP socket, the application's own: not one of its subflows.
    pub const MPTCP: u8 = 1;
    /// Data goes, or came, with the SYN (or would, were there a cookie).
    pub const FASTOPEN: u8 = 2;
    /// An IPv6 socket, and the addresses are the IPv4 ones of a datagram.
    pub const MAPPED: u8 = 4;
    /// The kernel made it for itself, whoever asked for that: a network file system, a remote disk. Told where
    /// it begins a connection.
    pub const KERNEL: u8 = 8;
}

/// Something that the current task does to a socket: it connects, listens, accepts, fails to connect, or
/// uses it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// [`kind::CONNECT`], [`kind::LISTEN`], [`kind::ACCEPT`], [`kind::FAIL`], [`kind::USE`]
    /// or [`kind::BORN`].
    pub header: Header,
    /// The socket.
    pub sock: Sock,
    /// Who does it: the current task, by construction of the probes that send this.
    pub task: Task,
    /// What the call returned, negative errno, on [`kind::FAIL`]; else 0.
    pub result: i32,
    /// Zero.
    pub pad: u32,
    /// What the thread was about when it did this, as [`Fork::cause`](crate::Fork::cause).
    pub cause: u64,
}

const _: () = assert!(size_of::<Begin>() == 168 && align_of::<Begin>() == 8);
const _: () = assert!(kind::COUNT == 14);

/// A transition that says nothing about the current task: it may be anybody's.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// [`kind::CHANGE`].
    pub header: Header,
    /// The socket.
    pub sock: Sock,
    /// Cookie of the listener that a child came from, 0 where not known.
    pub listener: u64,
    /// When the owner below connected or listened, nanoseconds since boot, 0 where not seen.
    pub began: u64,
    /// Start of the owner, nanoseconds since boot: with `owner_tgid` the key of a process.
    pub owner_start: u64,
    /// Thread group that connected, or for a child the one that called listen(); 0 where not seen.
    pub owner_tgid: u32,
    /// Thread that did.
    pub owner_tid: u32,
    /// `tcp_sock.bytes_sent - bytes_retrans`, on a transition to CLOSE.
    pub sent: u64,
    /// `tcp_sock.bytes_received` less the peer's FIN, on a transition to CLOSE.
    pub received: u64,
    /// `sk_err` on a transition to CLOSE, else 0: positive errno.
    pub error: u16,
    /// State before (`include/net/tcp_states.h`).
    pub old: u8,
    /// State after.
    pub new: u8,
    /// [`change_flags`].
    pub flags: u32,
}

const _: () = assert!(size_of::<Change>() == 136 && align_of::<Change>() == 8);

/// Bits of [`Change::flags`].
pub mod change_flags {
    /// The owner in the record called connect() on this very socket.
    pub const CONNECTED: u32 = 1;
    /// The socket was born of a listener.
    pub const CHILD: u32 = 2;
    /// This end sent the first FIN.
    pub const FIN_LOCAL: u32 = 4;
    /// The other end sent the first FIN.
    pub const FIN_REMOTE: u32 = 8;
    /// The owner in the record called listen() on this very socket.
    pub const LISTENER: u32 = 16;
    /// On a transition to CLOSE: the peer's FIN had been taken in (`SOCK_DONE`).
    pub const DONE: u32 = 32;
    /// The record is about the first subflow of the MPTCP socket whose cookie this is: its addresses, which
    /// that has none of when it begins, and its error, which that gets later.
    pub const SUBFLOW: u32 = 128;
    /// On a transition to CLOSE: this kernel does not count what the socket sent and received (MPTCP before 6.5).
    pub const UNCOUNTED: u32 = 256;
    /// On a transition to CLOSE: no process had the socket any more (`SOCK_DEAD`).
    pub const DEAD: u32 = 64;
}
