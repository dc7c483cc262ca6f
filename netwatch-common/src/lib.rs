//! The wire format between the kernel side of netwatch and its agent: records in the ring buffer, and the read-only
//! values that the agent passes to the programs when it loads them.
//!
//! Types consist of integers and byte arrays, are `repr(C)` with explicit padding, and assert size and alignment, so
//! that both sides fail to compile if they disagree. Integers, including ports, are in host byte order; addresses are
//! in network byte order, IPv4 in the first four bytes of 16.
#![no_std]

mod cause;
mod knobs;
mod listed;
mod name;
mod offsets;
mod process;
mod sock;
mod udp;

pub use cause::{Cause, MESSAGES_MAX, Message, Pair, UNIX_NAME_MAX, message_flags};
pub use knobs::Knobs;
pub use listed::{Held, Listed, Running, listed_flags};
pub use name::{ASKED_MAX, NAME_BYTES, NAME_BYTES_MAX, NETNS_MAX, Name, Netns, name_source};
pub use offsets::{Need, Offsets};
pub use process::{
    CGROUP_PATH_MAX, Cgroup, EXEC_ARGS_MAX, EXEC_PATH_MAX, Exec, Exit, Fork, Stream, Task, exec_flags,
    stream_kind, task_flags,
};
pub use sock::{Begin, Change, Sock, begin_flags, change_flags, sock_flags};
pub use udp::{FLOWS_MAX, Flow, FlowCount, FlowKey, NOT_FOLLOWED_MAX, Release, SOCKET_FLOWS_MAX, flow_flags};

/// Version of the wire format; the agent rejects an object with another version.
pub const WIRE_VERSION: u32 = 6;

/// Length of `task_struct.comm`, including the NUL (`include/linux/sched.h`, `TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// Kinds of records: the first field of [`Header`], and the index into the counts of lost records.
pub mod kind {
    /// [`Begin`](crate::Begin): a socket goes from CLOSE to SYN_SENT.
    pub const CONNECT: u16 = 1;
    /// [`Begin`](crate::Begin): a socket goes from CLOSE to LISTEN.
    pub const LISTEN: u16 = 2;
    /// [`Begin`](crate::Begin): a process accepted a connection.
    pub const ACCEPT: u16 = 3;
    /// [`Begin`](crate::Begin): connect() failed without a state transition that shows it.
    pub const FAIL: u16 = 4;
    /// [`Change`](crate::Change): any other TCP state transition.
    pub const CHANGE: u16 = 5;
    /// [`Fork`](crate::Fork)
    pub const FORK: u16 = 6;
    /// [`Exec`](crate::Exec)
    pub const EXEC: u16 = 7;
    /// [`Exit`](crate::Exit)
    pub const EXIT: u16 = 8;
    /// [`Cgroup`](crate::Cgroup)
    pub const CGROUP: u16 = 9;
    /// [`Begin`](crate::Begin): a process reads from or writes to a socket and is not one of its last users.
    pub const USE: u16 = 10;
    /// [`Flow`](crate::Flow): the first datagram between a UDP socket and a remote address.
    pub const FLOW: u16 = 11;
    /// [`Begin`](crate::Begin): a process creates a UDP socket.
    pub const BORN: u16 = 12;
    /// [`Release`](crate::Release)
    pub const RELEASE: u16 = 13;
    /// [`Cause`](crate::Cause): the messages by which the cause of the next record reached its thread.
    pub const CAUSE: u16 = 14;
    /// [`Pair`](crate::Pair): the first message between two processes over a UNIX socket.
    pub const PAIR: u16 = 15;
    /// [`Name`](crate::Name): the answer to a DNS question, or a TLS ClientHello.
    pub const NAME: u16 = 16;
    /// [`Netns`](crate::Netns): another network namespace has a number.
    pub const NETNS: u16 = 17;
    /// One more than the greatest kind: the number of counts of lost records.
    pub const COUNT: u32 = 18;

    /// Whether records of a kind say which UDP sockets and flows exist. Anyone who may send datagrams can cause a flood
    /// of them, so their loss casts no doubt on what is known about TCP.
    #[must_use]
    pub const fn is_udp(kind: u16) -> bool {
        matches!(kind, FLOW | BORN | RELEASE)
    }

    /// Whether records of a kind say which TCP endpoints and processes exist. A `USE` record only says who else uses an
    /// endpoint, `CAUSE` and `PAIR` only what processes said to each other, `NAME` and `NETNS` only how a host is called.
    #[must_use]
    pub const fn is_tcp_or_process(kind: u16) -> bool {
        !is_udp(kind) && !matches!(kind, USE | CAUSE | PAIR | NAME | NETNS)
    }

    /// The name of a kind in `loss` events; `None` for an unknown number.
    #[must_use]
    pub const fn name(kind: u16) -> Option<&'static str> {
        Some(match kind {
            CONNECT => "connect",
            LISTEN => "listen",
            ACCEPT => "accept",
            FAIL => "fail",
            CHANGE => "change",
            FORK => "fork",
            EXEC => "exec",
            EXIT => "exit",
            CGROUP => "cgroup",
            USE => "use",
            FLOW => "flow",
            BORN => "born",
            RELEASE => "release",
            CAUSE => "cause",
            PAIR => "pair",
            NAME => "name",
            NETNS => "netns",
            _ => return None,
        })
    }
}

/// The start of every record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// One of [`kind`].
    pub kind: u16,
    /// The same as `loss` for [`kind::is_udp`].
    pub udp_loss: u16,
    /// Changes whenever a record is lost whose kind is [`kind::is_tcp_or_process`]: if two records differ, something is
    /// missing between them. 0 until the first loss.
    pub loss: u32,
    /// Time in nanoseconds since boot (`bpf_ktime_get_boot_ns`).
    pub ts: u64,
}

const _: () = assert!(size_of::<Header>() == 16 && align_of::<Header>() == 8);
