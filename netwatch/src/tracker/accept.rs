//! TCP: what accept() and the first use of a connection do to the table.

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
        // The probe may not ask for a cookie; where nobody did before, the addresses lead to the end.
        let by_addresses = || self.pairs.exact(socket.netns, socket.proto, socket.local, socket.remote());
        let cookie = if socket.key == 0 { by_addresses().unwrap_or(0) } else { socket.key };
        if !self.conns.contains_key(&cookie) {
            if self.accept_late(at, socket, actor, via, out) {
                return;
            }
            // Before the handshake's end (fast open), or its first record was lost.
            let mut conn = self.spare.begin(at, socket, State::SynRecv);
            conn.key = cookie;
            conn.endpoint.listener = self.listener_of(socket);
            self.insert(conn);
            self.join(cookie);
        }
        let Some(conn) = self.conns.get_mut(&cookie) else { return };
        if conn.endpoint.process_basis == Some(ProcessBasis::Accept) {
            // Its first use was quicker to be told.
            return;
        }
        conn.accepted_by(actor, socket.inode, via);
        self.learn_from_peer(cookie);
        if let Some(conn) = self.conns.get_mut(&cookie) {
            conn.emit(at, EventKind::Accept, out);
        }
        self.teach_peer(cookie);
        if cookie == 0
            // No later record will find it.
            && let Some(conn) = self.remove(cookie)
        {
            self.spare.put(conn);
        }
    }

    /// Tells the accept of a connection that is over already; false where there is no such.
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
            // Over, but perhaps never accepted as far as any other probe saw.
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
