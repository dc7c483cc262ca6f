//! Listeners by the address that a connection was made to. Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::hash::Map;
use crate::model::{NetnsId, Proto, SockAddr, SocketRow};

/// The address of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Listening {
    /// Network namespace inode number.
    pub netns: NetnsId,
    /// Protocol of the socket.
    pub proto: Proto,
    /// Bound address, IPv4 if it was IPv4-mapped; the unspecified address for a wildcard.
    pub local: SockAddr,
    /// `IPV6_V6ONLY` is set: an IPv6 wildcard socket does not accept IPv4. Ignored for others.
    pub v6only: bool,
}

impl Listening {
    /// From the row of a listener or unconnected datagram socket.
    #[must_use]
    pub fn of(row: &SocketRow) -> Self {
        // The default of the kernel is unset: net.ipv6.bindv6only.
        let v6only = row.v6only.unwrap_or(false);
        Self { netns: row.netns, proto: row.proto, local: row.local, v6only }
    }

    /// Whether the socket may receive what is sent to this address.
    #[must_use]
    pub fn takes(&self, ip: IpAddr) -> bool {
        self.score(ip) > 0
    }

    /// 0 for no match; otherwise a score, higher for a more specific match: a bound address, then the address family of
    /// the packet (net/ipv4/inet_hashtables.c, compute_score(), v6.12).
    fn score(&self, ip: IpAddr) -> u8 {
        match (self.local.ip, ip) {
            (bound, ip) if bound == ip => 3,
            (IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V4(_))
            | (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V6(_)) => 2,
            (IpAddr::V6(Ipv6Addr::UNSPECIFIED), IpAddr::V4(_)) if !self.v6only => 1,
            _ => 0,
        }
    }
}

/// All listeners of the host by address. `T` identifies a listener: a cookie or an index.
#[derive(Clone, Debug)]
pub struct Listeners<T> {
    by_port: Map<(NetnsId, Proto, u16), Vec<(Listening, T)>>,
}

impl<T> Default for Listeners<T> {
    fn default() -> Self {
        Self { by_port: Map::default() }
    }
}

impl<T: PartialEq> Listeners<T> {
    /// Several listeners may share an address (`SO_REUSEPORT`).
    pub fn insert(&mut self, at: Listening, id: T) {
        self.by_port.entry((at.netns, at.proto, at.local.port)).or_default().push((at, id));
    }

    /// Removes a listener; returns whether it was known.
    pub fn remove(&mut self, at: &Listening, id: &T) -> bool {
        let key = (at.netns, at.proto, at.local.port);
        let Some(same_port) = self.by_port.get_mut(&key) else { return false };
        let before = same_port.len();
        same_port.retain(|(_, other)| other != id);
        let known = same_port.len() < before;
        if same_port.is_empty() {
            self.by_port.remove(&key);
        }
        known
    }

    /// Whether something listens on `local`. An IPv6 wildcard listener also accepts IPv4 unless it is `v6only`.
    #[must_use]
    pub fn owned(&self, netns: NetnsId, proto: Proto, local: SockAddr) -> bool {
        self.best(netns, proto, local).is_some()
    }

    /// The most specific listener for `local`. `None` also if several match equally (`SO_REUSEPORT`), since addresses
    /// do not tell which received a connection.
    #[must_use]
    pub fn find(&self, netns: NetnsId, proto: Proto, local: SockAddr) -> Option<&T> {
        let (best, alone) = self.best(netns, proto, local)?;
        alone.then_some(best)
    }

    /// The most specific listener, and whether it is the only one with that score.
    fn best(&self, netns: NetnsId, proto: Proto, local: SockAddr) -> Option<(&T, bool)> {
        let mut best = None;
        let mut highest = 0;
        for (at, id) in self.by_port.get(&(netns, proto, local.port)).into_iter().flatten() {
            let score = at.score(local.ip);
            if score > highest {
                highest = score;
                best = Some((id, true));
            } else if score == highest
                && let Some((_, alone)) = &mut best
            {
                *alone = false;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::at;

    #[test]
    fn the_most_specific_listener_is_found() {
        let mut listeners = Listeners::default();
        let listen =
            |local, v6only| Listening { netns: NetnsId::new(1), proto: Proto::Tcp, local: at(local), v6only };
        listeners.insert(listen("[::]:80", false), 'd');
        listeners.insert(listen("0.0.0.0:80", false), 'w');
        listeners.insert(listen("10.0.0.1:80", false), 'x');
        listeners.insert(listen("[::]:81", true), 'o');
        listeners.insert(listen("[::]:82", false), 'e');
        listeners.insert(listen("[::1]:82", false), 'f');
        let find = |netns, local| listeners.find(netns, Proto::Tcp, at(local)).copied();
        assert_eq!(find(NetnsId::new(1), "10.0.0.1:80"), Some('x'));
        assert_eq!(find(NetnsId::new(1), "10.0.0.2:80"), Some('w'));
        assert_eq!(find(NetnsId::new(1), "[fe80::1]:80"), Some('d'));
        assert_eq!(find(NetnsId::new(1), "10.0.0.1:81"), None);
        assert_eq!(find(NetnsId::new(1), "[::1]:81"), Some('o'));
        assert_eq!(find(NetnsId::new(1), "10.0.0.1:82"), Some('e'));
        assert_eq!(find(NetnsId::new(1), "[::1]:82"), Some('f'));
        assert_eq!(find(NetnsId::new(2), "10.0.0.1:80"), None);
        assert_eq!(listeners.find(NetnsId::new(1), Proto::Udp, at("10.0.0.1:80")), None);
    }

    #[test]
    fn listeners_are_forgotten() {
        let mut listeners = Listeners::default();
        let here =
            Listening { netns: NetnsId::new(1), proto: Proto::Tcp, local: at("0.0.0.0:80"), v6only: false };
        listeners.insert(here, 1);
        listeners.insert(here, 2);
        // Either may receive any connection.
        assert_eq!(listeners.find(NetnsId::new(1), Proto::Tcp, at("1.2.3.4:80")), None);
        assert!(listeners.owned(NetnsId::new(1), Proto::Tcp, at("1.2.3.4:80")));
        assert!(listeners.remove(&here, &1));
        assert_eq!(listeners.find(NetnsId::new(1), Proto::Tcp, at("1.2.3.4:80")), Some(&2));
        assert!(!listeners.remove(&here, &1));
        assert!(listeners.remove(&here, &2));
        assert_eq!(listeners.find(NetnsId::new(1), Proto::Tcp, at("1.2.3.4:80")), None);
        assert!(!listeners.owned(NetnsId::new(1), Proto::Tcp, at("1.2.3.4:80")));
    }
}
