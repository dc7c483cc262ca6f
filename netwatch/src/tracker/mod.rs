//! Every connection end on the host, from its first record to its last. Pure: `(time, event) → what is
//! told`; no clock, no I/O, no aya.
//!
//! The key is the socket cookie; addresses are attributes. Who originated a connection is decided when it
//! is first seen and only ever gets better grounds ([`crate::origin::Basis`]). While records are known to
//! be missing ([`Tracker::doubt`]) no two ends are joined by their addresses: one of them might be of a
//! connection that is gone. [`Tracker::merge`] ends that.

mod accept;
mod closing;
mod conn;
mod endpoint;
mod late;
mod merge;
mod roles;
mod spare;
mod tcp;
#[cfg(test)]
pub(crate) mod tests;
mod udp;

pub use endpoint::{
    ClosedBy, ConnectionEvent, Endpoint, EndpointId, EventKind, HostFacts, Outcome, Party, ProcessBasis,
};
pub use merge::Occasion;
pub use roles::Roles;

use std::num::NonZeroU64;

use crate::decode::{Act, SocketEvent, SocketRecord};
use crate::hash::{Map, Set};
use crate::listeners::Listeners;
use crate::model::{BootTime, Cookie, Proto, State, Via};
use crate::pairs::Pairs;
use crate::process::{Actor, ProcessTable};
use conn::Conn;
use late::Late;
use spare::Spare;
use tcp::Transition;
pub use udp::IDLE;
use udp::Udp;

/// What a call tells when it ends is not waited for any longer, nanoseconds: it has ended long since.
const PATIENCE: u64 = 20_000_000;

/// How long a call may be on its way before its end counts as unseen, nanoseconds: its thread may have been stopped.
const LOST: u64 = 500_000_000;

/// Tells the keys of sockets whose cookie is not theirs alone from cookies, which count up from 1.
const ALIAS: u64 = 1 << 62;

/// A listener without a port.
#[derive(Debug)]
struct Unbound {
    key: u64,
    /// The record that has its port counts as lost.
    lost: bool,
}

/// The table of connections.
#[derive(Debug, Default)]
pub struct Tracker {
    /// Each in memory of its own: many are moved at once where the table grows.
    conns: Map<u64, Box<Conn>>,
    spare: Spare,
    /// Established ends.
    pairs: Pairs<u64>,
    listeners: Listeners<u64>,
    late: Late,
    udp: Udp,
    /// Listeners that wait for their port.
    unbound: Vec<Unbound>,
    /// See [`Tracker::expect_no_ports`].
    no_ports: bool,
    /// See [`Tracker::key_of`].
    last_alias: u64,
    /// When netwatch began to look.
    began: BootTime,
    /// Attempts and every transition are told.
    states: bool,
    /// Records are missing.
    doubtful: bool,
    /// What had a record since [`Tracker::begin_snapshot`].
    touched: Option<Set<Cookie>>,
}

impl Tracker {
    /// An empty table. `states`: attempts, and transitions that are no event of their own, are told too.
    #[must_use]
    pub fn new(states: bool) -> Self {
        Self { states, ..Self::default() }
    }

    /// Takes in what happened at `at`, and appends the events that follow from it. `actor` is the process of the record's
    /// task ([`ProcessTable::acting`]); of a record without a task there is none.
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
        match (&event.act, actor) {
            (Act::Connect(task), Some(actor)) => self.connect(at, socket, task, actor, out),
            (Act::Listen(_), Some(actor)) => self.listen(at, socket, actor, out),
            (Act::Accept(task), Some(actor)) => self.accept(at, socket, actor, task.via, out),
            (Act::Use(task), Some(actor)) => match socket.proto {
                Proto::Tcp => self.used(at, socket, actor, task.via, out),
                Proto::Udp => self.udp_used(socket.cookie, at, task, actor, out),
            },
            (Act::Born(_), Some(actor)) => self.udp_born(socket.cookie, actor.clone()),
            (Act::Fail { task, errno }, Some(actor)) => self.failed(at, socket, task, *errno, actor, out),
            (Act::Datagram { received, old_socket }, _) => {
                self.datagram(at, socket, *received, *old_socket, out);
            }
            (Act::Release, _) => self.released(at, socket.cookie, out),
            (Act::Change(change), _) => self.change(&Transition { at, socket, change }, processes, out),
            (
                Act::Connect(_)
                | Act::Listen(_)
                | Act::Accept(_)
                | Act::Use(_)
                | Act::Born(_)
                | Act::Fail { .. },
                None,
            ) => debug_assert!(false, "a record of a task without its process"),
        }
    }

    /// Records were lost: what the table has may be out of date until the next [`Tracker::merge`].
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// Every endpoint that was emitted and is there now, listeners included: an event each, of the time when it began.
    #[must_use]
    pub fn table(&self) -> Vec<ConnectionEvent> {
        self.conns.values().filter(|conn| conn.emitted).map(|conn| conn.as_event()).collect()
    }

    /// Whether there are no ends, listeners included.
    #[cfg(test)]
    pub(crate) fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// What the tables know a socket by. A child of an MPTCP listener has the cookie of that, if anybody had
    /// asked for it (`net/core/sock.c`, sk_clone_lock copies it, and `net/mptcp/protocol.c` lets it be): so
    /// its addresses have to tell it from the others. `None` where it has none yet.
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

    /// Gives an end that began without addresses those of `socket`, and tells what was held back so far.
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

    /// No probe sees where listen(2) ends: nothing tells the port of a listener that nobody bound.
    pub fn expect_no_ports(&mut self) {
        self.no_ports = true;
    }

    /// Tells what has waited long enough for something to become known. To be called several times a
    /// second; `now` is [`BootTime::END`] where nothing is waited for any more. Returns of how many
    /// listeners the port should have come and did not: the next [`Tracker::merge`] tells it, and them.
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

    /// Whatever had this socket before is over, and the record of that was lost.
    fn end_unseen(&mut self, at: BootTime, cookie: u64, out: &mut Vec<ConnectionEvent>) {
        if let Some(mut conn) = self.remove(cookie) {
            conn.end_unseen(at, out);
            self.spare.put(conn);
        }
    }

    /// Lets an end know what the other one has come to know.
    fn learn_from_peer(&mut self, cookie: u64) {
        let Some(mut conn) = self.conns.remove(&cookie) else { return };
        if let Some(peer) = conn.peer.and_then(|peer| self.conns.get(&peer.get())) {
            conn.learn_from(peer);
        }
        self.conns.insert(cookie, conn);
    }

    /// Lets the other end know what this one has come to know.
    fn teach_peer(&mut self, cookie: u64) {
        if let Some(peer) = self.conns.get(&cookie).and_then(|conn| conn.peer) {
            self.learn_from_peer(peer.get());
        }
    }

    /// Takes an end out of every index, to be changed and put back.
    fn take(&mut self, cookie: u64) -> Option<Box<Conn>> {
        let conn = self.conns.remove(&cookie)?;
        match conn.endpoint.remote {
            Some(remote) => self.pairs.remove(conn.endpoint.proto, conn.endpoint.local, remote, cookie),
            None => _ = self.listeners.remove(&conn.listening(), &cookie),
        }
        Some(conn)
    }

    /// Takes an end out for good; its peer keeps what it knows of it.
    fn remove(&mut self, cookie: u64) -> Option<Box<Conn>> {
        let conn = self.take(cookie)?;
        if let Some(peer) = conn.peer
            && let Some(peer) = self.conns.get_mut(&peer.get())
        {
            peer.endpoint.peer = Some(conn.party());
            peer.peer = None;
        }
        Some(conn)
    }

    /// Puts an established end where its peer will find it.
    fn insert(&mut self, conn: Box<Conn>) {
        let endpoint = &conn.endpoint;
        if let Some(remote) = endpoint.remote {
            self.pairs.insert(endpoint.netns, endpoint.proto, endpoint.local, remote, conn.key);
        }
        self.conns.insert(conn.key, conn);
    }

    /// Finds the other end of an end that nothing was told of yet, and lets each learn from the other.
    fn join(&mut self, cookie: u64) {
        if self.doubtful {
            return;
        }
        let Some(mut conn) = self.conns.remove(&cookie) else { return };
        let other = conn
            .endpoint
            .remote
            .and_then(|remote| {
                self.pairs.peer(conn.endpoint.netns, conn.endpoint.proto, conn.endpoint.local, remote)
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
        }
        self.conns.insert(cookie, conn);
    }
}
