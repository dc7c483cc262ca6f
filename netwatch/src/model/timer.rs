//! Timers of TCP sockets.

use super::{NetnsId, SockAddr};
use crate::hash::Map;

/// The timer of a TCP socket, as `/proc/net/tcp` has it (net/ipv4/tcp_ipv4.c, get_tcp4_sock(), v6.12).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Timer {
    /// 0: none, 1: retransmission, 2: keepalive, 3: TIME_WAIT, 4: probes of a closed window.
    pub kind: u8,
    /// When it expires, in hundredths of a second.
    pub expires: u64,
    /// Retransmissions so far.
    pub retransmits: u64,
    /// Probes that were not answered.
    pub probes: u64,
}

/// Timers of TCP sockets by namespace, addresses and inode number (0: without a file).
pub type Timers = Map<(NetnsId, SockAddr, Option<SockAddr>, u64), Timer>;
