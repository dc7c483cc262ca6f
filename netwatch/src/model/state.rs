//! State of a socket, and how it was created.

use serde::Serialize;

/// State of a socket, numbered as in `include/net/tcp_states.h`. UDP uses `Established` for a connected socket and
/// `Close` for any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// 1
    Established,
    /// 2
    SynSent,
    /// 3, and 12 for a request socket.
    SynRecv,
    /// 4
    FinWait1,
    /// 5
    FinWait2,
    /// 6
    TimeWait,
    /// 7
    Close,
    /// 8
    CloseWait,
    /// 9
    LastAck,
    /// 10
    Listen,
    /// 11
    Closing,
    /// Unknown number.
    Unknown(u8),
}

impl State {
    /// From the kernel's number.
    #[must_use]
    pub const fn from_kernel(state: u8) -> Self {
        match state {
            1 => Self::Established,
            2 => Self::SynSent,
            3 | 12 => Self::SynRecv,
            4 => Self::FinWait1,
            5 => Self::FinWait2,
            6 => Self::TimeWait,
            7 | 13 => Self::Close,
            8 => Self::CloseWait,
            9 => Self::LastAck,
            10 => Self::Listen,
            11 => Self::Closing,
            other => Self::Unknown(other),
        }
    }

    /// The name in netstat's output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Established => "ESTABLISHED",
            Self::SynSent => "SYN_SENT",
            Self::SynRecv => "SYN_RECV",
            Self::FinWait1 => "FIN_WAIT1",
            Self::FinWait2 => "FIN_WAIT2",
            Self::TimeWait => "TIME_WAIT",
            Self::Close => "CLOSE",
            Self::CloseWait => "CLOSE_WAIT",
            Self::LastAck => "LAST_ACK",
            Self::Listen => "LISTEN",
            Self::Closing => "CLOSING",
            Self::Unknown(_) => "UNKNOWN",
        }
    }
}

/// The way of a call, if not a plain system call on a plain socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// By io_uring, including its workers.
    IoUring,
    /// By 32-bit socketcall(2).
    Socketcall,
    /// By a kernel thread.
    Kernel,
    /// With data in the SYN (TCP Fast Open).
    Fastopen,
    /// On an MPTCP socket.
    Mptcp,
}

impl Via {
    /// Name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::IoUring => "io_uring",
            Self::Socketcall => "socketcall",
            Self::Kernel => "kernel",
            Self::Fastopen => "fastopen",
            Self::Mptcp => "mptcp",
        }
    }
}
