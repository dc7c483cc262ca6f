//! An endpoint in the tracker's table, and how it is updated.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::{
    ClosedBy, ConnectionEvent, Endpoint, EndpointId, EventKind, HostFacts, Outcome, Party, ProcessBasis,
};
use crate::decode::SocketRecord;
use crate::listeners::Listening;
use crate::model::{BootTime, Nat, Payload, ProcessKey, Socket, State, Via};
use crate::names::Names;
use crate::origin::{Side, Verdict};
use crate::process::{Actor, Cause};

/// An endpoint with the state of its tracking.
#[derive(Debug)]
pub(super) struct Conn {
    /// Key in the table: the cookie, except for a UDP flow, since a socket may have many.
    pub(super) key: u64,
    pub(super) endpoint: Endpoint,
    /// The handshake is complete.
    pub(super) established: bool,
    /// When that was, if observed.
    opened: Option<NonZeroU64>,
    /// Accepted, or not the child of a listener.
    pub(super) taken: bool,
    /// Which side sent the first FIN.
    pub(super) first_fin: Option<Side>,
    /// Cookie of the peer endpoint while that exists.
    pub(super) peer: Option<NonZeroU64>,
    /// An event was emitted, so its flow id is final.
    pub(super) emitted: bool,
    /// It may have called connect() as well as its peer, so the peer's connect() proves nothing.
    pub(super) undecided: bool,
    rare: Option<Box<Rare>>,
}

/// Rare state, allocated only if needed.
#[derive(Debug, Default)]
struct Rare {
    /// Processes that were reported as users.
    users: Vec<ProcessKey>,
    /// The pending event and its time, until the addresses are known: for an MPTCP socket, which begins without, and a
    /// listener whose port is chosen last.
    held: Option<(BootTime, EventKind)>,
    /// The errno of its subflow, which the MPTCP socket gets too late.
    subflow_errno: i32,
    /// For a listener: the value that its children share.
    party: Option<Arc<Party>>,
    /// Payload of a UDP flow so far.
    bytes: Option<Payload>,
}

/// Size matters: a busy host has a hundred thousand. See docs/performance.md.
const _: () = assert!(size_of::<Conn>() <= 280);

impl Conn {
    pub(super) fn new(at: BootTime, socket: &SocketRecord, state: State) -> Self {
        let id = EndpointId { cookie: socket.key, began: at };
        Self {
            key: socket.key,
            endpoint: Endpoint {
                id,
                flow: id,
                socket: socket.socket,
                state,
                verdict: Verdict::UNKNOWN,
                originator: None,
                cause: Cause::default(),
                process: None,
                process_basis: None,
                listener: None,
                peer: None,
                handshake: None,
                nat: Nat::Unknown,
                names: Names::default(),
            },
            established: false,
            opened: None,
            taken: true,
            first_fin: None,
            peer: None,
            emitted: false,
            undecided: false,
            rare: None,
        }
    }

    /// Drops shared values.
    pub(super) fn let_go(&mut self) {
        let endpoint = &mut self.endpoint;
        (endpoint.originator, endpoint.process, endpoint.listener, endpoint.peer) = (None, None, None, None);
        endpoint.names = Names::default();
        self.rare = None;
    }

    /// The endpoint as an event, for [`super::Tracker::table`].
    pub(super) fn as_event(&self) -> ConnectionEvent {
        ConnectionEvent {
            at: self.endpoint.id.began,
            kind: EventKind::Seed,
            endpoint: self.endpoint.clone(),
            outcome: Outcome::default(),
            repaired: false,
            facts: HostFacts::default(),
        }
    }

    pub(super) fn emit(&mut self, at: BootTime, kind: EventKind, out: &mut Vec<ConnectionEvent>) {
        self.emit_with(at, kind, Outcome::default(), out);
    }

    pub(super) fn emit_with(
        &mut self,
        at: BootTime,
        kind: EventKind,
        outcome: Outcome,
        out: &mut Vec<ConnectionEvent>,
    ) {
        self.emitted = true;
        out.push(ConnectionEvent {
            at,
            kind,
            endpoint: self.endpoint.clone(),
            outcome,
            repaired: false,
            facts: HostFacts::default(),
        });
    }

    fn rare(&mut self) -> &mut Rare {
        self.rare.get_or_insert_default()
    }

    /// When the handshake completed, if observed.
    pub(super) fn opened(&self) -> Option<BootTime> {
        self.opened.map(|at| BootTime::from_nanos(at.get()))
    }

    pub(super) fn opened_at(&mut self, at: BootTime) {
        self.opened = NonZeroU64::new(at.nanos());
    }

    /// Nanoseconds in the established state at `at`, if the start was observed.
    pub(super) fn lasted(&self, at: BootTime) -> Option<u64> {
        at.checked_sub(self.opened()?)
    }

    /// Defers the event until the addresses are known.
    pub(super) fn hold(&mut self, at: BootTime, kind: EventKind) {
        self.rare().held = Some((at, kind));
    }

    pub(super) fn is_held(&self) -> bool {
        self.rare.as_ref().is_some_and(|rare| rare.held.is_some())
    }

    pub(super) fn take_held(&mut self) -> Option<(BootTime, EventKind)> {
        self.rare.as_mut()?.held.take()
    }

    pub(super) fn subflow_failed(&mut self, errno: i32) {
        self.rare().subflow_errno = errno;
    }

    /// `errno`: 0 if it did not fail.
    pub(super) fn subflow_errno(&self) -> i32 {
        self.rare.as_ref().map_or(0, |rare| rare.subflow_errno)
    }

    pub(super) fn count(&mut self, bytes: Payload) {
        self.rare().bytes = Some(bytes);
    }

    /// Payload so far, if counted.
    pub(super) fn bytes(&self) -> Option<Payload> {
        self.rare.as_ref()?.bytes
    }

    pub(super) fn fail(&mut self, at: BootTime, errno: i32, out: &mut Vec<ConnectionEvent>) {
        self.endpoint.state = State::Close;
        let errno = (errno != 0).then_some(errno);
        self.emit_with(at, EventKind::Fail, Outcome { errno, ..Outcome::default() }, out);
    }

    /// Emits the missed end of a connection. For an attempt it is not known whether it failed or opened first, so it is
    /// not reported as failed.
    pub(super) fn end_unseen(&mut self, at: BootTime, out: &mut Vec<ConnectionEvent>) {
        let kind = if self.endpoint.remote.is_none() { EventKind::Unlisten } else { EventKind::Close };
        self.endpoint.state = State::Close;
        let closed_by = (kind == EventKind::Close).then_some(ClosedBy::Unknown);
        let outcome = Outcome { closed_by, bytes: self.bytes(), ..Outcome::default() };
        out.push(ConnectionEvent {
            at,
            kind,
            endpoint: self.endpoint.clone(),
            outcome,
            repaired: true,
            facts: HostFacts::default(),
        });
    }

    pub(super) fn party(&self) -> Party {
        Party { id: self.endpoint.id, process: self.endpoint.process.clone() }
    }

    /// For a listener: the value that its children share while its process is the same.
    pub(super) fn shared_party(&mut self) -> Arc<Party> {
        let party = self.party();
        let shared = &mut self.rare().party;
        match shared {
            Some(shared) if **shared == party => shared.clone(),
            _ => shared.insert(Arc::new(party)).clone(),
        }
    }

    /// For a listener.
    pub(super) fn listening(&self) -> Listening {
        let Socket { netns, proto, local, .. } = self.endpoint.socket;
        // Not known for a listener whose listen() was observed, and not needed: its children have its cookie.
        Listening { netns, proto, local, v6only: false }
    }

    /// Adopts a verdict with a better basis, or the same basis with a higher confidence.
    pub(super) fn improve(&mut self, verdict: Verdict) {
        let known = self.endpoint.verdict;
        if (verdict.basis, verdict.confidence) < (known.basis, known.confidence) {
            self.endpoint.verdict = verdict;
        }
    }

    pub(super) fn connected_by(&mut self, actor: Option<Actor>) {
        self.improve(Verdict::CONNECT);
        if let Some(actor) = actor {
            self.endpoint.originator = Some(actor.clone());
            self.endpoint.process = Some(actor);
            self.endpoint.process_basis = Some(ProcessBasis::Connect);
        }
    }

    /// A process made the kernel restore a connection: it has the socket, and nobody was observed to originate it.
    pub(super) fn restored_by(&mut self, actor: Option<Actor>) {
        self.improve(Verdict::REPAIR);
        self.endpoint.process_basis = actor.as_ref().map(|_| ProcessBasis::Seed);
        self.endpoint.process = actor;
    }

    pub(super) fn accepted_by(&mut self, actor: &Actor, inode: u64, via: Option<Via>) {
        self.improve(Verdict::ACCEPT);
        self.endpoint.via = via.or(self.endpoint.via);
        self.endpoint.process = Some(actor.clone());
        self.endpoint.process_basis = Some(ProcessBasis::Accept);
        self.endpoint.inode = inode;
        self.taken = true;
    }

    /// The first datagram was sent by `actor`.
    pub(super) fn sent_by(&mut self, actor: &Actor, via: Option<Via>) {
        self.endpoint.via = via;
        if self.endpoint.verdict.side == Side::Local && self.endpoint.originator.is_none() {
            self.connected_by(Some(actor.clone()));
        } else {
            self.endpoint.process = Some(actor.clone());
            self.endpoint.process_basis = Some(ProcessBasis::Connect);
        }
    }

    /// Makes `actor` the process of this endpoint. Returns whether this is its first use.
    pub(super) fn handed_over_to(&mut self, actor: &Actor) -> bool {
        let key = actor.process.key;
        let has = |actor: &Option<Actor>| actor.as_ref().is_some_and(|actor| actor.process.key.may_be(key));
        let used = |rare: &Rare| rare.users.iter().any(|user| user.may_be(key));
        if has(&self.endpoint.process) || self.rare.as_deref().is_some_and(used) {
            return false;
        }
        // The previous process may use it again, which is not an event.
        let before = self.endpoint.process.as_ref().map(|actor| actor.process.key);
        self.rare().users.extend(before);
        self.endpoint.process = Some(actor.clone());
        self.endpoint.process_basis = Some(ProcessBasis::Handover);
        true
    }

    /// Whether two endpoints with matching addresses can be of one connection. An endpoint that had a peer has no
    /// other, and one that existed before a connection began is of an older one.
    pub(super) fn may_belong_to(&self, other: &Self) -> bool {
        let free = |one: &Self, other: &Self| {
            one.endpoint.peer.is_none() || one.peer.map(NonZeroU64::get) == Some(other.key)
        };
        let younger = |one: &Self, other: &Self| {
            let begun =
                (one.endpoint.process_basis == Some(ProcessBasis::Connect)).then_some(one.endpoint.id.began);
            let since = other.opened().or(other.established.then_some(other.endpoint.id.began));
            begun.zip(since).is_some_and(|(begun, since)| begun > since)
        };
        free(self, other) && free(other, self) && !younger(self, other) && !younger(other, self)
    }

    /// Sets the same flow id on both endpoints: that of the one that was emitted first.
    pub(super) fn share_flow(&mut self, peer: &mut Self) {
        if self.emitted && !peer.emitted {
            peer.endpoint.flow = self.endpoint.flow;
        } else if !self.emitted {
            self.endpoint.flow = peer.endpoint.flow;
        }
    }

    /// A transition showed that both sides called connect().
    pub(super) fn begun_by_both(&mut self) {
        self.improve(Verdict::handshake(Side::Both));
        self.endpoint.verdict.side = Side::Both;
    }

    /// Adopts what the peer knows. During the handshake it is not known yet whether the peer originated the connection
    /// alone.
    pub(super) fn learn_from(&mut self, peer: &Self) {
        self.endpoint.peer = Some(peer.party());
        self.endpoint.names.learn_from(&peer.endpoint.names);
        if self.undecided && peer.endpoint.verdict.side != Side::Both {
            return;
        }
        let settled = peer.established || peer.endpoint.verdict.side == Side::Both;
        if let Some(verdict) = Verdict::from_peer(peer.endpoint.verdict).filter(|_| settled) {
            self.improve(verdict);
        }
        self.name_originator(Some(peer));
    }

    /// Sets the originating process, once, since it does not change.
    pub(super) fn name_originator(&mut self, peer: Option<&Self>) {
        /// Only the process that connected, not one that accepted or listened.
        fn own(conn: &Conn) -> Option<&Actor> {
            conn.endpoint.originator.as_ref().or_else(|| {
                let began =
                    matches!(conn.endpoint.process_basis, Some(ProcessBasis::Connect | ProcessBasis::Seed));
                conn.endpoint.process.as_ref().filter(|_| began)
            })
        }
        if self.endpoint.originator.is_none() {
            self.endpoint.originator = match self.endpoint.verdict.side {
                Side::Local | Side::Both => own(self).cloned(),
                Side::Remote => peer.and_then(own).cloned(),
                Side::Unknown => None,
            };
        }
    }
}
