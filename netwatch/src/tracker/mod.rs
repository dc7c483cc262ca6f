//! The table of endpoints on the host, from first to last record. Pure: `(time, event) → events`; no clock, no I/O, no
//! aya.
//!
//! The key is the socket cookie; addresses are attributes. The originator is determined when an endpoint is first seen,
//! and only changes to a better basis ([`crate::origin::Basis`]). While records are missing ([`Tracker::doubt`])
//! endpoints are not joined by their addresses, since one may be of a closed connection. [`Tracker::merge`] ends that.

mod accept;
mod closing;
mod conn;
mod endpoint;
mod late;
mod merge;
mod named;
mod roles;
mod spare;
mod tcp;
#[cfg(test)]
pub(crate) mod tests;
mod translated;
mod udp;

pub use endpoint::{
    ClosedBy, ConnectionEvent, Endpoint, EndpointId, EventKind, HostFacts, Outcome, Party, ProcessBasis,
};
pub use merge::Occasion;
pub use roles::Roles;

use std::num::NonZeroU64;

use crate::decode::{Act, SocketEvent, SocketRecord, Task};
use crate::hash::{Map, Set};
use crate::listeners::Listeners;
use crate::model::{BootTime, Cookie, Proto, State, Via};
use crate::pairs::Pairs;
use crate::process::{Actor, ProcessTable};
use conn::Conn;
use late::Late;
use spare::Spare;
use tcp::Transition;
use udp::{Datagram, Udp};
pub use udp::{IDLE, TrackedFlow};

/// How long to wait for what is known when a call returns, in nanoseconds.
const PATIENCE: u64 = 20_000_000;

/// After this time without an exit a call counts as lost, in nanoseconds; its thread may have been preempted.
const LOST: u64 = 500_000_000;

/// Flag in keys of sockets that share a cookie; cookies count up from 1.
const ALIAS: u64 = 1 << 62;

/// A listener without a port.
#[derive(Debug)]
struct Unbound {
    key: u64,
    /// The record with its port counts as lost.
    lost: bool,
}

/// The tracker.
#[derive(Debug, Default)]
pub struct Tracker {
    /// Boxed, since growing the map moves its entries.
    conns: Map<u64, Box<Conn>>,
    spare: Spare,
    /// Established endpoints.
    pairs: Pairs<u64>,
    listeners: Listeners<u64>,
    late: Late,
    udp: Udp,
    /// Listeners whose port is not known yet.
    unbound: Vec<Unbound>,
    /// See [`Tracker::expect_no_ports`].
    no_ports: bool,
    /// See [`Tracker::key_of`].
    last_alias: u64,
    /// When netwatch started.
    began: BootTime,
    /// Emit attempts and all transitions.
    states: bool,
    /// Records about TCP endpoints or processes are missing.
    doubtful: bool,
    /// Records about UDP flows are missing.
    udp_doubtful: bool,
    /// Endpoints in network namespaces that the last snapshot lacked.
    missed: Set<u64>,
    /// Endpoints with a record since [`Tracker::begin_snapshot`].
    touched: Option<Set<Cookie>>,
}

impl Tracker {
    /// An empty table. `states`: also emit attempts and all transitions.
    #[must_use]
    pub fn new(states: bool) -> Self {
        Self { states, ..Self::default() }
    }

    /// Applies an event at `at`, and appends the events that follow to `out`. `actor`: the process of the record's task
    /// ([`ProcessTable::acting`]), if it has one.
    pub fn apply(
        &mut self,
        at: BootTime,
        event: &SocketEvent,
        actor: Option<&Actor>,
        processes: &ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let socket = &event.socket;
        if let Some(touched) = &mut self.touched {
            touched.extend(socket.cookie);
        }
        let Some(key) = self.key_of(event) else { return };
        let socket = &SocketRecord { key, ..*socket };
        self.complete(socket, out);
        let cause = |task: &Task| processes.cause(at, task, task.key);
        match (&event.act, actor) {
            (Act::Connect(task), Some(actor)) => self.connect(at, socket, task, (actor, cause(task)), out),
            (Act::Listen(_), Some(actor)) => self.listen(at, socket, actor, out),
            (Act::Accept(task), Some(actor)) => self.accept(at, socket, actor, task.via, out),
            (Act::Use(task), Some(actor)) => match socket.proto {
                Proto::Tcp => self.used(at, socket, actor, task.via, out),
                _ => self.udp_used(socket.cookie, at, (task, actor), None, out),
            },
            (Act::Sent(task), Some(actor)) => {
                self.udp_used(socket.cookie, at, (task, actor), Some(cause(task)), out);
            }
            (Act::Born(_), Some(actor)) => self.udp_born(socket, actor.clone()),
            (Act::Fail { task, errno }, Some(actor)) => {
                self.failed(at, socket, *errno, (actor, cause(task)), out);
            }
            (&Act::Datagram { received, old_socket, answers, thread }, _) => {
                self.datagram(Datagram { at, received, old_socket, answers, thread }, socket, out);
            }
            (Act::Release, _) => self.released(at, socket.cookie, out),
            (Act::Change(change), _) => self.change(&Transition { at, socket, change }, processes, out),
            (
                Act::Connect(_)
                | Act::Listen(_)
                | Act::Accept(_)
                | Act::Use(_)
                | Act::Sent(_)
                | Act::Born(_)
                | Act::Fail { .. },
                None,
            ) => debug_assert!(false, "a record of a task without its process"),
        }
    }

    /// Notes a loss: the table may be out of date until the next [`Tracker::merge`].
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// The same if only records about UDP sockets and flows are missing.
    pub fn doubt_udp(&mut self) {
        self.udp_doubtful = true;
    }

    /// Every existing endpoint that was emitted, including listeners, as an event with the time when it began.
    #[must_use]
    pub fn table(&self) -> Vec<ConnectionEvent> {
        self.conns.values().filter(|conn| conn.emitted).map(|conn| conn.as_event()).collect()
    }

    /// Whether there are no endpoints, including listeners.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// The key of a socket. A child of an MPTCP listener has a copy of its listener's cookie, if that has one
    /// (net/core/sock.c, sk_clone_lock(), v6.12), so its key is made of its addresses. `None` if it has none yet.
    fn key_of(&mut self, event: &SocketEvent) -> Option<u64> {
        let socket = &event.socket;
        let own = Cookie::number(socket.cookie);
        if socket.via != Some(Via::Mptcp) {
            return Some(own);
        }
        let known = self.conns.get(&own);
        let is_own = match &event.act {
            Act::Listen(_) | Act::Connect(_) | Act::Fail { .. } => true,
            Act::Change(change) if change.old == State::Listen && change.new == State::Close => true,
            _ => known.is_some_and(|conn| conn.endpoint.remote.is_some()),
        };
        if is_own {
            return Some(own);
        }
        if socket.remote().port == 0 {
            return known.is_none().then_some(own);
        }
        let by_addresses = self.pairs.exact(socket.netns, socket.proto, socket.local, socket.remote());
        Some(by_addresses.unwrap_or_else(|| self.alias()))
    }

    fn alias(&mut self) -> u64 {
        self.last_alias += 1;
        ALIAS | self.last_alias
    }

    /// Sets the addresses of an endpoint that began without, and emits its pending event.
    fn complete(&mut self, socket: &SocketRecord, out: &mut Vec<ConnectionEvent>) {
        let is_held =
            |conn: &Conn| conn.is_held() && conn.endpoint.remote.is_some() && socket.remote().port != 0;
        if !self.conns.get(&socket.key).is_some_and(|conn| is_held(conn)) {
            return;
        }
        let Some(mut conn) = self.take(socket.key) else { return };
        let held = conn.take_held();
        conn.endpoint.local = socket.local;
        conn.endpoint.remote = Some(socket.remote());
        (conn.endpoint.family, conn.endpoint.mapped) = (socket.family, socket.mapped);
        if socket.local.port == 0 {
            self.conns.insert(socket.key, conn);
        } else {
            self.insert(conn);
            self.join(socket.key);
        }
        if let Some((at, kind)) = held.filter(|(_, kind)| self.states || *kind != EventKind::Attempt)
            && let Some(conn) = self.conns.get_mut(&socket.key)
        {
            conn.emit(at, kind, out);
        }
    }

    /// No probe sees the exit of listen(2), so the port of a listener without bind() stays unknown.
    pub fn expect_no_ports(&mut self) {
        self.no_ports = true;
    }

    /// Emits events that were held back long enough. Call it several times a second; `now` is [`BootTime::END`] to emit
    /// all. Returns the number of listeners whose port is missing; the next [`Tracker::merge`] emits them.
    pub fn settle(&mut self, now: BootTime, out: &mut Vec<ConnectionEvent>) -> u64 {
        let mut lost = 0;
        let mut late = Vec::new();
        let in_vain = self.no_ports || now == BootTime::END;
        for unbound in &mut self.unbound {
            let waited = self.conns.get(&unbound.key).map(|conn| now.saturating_sub(conn.endpoint.id.began));
            if waited.is_none_or(|waited| in_vain && waited > PATIENCE) {
                late.push(unbound.key);
            } else if !unbound.lost && waited.is_some_and(|waited| waited > LOST) {
                unbound.lost = true;
                lost += 1;
            }
        }
        for key in late {
            self.hold_no_longer(key, None, out);
        }
        self.settle_flows(now, out);
        lost
    }

    /// The previous connection of this socket is closed, and the record of that was lost.
    fn end_unseen(&mut self, at: BootTime, cookie: u64, out: &mut Vec<ConnectionEvent>) {
        if let Some(mut conn) = self.remove(cookie) {
            conn.end_unseen(at, out);
            self.spare.put(conn);
        }
    }

    /// Updates an endpoint from its peer.
    fn learn_from_peer(&mut self, cookie: u64) {
        let Some(mut conn) = self.conns.remove(&cookie) else { return };
        if let Some(peer) = conn.peer.and_then(|peer| self.conns.get(&peer.get())) {
            conn.learn_from(peer);
        }
        self.conns.insert(cookie, conn);
    }

    /// Updates the peer from this endpoint.
    fn teach_peer(&mut self, cookie: u64) {
        if let Some(peer) = self.conns.get(&cookie).and_then(|conn| conn.peer) {
            self.learn_from_peer(peer.get());
        }
    }

    /// Removes an endpoint from every index, to change it and insert it again.
    fn take(&mut self, cookie: u64) -> Option<Box<Conn>> {
        let conn = self.conns.remove(&cookie)?;
        match conn.endpoint.remote {
            Some(remote) => {
                self.pairs.remove(conn.endpoint.proto, conn.endpoint.local, remote, cookie);
                translated::unindex(&mut self.pairs, &conn);
            }
            None => _ = self.listeners.remove(&conn.listening(), &cookie),
        }
        Some(conn)
    }

    /// Removes an endpoint; its peer keeps what it knows about it.
    fn remove(&mut self, cookie: u64) -> Option<Box<Conn>> {
        let conn = self.take(cookie)?;
        self.udp_unlink(&conn);
        if let Some(peer) = conn.peer
            && let Some(peer) = self.conns.get_mut(&peer.get())
        {
            peer.endpoint.peer = Some(conn.party());
            peer.peer = None;
        }
        Some(conn)
    }

    /// Indexes an established endpoint by its addresses.
    fn insert(&mut self, conn: Box<Conn>) {
        let endpoint = &conn.endpoint;
        if let Some(remote) = endpoint.remote {
            // Raw sockets have no peers.
            if endpoint.proto.has_ports() {
                self.pairs.insert(endpoint.netns, endpoint.proto, endpoint.local, remote, conn.key);
            }
            translated::index(&mut self.pairs, &conn);
        }
        self.conns.insert(conn.key, conn);
    }

    /// Finds the peer of an endpoint that was not emitted yet, and updates both.
    fn join(&mut self, cookie: u64) {
        let Some(mut conn) = self.conns.remove(&cookie) else { return };
        let doubtful = match conn.endpoint.proto {
            Proto::Tcp => self.doubtful,
            _ => self.udp_doubtful,
        };
        let other = conn
            .endpoint
            .remote
            .filter(|_| !doubtful)
            .and_then(|remote| {
                let (local, remote) = conn.endpoint.nat.seen(conn.endpoint.local, remote);
                self.pairs.peer(conn.endpoint.netns, conn.endpoint.proto, local, remote)
            })
            .filter(|other| *other != cookie);
        if let Some(other) = other
            && let Some(peer) = self.conns.get_mut(&other)
            && conn.may_belong_to(peer)
        {
            (conn.peer, peer.peer) = (NonZeroU64::new(other), NonZeroU64::new(cookie));
            conn.share_flow(peer);
            conn.learn_from(peer);
            peer.learn_from(&conn);
            conn.learn_from(peer);
            translated::agree(&mut conn, peer);
        }
        self.conns.insert(cookie, conn);
    }
}
