//! The words that every room uses: endpoints, states, processes. No I/O.

use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::Serialize;

/// One end's address and port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct Endpoint {
    /// IPv4-mapped IPv6 addresses stand here as IPv4.
    pub ip: IpAddr,
    /// Host byte order.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            IpAddr::V4(ip) => write!(f, "{ip}:{}", self.port),
            IpAddr::V6(ip) => write!(f, "[{ip}]:{}", self.port),
        }
    }
}

/// Transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Proto {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

impl Proto {
    /// As `/etc/services` and netstat spell it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Address family on the wire: an IPv4-mapped IPv6 socket is [`Family::Ipv4`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Family {
    /// `AF_INET`, or IPv4 on an IPv6 socket
    Ipv4,
    /// `AF_INET6`
    Ipv6,
}

impl Family {
    /// The family of an address whose mapped form was taken off already.
    #[must_use]
    pub const fn of(ip: IpAddr) -> Self {
        match ip {
            IpAddr::V4(_) => Self::Ipv4,
            IpAddr::V6(_) => Self::Ipv6,
        }
    }
}

/// Takes the IPv4-mapped form off an address; tells whether it was there.
#[must_use]
pub fn unmap(ip: IpAddr) -> (IpAddr, bool) {
    match ip {
        IpAddr::V6(v6) => v6.to_ipv4_mapped().map_or((ip, false), |v4| (IpAddr::V4(v4), true)),
        IpAddr::V4(_) => (ip, false),
    }
}

/// A socket's state, numbered as in `include/net/tcp_states.h`. UDP uses two of them: `Established` for
/// a connected socket, `Close` for any other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// 1
    Established,
    /// 2
    SynSent,
    /// 3, and 12 for a half-open request
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
    /// A number that this version does not know.
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

    /// As netstat spells it.
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

/// How a call came where it is not a plain system call on a plain socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Via {
    /// By io_uring, its threads included.
    IoUring,
    /// By 32-bit socketcall(2).
    Socketcall,
    /// By a kernel thread.
    Kernel,
    /// With data in the SYN.
    Fastopen,
    /// On an MPTCP socket.
    Mptcp,
}

impl Via {
    /// As it is spelled outside.
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

/// Survives the reuse of a pid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProcessKey {
    /// Thread group.
    pub pid: u32,
    /// Start of its leader, nanoseconds since boot, in whole clock ticks (see [`ProcessKey::new`]).
    pub start: u64,
}

impl ProcessKey {
    /// A clock tick of `/proc`, nanoseconds: `USER_HZ` is 100 on every architecture that Linux still has
    /// but alpha.
    const TICK: u64 = 10_000_000;

    /// `start` as the kernel keeps it is cut to the tick, as `/proc/PID/stat` tells it, so that a process
    /// has one key wherever it was read. Within one tick the kernel does not come back to a pid.
    #[must_use]
    pub const fn new(pid: u32, start: u64) -> Self {
        Self { pid, start: start / Self::TICK * Self::TICK }
    }

    /// From the start that `/proc/PID/stat` tells.
    #[must_use]
    pub const fn from_ticks(pid: u32, ticks: u64) -> Self {
        Self { pid, start: ticks.saturating_mul(Self::TICK) }
    }
}

impl fmt::Display for ProcessKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.pid, self.start)
    }
}

impl Serialize for ProcessKey {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// What became of the file that a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ExeState {
    /// It is where it was.
    Ok,
    /// Its name is gone.
    Deleted,
    /// It never had a name.
    Memfd,
    /// Another file has its name now.
    Replaced,
    /// Not to be found out.
    Unknown,
}

/// A program image: what an exec put into a process. Strings from outside are already safe to print in
/// JSON (see [`crate::escape`]).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Absolute path of the executable, as `/proc/PID/exe` shows it but for the mark of deletion;
    /// `None` for a kernel thread or where it could not be read.
    pub exe: Option<Arc<str>>,
    /// What the kernel said of the file at exec; the agent looks again at each event.
    pub exe_state: ExeState,
    /// Device number as in `stat.st_dev`, and inode; 0 where not known.
    pub file: (u64, u64),
    /// Inode number of the mount namespace in which `exe` means something; 0 where not known.
    pub mntns: u32,
    /// Arguments as at exec.
    pub args: Arc<[Arc<str>]>,
}

impl Image {
    /// Arguments as they lie in memory, each with a NUL at its end; a last one may lack it, where it was
    /// cut or somebody wrote over it.
    #[must_use]
    pub fn arguments(bytes: &[u8]) -> Arc<[Arc<str>]> {
        if bytes.is_empty() {
            return Arc::new([]);
        }
        let whole = bytes.strip_suffix(b"\0").unwrap_or(bytes);
        whole.split(|b| *b == 0).map(|argument| crate::escape::utf8(argument).into()).collect()
    }

    /// Nothing known.
    #[must_use]
    pub fn unknown() -> Arc<Self> {
        Arc::new(Self { exe: None, exe_state: ExeState::Unknown, file: (0, 0), mntns: 0, args: Arc::new([]) })
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// `10.0.0.1:80`, `[::1]:80`
    pub(crate) fn at(text: &str) -> Endpoint {
        let address: std::net::SocketAddr = text.parse().unwrap();
        Endpoint { ip: address.ip(), port: address.port() }
    }
}
