//! Sockets and their holders at one moment.

use super::{BootTime, Holders, NetnsId, SocketRow};
use crate::hash::{Map, Set};

/// Sockets at one moment, and who holds them.
#[derive(Clone, Debug, Default)]
pub struct SocketSnapshot {
    /// All sockets that were seen.
    pub sockets: Vec<SocketRow>,
    /// Who holds them.
    pub holders: Holders,
    /// `ip_local_port_range` of each network namespace that was seen.
    pub port_ranges: Map<NetnsId, (u16, u16)>,
    /// Inode numbers of packet sockets.
    pub packets: Set<u64>,
    /// When the snapshot began.
    pub began: BootTime,
}
