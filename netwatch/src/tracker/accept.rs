//! TCP: updates the table at accept() and at the first use of a connection.

use super::{ConnectionEvent, EventKind, ProcessBasis, Tracker};
use crate::decode::SocketRecord;
use crate::model::{BootTime, State, Via};
use crate::process::Actor;

impl Tracker {
    pub(super) fn accept(
        &mut self,
        at: BootTime,
        socket: &SocketRecord,
        actor: &Actor,
        via: Option<Via>,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let via = via.or(socket.via);
        // The probe cannot generate a cookie; if the socket has none, find the endpoint by its addresses.
        let by_addresses = || self.pairs.exact(socket.netns, socket.proto, socket.local, socket.remote());
        let cookie = if socket.key == 0 { by_addresses().unwrap_or(0) } else { socket.key };
        if !self.conns.contains_key(&cookie) {
            if self.accept_late(at, socket, actor, via, out) {
                return;
            }
            // Accepted before the end of the handshake (TCP Fast Open), or its first record was lost.
            let mut conn = self.spare.begin(at, socket, State::SynRecv);
            conn.key = cookie;
            conn.endpoint.listener = self.listener_of(socket);
            self.insert(conn);
            self.join(cookie);
        }
        let Some(conn) = self.conns.get_mut(&cookie) else { return };
        if conn.endpoint.process_basis == Some(ProcessBasis::Accept) {
            // The record of its first use arrived earlier.
            return;
        }
        conn.accepted_by(actor, socket.inode, via);
        self.learn_from_peer(cookie);
        if let Some(conn) = self.conns.get_mut(&cookie) {
            conn.emit(at, EventKind::Accept, out);
        }
        self.teach_peer(cookie);
        if cookie == 0
            // No later record can refer to it.
            && let Some(conn) = self.remove(cookie)
        {
            self.spare.put(conn);
        }
    }

    /// Emits the accept of a connection that is closed already; returns false if there is none.
    fn accept_late(
        &mut self,
        at: BootTime,
        socket: &SocketRecord,
        actor: &Actor,
        via: Option<Via>,
        out: &mut Vec<ConnectionEvent>,
    ) -> bool {
        let Some(mut conn) = self.late.take(socket) else { return false };
        conn.accepted_by(actor, socket.inode, via);
        conn.emit(at, EventKind::Accept, out);
        self.spare.put(conn);
        true
    }

    pub(super) fn used(
        &mut self,
        at: BootTime,
        socket: &SocketRecord,
        actor: &Actor,
        via: Option<Via>,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let Some(conn) = self.conns.get_mut(&socket.key) else {
            // Closed, and its accept was perhaps not observed by another probe.
            self.accept_late(at, socket, actor, via, out);
            return;
        };
        if !conn.taken {
            conn.accepted_by(actor, socket.inode, via);
            conn.emit(at, EventKind::Accept, out);
        } else if conn.handed_over_to(actor) {
            conn.emit(at, EventKind::Handover, out);
        } else {
            return;
        }
        self.teach_peer(socket.key);
    }
}
