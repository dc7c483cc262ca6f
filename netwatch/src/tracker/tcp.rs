//! TCP: updates the table at connect(), listen(), accept(), use and each transition.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::conn::Conn;
use super::{
    ConnectionEvent, EndpointId, EventKind, Outcome, Party, ProcessBasis, Tracker, Unbound, closing,
};
use crate::decode::{Born, SocketRecord, StateChange, Task};
use crate::model::{BootTime, Cookie, SockAddr, State, Via};
use crate::origin::{Basis, Side, Verdict};
use crate::process::{Actor, Cause, ProcessTable};

/// A TCP state transition of a socket.
pub(super) struct Transition<'a> {
    pub(super) at: BootTime,
    pub(super) socket: &'a SocketRecord,
    pub(super) change: &'a StateChange,
}

impl Tracker {
    pub(super) fn connect(
        &mut self,
        at: BootTime,
        socket: &SocketRecord,
        task: &Task,
        (actor, cause): (&Actor, Cause),
        out: &mut Vec<ConnectionEvent>,
    ) {
        self.end_unseen(at, socket.key, out);
        let mut conn = self.spare.begin(at, socket, State::SynSent);
        if socket.restored {
            conn.restored_by(Some(actor.clone()));
        } else {
            conn.connected_by(Some(actor.clone()));
            conn.endpoint.cause = cause;
        }
        conn.endpoint.via = task.via.or(socket.via);
        if socket.remote().port == 0 {
            // Remote port 0: an MPTCP socket, whose subflow will report the addresses.
            conn.hold(at, EventKind::Attempt);
            self.conns.insert(socket.key, conn);
            return;
        }
        if socket.local.port == 0 {
            self.conns.insert(socket.key, conn);
        } else {
            // Bound already, so its peer may be known: one that connects to it at the same time.
            self.insert(conn);
            self.join(socket.key);
        }
        if self.states
            && let Some(conn) = self.conns.get_mut(&socket.key)
        {
            conn.emit(at, EventKind::Attempt, out);
        }
    }

    pub(super) fn listen(
        &mut self,
        at: BootTime,
        socket: &SocketRecord,
        actor: &Actor,
        out: &mut Vec<ConnectionEvent>,
    ) {
        if self.conns.get(&socket.key).is_some_and(|conn| conn.is_held()) {
            // Its port is known by now.
            self.hold_no_longer(socket.key, Some(socket.local), out);
            return;
        }
        self.end_unseen(at, socket.key, out);
        let mut conn = self.spare.begin(at, socket, State::Listen);
        conn.endpoint.remote = None;
        conn.endpoint.process = Some(actor.clone());
        conn.endpoint.process_basis = Some(ProcessBasis::Listener);
        conn.hold(at, EventKind::Listen);
        self.conns.insert(socket.key, conn);
        if socket.local.port == 0 {
            // The kernel chooses the port before the call returns.
            self.unbound.push(Unbound { key: socket.key, lost: false });
        } else {
            self.hold_no_longer(socket.key, None, out);
        }
    }

    /// Emits a listener, with the address `local` if that is new.
    pub(super) fn hold_no_longer(
        &mut self,
        key: u64,
        local: Option<SockAddr>,
        out: &mut Vec<ConnectionEvent>,
    ) {
        self.unbound.retain(|unbound| unbound.key != key);
        let Some(conn) = self.conns.get_mut(&key) else { return };
        conn.endpoint.local = local.unwrap_or(conn.endpoint.local);
        if let Some((at, kind)) = conn.take_held() {
            conn.emit(at, kind, out);
        }
        let listening = conn.listening();
        self.listeners.insert(listening, key);
    }

    pub(super) fn failed(
        &mut self,
        at: BootTime,
        socket: &SocketRecord,
        errno: i32,
        (actor, cause): (&Actor, Cause),
        out: &mut Vec<ConnectionEvent>,
    ) {
        let mut conn = self.remove(socket.key).unwrap_or_else(|| {
            let mut conn = self.spare.begin(at, socket, State::Close);
            conn.connected_by(Some(actor.clone()));
            conn.endpoint.cause = cause;
            conn
        });
        conn.fail(at, errno, out);
        self.spare.put(conn);
    }

    pub(super) fn change(
        &mut self,
        transition: &Transition<'_>,
        processes: &ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let &Transition { at, socket, change } = transition;
        match (change.old, change.new) {
            // `complete` has done the rest.
            _ if change.born == Born::Subflow => self.subflow(transition, processes, out),
            (State::Listen, State::Close) => self.unlisten(transition, processes, out),
            (_, State::Close) => self.close(transition, processes, out),
            // An MPTCP child is created in ESTABLISHED.
            (State::SynSent | State::SynRecv | State::Listen, State::Established) => {
                self.open(transition, processes, out);
            }
            _ => {
                let Some(conn) = self.conns.get_mut(&socket.key) else { return };
                conn.endpoint.state = change.new;
                match (change.old, change.new) {
                    (State::SynSent, State::SynRecv) => conn.begun_by_both(),
                    (_, State::FinWait1) => _ = conn.first_fin.get_or_insert(Side::Local),
                    (_, State::CloseWait) => _ = conn.first_fin.get_or_insert(Side::Remote),
                    _ => {}
                }
                if self.states {
                    conn.emit(at, EventKind::State, out);
                }
            }
        }
    }

    /// The first subflow of an MPTCP socket changed its state.
    pub(super) fn subflow(
        &mut self,
        transition: &Transition<'_>,
        processes: &ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let &Transition { at, socket, change } = transition;
        match (self.conns.get_mut(&socket.key), change.new) {
            (Some(conn), State::Close) => conn.subflow_failed(change.errno),
            // A child with the cookie of its listener.
            (None, State::Established) if socket.key != Cookie::number(socket.cookie) => {
                let listener = socket.cookie;
                let change = StateChange { born: Born::Child, listener, owner: None, ..*change };
                self.open(&Transition { at, socket, change: &change }, processes, out);
            }
            _ => {}
        }
    }

    pub(super) fn unlisten(
        &mut self,
        transition: &Transition<'_>,
        processes: &ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let &Transition { at, socket, change } = transition;
        if self.conns.get(&socket.key).is_some_and(|conn| conn.is_held()) {
            self.hold_no_longer(socket.key, Some(socket.local), out);
        }
        let mut conn = self.remove(socket.key).unwrap_or_else(|| {
            let mut conn = self.spare.begin(at, socket, State::Listen);
            conn.endpoint.remote = None;
            conn.endpoint.process = change.owner.and_then(|owner| processes.owner(&owner));
            conn.endpoint.process_basis = conn.endpoint.process.as_ref().map(|_| ProcessBasis::Listener);
            conn
        });
        conn.endpoint.state = State::Close;
        conn.emit(at, EventKind::Unlisten, out);
        self.spare.put(conn);
    }

    pub(super) fn open(
        &mut self,
        transition: &Transition<'_>,
        processes: &ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let &Transition { at, socket, change } = transition;
        if self.conns.get(&socket.key).is_some_and(|conn| conn.established) {
            self.end_unseen(at, socket.key, out);
        }
        let known = self.take(socket.key);
        let mut conn = known.unwrap_or_else(|| {
            let began = change.owner.map_or(at, |owner| owner.at);
            let mut conn = self.spare.begin(began, socket, change.new);
            match change.born {
                Born::Restored => {
                    conn.restored_by(change.owner.and_then(|owner| processes.owner(&owner)));
                }
                Born::Connected => {
                    conn.connected_by(change.owner.and_then(|owner| processes.owner(&owner)));
                    // It left SYN_SENT before, through SYN_RECV.
                    if change.old == State::SynRecv {
                        conn.begun_by_both();
                    }
                }
                Born::Child => {
                    conn.endpoint.id.began = at;
                    conn.endpoint.flow = conn.endpoint.id;
                    conn.endpoint.verdict = Verdict::handshake(Side::Remote);
                }
                // Older than the probes: only an originator is ever in SYN_SENT.
                _ if change.old == State::SynSent => conn.endpoint.verdict = Verdict::handshake(Side::Local),
                _ => {}
            }
            conn
        });
        // Without data in the SYN it is not TCP Fast Open but a simultaneous open.
        if std::mem::take(&mut conn.undecided) && socket.via != Some(Via::Fastopen) {
            conn.begun_by_both();
        }
        let is_own = matches!(conn.endpoint.verdict.basis, Basis::Connect | Basis::Repair);
        if !is_own && conn.endpoint.verdict.side != Side::Local {
            self.born_of_listener(&mut conn, transition, processes);
        }
        conn.endpoint.state = change.new;
        conn.endpoint.local = socket.local;
        conn.endpoint.remote = Some(socket.remote());
        conn.endpoint.inode = socket.inode;
        conn.endpoint.via = conn.endpoint.via.or(socket.via);
        conn.established = true;
        conn.opened_at(at);
        if change.old == State::SynSent
            && let Some(owner) = change.owner.filter(|_| change.born == Born::Connected)
        {
            conn.endpoint.handshake = at.checked_sub(owner.at).and_then(NonZeroU64::new);
        }
        if socket.remote().port == 0 {
            conn.hold(at, EventKind::Open);
            self.conns.insert(socket.key, conn);
            return;
        }
        if socket.local == socket.remote() {
            conn.begun_by_both();
        }
        self.insert(conn);
        self.join(socket.key);
        if let Some(conn) = self.conns.get_mut(&socket.key) {
            conn.emit(at, EventKind::Open, out);
        }
    }

    /// The listener that owns the local address of a socket. `None` while records that may concern it are missing.
    pub(super) fn listener_of(&mut self, socket: &SocketRecord) -> Option<Arc<Party>> {
        if self.doubtful {
            return None;
        }
        let listener = self.listeners.find(socket.netns, socket.proto, socket.local)?;
        self.conns.get_mut(listener).map(|listener| listener.shared_party())
    }

    /// Names the listener that a child came from, and for the time being its process. The kernel side
    /// knows the listener where it saw listen(); for an older one the address has to do.
    pub(super) fn born_of_listener(
        &mut self,
        conn: &mut Conn,
        transition: &Transition<'_>,
        processes: &ProcessTable,
    ) {
        let &Transition { socket, change, .. } = transition;
        let seen = change.listener.and_then(|cookie| self.conns.get_mut(&cookie.get()));
        let party = match (seen, change.listener, change.owner) {
            (Some(listener), ..) => listener.shared_party(),
            // Its record of listen() was lost.
            (None, Some(cookie), Some(owner)) => Party {
                id: EndpointId { cookie: cookie.get(), began: owner.at },
                process: processes.owner(&owner),
            }
            .into(),
            _ => match self.listener_of(socket) {
                Some(listener) => listener,
                None => {
                    let owned =
                        !self.doubtful && self.listeners.owned(socket.netns, socket.proto, socket.local);
                    if owned {
                        conn.improve(Verdict::LISTENER);
                    }
                    let is_child = owned || change.born == Born::Child;
                    conn.taken = !is_child || conn.endpoint.process_basis == Some(ProcessBasis::Accept);
                    return;
                }
            },
        };
        conn.improve(Verdict::LISTENER);
        if conn.endpoint.process_basis != Some(ProcessBasis::Accept) {
            conn.taken = false;
            conn.endpoint.process = party.process.clone();
            conn.endpoint.process_basis = party.process.as_ref().map(|_| ProcessBasis::Listener);
        }
        conn.endpoint.listener = Some(party);
    }

    pub(super) fn close(
        &mut self,
        transition: &Transition<'_>,
        processes: &ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let &Transition { at, socket, change } = transition;
        // If neither its beginning was observed nor a snapshot had it, it is emitted all the same.
        let known = self.remove(socket.key);
        let mut conn = known.unwrap_or_else(|| self.spare.begin(at, socket, change.old));
        // What the kernel side kept with the socket knows more than a look did.
        if change.born == Born::Connected && conn.endpoint.process_basis != Some(ProcessBasis::Connect) {
            conn.connected_by(change.owner.and_then(|owner| processes.owner(&owner)));
        }
        if change.born == Born::Restored && conn.endpoint.process.is_none() {
            conn.restored_by(change.owner.and_then(|owner| processes.owner(&owner)));
        }
        if change.born == Born::Child {
            conn.improve(Verdict::handshake(Side::Remote));
        }
        if socket.local.port != 0 {
            conn.endpoint.local = socket.local;
        }
        if change.old == State::SynSent {
            // Given up by its own process. Without a port it never had a SYN out: the call failed, by a way
            // in that no probe sees the result of.
            let errno = match change.errno {
                0 if conn.subflow_errno() != 0 => conn.subflow_errno(),
                0 if socket.local.port != 0 => libc::ECANCELED,
                errno => errno,
            };
            conn.fail(at, errno, out);
            self.spare.put(conn);
            return;
        }
        if !conn.established && change.old == State::SynRecv {
            match change.born {
                // An inbound handshake that did not complete is not a connection.
                Born::Child => {}
                _ => conn.fail(at, change.errno, out),
            }
            self.spare.put(conn);
            return;
        }
        let first_fin =
            change.first_fin.or(conn.first_fin).or_else(|| closing::first_fin(conn.endpoint.state));
        let outcome = Outcome {
            errno: (change.errno != 0).then_some(change.errno),
            duration: conn.lasted(at),
            bytes: change.payload,
            closed_by: Some(closing::closed_by(change, first_fin, socket.via == Some(Via::Mptcp))),
        };
        conn.endpoint.state = State::Close;
        conn.emit_with(at, EventKind::Close, outcome, out);
        if conn.taken {
            self.spare.put(conn);
        } else {
            self.late.put(conn);
        }
    }
}
