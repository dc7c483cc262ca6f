//! Endpoints whose addresses are translated on the way to the other endpoint.

use super::conn::Conn;
use super::{ConnectionEvent, Tracker};
use crate::model::{FlowAddresses, Nat, Proto};
use crate::pairs::Pairs;

/// Completes the translation of two endpoints of one connection from the addresses of the other.
pub(super) fn agree(one: &mut Conn, other: &mut Conn) {
    let (Some(here), Some(there)) = (one.endpoint.tuple(), other.endpoint.tuple()) else { return };
    one.endpoint.nat = Nat::of(here, there.reversed());
    other.endpoint.nat = Nat::of(there, here.reversed());
}

/// Makes an endpoint findable by the addresses that the other one has.
pub(super) fn index(pairs: &mut Pairs<u64>, conn: &Conn) {
    if let Some(seen) = conn.endpoint.nat.translation() {
        let endpoint = &conn.endpoint;
        pairs.insert(endpoint.netns, endpoint.proto, seen.local, seen.remote, conn.key);
    }
}

/// Undoes [`index`].
pub(super) fn unindex(pairs: &mut Pairs<u64>, conn: &Conn) {
    if let Some(seen) = conn.endpoint.nat.translation() {
        pairs.remove(conn.endpoint.proto, seen.local, seen.remote, conn.key);
    }
}

impl Tracker {
    /// Sets the translation of the endpoint of an event, joins it with its peer, and updates the event. `is_new`: the event
    /// is not published yet. Returns whether it has to be withdrawn: it is emitted again when the sender of the first datagram
    /// is known.
    pub fn translate(&mut self, event: &mut ConnectionEvent, nat: Nat, is_new: bool) -> bool {
        let Some(key) = self.key_of_event(event) else {
            // It has ended.
            event.endpoint.nat = nat;
            return false;
        };
        let Some(conn) = self.conns.get_mut(&key) else { return false };
        if conn.endpoint.nat == nat || conn.endpoint.peer.is_some() {
            return false;
        }
        let is_translated = nat.translation().is_some();
        conn.endpoint.nat = nat;
        if is_translated {
            index(&mut self.pairs, conn);
            // A flow that is not published is not final yet.
            conn.emitted &= !is_new;
            self.join(key);
        }
        let Some(conn) = self.conns.get_mut(&key) else { return false };
        event.endpoint = conn.endpoint.clone();
        let waits_for = conn.peer.filter(|_| is_new && is_translated);
        let waits = waits_for.is_some_and(|peer| self.udp_waits(key, peer.get()));
        if let Some(conn) = self.conns.get_mut(&key) {
            conn.emitted = !waits;
        }
        waits
    }

    /// The key of the endpoint of an event, if it still exists.
    pub(super) fn key_of_event(&self, event: &ConnectionEvent) -> Option<u64> {
        let endpoint = &event.endpoint;
        let key = match endpoint.proto {
            Proto::Tcp => endpoint.id.cookie,
            _ => self.udp_flow(endpoint.cookie?, &FlowAddresses::of(&endpoint.socket)?)?,
        };
        let conn = self.conns.get(&key)?;
        (conn.endpoint.id == endpoint.id && conn.endpoint.remote == endpoint.remote).then_some(key)
    }
}
