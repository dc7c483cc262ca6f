//! The wire contract between netwatch's kernel side and its agent: what a record in the ring buffer
//! looks like, and the read-only values that the agent hands to the programs when it loads them.
//!
//! Integers and byte arrays only, `repr(C)`, explicit padding, sizes and alignment asserted where the
//! type stands, so that both sides fail to compile when they disagree. All integers are in host byte
//! order, ports included; addresses are in network byte order, IPv4 in the first four bytes of 16.
#![no_std]

mod knobs;
mod listed;
mod offsets;
mod process;
mod sock;
mod udp;

pub use knobs::Knobs;
pub use listed::{Held, Listed, listed_flags};
pub use offsets::{Need, Offsets};
pub use process::{
    CGROUP_PATH_MAX, Cgroup, EXEC_ARGS_MAX, EXEC_PATH_MAX, Exec, Exit, Fork, Task, exec_flags, task_flags,
};
pub use sock::{Begin, Change, Sock, change_flags, sock_flags};
pub use udp::{FLOWS_MAX, Flow, FlowCount, FlowKey, Release, flow_flags};

/// Version of everything in this crate; the agent refuses an object built for another.
pub const WIRE_VERSION: u32 = 1;

/// Length of `task_struct.comm`, the NUL included (`include/linux/sched.h`, `TASK_COMM_LEN`).
pub const COMM_LEN: usize = 16;

/// What a record is: the first field of [`Header`], and the index into the table of lost records.
pub mod kind {
    /// [`Begin`](crate::Begin): a socket goes from CLOSE to SYN_SENT.
    pub const CONNECT: u16 = 1;
    /// [`Begin`](crate::Begin): a socket goes from CLOSE to LISTEN.
    pub const LISTEN: u16 = 2;
    /// [`Begin`](crate::Begin): a process took a connection off its listener.
    pub const ACCEPT: u16 = 3;
    /// [`Begin`](crate::Begin): connect() failed where no state change told why.
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
    /// [`Begin`](crate::Begin): a process reads from or writes to a socket, for the first time as far as the
    /// kernel side remembers.
    pub const USE: u16 = 10;
    /// [`Flow`](crate::Flow): the first datagram between a UDP socket and a remote address.
    pub const FLOW: u16 = 11;
    /// [`Begin`](crate::Begin): a process makes a UDP socket.
    pub const BORN: u16 = 12;
    /// [`Release`](crate::Release)
    pub const RELEASE: u16 = 13;
    /// One more than the greatest kind: the length of the table of lost records.
    pub const COUNT: u32 = 14;

    /// The name of a kind in `loss` events, `None` for a number that is none.
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
            _ => return None,
        })
    }
}

/// How every record begins.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Header {
    /// One of [`kind`].
    pub kind: u16,
    /// Zero.
    pub pad: [u8; 2],
    /// Another value whenever a record, of whatever kind, was lost before this one: a reader that sees it
    /// change knows that something is missing between the two. 0 until then.
    pub loss: u32,
    /// When it happened, nanoseconds since boot (`bpf_ktime_get_boot_ns`).
    pub ts: u64,
}

const _: () = assert!(size_of::<Header>() == 16 && align_of::<Header>() == 8);
