//! UDP, UDP-Lite, raw and ping sockets: a flow is a socket with a local and a remote address, and begins with the first
//! datagram between the two. A packet socket has one flow, without addresses.
//!
//! The sender is known when its call returns, shortly after the datagram and its arrival at an endpoint on this host,
//! so events are held back briefly ([`Tracker::settle`]).
//!
//! The side that sent the first datagram is the originator, except where that proves nothing: the flow, or one with the
//! same remote address, was idle before. The answer of a server that was asked at another of its addresses, or by
//! multicast or broadcast, begins a flow of its own, whose originator is the server.

mod sockets;
mod waiting;

use std::num::NonZeroU64;

use super::conn::Conn;
use super::{ClosedBy, ConnectionEvent, EventKind, Outcome, PATIENCE, ProcessBasis, Tracker};
use crate::decode::{SocketRecord, Task};
use crate::hash::Set;
use crate::model::{BootTime, Cookie, Flow, FlowAddresses, Payload, Proto, State};
use crate::origin::{Basis, Side, Verdict};
use crate::process::{Actor, Cause};
use sockets::{UdpSocket, UdpSockets};
use waiting::Waiting;

/// Default time without a datagram after which a flow ends, in nanoseconds.
pub const IDLE: u64 = 120_000_000_000;

/// Raw, ping and UDP-Lite sockets without a flow that are kept when the table is compared with a snapshot, which does not
/// list them. The processes of further ones are known again once they use them. Test:
/// `tracker::tests::udp::a_limited_number_of_sockets_outside_snapshots_is_kept`.
pub(super) const MOST_UNLISTED: usize = 4096;

/// Flag in keys of flows, since a cookie can have many; cookies count up from 1.
const FLOW: u64 = 1 << 63;

#[derive(Debug, Default)]
pub(super) struct Udp {
    sockets: UdpSockets,
    waiting: Waiting,
    /// Inode numbers of packet sockets that are older than the probes, whose creation no probe reports.
    old_packets: Set<u64>,
    last_key: u64,
}

/// The first datagram of a flow.
#[derive(Clone, Copy)]
pub(super) struct Datagram {
    pub(super) at: BootTime,
    /// It was received; otherwise sent.
    pub(super) received: bool,
    /// The creation of the socket was not observed; that of packet sockets never is.
    pub(super) old_socket: bool,
    /// It answers another datagram or reports an error about one.
    pub(super) answers: bool,
    /// The thread that probably sent it.
    pub(super) thread: Option<u32>,
}

/// A flow in the table.
#[derive(Clone, Copy, Debug)]
pub struct TrackedFlow {
    /// Key for [`Tracker::count`] and [`Tracker::idle`].
    pub key: u64,
    /// Its identity.
    pub flow: Flow,
    /// When it began, if that was observed.
    pub began: Option<BootTime>,
}

impl Tracker {
    pub(super) fn udp_born(&mut self, socket: &SocketRecord, actor: Actor) {
        let Some(cookie) = socket.cookie else { return };
        let known = self.udp.sockets.entry(cookie).or_default();
        known.owner = Some(actor);
        known.is_in_snapshots = socket.proto.is_in_snapshots();
    }

    /// A socket from a snapshot.
    pub(super) fn udp_found(&mut self, cookie: Cookie, owner: Option<Actor>) {
        self.udp.sockets.entry(cookie).or_insert_with(|| UdpSocket::of(owner));
    }

    /// Packet sockets at the start.
    pub(super) fn udp_packets_found(&mut self, inodes: &Set<u64>) {
        self.udp.old_packets.clone_from(inodes);
    }

    /// The process that created a UDP socket or used it last.
    #[must_use]
    pub fn udp_owner(&self, cookie: Cookie) -> Option<&Actor> {
        self.udp.sockets.get(&cookie)?.owner.as_ref()
    }

    /// The key of a flow.
    pub(super) fn udp_flow(&self, cookie: Cookie, addresses: &FlowAddresses) -> Option<u64> {
        self.udp.sockets.get(&cookie)?.flow(addresses)
    }

    /// Emits a flow together with its peer, if that waits for its sender.
    pub(super) fn udp_waits(&mut self, key: u64, peer: u64) -> bool {
        self.udp.waiting.follow(key, peer)
    }

    /// Whether a UDP socket is known.
    #[must_use]
    pub fn has_udp(&self, cookie: Cookie) -> bool {
        self.udp.sockets.contains_key(&cookie)
    }

    /// Forgets sockets that are not in a snapshot, have no record since it began, and have no flow. Of those that are in no
    /// snapshot ([`Proto::is_in_snapshots`]) a limited number is kept.
    pub(super) fn udp_keep_only(&mut self, there: &Set<Cookie>, touched: &Set<Cookie>) {
        let mut unlisted = 0;
        self.udp.sockets.retain(|cookie, socket| {
            let is_there = there.contains(cookie) || touched.contains(cookie) || !socket.is_empty();
            is_there
                || !socket.is_in_snapshots && {
                    unlisted += 1;
                    unlisted <= MOST_UNLISTED
                }
        });
    }

    /// Indexes a flow by its socket and its addresses; returns its key.
    pub(super) fn udp_insert(&mut self, mut conn: Box<Conn>) -> u64 {
        self.udp.last_key += 1;
        conn.key = FLOW | self.udp.last_key;
        let key = conn.key;
        if let Some(Flow { cookie, addresses }) = flow_of(&conn) {
            self.udp.sockets.entry(cookie).or_default().insert(addresses, key);
        }
        self.insert(conn);
        key
    }

    /// Removes a flow from the index of its socket.
    pub(super) fn udp_unlink(&mut self, conn: &Conn) {
        if conn.endpoint.proto != Proto::Tcp
            && let Some(Flow { cookie, addresses }) = flow_of(conn)
            && let Some(socket) = self.udp.sockets.get_mut(&cookie)
        {
            socket.remove(&addresses, conn.key);
        }
    }

    pub(super) fn datagram(
        &mut self,
        datagram: Datagram,
        socket: &SocketRecord,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let Datagram { at, received, .. } = datagram;
        let (Some(cookie), Some(addresses)) = (socket.cookie, FlowAddresses::of(&socket.socket)) else {
            return;
        };
        let old_socket = match socket.proto {
            Proto::Packet => self.udp.old_packets.contains(&socket.inode),
            _ => datagram.old_socket,
        };
        let known = self.udp.sockets.entry(cookie).or_default();
        if known.has(&addresses) {
            return;
        }
        let mut conn = self.spare.begin(at, socket, State::Established);
        conn.established = true;
        conn.opened_at(at);
        conn.endpoint.process = known.owner.clone();
        conn.endpoint.process_basis = known.owner.as_ref().map(|_| ProcessBasis::Listener);
        // A socket older than the probes may have had an earlier datagram of this flow.
        conn.endpoint.verdict = if old_socket && at < self.began.saturating_add(IDLE)
            || proves_nothing(socket.proto, &datagram)
        {
            Verdict::UNKNOWN
        } else if known.was_idle(addresses.remote) {
            Verdict::IDLE
        } else {
            Verdict::handshake(if received { Side::Remote } else { Side::Local })
        };
        let key = self.udp_insert(conn);
        // Every raw socket of a host receives the same packet.
        if socket.proto.has_ports() {
            self.join(key);
        }
        let peer = self.conns.get(&key).and_then(|conn| conn.peer).map(NonZeroU64::get);
        if received && let Some(peer) = peer {
            self.agree_with_sender(key, peer);
        }
        let waits = match (received, peer) {
            (false, _) => {
                self.udp.waiting.add(key, at, cookie, datagram.thread);
                true
            }
            (true, Some(peer)) => self.udp.waiting.follow(key, peer),
            (true, None) => false,
        };
        if !waits {
            self.emit_flow(at, key, EventKind::Open, out);
        }
    }

    /// The endpoint that sent the datagram may know that it originated nothing, because it answers from another address
    /// or after an idle time.
    fn agree_with_sender(&mut self, key: u64, sender: u64) {
        let Some(verdict) = self.conns.get(&sender).map(|sender| sender.endpoint.verdict) else { return };
        let Some(conn) = self.conns.get_mut(&key) else { return };
        let own = conn.endpoint.verdict;
        let agreed = match verdict.basis {
            Basis::Idle => Verdict::IDLE,
            _ if own.side != Side::Unknown && verdict.side == own.side => {
                Verdict { side: own.side.opposite(), ..own }
            }
            _ => return,
        };
        conn.endpoint.verdict = agreed;
        conn.endpoint.originator = None;
        self.learn_from_peer(key);
    }

    /// A process sends from or receives on a UDP socket. `sent`: its call sent the first datagram of a flow.
    pub(super) fn udp_used(
        &mut self,
        cookie: Option<Cookie>,
        at: BootTime,
        (task, actor): (&Task, &Actor),
        sent: Option<Cause>,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let Some(cookie) = cookie else { return };
        let socket = self.udp.sockets.entry(cookie).or_default();
        let same = |owner: &Actor| owner.process.key.may_be(actor.process.key);
        let is_other = !socket.owner.as_ref().is_some_and(same);
        socket.owner = Some(actor.clone());
        // With many flows it is not known which one this concerns.
        let only = socket.only_flow();
        let sent = sent.and_then(|cause| Some((self.udp.waiting.sent_by(cookie, task.tid)?, cause)));
        let first = sent.as_ref().map(|(key, _)| *key);
        if let Some((key, cause)) = sent {
            if let Some(conn) = self.conns.get_mut(&key) {
                conn.sent_by(actor, task.via);
                conn.endpoint.cause = cause;
            }
            self.teach_peer(key);
            self.emit_waiting_for(key, out);
        }
        if let Some(key) = only.filter(|key| is_other && first != Some(*key))
            && let Some(conn) = self.conns.get_mut(&key)
            && conn.emitted
            && conn.handed_over_to(actor)
        {
            conn.emit(at, EventKind::Handover, out);
            self.teach_peer(key);
        }
    }

    pub(super) fn settle_flows(&mut self, now: BootTime, out: &mut Vec<ConnectionEvent>) {
        let late = BootTime::from_nanos(now.saturating_sub(BootTime::from_nanos(PATIENCE)));
        while let Some(sender) = self.udp.waiting.older_than(late) {
            self.emit_waiting_for(sender, out);
        }
    }

    /// Flows of a socket, the oldest first.
    #[must_use]
    pub fn flows_of(&self, cookie: Cookie) -> Vec<(u64, Flow)> {
        let flows = self.udp.sockets.get(&cookie).into_iter().flat_map(UdpSocket::flows);
        let mut flows: Vec<_> = flows.map(|(key, addresses)| (key, Flow { cookie, addresses })).collect();
        flows.sort_unstable();
        flows
    }

    /// All flows.
    pub fn flows(&self) -> impl Iterator<Item = TrackedFlow> {
        self.udp.sockets.iter().flat_map(|(cookie, socket)| {
            socket.flows().map(|(key, addresses)| TrackedFlow {
                key,
                flow: Flow { cookie: *cookie, addresses },
                began: self.conns.get(&key).and_then(|conn| conn.opened()),
            })
        })
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
        let flow = self.conns.get(&key).and_then(|conn| flow_of(conn));
        self.end_flow(at, key, ClosedBy::Timeout, out);
        if let Some(Flow { cookie, addresses }) = flow
            && let Some(socket) = self.udp.sockets.get_mut(&cookie)
        {
            socket.ended_idle(addresses.remote);
        }
    }

    fn end_flow(&mut self, at: BootTime, key: u64, closed_by: ClosedBy, out: &mut Vec<ConnectionEvent>) {
        if let Some(sender) = self.udp.waiting.awaited_by(key) {
            self.emit_waiting_for(sender, out);
        }
        let Some(mut conn) = self.remove(key) else { return };
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

    fn emit_waiting_for(&mut self, sender: u64, out: &mut Vec<ConnectionEvent>) {
        for key in self.udp.waiting.release(sender) {
            let Some(began) = self.conns.get(&key).map(|conn| conn.endpoint.id.began) else { continue };
            self.emit_flow(began, key, EventKind::Open, out);
        }
    }

    fn emit_flow(&mut self, at: BootTime, key: u64, kind: EventKind, out: &mut Vec<ConnectionEvent>) {
        if let Some(conn) = self.conns.get_mut(&key) {
            conn.emit(at, kind, out);
        }
    }
}

/// Whether the first packet of a raw, ping or packet socket does not tell which side began: it answers another one, or it is one of
/// those that a socket receives because of its protocol, whoever on this host caused them. Only requests of ICMP are known
/// to begin something.
fn proves_nothing(proto: Proto, datagram: &Datagram) -> bool {
    datagram.answers || datagram.received && matches!(proto, Proto::Raw(_) | Proto::Packet)
}

fn flow_of(conn: &Conn) -> Option<Flow> {
    Some(Flow { cookie: conn.endpoint.cookie?, addresses: FlowAddresses::of(&conn.endpoint.socket)? })
}
