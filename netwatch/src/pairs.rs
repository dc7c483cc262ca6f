//! Joins the two endpoints of a connection. Pure.

use std::hash::Hash;
use std::net::{IpAddr, Ipv4Addr};

use smallvec::SmallVec;

use crate::hash::Map;
use crate::model::{NetnsId, Proto, SockAddr};

/// Nearly always has one element.
type Same<T> = SmallVec<[(NetnsId, T); 1]>;

/// Connected endpoints by protocol, local and remote address, with their network namespace. `T` identifies an endpoint:
/// a cookie or an index.
#[derive(Clone, Debug)]
pub struct Pairs<T> {
    /// A separate map for IPv4, whose keys need half the memory and are the most common.
    ipv4: Map<Narrow, Same<T>>,
    others: Map<(Proto, SockAddr, SockAddr), Same<T>>,
}

type Narrow = (Proto, Ipv4Addr, u16, Ipv4Addr, u16);

fn narrow(proto: Proto, local: SockAddr, remote: SockAddr) -> Option<Narrow> {
    match (local.ip, remote.ip) {
        (IpAddr::V4(ours), IpAddr::V4(theirs)) => Some((proto, ours, local.port, theirs, remote.port)),
        _ => None,
    }
}

impl<T> Default for Pairs<T> {
    fn default() -> Self {
        Self { ipv4: Map::default(), others: Map::default() }
    }
}

impl<T: Copy + PartialEq> Pairs<T> {
    /// Adds an endpoint in namespace `netns` that is connected from `local` to `remote`.
    pub fn insert(&mut self, netns: NetnsId, proto: Proto, local: SockAddr, remote: SockAddr, id: T) {
        let same = match narrow(proto, local, remote) {
            Some(key) => self.ipv4.entry(key).or_default(),
            None => self.others.entry((proto, local, remote)).or_default(),
        };
        same.push((netns, id));
    }

    /// Removes an endpoint.
    pub fn remove(&mut self, proto: Proto, local: SockAddr, remote: SockAddr, id: T) {
        match narrow(proto, local, remote) {
            Some(key) => remove(&mut self.ipv4, &key, id),
            None => remove(&mut self.others, &(proto, local, remote), id),
        }
    }

    /// All endpoints with exactly these addresses.
    fn same(&self, proto: Proto, local: SockAddr, remote: SockAddr) -> Option<&Same<T>> {
        match narrow(proto, local, remote) {
            Some(key) => self.ipv4.get(&key),
            None => self.others.get(&(proto, local, remote)),
        }
    }

    /// The endpoint with exactly these addresses in this namespace, if there is only one.
    #[must_use]
    pub fn exact(&self, netns: NetnsId, proto: Proto, local: SockAddr, remote: SockAddr) -> Option<T> {
        let mut same = self.same(proto, local, remote)?.iter().filter(|(n, _)| *n == netns);
        let first = same.next()?;
        same.next().is_none().then_some(first.1)
    }

    /// The peer endpoint: in the same namespace, or else the only one that matches in any namespace, unless the address
    /// is local to each namespace. `None` if several match.
    #[must_use]
    pub fn peer(&self, netns: NetnsId, proto: Proto, local: SockAddr, remote: SockAddr) -> Option<T> {
        let fitting = self.same(proto, remote, local)?;
        if fitting.iter().any(|(other, _)| *other == netns) {
            return self.exact(netns, proto, remote, local);
        }
        let twins = self.same(proto, local, remote).map_or(0, SmallVec::len);
        let local_only = local.ip.is_loopback() || remote.ip.is_loopback();
        match fitting.as_slice() {
            [(_, only)] if twins <= 1 && !local_only => Some(*only),
            _ => None,
        }
    }
}

fn remove<K: Eq + Hash, T: Copy + PartialEq>(ends: &mut Map<K, Same<T>>, key: &K, id: T) {
    if let Some(same) = ends.get_mut(key) {
        same.retain(|(_, other)| *other != id);
        if same.is_empty() {
            ends.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::at;

    #[test]
    fn the_same_addresses_in_two_namespaces_are_two_connections() {
        let (client, server) = (at("10.0.0.1:2000"), at("10.0.0.2:6000"));
        let mut ends = Pairs::default();
        let (ipv6, other_ipv6) = (at("[fd00::1]:2000"), at("[fd00::2]:6000"));
        ends.insert(NetnsId::new(1), Proto::Tcp, ipv6, other_ipv6, 'e');
        assert_eq!(ends.peer(NetnsId::new(1), Proto::Tcp, other_ipv6, ipv6), Some('e'));
        ends.remove(Proto::Tcp, ipv6, other_ipv6, 'e');
        assert_eq!(ends.peer(NetnsId::new(1), Proto::Tcp, other_ipv6, ipv6), None);
        for (netns, c, s) in [(1, 'a', 'b'), (2, 'c', 'd')] {
            ends.insert(NetnsId::new(netns), Proto::Tcp, client, server, c);
            ends.insert(NetnsId::new(netns), Proto::Tcp, server, client, s);
        }
        assert_eq!(ends.peer(NetnsId::new(1), Proto::Tcp, client, server), Some('b'));
        assert_eq!(ends.peer(NetnsId::new(2), Proto::Tcp, server, client), Some('c'));
        assert_eq!(ends.peer(NetnsId::new(3), Proto::Tcp, server, client), None);
        assert_eq!(ends.exact(NetnsId::new(2), Proto::Tcp, server, client), Some('d'));
        ends.remove(Proto::Tcp, server, client, 'b');
        // The remaining endpoint there belongs to the other client there.
        assert_eq!(ends.peer(NetnsId::new(1), Proto::Tcp, client, server), None);
    }

    #[test]
    fn endpoints_in_two_namespaces_are_joined_if_the_match_is_unique() {
        let (client, server) = (at("10.0.0.1:2000"), at("10.0.0.2:6000"));
        let mut ends = Pairs::default();
        ends.insert(NetnsId::new(1), Proto::Tcp, client, server, 'a');
        ends.insert(NetnsId::new(2), Proto::Tcp, server, client, 'b');
        assert_eq!(ends.peer(NetnsId::new(1), Proto::Tcp, client, server), Some('b'));
        assert_eq!(ends.peer(NetnsId::new(1), Proto::Udp, client, server), None);
        ends.insert(NetnsId::new(3), Proto::Tcp, server, client, 'c');
        assert_eq!(ends.peer(NetnsId::new(1), Proto::Tcp, client, server), None);
        let (inner, outer) = (at("127.0.0.1:1"), at("127.0.0.1:2"));
        ends.insert(NetnsId::new(1), Proto::Tcp, inner, outer, 'd');
        assert_eq!(ends.peer(NetnsId::new(2), Proto::Tcp, outer, inner), None);
    }
}
