//! UDP sockets and the flows of each.

use crate::hash::{Map, Set};
use crate::limits;
use crate::model::{Cookie, FlowAddresses, SockAddr};
use crate::process::Actor;

/// A UDP socket.
#[derive(Debug)]
pub(super) struct UdpSocket {
    /// The creator or last user.
    pub(super) owner: Option<Actor>,
    /// Whether snapshots list it.
    pub(super) is_in_snapshots: bool,
    /// Keys in the table of the tracker.
    flows: Map<FlowAddresses, u64>,
    /// Remote addresses of flows that ended because they were idle.
    ended: Set<SockAddr>,
    /// There were more than [`limits::MOST_IDLE_REMOTES`].
    ended_more: bool,
}

impl Default for UdpSocket {
    fn default() -> Self {
        Self {
            owner: None,
            is_in_snapshots: true,
            flows: Map::default(),
            ended: Set::default(),
            ended_more: false,
        }
    }
}

impl UdpSocket {
    pub(super) fn of(owner: Option<Actor>) -> Self {
        Self { owner, ..Self::default() }
    }

    pub(super) fn has(&self, addresses: &FlowAddresses) -> bool {
        self.flows.contains_key(addresses)
    }

    pub(super) fn flow(&self, addresses: &FlowAddresses) -> Option<u64> {
        self.flows.get(addresses).copied()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.flows.is_empty()
    }

    /// The key of its flow if it has exactly one.
    pub(super) fn only_flow(&self) -> Option<u64> {
        if self.flows.len() == 1 { self.flows.values().next().copied() } else { None }
    }

    /// Whether a flow with this remote address, which may be this one, was idle for so long that it counts as ended.
    pub(super) fn was_idle(&self, remote: SockAddr) -> bool {
        self.ended_more || self.ended.contains(&remote)
    }

    pub(super) fn insert(&mut self, addresses: FlowAddresses, key: u64) {
        self.flows.insert(addresses, key);
    }

    pub(super) fn remove(&mut self, addresses: &FlowAddresses, key: u64) {
        if self.flows.get(addresses) != Some(&key) {
            return;
        }
        self.flows.remove(addresses);
    }

    /// Notes that a flow ended because it was idle.
    pub(super) fn ended_idle(&mut self, remote: SockAddr) {
        if self.ended.len() < limits::MOST_IDLE_REMOTES {
            self.ended.insert(remote);
        } else if !self.ended.contains(&remote) {
            self.ended_more = true;
        }
    }

    pub(super) fn flows(&self) -> impl Iterator<Item = (u64, FlowAddresses)> {
        self.flows.iter().map(|(addresses, key)| (*key, *addresses))
    }
}

/// All UDP sockets.
pub(super) type UdpSockets = Map<Cookie, UdpSocket>;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::at;

    fn flow(local: &str, remote: &str) -> FlowAddresses {
        FlowAddresses { local: at(local).ip, remote: at(remote) }
    }

    #[test]
    fn flow_that_took_the_place_of_another_is_not_removed_with_it() {
        let mut socket = UdpSocket::default();
        let (first, second) = (flow("10.0.0.1:1", "10.0.0.9:5"), flow("10.0.0.2:1", "10.0.0.9:5"));
        socket.insert(first, 1);
        socket.insert(second, 2);
        assert_eq!((socket.only_flow(), socket.has(&second)), (None, true));
        socket.remove(&first, 7);
        assert!(socket.has(&first));
        socket.remove(&first, 1);
        assert_eq!(socket.only_flow(), Some(2));
    }

    #[test]
    fn a_limited_number_of_idle_flows_is_remembered() {
        let mut socket = UdpSocket::default();
        let remote = |port: usize| SockAddr { ip: [10, 0, 0, 9].into(), port: port.try_into().unwrap() };
        (0..limits::MOST_IDLE_REMOTES).for_each(|port| socket.ended_idle(remote(port)));
        socket.ended_idle(remote(0));
        assert_eq!((socket.was_idle(remote(3)), socket.was_idle(remote(9999))), (true, false));
        socket.ended_idle(remote(limits::MOST_IDLE_REMOTES));
        assert!(socket.was_idle(remote(9999)));
        assert_eq!(socket.ended.len(), limits::MOST_IDLE_REMOTES);
    }
}
