//! Names of the hosts of an endpoint.

use std::sync::Arc;

use super::conn::Conn;
use super::{ConnectionEvent, Tracker};
use crate::model::Cookie;
use crate::names::{HostName, NameBasis};
use crate::origin::Side;

impl Tracker {
    /// Names the other host of an endpoint that originated the connection, on the endpoint, its peer and the event.
    pub fn name(&mut self, event: &mut ConnectionEvent, name: HostName) {
        let name = Arc::new(name);
        event.endpoint.names.set_remote(name.clone());
        if let Some(key) = self.key_of_event(event)
            && let Some(conn) = self.conns.get_mut(&key)
        {
            conn.endpoint.names.set_remote(name);
            self.teach_name(key);
        }
    }

    /// Notes what a TLS client calls the server of a connection. `sent`: this endpoint is the client.
    pub fn said_name(&mut self, cookie: Cookie, sent: bool, name: HostName) {
        let Some(conn) = self.conns.get_mut(&cookie.get()) else { return };
        let is_client = match conn.endpoint.side() {
            Some(Side::Local) => sent,
            Some(Side::Remote) => !sent,
            // Both or unknown. A listener has no names.
            Some(_) => true,
            None => false,
        };
        if !is_client {
            return;
        }
        if !sent {
            conn.endpoint.names.set_local(Arc::new(name));
        } else if !is_certain(conn) {
            conn.endpoint.names.set_remote(Arc::new(name));
        }
        self.teach_name(cookie.get());
    }

    /// Tells the peer how the client calls it.
    fn teach_name(&mut self, key: u64) {
        let Some(conn) = self.conns.get(&key) else { return };
        let (names, peer) = (conn.endpoint.names.clone(), conn.peer);
        if let Some(peer) = peer.and_then(|peer| self.conns.get_mut(&peer.get())) {
            peer.endpoint.names.learn_from(&names);
        }
    }
}

/// Whether the process of an endpoint asked for the name that the endpoint has. What it says in TLS proves no more.
fn is_certain(conn: &Conn) -> bool {
    let process = conn.endpoint.process.as_ref().map(|actor| actor.process.key);
    let name = conn.endpoint.names.remote();
    name.is_some_and(|name| name.basis == NameBasis::DnsAnswer && name.was_asked_by(process))
}
