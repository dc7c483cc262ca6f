//! Counts connections to a port.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use super::search::segments;
use super::words::Word as _;
use super::{Reader, StoreError};
use crate::model::{NetnsId, Proto};

/// A port and a start time.
#[derive(Clone, Copy)]
pub struct Visited<'a> {
    /// Boot id.
    pub boot: &'a str,
    /// Transport.
    pub proto: Proto,
    /// Network namespace inode number.
    pub netns: NetnsId,
    /// Port.
    pub port: u16,
    /// Whether connections to this address were made to this listener; another may have the same port.
    pub takes: &'a dyn Fn(IpAddr) -> bool,
    /// Start time in nanoseconds since the epoch.
    pub since: i64,
    /// Maximum number of rows, the newest: a server may have had millions.
    pub most: usize,
}

/// Inbound connections to a port.
#[derive(Clone, Debug, Default)]
pub struct Visits {
    /// Number of connections.
    pub count: u64,
    /// There were more.
    pub more: bool,
    /// Number by remote address, unsorted.
    pub from: Vec<(IpAddr, u64)>,
    /// All came from this host.
    pub only_local: bool,
}

impl Reader {
    /// Counts connections to a port.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn visits(&self, visited: &Visited<'_>) -> Result<Visits, StoreError> {
        self.step()?;
        let mut visits = Visits { only_local: true, ..Visits::default() };
        let mut left = visited.most;
        let mut seen = HashSet::new();
        let mut from: HashMap<IpAddr, u64> = HashMap::new();
        let mut select = self.db().prepare_cached(
            "SELECT cookie, began, local_ip, remote_ip, peer_cookie IS NOT NULL FROM connection \
             WHERE segment = ?1 AND local_port = ?2 AND proto = ?3 AND netns = ?4 AND side = 2 \
             AND remote_ip IS NOT NULL AND ts >= ?5 ORDER BY id DESC LIMIT ?6",
        )?;
        for segment in segments(self.db())?.iter().rev().filter(|segment| *segment.boot == *visited.boot) {
            let limit = i64::try_from(left.saturating_add(1)).unwrap_or(i64::MAX);
            let (port, netns) = (i64::from(visited.port), i64::from(visited.netns.number()));
            let values = [segment.id, port, visited.proto.code().into(), netns, visited.since, limit];
            let mut rows = select.query(values)?;
            while let Some(row) = rows.next()? {
                if left == 0 {
                    visits.more = true;
                    break;
                }
                left -= 1;
                let end: (i64, i64) = (row.get(0)?, row.get(1)?);
                // An endpoint has a row in each batch with events about it.
                if !seen.insert(end) {
                    continue;
                }
                let (local, ip, has_peer): (String, String, bool) = (row.get(2)?, row.get(3)?, row.get(4)?);
                let (Ok(local), Ok(ip)) = (local.parse(), ip.parse::<IpAddr>()) else { continue };
                if !(visited.takes)(local) {
                    continue;
                }
                visits.count += 1;
                visits.only_local &= has_peer || ip.is_loopback();
                *from.entry(ip).or_default() += 1;
            }
            if visits.more {
                break;
            }
        }
        visits.from = from.into_iter().collect();
        Ok(visits)
    }
}
