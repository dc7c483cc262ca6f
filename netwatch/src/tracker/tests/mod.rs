//! The tracker, by tables of records: no kernel. Live records, snapshots and UDP each have a file.

mod live;
mod snapshots;
mod udp;

use crate::hash::Set;
use crate::model::NetnsId;

use super::*;
use crate::decode::{Born, Owner, ProcessEvent, StateChange, Task};
use crate::model::tests::{at, example, ns};
use crate::model::{
    Cookie, Family, Holder, Holders, Payload, ProcessFacts, ProcessKey, ProcessRow, Proto, Socket, SocketRow,
    SocketSnapshot,
};
use crate::origin::Side;
use crate::origin::{Basis, Confidence};
use crate::process::{Actor, Process};

/// An event about an endpoint of which only the addresses matter.
pub(crate) fn event(kind: EventKind, local: &str, remote: Option<&str>) -> ConnectionEvent {
    let mut conn = Conn::new(ns(1), &socket(1, local, remote.unwrap_or(local)), State::Established);
    conn.endpoint.remote = remote.map(at);
    ConnectionEvent {
        at: ns(1),
        kind,
        endpoint: conn.endpoint,
        outcome: Outcome::default(),
        repaired: false,
        facts: HostFacts::default(),
    }
}

pub(super) fn socket(cookie: u64, local: &str, remote: &str) -> SocketRecord {
    let socket = Socket {
        cookie: Cookie::new(cookie),
        inode: cookie * 100,
        netns: NetnsId::new(1),
        proto: Proto::Tcp,
        family: Family::Ipv4,
        mapped: false,
        via: None,
        device: None,
        local: at(local),
        remote: Some(at(remote)),
    };
    SocketRecord { key: cookie, socket, restored: false }
}

fn task(pid: u32) -> Task {
    Task::example(key(pid), &format!("p{pid}"))
}

pub(super) fn key(pid: u32) -> ProcessKey {
    ProcessKey::new(pid, ns(u64::from(pid) * 10_000_000 + 1))
}

/// A tracker that emits everything, with its processes and the time.
struct Host {
    tracker: Tracker,
    processes: ProcessTable,
    now: BootTime,
}

impl Default for Host {
    fn default() -> Self {
        Self { tracker: Tracker::new(true), processes: ProcessTable::default(), now: ns(0) }
    }
}

pub(super) const CLIENT: &str = "10.0.0.1:40000";
pub(super) const SERVER: &str = "10.0.0.1:6000";
const NOWHERE: &str = "0.0.0.0:0";

impl Host {
    fn apply(&mut self, socket: SocketRecord, act: Act) -> Vec<ConnectionEvent> {
        self.now = self.now.saturating_add(1_000);
        let mut out = Vec::new();
        let actor = act.task().map(|task| self.processes.acting(task));
        let event = SocketEvent { socket, act };
        self.tracker.apply(self.now, &event, actor.as_ref(), &self.processes, &mut out);
        out
    }

    fn one(&mut self, socket: SocketRecord, act: Act) -> ConnectionEvent {
        let mut out = self.apply(socket, act);
        assert_eq!(out.len(), 1, "{out:?}");
        out.remove(0)
    }

    fn listen(&mut self, cookie: u64, local: &str, pid: u32) -> ConnectionEvent {
        self.one(socket(cookie, local, NOWHERE), Act::Listen(task(pid)))
    }

    /// SYN_SENT, before the port is chosen.
    fn connect(&mut self, cookie: u64, remote: &str, pid: u32) -> ConnectionEvent {
        self.one(socket(cookie, "10.0.0.1:0", remote), Act::Connect(task(pid)))
    }

    fn change(&mut self, socket: SocketRecord, old: State, new: State, how: How) -> Vec<ConnectionEvent> {
        let change = StateChange {
            old,
            new,
            born: how.born,
            listener: how.listener.and_then(Cookie::new),
            owner: how.owner,
            first_fin: how.first_fin,
            done: how.done,
            dead: how.dead,
            payload: Some(Payload { sent: 10, received: 20 }),
            errno: how.errno,
        };
        self.apply(socket, Act::Change(change))
    }

    /// The client's endpoint is established, then the server's, as in the kernel.
    fn connected(&mut self) -> (ConnectionEvent, ConnectionEvent) {
        self.listen(1, "0.0.0.0:6000", 11);
        self.connect(2, SERVER, 22);
        let client = self.change(
            socket(2, CLIENT, SERVER),
            State::SynSent,
            State::Established,
            How { born: Born::Connected, owner: owner(22, self.now), ..HOW },
        );
        let mut accepted = socket(3, SERVER, CLIENT);
        accepted.inode = 0;
        let server = self.change(
            accepted,
            State::SynRecv,
            State::Established,
            How { born: Born::Child, listener: Some(1), owner: owner(11, ns(1_000)), ..HOW },
        );
        (client.into_iter().next().unwrap(), server.into_iter().next().unwrap())
    }

    fn close(&mut self, cookie: u64, ends: (&str, &str), old: State, how: How) -> ConnectionEvent {
        let mut events = self.change(socket(cookie, ends.0, ends.1), old, State::Close, how);
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    fn snapshot(
        &mut self,
        occasion: Occasion,
        rows: &[SocketRow],
        holders: &[(u64, u32)],
    ) -> Vec<ConnectionEvent> {
        let rows: Vec<_> = rows.to_vec();
        let mut snapshot = SocketSnapshot { sockets: rows, began: self.now, ..SocketSnapshot::default() };
        snapshot.port_ranges.insert(NetnsId::new(1), (32768, 60999));
        snapshot.holders =
            Holders::of_each(holders.iter().map(|(inode, pid)| (*inode, Holder { pid: *pid, fd: 3 })));
        for (_, pid) in holders {
            self.processes.learn_one(&row_of(*pid));
        }
        self.now = self.now.saturating_add(1_000);
        let mut out = Vec::new();
        self.tracker.merge(self.now, &snapshot, occasion, &Set::default(), &self.processes, &mut out);
        out
    }
}

#[derive(Clone, Copy)]
struct How {
    born: Born,
    listener: Option<u64>,
    owner: Option<Owner>,
    first_fin: Option<Side>,
    done: bool,
    dead: bool,
    errno: i32,
}

const HOW: How = How {
    born: Born::Unseen,
    listener: None,
    owner: None,
    first_fin: None,
    done: false,
    dead: false,
    errno: 0,
};

fn owner(pid: u32, at: BootTime) -> Option<Owner> {
    Some(Owner { key: key(pid), tid: pid, at })
}

fn row_of(pid: u32) -> ProcessRow {
    let facts = Process::bare(key(pid), format!("p{pid}").into()).facts;
    ProcessRow { facts: ProcessFacts { ppid: 1, ..facts }, argv0: Box::default() }
}

fn row(cookie: u64, state: State, local: &str, remote: Option<&str>) -> SocketRow {
    let socket = Socket {
        cookie: Cookie::new(cookie),
        inode: cookie * 100,
        local: at(local),
        remote: remote.map(at),
        ..example().socket
    };
    SocketRow { socket, state, ..example() }
}

/// Event, side, basis, confidence, originator, process of this endpoint, process of the peer.
fn emitted(event: &ConnectionEvent) -> String {
    let pid = |actor: Option<&Actor>| actor.map_or("-".into(), |actor| actor.process.key.pid.to_string());
    let end = &event.endpoint;
    format!(
        "{} {} {} {} {} {} {}",
        event.kind.name(),
        end.verdict.side.name(),
        end.verdict.basis.name(),
        end.verdict.confidence.name(),
        pid(end.originator.as_ref()),
        pid(end.process.as_ref()),
        pid(end.peer.as_ref().and_then(|peer| peer.process.as_ref())),
    )
}
