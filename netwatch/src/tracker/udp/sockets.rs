//! UDP sockets and the flows of each.

use crate::hash::{Map, Set};
use crate::limits;
use crate::model::{Cookie, FlowAddresses, SockAddr};
use crate::process::Actor;

/// A UDP socket.
#[derive(Debug, Default)]
pub(super) struct UdpSocket {
    /// The creator or last user.
    pub(super) owner: Option<Actor>,
    /// Keys in the table of the tracker.
    flows: Map<FlowAddresses, u64>,
    /// The first flow with each remote address. There are more if the socket uses several local addresses.
    by_remote: Map<SockAddr, u64>,
    /// Number of flows to multicast groups and to the broadcast address, by remote port.
    asked_all: Map<u16, u32>,
    /// Remote addresses of flows that ended because they were idle.
    ended: Set<SockAddr>,
    /// There were more than [`limits::MOST_IDLE_REMOTES`].
    ended_more: bool,
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

    /// A flow with the same remote address and another local one.
    pub(super) fn sibling(&self, remote: SockAddr) -> Option<u64> {
        self.by_remote.get(&remote).copied()
    }

    /// Whether a flow with this remote address, which may be this one, was idle for so long that it counts as ended.
    pub(super) fn was_idle(&self, remote: SockAddr) -> bool {
        self.ended_more || self.ended.contains(&remote)
    }

    /// Whether a datagram from here may be an answer to one that the socket sent to many.
    pub(super) fn may_answer(&self, remote: SockAddr) -> bool {
        self.asked_all.contains_key(&remote.port)
    }

    pub(super) fn insert(&mut self, addresses: FlowAddresses, key: u64) {
        self.flows.insert(addresses, key);
        self.by_remote.entry(addresses.remote).or_insert(key);
        if is_for_many(addresses.remote) {
            *self.asked_all.entry(addresses.remote.port).or_default() += 1;
        }
    }

    pub(super) fn remove(&mut self, addresses: &FlowAddresses, key: u64) {
        if self.flows.get(addresses) != Some(&key) {
            return;
        }
        self.flows.remove(addresses);
        if self.by_remote.get(&addresses.remote) == Some(&key) {
            self.by_remote.remove(&addresses.remote);
        }
        if is_for_many(addresses.remote)
            && let Some(count) = self.asked_all.get_mut(&addresses.remote.port)
        {
            *count -= 1;
            if *count == 0 {
                self.asked_all.remove(&addresses.remote.port);
            }
        }
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

/// Whether a datagram to this address may have several receivers.
fn is_for_many(remote: SockAddr) -> bool {
    match remote.ip {
        std::net::IpAddr::V4(ip) => ip.is_multicast() || ip.is_broadcast(),
        std::net::IpAddr::V6(ip) => ip.is_multicast(),
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
    fn flows_with_one_remote_address_are_siblings() {
        let mut socket = UdpSocket::default();
        let (first, second) = (flow("10.0.0.1:1", "10.0.0.9:5"), flow("10.0.0.2:1", "10.0.0.9:5"));
        socket.insert(first, 1);
        socket.insert(second, 2);
        assert_eq!(socket.sibling(at("10.0.0.9:5")), Some(1));
        assert_eq!((socket.only_flow(), socket.has(&second)), (None, true));
        // A flow that took the place of another is not removed with it.
        socket.remove(&first, 7);
        assert!(socket.has(&first));
        socket.remove(&first, 1);
        assert_eq!((socket.sibling(at("10.0.0.9:5")), socket.only_flow()), (None, Some(2)));
    }

    #[test]
    fn an_answer_to_a_multicast_datagram_has_its_port() {
        let mut socket = UdpSocket::default();
        for (key, group) in (1..).zip(["224.0.0.251:5353", "255.255.255.255:5353", "[ff02::fb]:5353"]) {
            socket.insert(flow("10.0.0.1:1", group), key);
        }
        let answers = |socket: &UdpSocket, from| socket.may_answer(at(from));
        assert_eq!(["10.0.0.9:5353", "10.0.0.9:53"].map(|from| answers(&socket, from)), [true, false]);
        for (key, group) in (1..).zip(["224.0.0.251:5353", "255.255.255.255:5353", "[ff02::fb]:5353"]) {
            assert!(answers(&socket, "10.0.0.9:5353"));
            socket.remove(&flow("10.0.0.1:1", group), key);
        }
        assert!(!answers(&socket, "10.0.0.9:5353"));
        assert!(socket.is_empty());
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
