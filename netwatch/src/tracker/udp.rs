//! UDP: a flow is a socket and a remote address, and begins with the first datagram between the two.
//!
//! The sender is known when its call returns, shortly after the datagram and its arrival at an endpoint on this host,
//! so events are held back briefly ([`Tracker::settle`]).

use std::num::NonZeroU64;

use super::conn::Conn;
use super::{ClosedBy, ConnectionEvent, EventKind, Outcome, PATIENCE, ProcessBasis, Tracker};
use crate::decode::{SocketRecord, Task};
use crate::hash::Map;
use crate::model::{BootTime, Cookie, Payload, SockAddr, State};
use crate::origin::{Side, Verdict};
use crate::process::Actor;

/// Default time without a datagram after which a flow ends, in nanoseconds.
pub const IDLE: u64 = 120_000_000_000;

/// Flag in keys of flows, since a cookie can have many; cookies count up from 1.
const FLOW: u64 = 1 << 63;

#[derive(Debug, Default)]
pub(super) struct Udp {
    sockets: Map<Cookie, UdpSocket>,
    /// Events held back until the sender is known: the flow, and the flow whose sender is needed.
    waiting: Vec<(u64, u64)>,
    last_key: u64,
}

#[derive(Debug, Default)]
struct UdpSocket {
    /// The creator or last user.
    owner: Option<Actor>,
    flows: Map<SockAddr, u64>,
}

impl Tracker {
    pub(super) fn udp_born(&mut self, cookie: Option<Cookie>, actor: Actor) {
        let Some(cookie) = cookie else { return };
        self.udp.sockets.entry(cookie).or_default().owner = Some(actor);
    }

    /// A socket from a snapshot.
    pub(super) fn udp_found(&mut self, cookie: Cookie, owner: Option<Actor>) {
        self.udp.sockets.entry(cookie).or_insert_with(|| UdpSocket { owner, flows: Map::default() });
    }

    /// Indexes a flow by its socket and its addresses; returns its key.
    pub(super) fn udp_insert(&mut self, mut conn: Box<Conn>) -> u64 {
        self.udp.last_key += 1;
        conn.key = FLOW | self.udp.last_key;
        let key = conn.key;
        if let Some((cookie, remote)) = conn.endpoint.cookie.zip(conn.endpoint.remote) {
            self.udp.sockets.entry(cookie).or_default().flows.insert(remote, key);
        }
        self.insert(conn);
        key
    }

    pub(super) fn datagram(
        &mut self,
        at: BootTime,
        socket: &SocketRecord,
        received: bool,
        old_socket: bool,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let Some(cookie) = socket.cookie else { return };
        let known = self.udp.sockets.entry(cookie).or_default();
        if known.flows.contains_key(&socket.remote()) {
            return;
        }
        let mut conn = self.spare.begin(at, socket, State::Established);
        conn.established = true;
        conn.opened_at(at);
        conn.endpoint.process = known.owner.clone();
        conn.endpoint.process_basis = known.owner.as_ref().map(|_| ProcessBasis::Listener);
        // A socket older than the probes may have had an earlier datagram of this flow.
        let may_be_older = old_socket && at < self.began.saturating_add(IDLE);
        if !may_be_older {
            conn.endpoint.verdict = Verdict::handshake(if received { Side::Remote } else { Side::Local });
        }
        let key = self.udp_insert(conn);
        self.join(key);
        let peer = self.conns.get(&key).and_then(|conn| conn.peer).map(NonZeroU64::get);
        let waits_for = match (received, peer) {
            (false, _) => Some(key),
            (true, Some(peer)) => self.udp.waiting.iter().any(|(of, _)| *of == peer).then_some(peer),
            (true, None) => None,
        };
        match waits_for {
            Some(sender) => self.udp.waiting.push((key, sender)),
            None => self.tell_flow(at, key, EventKind::Open, out),
        }
    }

    /// A process sends from or receives on a UDP socket.
    pub(super) fn udp_used(
        &mut self,
        cookie: Option<Cookie>,
        at: BootTime,
        task: &Task,
        actor: &Actor,
        out: &mut Vec<ConnectionEvent>,
    ) {
        // A process that sent a datagram has a flow.
        let Some(cookie) = cookie else { return };
        let socket = self.udp.sockets.entry(cookie).or_default();
        let same = |owner: &Actor| owner.process.key == actor.process.key;
        let is_other = !socket.owner.as_ref().is_some_and(same);
        socket.owner = Some(actor.clone());
        // With many flows it is not known which one this concerns.
        let only = if socket.flows.len() == 1 { socket.flows.values().next().copied() } else { None };
        let sent: Vec<u64> = self
            .udp
            .waiting
            .iter()
            .filter(|(key, sender)| key == sender)
            .map(|(key, _)| *key)
            .filter(|key| self.conns.get(key).is_some_and(|conn| conn.endpoint.cookie == Some(cookie)))
            .collect();
        for key in &sent {
            if let Some(conn) = self.conns.get_mut(key) {
                conn.sent_by(actor, task.via);
                conn.endpoint.cause = task.cause;
            }
            self.teach_peer(*key);
            self.tell_waiting_for(*key, out);
        }
        if let Some(key) = only.filter(|key| is_other && !sent.contains(key))
            && let Some(conn) = self.conns.get_mut(&key)
            && conn.emitted
            && conn.handed_over_to(actor)
        {
            conn.emit(at, EventKind::Handover, out);
            self.teach_peer(key);
        }
    }

    pub(super) fn settle_flows(&mut self, now: BootTime, out: &mut Vec<ConnectionEvent>) {
        let late: Vec<u64> = self
            .udp
            .waiting
            .iter()
            .map(|(_, sender)| *sender)
            .filter(|sender| {
                self.conns
                    .get(sender)
                    .is_none_or(|conn| now.saturating_sub(conn.endpoint.id.began) > PATIENCE)
            })
            .collect();
        for sender in late {
            self.tell_waiting_for(sender, out);
        }
    }

    /// Flows of a socket, the oldest first: their keys and remote addresses.
    #[must_use]
    pub fn flows_of(&self, cookie: Cookie) -> Vec<(u64, SockAddr)> {
        let flows = self.udp.sockets.get(&cookie).map(|socket| &socket.flows);
        let mut flows: Vec<_> = flows.into_iter().flatten().map(|(remote, key)| (*key, *remote)).collect();
        flows.sort_unstable();
        flows
    }

    /// All flows: keys, cookies and remote addresses.
    pub fn flows(&self) -> impl Iterator<Item = (u64, Cookie, SockAddr)> {
        let sockets = self.udp.sockets.iter();
        sockets.flat_map(|(cookie, socket)| socket.flows.iter().map(|(remote, key)| (*key, *cookie, *remote)))
    }

    /// Payload of a flow so far.
    pub fn count(&mut self, key: u64, bytes: Payload) {
        if let Some(conn) = self.conns.get_mut(&key) {
            conn.count(bytes);
        }
    }

    /// The socket was closed, which ends its flows.
    pub(super) fn released(&mut self, at: BootTime, cookie: Option<Cookie>, out: &mut Vec<ConnectionEvent>) {
        let Some(cookie) = cookie else { return };
        for (key, _) in self.flows_of(cookie) {
            self.end_flow(at, key, ClosedBy::Local, out);
        }
        self.udp.sockets.remove(&cookie);
    }

    /// Ends an idle flow.
    pub fn idle(&mut self, at: BootTime, key: u64, out: &mut Vec<ConnectionEvent>) {
        self.end_flow(at, key, ClosedBy::Timeout, out);
    }

    fn end_flow(&mut self, at: BootTime, key: u64, closed_by: ClosedBy, out: &mut Vec<ConnectionEvent>) {
        let waits_for = self.udp.waiting.iter().find(|(of, _)| *of == key).map(|(_, sender)| *sender);
        if let Some(sender) = waits_for {
            self.tell_waiting_for(sender, out);
        }
        let Some(mut conn) = self.remove(key) else { return };
        if let Some((cookie, remote)) = conn.endpoint.cookie.zip(conn.endpoint.remote)
            && let Some(socket) = self.udp.sockets.get_mut(&cookie)
        {
            socket.flows.remove(&remote);
        }
        conn.endpoint.state = State::Close;
        let outcome = Outcome {
            errno: None,
            duration: conn.lasted(at),
            bytes: conn.bytes(),
            closed_by: Some(closed_by),
        };
        conn.emit_with(at, EventKind::Close, outcome, out);
        self.spare.put(conn);
    }

    fn tell_waiting_for(&mut self, sender: u64, out: &mut Vec<ConnectionEvent>) {
        let (emitted, waiting) = self.udp.waiting.drain(..).partition(|(_, of)| *of == sender);
        self.udp.waiting = waiting;
        for (key, _) in emitted {
            let Some(began) = self.conns.get(&key).map(|conn| conn.endpoint.id.began) else { continue };
            self.tell_flow(began, key, EventKind::Open, out);
        }
    }

    fn tell_flow(&mut self, at: BootTime, key: u64, kind: EventKind, out: &mut Vec<ConnectionEvent>) {
        if let Some(conn) = self.conns.get_mut(&key) {
            conn.emit(at, kind, out);
        }
    }
}
