//! Connections that closed before they were accepted: accept() still returns them, and the event has their id.

use std::collections::VecDeque;

use super::conn::Conn;
use crate::decode::SocketRecord;
use crate::hash::Map;
use crate::limits;
use crate::model::{NetnsId, SockAddr};

/// Network namespace, local and remote address.
type Addresses = (NetnsId, SockAddr, SockAddr);

/// Keys of connections with the same addresses: their number, and all of them combined by XOR, which is the key if
/// there is one. Whoever connects can make many with the same addresses, so no step looks at each.
#[derive(Debug, Default)]
struct Keys {
    number: u32,
    combined: u64,
}

#[derive(Debug, Default)]
pub(super) struct Late {
    by_key: Map<u64, Box<Conn>>,
    by_addresses: Map<Addresses, Keys>,
    /// Keys in the order in which they were added. May have some that are gone.
    order: VecDeque<u64>,
}

impl Late {
    pub(super) fn put(&mut self, conn: Box<Conn>) {
        while self.order.len() >= limits::MOST_UNACCEPTED
            && let Some(oldest) = self.order.pop_front()
        {
            self.remove(oldest);
        }
        self.order.push_back(conn.key);
        if let Some(addresses) = addresses(&conn) {
            let keys = self.by_addresses.entry(addresses).or_default();
            keys.number += 1;
            keys.combined ^= conn.key;
        }
        self.by_key.insert(conn.key, conn);
    }

    /// The connection with this key; without a cookie, the only one with these addresses.
    pub(super) fn take(&mut self, socket: &SocketRecord) -> Option<Box<Conn>> {
        if socket.cookie.is_some_and(|cookie| socket.key == cookie.get()) {
            return self.remove(socket.key);
        }
        match self.by_addresses.get(&(socket.netns, socket.local, socket.remote()))? {
            &Keys { number: 1, combined: only } => self.remove(only),
            _ => None,
        }
    }

    fn remove(&mut self, key: u64) -> Option<Box<Conn>> {
        let conn = self.by_key.remove(&key)?;
        if let Some(addresses) = addresses(&conn)
            && let Some(keys) = self.by_addresses.get_mut(&addresses)
        {
            keys.number -= 1;
            keys.combined ^= key;
            if keys.number == 0 {
                self.by_addresses.remove(&addresses);
            }
        }
        Some(conn)
    }
}

fn addresses(conn: &Conn) -> Option<Addresses> {
    Some((conn.endpoint.netns, conn.endpoint.local, conn.endpoint.remote?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::State;
    use crate::model::tests::ns;
    use crate::tracker::tests::{CLIENT, SERVER, socket};

    fn conn(key: u64, remote: &str) -> Box<Conn> {
        let mut conn = Conn::new(ns(1), &socket(key, SERVER, remote), State::Close);
        conn.endpoint.cookie = None;
        Box::new(conn)
    }

    #[test]
    fn connection_without_a_cookie_is_found_if_it_is_the_only_one() {
        let mut late = Late::default();
        let unnamed = |remote: &str| {
            let mut record = socket(0, SERVER, remote);
            record.socket.cookie = None;
            record
        };
        late.put(conn(1, CLIENT));
        late.put(conn(2, CLIENT));
        late.put(conn(3, "10.9.9.9:5"));
        assert!(late.take(&unnamed(CLIENT)).is_none());
        assert_eq!(late.take(&unnamed("10.9.9.9:5")).map(|conn| conn.key), Some(3));
        // Of two one is taken by its cookie.
        assert_eq!(late.take(&socket(1, SERVER, CLIENT)).map(|conn| conn.key), Some(1));
        assert_eq!(late.take(&unnamed(CLIENT)).map(|conn| conn.key), Some(2));
        assert!(late.take(&unnamed(CLIENT)).is_none());
        assert!(late.by_addresses.is_empty());
    }

    #[test]
    fn number_is_bounded() {
        let mut late = Late::default();
        for key in 1..=limits::MOST_UNACCEPTED as u64 + 3 {
            // All with the same addresses, so that a search by addresses would take long.
            late.put(conn(key, if key % 2 == 0 { CLIENT } else { "10.9.9.9:5" }));
        }
        assert_eq!((late.by_key.len(), late.order.len()), (limits::MOST_UNACCEPTED, limits::MOST_UNACCEPTED));
        // One look finds out that they are many.
        assert_eq!(late.by_addresses.len(), 2);
        assert!(late.take(&socket(3, SERVER, CLIENT)).is_none());
        assert!(late.take(&socket(4, SERVER, CLIENT)).is_some());
    }
}
