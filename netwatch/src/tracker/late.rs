//! Connections that closed before they were accepted: accept() still returns them, and the event has their id.

use std::collections::VecDeque;

use super::conn::Conn;
use crate::decode::SocketRecord;
use crate::hash::Map;

/// Maximum number: the queues of a few busy listeners (`net.core.somaxconn` is 4096). The oldest is evicted; its accept
/// then gets a new id.
const MOST: usize = 16384;

#[derive(Debug, Default)]
pub(super) struct Late {
    by_key: Map<u64, Box<Conn>>,
    order: VecDeque<u64>,
}

impl Late {
    pub(super) fn put(&mut self, conn: Box<Conn>) {
        while self.order.len() >= MOST
            && let Some(oldest) = self.order.pop_front()
        {
            self.by_key.remove(&oldest);
        }
        self.order.push_back(conn.key);
        self.by_key.insert(conn.key, conn);
    }

    /// The connection with this key; without a cookie, the only one with these addresses.
    pub(super) fn take(&mut self, socket: &SocketRecord) -> Option<Box<Conn>> {
        if socket.cookie.is_some_and(|cookie| socket.key == cookie.get()) {
            return self.by_key.remove(&socket.key);
        }
        let same = |conn: &Conn| {
            conn.endpoint.netns == socket.netns
                && conn.endpoint.local == socket.local
                && conn.endpoint.remote == Some(socket.remote())
        };
        let mut fitting = self.by_key.values().filter(|conn| same(conn)).map(|conn| conn.key);
        let first = fitting.next()?;
        if fitting.next().is_some() {
            return None;
        }
        self.by_key.remove(&first)
    }
}
