//! Every connection end on the host, from its first record to its last. Pure: `(time, event) → what is
//! told`; no clock, no I/O, no aya.
//!
//! The key is the socket cookie; addresses are attributes. Who originated a connection is decided when it
//! is first seen and only ever gets better grounds ([`crate::origin::Basis`]). While records are known to
//! be missing ([`Tracker::doubt`]) no two ends are joined by their addresses: one of them might be of a
//! connection that is gone. [`Tracker::merge`] ends that.

mod closing;
mod conn;
mod end;
mod late;
mod merge;
#[cfg(test)]
pub(crate) mod tests;
mod udp;

use std::collections::{HashMap, HashSet};

pub use end::{ClosedBy, ConnectionEvent, End, EndId, Kind, Party, ProcessBasis};
pub use merge::{Look, Occasion};

use crate::decode::{Act, Born, Socket, SocketEvent, StateChange, Task};
use crate::ends::Ends;
use crate::listeners::Listeners;
use crate::model::{Endpoint, Proto, State, Via};
use crate::origin::{Basis, Side, Verdict};
use crate::process::{Actor, ProcessTable};
use conn::Conn;
use late::Late;
pub use udp::IDLE;
use udp::Udp;

/// A TCP state transition of a socket at some time, nanoseconds since boot.
struct Transition<'a> {
    at: u64,
    socket: &'a Socket,
    change: &'a StateChange,
}

/// What a call tells when it ends is not waited for any longer, nanoseconds: it has ended long since.
const PATIENCE: u64 = 20_000_000;

/// Tells the keys of sockets whose cookie is not theirs alone from cookies, which count up from 1.
const ALIAS: u64 = 1 << 62;

/// The table of connections.
#[derive(Debug, Default)]
pub struct Tracker {
    conns: HashMap<u64, Conn>,
    /// Established ends.
    ends: Ends<u64>,
    listeners: Listeners<u64>,
    late: Late,
    udp: Udp,
    /// Listeners that wait for their port.
    unbound: Vec<u64>,
    /// See [`Tracker::key_of`].
    last_alias: u64,
    /// When netwatch began to look, nanoseconds since boot.
    began: u64,
    /// Attempts and every transition are told.
    states: bool,
    /// Records are missing.
    doubtful: bool,
    /// What had a record since [`Tracker::begin_look`].
    touched: Option<HashSet<u64>>,
}

impl Tracker {
    /// An empty table. `states`: attempts, and transitions that are no event of their own, are told too.
    #[must_use]
    pub fn new(states: bool) -> Self {
        Self { states, ..Self::default() }
    }

    /// Takes in what happened at `at`, nanoseconds since boot, and appends what there is to tell.
    pub fn apply(
        &mut self,
        at: u64,
        event: &SocketEvent,
        processes: &mut ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let socket = &event.socket;
        if let Some(touched) = &mut self.touched {
            touched.insert(socket.cookie);
        }
        let Some(key) = self.key_of(event) else { return };
        let socket = &Socket { key, ..*socket };
        self.complete(socket, out);
        match &event.act {
            Act::Connect(task) => self.connect(at, socket, task, processes, out),
            Act::Listen(task) => self.listen(at, socket, &processes.actor(task), out),
            Act::Accept(task) => self.accept(at, socket, &processes.actor(task), task.via, out),
            Act::Use(task) => match socket.proto {
                Proto::Tcp => self.used(at, socket, &processes.actor(task), task.via, out),
                Proto::Udp => self.udp_used(socket.cookie, at, &processes.actor(task), task.via, out),
            },
            Act::Born(task) => self.udp_born(socket.cookie, processes.actor(task)),
            Act::Datagram { received, old_socket } => {
                self.datagram(at, socket, *received, *old_socket, out);
            }
            Act::Release => self.released(at, socket.cookie, out),
            Act::Refused { task, errno } => self.refused(at, socket, task, *errno, processes, out),
            Act::Change(change) => self.change(&Transition { at, socket, change }, processes, out),
        }
    }

    /// Records were lost: what the table has may be out of date until the next [`Tracker::merge`].
    pub fn doubt(&mut self) {
        self.doubtful = true;
    }

    /// How many ends there are, listeners included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.conns.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.conns.is_empty()
    }

    /// What the tables know a socket by. A child of an MPTCP listener has the cookie of that, if anybody had
    /// asked for it (`net/core/sock.c`, sk_clone_lock copies it, and `net/mptcp/protocol.c` lets it be): so
    /// its addresses have to tell it from the others. `None` where it has none yet.
    fn key_of(&mut self, event: &SocketEvent) -> Option<u64> {
        let socket = &event.socket;
        let known = self.conns.get(&socket.cookie);
        let is_own = match &event.act {
            Act::Listen(_) => true,
            Act::Change(change) if change.old == State::Listen && change.new == State::Close => true,
            _ => known.is_some_and(|conn| conn.end.remote.is_some()),
        };
        let is_attempt = matches!(&event.act, Act::Connect(_) | Act::Refused { .. });
        if socket.via != Some(Via::Mptcp) || is_own || is_attempt {
            return Some(socket.cookie);
        }
        if socket.remote.port == 0 {
            return known.is_none().then_some(socket.cookie);
        }
        let by_addresses = self.ends.exact(socket.netns, socket.proto, socket.local, socket.remote);
        Some(by_addresses.unwrap_or_else(|| self.alias()))
    }

    fn alias(&mut self) -> u64 {
        self.last_alias += 1;
        ALIAS | self.last_alias
    }

    /// Gives an end that began without addresses those of `socket`, and tells what was held back so far.
    fn complete(&mut self, socket: &Socket, out: &mut Vec<ConnectionEvent>) {
        let is_held =
            |conn: &Conn| conn.held.is_some() && conn.end.remote.is_some() && socket.remote.port != 0;
        if !self.conns.get(&socket.key).is_some_and(is_held) {
            return;
        }
        let Some(mut conn) = self.take(socket.key) else { return };
        let held = conn.held.take();
        conn.end.local = socket.local;
        conn.end.remote = Some(socket.remote);
        (conn.end.family, conn.end.mapped) = (socket.family, socket.mapped);
        if socket.local.port == 0 {
            self.conns.insert(socket.key, conn);
        } else {
            self.insert(conn);
            self.join(socket.key);
        }
        if let Some((at, kind)) = held.filter(|(_, kind)| self.states || *kind != Kind::Attempt)
            && let Some(conn) = self.conns.get_mut(&socket.key)
        {
            conn.tell(at, kind, out);
        }
    }

    fn connect(
        &mut self,
        at: u64,
        socket: &Socket,
        task: &Task,
        processes: &mut ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        self.end_unseen(at, socket.key, out);
        let mut conn = Conn::new(at, socket, State::SynSent);
        conn.connected_by(Some(processes.actor(task)));
        conn.end.via = task.via.or(socket.via);
        if socket.remote.port == 0 {
            // No connection goes to port 0: an MPTCP socket, whose subflow will tell the addresses.
            conn.held = Some((at, Kind::Attempt));
            self.conns.insert(socket.key, conn);
            return;
        }
        if socket.local.port == 0 {
            self.conns.insert(socket.key, conn);
        } else {
            // Bound already, so its other end may be known: one that connects to it at the same time.
            self.insert(conn);
            self.join(socket.key);
        }
        if self.states
            && let Some(conn) = self.conns.get_mut(&socket.key)
        {
            conn.tell(at, Kind::Attempt, out);
        }
    }

    fn listen(&mut self, at: u64, socket: &Socket, actor: &Actor, out: &mut Vec<ConnectionEvent>) {
        if self.conns.get(&socket.key).is_some_and(|conn| conn.held.is_some()) {
            // Its port is known by now.
            self.hold_no_longer(socket.key, Some(socket.local), out);
            return;
        }
        self.end_unseen(at, socket.key, out);
        let mut conn = Conn::new(at, socket, State::Listen);
        conn.end.remote = None;
        conn.end.process = Some(actor.clone());
        conn.end.process_basis = Some(ProcessBasis::Listener);
        conn.held = Some((at, Kind::Listen));
        self.conns.insert(socket.key, conn);
        if socket.local.port == 0 {
            // The kernel has not picked one yet; it will have when the call ends.
            self.unbound.push(socket.key);
        } else {
            self.hold_no_longer(socket.key, None, out);
        }
    }

    /// Tells a listener, at `local` where that is news.
    fn hold_no_longer(&mut self, key: u64, local: Option<Endpoint>, out: &mut Vec<ConnectionEvent>) {
        self.unbound.retain(|unbound| *unbound != key);
        let Some(conn) = self.conns.get_mut(&key) else { return };
        conn.end.local = local.unwrap_or(conn.end.local);
        if let Some((at, kind)) = conn.held.take() {
            conn.tell(at, kind, out);
        }
        let listening = conn.listening();
        self.listeners.insert(listening, key);
    }

    /// Tells what has waited long enough for something to become known. To be called several times a
    /// second; `now` is nanoseconds since boot.
    pub fn settle(&mut self, now: u64, out: &mut Vec<ConnectionEvent>) {
        let is_late = |conn: &Conn| now.saturating_sub(conn.end.id.began) > PATIENCE;
        let late: Vec<u64> =
            self.unbound.iter().copied().filter(|key| self.conns.get(key).is_none_or(is_late)).collect();
        for key in late {
            self.hold_no_longer(key, None, out);
        }
        self.settle_flows(now, out);
    }

    fn accept(
        &mut self,
        at: u64,
        socket: &Socket,
        actor: &Actor,
        via: Option<Via>,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let via = via.or(socket.via);
        // The probe may not ask for a cookie; where nobody did before, the addresses lead to the end.
        let by_addresses = || self.ends.exact(socket.netns, socket.proto, socket.local, socket.remote);
        let cookie = if socket.key == 0 { by_addresses().unwrap_or(0) } else { socket.key };
        if !self.conns.contains_key(&cookie)
            && let Some(mut conn) = self.late.take(socket)
        {
            conn.accepted_by(actor, socket.inode, via);
            conn.tell(at, Kind::Accept, out);
            return;
        }
        if !self.conns.contains_key(&cookie) {
            // Before the handshake's end (fast open), or its first record was lost.
            let mut conn = Conn::new(at, socket, State::SynRecv);
            conn.key = cookie;
            conn.end.listener = self.listener_of(socket).map(Conn::party);
            self.insert(conn);
            self.join(cookie);
        }
        let Some(conn) = self.conns.get_mut(&cookie) else { return };
        if conn.end.process_basis == Some(ProcessBasis::Accept) {
            // Its first use was quicker to be told.
            return;
        }
        conn.accepted_by(actor, socket.inode, via);
        conn.tell(at, Kind::Accept, out);
        self.teach_peer(cookie);
        if cookie == 0 {
            // No later record will find it.
            self.remove(cookie);
        }
    }

    fn used(
        &mut self,
        at: u64,
        socket: &Socket,
        actor: &Actor,
        via: Option<Via>,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let Some(conn) = self.conns.get_mut(&socket.key) else {
            // Over, but perhaps never accepted as far as any other probe saw.
            if let Some(mut conn) = self.late.take(socket) {
                conn.accepted_by(actor, socket.inode, via);
                conn.tell(at, Kind::Accept, out);
            }
            return;
        };
        if !conn.taken {
            conn.accepted_by(actor, socket.inode, via);
            conn.tell(at, Kind::Accept, out);
        } else if conn.handed_over_to(actor) {
            conn.tell(at, Kind::Handover, out);
        } else {
            return;
        }
        self.teach_peer(socket.key);
    }

    fn refused(
        &mut self,
        at: u64,
        socket: &Socket,
        task: &Task,
        errno: i32,
        processes: &mut ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let mut conn = self.remove(socket.key).unwrap_or_else(|| {
            let mut conn = Conn::new(at, socket, State::Close);
            conn.connected_by(Some(processes.actor(task)));
            conn
        });
        conn.fail(at, errno, out);
    }

    fn change(
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
            // An MPTCP child is born established.
            (State::SynSent | State::SynRecv | State::Listen, State::Established) => {
                self.open(transition, processes, out);
            }
            _ => {
                let Some(conn) = self.conns.get_mut(&socket.key) else { return };
                conn.end.state = change.new;
                match (change.old, change.new) {
                    (State::SynSent, State::SynRecv) => conn.end.verdict.side = Side::Both,
                    (_, State::FinWait1) => _ = conn.first_fin.get_or_insert(Side::Local),
                    (_, State::CloseWait) => _ = conn.first_fin.get_or_insert(Side::Remote),
                    _ => {}
                }
                if self.states {
                    conn.tell(at, Kind::State, out);
                }
            }
        }
    }

    /// The first subflow of an MPTCP socket went ahead of it.
    fn subflow(
        &mut self,
        transition: &Transition<'_>,
        processes: &ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let &Transition { at, socket, change } = transition;
        match (self.conns.get_mut(&socket.key), change.new) {
            (Some(conn), State::Close) => conn.subflow_errno = change.errno,
            // A child that is known by its listener's cookie.
            (None, State::Established) if socket.key != socket.cookie => {
                let listener = Some(socket.cookie);
                let change = StateChange { born: Born::Child, listener, owner: None, ..*change };
                self.open(&Transition { at, socket, change: &change }, processes, out);
            }
            _ => {}
        }
    }

    fn unlisten(
        &mut self,
        transition: &Transition<'_>,
        processes: &ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let &Transition { at, socket, change } = transition;
        if self.conns.get(&socket.key).is_some_and(|conn| conn.held.is_some()) {
            self.hold_no_longer(socket.key, Some(socket.local), out);
        }
        let mut conn = self.remove(socket.key).unwrap_or_else(|| {
            let mut conn = Conn::new(at, socket, State::Listen);
            conn.end.remote = None;
            conn.end.process = change.owner.and_then(|owner| processes.owner(&owner));
            conn.end.process_basis = conn.end.process.as_ref().map(|_| ProcessBasis::Listener);
            conn
        });
        conn.end.state = State::Close;
        conn.tell(at, Kind::Unlisten, out);
    }

    fn open(
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
            let mut conn = Conn::new(change.owner.map_or(at, |owner| owner.at), socket, change.new);
            match change.born {
                Born::Connected => {
                    conn.connected_by(change.owner.and_then(|owner| processes.owner(&owner)));
                    // Its own SYN_SENT was left before, by way of SYN_RECV.
                    if change.old == State::SynRecv {
                        conn.end.verdict.side = Side::Both;
                    }
                }
                Born::Child => {
                    conn.end.id.began = at;
                    conn.end.flow = conn.end.id;
                    conn.end.verdict = Verdict::handshake(Side::Remote);
                }
                // From before the probes: only an initiator is ever in SYN_SENT.
                _ if change.old == State::SynSent => conn.end.verdict = Verdict::handshake(Side::Local),
                _ => {}
            }
            conn
        });
        if conn.end.verdict.basis != Basis::Connect && conn.end.verdict.side != Side::Local {
            self.born_of_listener(&mut conn, transition, processes);
        }
        conn.end.state = change.new;
        conn.end.local = socket.local;
        conn.end.remote = Some(socket.remote);
        conn.end.inode = socket.inode;
        conn.end.via = conn.end.via.or(socket.via);
        conn.established = true;
        conn.opened = Some(at);
        if change.old == State::SynSent
            && let Some(owner) = change.owner.filter(|_| change.born == Born::Connected)
        {
            conn.end.handshake = at.checked_sub(owner.at);
        }
        if socket.remote.port == 0 {
            conn.held = Some((at, Kind::Open));
            self.conns.insert(socket.key, conn);
            return;
        }
        if socket.local == socket.remote {
            conn.end.verdict.side = Side::Both;
        }
        self.insert(conn);
        self.join(socket.key);
        if let Some(conn) = self.conns.get_mut(&socket.key) {
            conn.tell(at, Kind::Open, out);
        }
    }

    /// The listener that owns the local address of a socket, unless records are missing that may be about it.
    fn listener_of(&self, socket: &Socket) -> Option<&Conn> {
        if self.doubtful {
            return None;
        }
        self.conns.get(self.listeners.find(socket.netns, socket.proto, socket.local)?)
    }

    /// Names the listener that a child came from, and for the time being its process. The kernel side
    /// knows the listener where it saw listen(); for an older one the address has to do.
    fn born_of_listener(&self, conn: &mut Conn, transition: &Transition<'_>, processes: &ProcessTable) {
        let &Transition { socket, change, .. } = transition;
        let seen = change.listener.and_then(|cookie| self.conns.get(&cookie));
        let party = match (seen, change.listener, change.owner) {
            (Some(listener), ..) => listener.party(),
            // Its record of listen() was lost.
            (None, Some(cookie), Some(owner)) => {
                Party { id: EndId { cookie, began: owner.at }, process: processes.owner(&owner) }
            }
            _ => match self.listener_of(socket) {
                Some(listener) => listener.party(),
                None => {
                    if self.listeners.owned(socket.netns, socket.proto, socket.local) && !self.doubtful {
                        conn.improve(Verdict::LISTENER);
                    }
                    conn.taken = conn.end.process_basis == Some(ProcessBasis::Accept);
                    return;
                }
            },
        };
        conn.improve(Verdict::LISTENER);
        if conn.end.process_basis != Some(ProcessBasis::Accept) {
            conn.taken = false;
            conn.end.process = party.process.clone();
            conn.end.process_basis = party.process.as_ref().map(|_| ProcessBasis::Listener);
        }
        conn.end.listener = Some(party);
    }

    fn close(
        &mut self,
        transition: &Transition<'_>,
        processes: &ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let &Transition { at, socket, change } = transition;
        // Where neither its beginning was seen nor a look had it, it is told all the same.
        let known = self.remove(socket.key);
        let mut conn = known.unwrap_or_else(|| Conn::new(at, socket, change.old));
        // What the kernel side kept with the socket knows more than a look did.
        if change.born == Born::Connected && conn.end.process_basis != Some(ProcessBasis::Connect) {
            conn.connected_by(change.owner.and_then(|owner| processes.owner(&owner)));
        }
        if change.born == Born::Child {
            conn.improve(Verdict::handshake(Side::Remote));
        }
        if socket.local.port != 0 {
            conn.end.local = socket.local;
        }
        if change.old == State::SynSent {
            // Given up by its own process. Without a port it never had a SYN out: the call failed, by a way
            // in that no probe sees the result of.
            let errno = match change.errno {
                0 if conn.subflow_errno != 0 => conn.subflow_errno,
                0 if socket.local.port != 0 => libc::ECANCELED,
                errno => errno,
            };
            conn.fail(at, errno, out);
            return;
        }
        if !conn.established && change.old == State::SynRecv {
            match change.born {
                // Half open to the end, and inbound: that is no connection.
                Born::Child => {}
                _ => conn.fail(at, change.errno, out),
            }
            return;
        }
        let first_fin = change.first_fin.or(conn.first_fin).or_else(|| closing::first_fin(conn.end.state));
        conn.end.closed_by = Some(closing::closed_by(change, first_fin));
        conn.end.errno = (change.errno != 0).then_some(change.errno);
        conn.end.bytes = Some(change.payload);
        conn.end.duration = conn.opened.and_then(|opened| at.checked_sub(opened));
        conn.end.state = State::Close;
        conn.tell(at, Kind::Close, out);
        if !conn.taken {
            self.late.put(conn);
        }
    }

    /// Whatever had this socket before is over, and the record of that was lost.
    fn end_unseen(&mut self, at: u64, cookie: u64, out: &mut Vec<ConnectionEvent>) {
        if let Some(mut conn) = self.remove(cookie) {
            conn.end_unseen(at, out);
        }
    }

    /// Lets the other end know what this one has come to know.
    fn teach_peer(&mut self, cookie: u64) {
        let Some(conn) = self.conns.remove(&cookie) else { return };
        if let Some(peer) = conn.peer.and_then(|peer| self.conns.get_mut(&peer)) {
            peer.learn_from(&conn);
        }
        self.conns.insert(cookie, conn);
    }

    /// Takes an end out of every index, to be changed and put back.
    fn take(&mut self, cookie: u64) -> Option<Conn> {
        let conn = self.conns.remove(&cookie)?;
        match conn.end.remote {
            Some(remote) => self.ends.remove(conn.end.proto, conn.end.local, remote, cookie),
            None => _ = self.listeners.remove(&conn.listening(), &cookie),
        }
        Some(conn)
    }

    /// Takes an end out for good; its peer keeps what it knows of it.
    fn remove(&mut self, cookie: u64) -> Option<Conn> {
        let conn = self.take(cookie)?;
        if let Some(peer) = conn.peer
            && let Some(peer) = self.conns.get_mut(&peer)
        {
            peer.end.peer = Some(conn.party());
            peer.peer = None;
        }
        Some(conn)
    }

    /// Puts an established end where its peer will find it.
    fn insert(&mut self, conn: Conn) {
        let end = &conn.end;
        if let Some(remote) = end.remote {
            self.ends.insert(end.netns, end.proto, end.local, remote, conn.key);
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
            .end
            .remote
            .and_then(|remote| self.ends.peer(conn.end.netns, conn.end.proto, conn.end.local, remote))
            .filter(|other| *other != cookie);
        if let Some(other) = other
            && let Some(peer) = self.conns.get_mut(&other)
            && conn.may_belong_to(peer)
        {
            (conn.peer, peer.peer) = (Some(other), Some(cookie));
            conn.share_flow(peer);
            conn.learn_from(peer);
            peer.learn_from(&conn);
            conn.learn_from(peer);
        }
        self.conns.insert(cookie, conn);
    }
}
