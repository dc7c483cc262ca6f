//! Merges a snapshot into the table: everything at the start, and what was missed after a loss. Records take
//! precedence: an endpoint with a record since the snapshot began is not changed.

use super::conn::Conn;
use super::{ConnectionEvent, EndpointId, EventKind, Outcome, Party, ProcessBasis, Tracker};
use crate::decode::SocketRecord;
use crate::hash::{Map, Set};
use crate::listeners::Listening;
use crate::model::{BootTime, Cookie, Proto, Socket, SocketRow, SocketSnapshot, State};
use crate::origin::Basis;
use crate::process::{Actor, ProcessTable};
use crate::seeding::{self, Inferred};

/// Why a snapshot was taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Occasion {
    /// The start: what exists is older than netwatch.
    Start,
    /// Records were lost: endpoints that exist and are unknown began unobserved, and those that are known and do not
    /// exist ended unobserved.
    Loss,
}

impl Tracker {
    /// Starts to note endpoints that have records, for the following [`Tracker::merge`].
    pub fn begin_snapshot(&mut self) {
        self.touched = Some(Set::default());
    }

    /// Merges a snapshot. All records from before its end must be applied, except at the start, where `begun` has the
    /// cookies of endpoints that begin in records still to be applied. `at`: the time of the events.
    pub fn merge(
        &mut self,
        at: BootTime,
        snapshot: &SocketSnapshot,
        occasion: Occasion,
        begun: &Set<Cookie>,
        processes: &ProcessTable,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let touched = self.touched.take().unwrap_or_default();
        (self.doubtful, self.udp_doubtful) = (false, false);
        let emitted_before = out.len();
        if occasion == Occasion::Start {
            self.began = at;
            self.udp_packets_found(&snapshot.packets);
        }
        if occasion == Occasion::Loss {
            self.end_what_is_gone(at, snapshot, &touched, out);
        }

        // Several MPTCP sockets may have a cookie in common: see [`Tracker::key_of`].
        let mut with_cookie: Map<Cookie, u32> = Map::default();
        for cookie in snapshot.sockets.iter().filter(|row| row.is_mptcp()).filter_map(|row| row.cookie) {
            *with_cookie.entry(cookie).or_default() += 1;
        }
        let found = seeding::infer(&snapshot.sockets, &snapshot.port_ranges);
        let mut added = Vec::new();
        for (row, found) in snapshot.sockets.iter().zip(found) {
            // Nothing else distinguishes it.
            let Some(cookie) = row.cookie else { continue };
            if row.proto == Proto::Udp && !begun.contains(&cookie) {
                if let Some(key) = self.add_udp(at, row, found, occasion, snapshot, processes) {
                    added.push((key, EventKind::Seed, None));
                }
                continue;
            }
            if !lives(row) || touched.contains(&cookie) || begun.contains(&cookie) {
                continue;
            }
            let is_shared = with_cookie.get(&cookie).is_some_and(|count| *count > 1);
            let key = if is_shared { self.key_of_row(cookie, row) } else { cookie.get() };
            match self.conns.get_mut(&key) {
                // Its transition to ESTABLISHED was missed.
                Some(conn) if !conn.established && has_opened(row) => {
                    let Some(mut conn) = self.take(key) else { continue };
                    conn.endpoint.local = row.local;
                    conn.endpoint.inode = row.inode;
                    conn.endpoint.state = row.state;
                    conn.established = true;
                    self.insert(conn);
                    added.push((key, EventKind::Open, None));
                }
                // The record with its port was missed.
                Some(conn) if conn.is_held() && row.state == State::Listen => {
                    conn.endpoint.inode = row.inode;
                    self.hold_no_longer(key, Some(row.local), out);
                }
                Some(conn) => {
                    conn.endpoint.inode = row.inode;
                    if !conn.taken && row.inode != 0 {
                        // It was accepted by an unknown process; only its current holder is known.
                        conn.held_by(row, snapshot, processes);
                        conn.taken = true;
                    }
                }
                None => {
                    let kind = match (occasion, row.state) {
                        (Occasion::Start, _) => EventKind::Seed,
                        (Occasion::Loss, State::Listen) => EventKind::Listen,
                        (Occasion::Loss, State::SynSent) => EventKind::Attempt,
                        (Occasion::Loss, _) => EventKind::Open,
                    };
                    self.add(at, key, row, found, snapshot, processes);
                    added.push((key, kind, row.bytes));
                }
            }
        }
        // A listener, its child and that one's peer may come in any order.
        for (cookie, ..) in &added {
            self.join(*cookie);
        }
        for (cookie, ..) in &added {
            self.name_listener(*cookie);
            self.teach_peer(*cookie);
        }
        for (cookie, kind, bytes) in added {
            let Some(conn) = self.conns.get_mut(&cookie) else { continue };
            conn.name_originator(None);
            if kind != EventKind::Attempt || self.states {
                conn.emit_with(at, kind, Outcome { bytes, ..Outcome::default() }, out);
            }
        }
        if occasion == Occasion::Loss {
            out.iter_mut().skip(emitted_before).for_each(|event| event.repaired = true);
        }
    }

    fn end_what_is_gone(
        &mut self,
        at: BootTime,
        snapshot: &SocketSnapshot,
        touched: &Set<Cookie>,
        out: &mut Vec<ConnectionEvent>,
    ) {
        let is_there = |row: &&SocketRow| row.proto == Proto::Udp || lives(row);
        let there: Set<Cookie> =
            snapshot.sockets.iter().filter(is_there).filter_map(|row| row.cookie).collect();
        let gone: Vec<u64> = self
            .conns
            .values()
            .filter(|conn| conn.endpoint.proto.is_in_snapshots())
            .filter(|conn| {
                !conn
                    .endpoint
                    .cookie
                    .is_some_and(|cookie| there.contains(&cookie) || touched.contains(&cookie))
            })
            .map(|conn| conn.key)
            .collect();
        // The snapshot may have missed a network namespace; one that two snapshots lack is gone.
        let (gone, missed): (Vec<_>, Vec<_>) = gone.into_iter().partition(|key| {
            let netns = self.conns.get(key).map(|conn| conn.endpoint.netns);
            let seen = netns.is_some_and(|netns| snapshot.port_ranges.contains_key(&netns));
            seen || self.missed.contains(key)
        });
        self.missed = missed.into_iter().collect();
        for cookie in gone {
            self.end_unseen(at, cookie, out);
        }
        self.udp_keep_only(&there, touched);
    }

    /// A UDP socket; returns the key of its flow if it is connected.
    fn add_udp(
        &mut self,
        at: BootTime,
        row: &SocketRow,
        found: Option<Inferred>,
        occasion: Occasion,
        snapshot: &SocketSnapshot,
        processes: &ProcessTable,
    ) -> Option<u64> {
        let mut conn = self.spare.begin(at, &record(row), row.state);
        conn.held_by(row, snapshot, processes);
        self.udp_found(row.cookie?, conn.endpoint.process.clone());
        conn.endpoint.remote = Some(row.remote?);
        conn.endpoint.verdict = found?.verdict;
        conn.established = true;
        // After a loss the kernel's map of flows is more reliable.
        (occasion == Occasion::Start).then(|| self.udp_insert(conn))
    }

    /// The key of a socket whose cookie others have as well: see [`Tracker::key_of`].
    fn key_of_row(&mut self, cookie: Cookie, row: &SocketRow) -> u64 {
        let Some(remote) = row.remote.filter(|_| row.is_mptcp()) else { return cookie.get() };
        self.pairs.exact(row.netns, row.proto, row.local, remote).unwrap_or_else(|| self.alias())
    }

    fn add(
        &mut self,
        at: BootTime,
        key: u64,
        row: &SocketRow,
        found: Option<Inferred>,
        snapshot: &SocketSnapshot,
        processes: &ProcessTable,
    ) {
        let mut conn = self.spare.begin(at, &SocketRecord { key, ..record(row) }, row.state);
        conn.endpoint.remote = row.remote;
        conn.endpoint.nat = row.nat.clone();
        if let Some(found) = found {
            conn.endpoint.verdict = found.verdict;
        }
        conn.established = has_opened(row);
        // Accepted connections are recognised by their state.
        conn.undecided = row.state == State::SynRecv && conn.endpoint.verdict.basis > Basis::Listener;
        conn.held_by(row, snapshot, processes);
        if row.remote.is_none() {
            self.listeners.insert(Listening::of(row), key);
            self.conns.insert(key, conn);
            return;
        }
        // A socket without a file is still in the queue of its listener.
        conn.taken = row.inode != 0 || found.is_none_or(|found| found.listener.is_none());
        if let Some(listener) = found.and_then(|found| snapshot.sockets.get(found.listener?)) {
            conn.endpoint.listener = Some(
                Party {
                    id: EndpointId { cookie: Cookie::number(listener.cookie), began: at },
                    process: None,
                }
                .into(),
            );
        }
        self.insert(conn);
    }

    /// Second pass: resolves references between rows.
    fn name_listener(&mut self, cookie: u64) {
        let Some(noted) = self.conns.get(&cookie).and_then(|conn| conn.endpoint.listener.as_ref()) else {
            return;
        };
        let noted = noted.id.cookie;
        let listener = self.conns.get_mut(&noted).map(|listener| listener.shared_party());
        let Some(conn) = self.conns.get_mut(&cookie) else { return };
        if !conn.taken && conn.endpoint.process.is_none() {
            conn.endpoint.process = listener.as_ref().and_then(|listener| listener.process.clone());
            conn.endpoint.process_basis = conn.endpoint.process.as_ref().map(|_| ProcessBasis::Listener);
        }
        conn.endpoint.listener = listener;
    }
}

impl Conn {
    fn held_by(&mut self, row: &SocketRow, snapshot: &SocketSnapshot, processes: &ProcessTable) {
        let owner = snapshot.holders.owner(row.inode, |pid| processes.present(pid), |process| process.key);
        self.endpoint.process = owner.cloned().map(Actor::leader);
        self.endpoint.process_basis = self.endpoint.process.as_ref().map(|_| ProcessBasis::Seed);
    }
}

/// Whether records about it are still expected. TIME_WAIT, FIN_WAIT2 without a file (replaced by a TIME_WAIT socket:
/// net/ipv4/tcp_minisocks.c, tcp_time_wait(), v6.12) and request sockets produce none.
fn lives(row: &SocketRow) -> bool {
    row.proto == Proto::Tcp
        && !row.subflow
        && match row.state {
            State::TimeWait | State::Close | State::Unknown(_) => false,
            State::SynRecv | State::FinWait2 => row.inode != 0,
            _ => true,
        }
}

fn has_opened(row: &SocketRow) -> bool {
    !matches!(row.state, State::Listen | State::SynSent | State::SynRecv)
}

fn record(row: &SocketRow) -> SocketRecord {
    SocketRecord {
        key: Cookie::number(row.cookie),
        restored: false,
        socket: Socket { remote: Some(row.remote.unwrap_or(row.local)), ..row.socket },
    }
}
