//! Records about sockets.

use crate::process::Task;
use crate::{Header, kind};

/// A socket, read from `struct sock` at the time of the record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sock {
    /// Socket cookie; 0 if none was generated yet and the probe cannot generate one.
    pub cookie: u64,
    /// Inode number of the socket; 0 without a file (a child that is not accepted yet).
    pub inode: u64,
    /// Inode number of the network namespace.
    pub netns: u32,
    /// `AF_INET` or `AF_INET6`.
    pub family: u16,
    /// Local port in host byte order; 0 if unbound.
    pub local_port: u16,
    /// Remote port in host byte order.
    pub remote_port: u16,
    /// `IPPROTO_TCP` (also for MPTCP), `IPPROTO_UDP` or `IPPROTO_UDPLITE`; with [`sock_flags::RAW`] any IP protocol.
    pub protocol: u8,
    /// [`sock_flags`].
    pub flags: u8,
    /// Index of the interface that the socket is bound to, in its network namespace; 0 if none. The kernel binds a TCP
    /// socket with a link-local address to the interface of that address.
    pub device: u32,
    /// Local address, network byte order, IPv4 in the first four bytes.
    pub local: [u8; 16],
    /// Remote address, in the same form.
    pub remote: [u8; 16],
}

const _: () = assert!(size_of::<Sock>() == 64 && align_of::<Sock>() == 8);

/// Bits of [`Sock::flags`].
pub mod sock_flags {
    /// An MPTCP socket of an application, not a subflow.
    pub const MPTCP: u8 = 1;
    /// TCP Fast Open: data is sent or was received with the SYN (or would be, with a Fast Open cookie).
    pub const FASTOPEN: u8 = 2;
    /// An IPv6 socket; the addresses are those of an IPv4 datagram.
    pub const MAPPED: u8 = 4;
    /// A socket of the kernel, for example of a network file system. Set when it connects.
    pub const KERNEL: u8 = 8;
    /// `TCP_REPAIR` is on: a process restores a connection, and connect() sends nothing. Set when it connects.
    pub const REPAIR: u8 = 16;
    /// A raw or ping socket. It has no ports.
    pub const RAW: u8 = 32;
    /// A packet socket (`AF_PACKET`), which has neither addresses nor a protocol.
    pub const PACKET: u8 = 64;
}

/// An action of the current task on a socket: it connects, listens, accepts, fails to connect, uses or creates it.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Begin {
    /// [`kind::CONNECT`], [`kind::LISTEN`], [`kind::ACCEPT`], [`kind::FAIL`], [`kind::USE`]
    /// or [`kind::BORN`].
    pub header: Header,
    /// The socket.
    pub sock: Sock,
    /// The current task. The probes that send this record run in its context.
    pub task: Task,
    /// Negative errno that the call returned, for [`kind::FAIL`]; otherwise 0.
    pub result: i32,
    /// [`begin_flags`].
    pub flags: u32,
    /// The socket that the thread handled, as [`Fork::cause`](crate::Fork::cause).
    pub cause: u64,
}

const _: () = assert!(size_of::<Begin>() == 168 && align_of::<Begin>() == 8);
const _: () = assert!(kind::COUNT == 18);

/// Bits of [`Begin::flags`].
pub mod begin_flags {
    /// For [`kind::USE`](crate::kind::USE): this call sent the first datagram of a UDP flow, which a
    /// [`Flow`](crate::Flow) record of the same socket and thread reported.
    pub const FIRST_DATAGRAM: u32 = 1;
    /// The cause reached the thread by messages, which a [`Cause`](crate::Cause) has.
    pub const BY_MESSAGE: u32 = 2;
}

/// A state transition. The current task is unrelated to the socket.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// [`kind::CHANGE`].
    pub header: Header,
    /// The socket.
    pub sock: Sock,
    /// Cookie of the listener that created a child; 0 if not known.
    pub listener: u64,
    /// When the owner below connected or listened, in nanoseconds since boot; 0 if not observed.
    pub began: u64,
    /// Start of the owner, in nanoseconds since boot; with `owner_tgid` the key of a process.
    pub owner_start: u64,
    /// Thread group that connected, or for a child that called listen(); 0 if not observed.
    pub owner_tgid: u32,
    /// Thread that did so.
    pub owner_tid: u32,
    /// `tcp_sock.bytes_sent - bytes_retrans`, on a transition to CLOSE.
    pub sent: u64,
    /// `tcp_sock.bytes_received` without the FIN of the peer, on a transition to CLOSE.
    pub received: u64,
    /// `sk_err`, a positive errno, on a transition to CLOSE, or from SYN_SENT the soft error that connect() left;
    /// otherwise 0.
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
    /// The owner in the record called connect() on this socket.
    pub const CONNECTED: u32 = 1;
    /// The socket was created by a listener.
    pub const CHILD: u32 = 2;
    /// The local side sent the first FIN.
    pub const FIN_LOCAL: u32 = 4;
    /// The remote side sent the first FIN.
    pub const FIN_REMOTE: u32 = 8;
    /// The owner in the record called listen() on this socket.
    pub const LISTENER: u32 = 16;
    /// The owner in the record restored a connection with this socket (`TCP_REPAIR`).
    pub const RESTORED: u32 = 512;
    /// On a transition to CLOSE: the FIN of the peer was received (`SOCK_DONE`).
    pub const DONE: u32 = 32;
    /// The record is about the first subflow of the MPTCP socket with this cookie. It has the addresses, which the
    /// MPTCP socket lacks at first, and the error, which that gets later.
    pub const SUBFLOW: u32 = 128;
    /// On a transition to CLOSE: this kernel has no byte counters for the socket (MPTCP before 6.5).
    pub const UNCOUNTED: u32 = 256;
    /// On a transition to CLOSE: no process has the socket any more (`SOCK_DEAD`).
    pub const DEAD: u32 = 64;
}
