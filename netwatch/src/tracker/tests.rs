//! The tracker, by tables of records: no kernel.

use std::collections::HashSet;

use super::*;
use crate::decode::{Owner, ProcessEvent, Task};
use crate::model::tests::at;
use crate::model::{Family, ProcessKey, Proto};
use crate::origin::{Basis, Confidence};
use crate::snapshot::{Bytes, Holder, Holders, ProcessRow, SocketRow};

/// An event about an end of which nothing matters but its addresses.
pub(crate) fn event(kind: Kind, local: &str, remote: Option<&str>) -> ConnectionEvent {
    let mut conn = Conn::new(1, &socket(1, local, remote.unwrap_or(local)), State::Established);
    conn.end.remote = remote.map(at);
    ConnectionEvent { at: 1, kind, end: conn.end, repaired: false }
}

fn socket(cookie: u64, local: &str, remote: &str) -> Socket {
    Socket {
        key: cookie,
        cookie,
        inode: cookie * 100,
        netns: 1,
        proto: Proto::Tcp,
        family: Family::Ipv4,
        mapped: false,
        via: None,
        local: at(local),
        remote: at(remote),
    }
}

fn task(pid: u32) -> Task {
    Task {
        key: key(pid),
        tid: pid,
        ppid: 1,
        uid: 0,
        auid: None,
        kernel: false,
        via: None,
        cgroup: 0,
        comm: format!("p{pid}").into(),
        thread: None,
    }
}

fn key(pid: u32) -> ProcessKey {
    ProcessKey::from_ticks(pid, u64::from(pid))
}

/// A tracker that tells all, with the processes it names, and the time.
struct Host {
    tracker: Tracker,
    processes: ProcessTable,
    now: u64,
}

impl Default for Host {
    fn default() -> Self {
        Self { tracker: Tracker::new(true), processes: ProcessTable::default(), now: 0 }
    }
}

const CLIENT: &str = "10.0.0.1:40000";
const SERVER: &str = "10.0.0.1:6000";
const NOWHERE: &str = "0.0.0.0:0";

impl Host {
    fn apply(&mut self, socket: Socket, act: Act) -> Vec<ConnectionEvent> {
        self.now += 1_000;
        let mut out = Vec::new();
        self.tracker.apply(self.now, &SocketEvent { socket, act }, &mut self.processes, &mut out);
        out
    }

    fn one(&mut self, socket: Socket, act: Act) -> ConnectionEvent {
        let mut out = self.apply(socket, act);
        assert_eq!(out.len(), 1, "{out:?}");
        out.remove(0)
    }

    fn listen(&mut self, cookie: u64, local: &str, pid: u32) -> ConnectionEvent {
        self.one(socket(cookie, local, NOWHERE), Act::Listen(task(pid)))
    }

    /// SYN_SENT, and so far without a port of its own.
    fn connect(&mut self, cookie: u64, remote: &str, pid: u32) -> ConnectionEvent {
        self.one(socket(cookie, "10.0.0.1:0", remote), Act::Connect(task(pid)))
    }

    fn change(&mut self, socket: Socket, old: State, new: State, how: How) -> Vec<ConnectionEvent> {
        let change = StateChange {
            old,
            new,
            born: how.born,
            listener: how.listener,
            owner: how.owner,
            first_fin: how.first_fin,
            done: how.done,
            dead: how.dead,
            payload: Bytes { sent: 10, received: 20 },
            errno: how.errno,
        };
        self.apply(socket, Act::Change(change))
    }

    /// The client's end is established, then the server's, as the kernel does it.
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
            How { born: Born::Child, listener: Some(1), owner: owner(11, 1_000), ..HOW },
        );
        (client.into_iter().next().unwrap(), server.into_iter().next().unwrap())
    }

    fn close(&mut self, cookie: u64, ends: (&str, &str), old: State, how: How) -> ConnectionEvent {
        let mut events = self.change(socket(cookie, ends.0, ends.1), old, State::Close, how);
        assert_eq!(events.len(), 1, "{events:?}");
        events.remove(0)
    }

    fn look(
        &mut self,
        occasion: Occasion,
        rows: &[SocketRow],
        holders: &[(u64, u32)],
    ) -> Vec<ConnectionEvent> {
        let rows: Vec<_> = rows.to_vec();
        let mut look = Look { sockets: rows, began: self.now, ..Look::default() };
        look.port_ranges.insert(1, (32768, 60999));
        look.holders =
            Holders::of_each(holders.iter().map(|(inode, pid)| (*inode, Holder { pid: *pid, fd: 3 })));
        for (_, pid) in holders {
            self.processes.learn_one(&row_of(*pid));
        }
        self.now += 1_000;
        let mut out = Vec::new();
        self.tracker.merge(self.now, &look, occasion, &HashSet::new(), &self.processes, &mut out);
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

fn owner(pid: u32, at: u64) -> Option<Owner> {
    Some(Owner { key: key(pid), tid: pid, at })
}

fn row_of(pid: u32) -> ProcessRow {
    ProcessRow {
        key: key(pid),
        ppid: 1,
        comm: format!("p{pid}").into(),
        uid: 0,
        auid: None,
        image: crate::model::Image::unknown(),
        argv0: Box::default(),
        cgroup: "/".into(),
        kernel: false,
    }
}

fn row(cookie: u64, state: State, local: &str, remote: Option<&str>) -> SocketRow {
    SocketRow {
        proto: Proto::Tcp,
        family: Family::Ipv4,
        mapped: false,
        netns: 1,
        cookie,
        inode: cookie * 100,
        uid: 0,
        local: at(local),
        remote: remote.map(at),
        state,
        recv_q: 0,
        send_q: 0,
        v6only: None,
        subflow: false,
        mptcp: false,
        bytes: None,
    }
}

/// Event, side, basis, confidence, originator, process on this end, process at the other end.
fn told(event: &ConnectionEvent) -> String {
    let pid = |actor: Option<&Actor>| actor.map_or("-".into(), |actor| actor.process.key.pid.to_string());
    let end = &event.end;
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

#[test]
fn one_connection_from_listen_to_close() {
    let mut host = Host::default();
    let (client, server) = host.connected();
    assert_eq!(told(&client), "open local connect observed 22 22 -");
    assert_eq!(client.end.handshake, Some(1_000));
    assert_eq!(told(&server), "open remote handshake observed 22 11 22");
    assert_eq!(server.end.process_basis, Some(ProcessBasis::Listener));
    assert_eq!(server.end.flow, client.end.flow);
    assert_ne!(server.end.id, client.end.id);
    let listener = server.end.listener.clone().unwrap();
    assert_eq!((listener.id.cookie, listener.process.unwrap().process.key), (1, key(11)));

    let accepted = host.one(socket(3, SERVER, CLIENT), Act::Accept(task(33)));
    assert_eq!(told(&accepted), "accept remote accept observed 22 33 22");
    assert_eq!((accepted.end.id, accepted.end.inode), (server.end.id, 300));
    assert_eq!(accepted.end.listener, server.end.listener);

    let how = How { born: Born::Connected, first_fin: Some(Side::Local), done: true, dead: true, ..HOW };
    let closed = host.close(2, (CLIENT, SERVER), State::FinWait2, how);
    assert_eq!(told(&closed), "close local connect observed 22 22 33");
    assert_eq!((closed.end.id, closed.end.closed_by), (client.end.id, Some(ClosedBy::Local)));
    assert_eq!(closed.end.bytes, Some(Bytes { sent: 10, received: 20 }));
    assert_eq!(closed.end.duration, Some(3_000));
    let how = How { born: Born::Child, first_fin: Some(Side::Remote), done: true, dead: true, ..HOW };
    let closed = host.close(3, (SERVER, CLIENT), State::LastAck, how);
    assert_eq!(told(&closed), "close remote accept observed 22 33 22");
    assert_eq!(closed.end.closed_by, Some(ClosedBy::Remote));

    let gone = host.change(
        socket(1, "0.0.0.0:6000", NOWHERE),
        State::Listen,
        State::Close,
        How { born: Born::Listener, ..HOW },
    );
    assert_eq!(gone[0].kind, Kind::Unlisten);
    assert!(host.tracker.is_empty());
}

#[test]
fn a_client_that_was_gone_first_is_accepted_under_its_id() {
    let mut host = Host::default();
    let (client, server) = host.connected();
    host.close(2, (CLIENT, SERVER), State::Established, HOW);
    let closed = host.close(3, (SERVER, CLIENT), State::Established, How { errno: libc::ECONNRESET, ..HOW });
    assert_eq!((closed.end.id, closed.end.closed_by), (server.end.id, Some(ClosedBy::ResetRemote)));
    assert_eq!(closed.end.errno, Some(libc::ECONNRESET));
    // The probe has no cookie where nobody asked for one.
    let accepted = host.one(socket(0, SERVER, CLIENT), Act::Accept(task(33)));
    assert_eq!(told(&accepted), "accept remote accept observed 22 33 22");
    assert_eq!((accepted.end.id, accepted.end.flow), (server.end.id, client.end.flow));
    assert_eq!(accepted.end.state, State::Close);
}

#[test]
fn failures_have_their_errno() {
    let mut host = Host::default();
    let refused = How { born: Born::Connected, errno: libc::ECONNREFUSED, ..HOW };
    for (how, errno) in [(refused, libc::ECONNREFUSED), (How { errno: 0, ..refused }, libc::ECANCELED)] {
        let attempt = host.connect(2, SERVER, 22);
        let failed = host.close(2, (CLIENT, SERVER), State::SynSent, how);
        assert_eq!(told(&failed), "fail local connect observed 22 22 -");
        assert_eq!((failed.end.id, failed.end.errno), (attempt.end.id, Some(errno)));
        assert_eq!(failed.end.local, at(CLIENT));
    }
    // No SYN was made, or the socket went there and back within the call.
    let call = Act::Refused { task: task(22), errno: libc::ENETUNREACH };
    let failed = host.one(socket(4, NOWHERE, SERVER), call.clone());
    assert_eq!(told(&failed), "fail local connect observed 22 22 -");
    let attempt = host.connect(5, SERVER, 22);
    assert_eq!(host.one(socket(5, NOWHERE, SERVER), call).end.id, attempt.end.id);
    assert!(host.tracker.is_empty());
}

#[test]
fn a_socket_that_is_used_again_is_another_connection() {
    let mut host = Host::default();
    let (client, _) = host.connected();
    // connect(AF_UNSPEC), then connect() again.
    let closed = host.close(2, (CLIENT, SERVER), State::Established, HOW);
    assert_eq!(closed.end.closed_by, Some(ClosedBy::ResetLocal));
    let again = host.connect(2, SERVER, 22);
    assert_ne!(again.end.id, client.end.id);
}

#[test]
fn whoever_runs_on_the_cpu_is_never_named() {
    // A child of a listener from before netwatch: no storage, no look yet.
    let mut host = Host::default();
    let events = host.change(
        socket(3, SERVER, CLIENT),
        State::SynRecv,
        State::Established,
        How { born: Born::Child, ..HOW },
    );
    assert_eq!(told(&events[0]), "open remote handshake observed - - -");
    assert_eq!(events[0].end.process_basis, None);
}

#[test]
fn both_at_once() {
    let mut host = Host::default();
    host.connect(2, SERVER, 22);
    let how = How { born: Born::Connected, owner: owner(22, host.now), ..HOW };
    host.change(socket(2, CLIENT, SERVER), State::SynSent, State::SynRecv, how);
    let opened = host.change(socket(2, CLIENT, SERVER), State::SynRecv, State::Established, how);
    assert_eq!(told(&opened[0]), "open both connect observed 22 22 -");
    // A socket that met itself is not its own peer.
    host.connect(5, CLIENT, 22);
    let how = How { born: Born::Connected, owner: owner(22, host.now), ..HOW };
    let met = host.change(socket(5, CLIENT, CLIENT), State::SynRecv, State::Established, how);
    assert_eq!(told(&met[0]), "open both connect observed 22 22 -");
    assert_eq!(met[0].end.peer, None);
}

#[test]
fn two_that_connect_to_each_other_share_a_flow_from_the_first() {
    let mut host = Host::default();
    let attempts = [(2, CLIENT, SERVER), (3, SERVER, CLIENT)].map(|(cookie, local, remote)| {
        host.one(socket(cookie, local, remote), Act::Connect(task(cookie as u32)))
    });
    assert_eq!(attempts[0].end.flow, attempts[1].end.flow);
    assert_ne!(attempts[0].end.id, attempts[1].end.id);
    for (cookie, local, remote) in [(2, CLIENT, SERVER), (3, SERVER, CLIENT)] {
        let how = How { born: Born::Connected, owner: owner(cookie as u32, host.now), ..HOW };
        let socket = socket(cookie, local, remote);
        host.change(socket, State::SynSent, State::SynRecv, how);
        let opened = host.change(socket, State::SynRecv, State::Established, how);
        assert_eq!(opened[0].end.flow, attempts[0].end.flow);
        let other = if cookie == 2 { 3 } else { 2 };
        assert_eq!(told(&opened[0]), format!("open both connect observed {cookie} {cookie} {other}"));
    }
}

#[test]
fn seeds_are_inferred_and_joined() {
    let mut host = Host::default();
    let rows = [
        row(1, State::Listen, "0.0.0.0:6000", None),
        row(2, State::Established, CLIENT, Some(SERVER)),
        row(3, State::Established, SERVER, Some(CLIENT)),
        // A far peer: port numbers alone.
        row(4, State::Established, "10.0.0.1:50000", Some("10.9.9.9:443")),
        row(5, State::Established, "10.0.0.1:7000", Some("10.9.9.9:7001")),
        row(6, State::TimeWait, "10.0.0.1:7002", Some("10.9.9.9:7001")),
    ];
    let seeds = host.look(Occasion::Start, &rows, &[(100, 11), (200, 22), (300, 33), (400, 44)]);
    assert_eq!(
        seeds.iter().map(told).collect::<Vec<_>>(),
        [
            "seed unknown none unknown - 11 -",
            "seed local peer inferred 22 22 33",
            "seed remote listener inferred 22 33 22",
            "seed local port-range guessed 44 44 -",
            "seed unknown none unknown - - -",
        ]
    );
    assert_eq!(seeds[1].end.flow, seeds[2].end.flow);
    assert_eq!(seeds[2].end.listener.as_ref().unwrap().id, seeds[0].end.id);
    assert_eq!(seeds[0].end.side(), None);
    // Whoever has a guessed connection is not called its originator.
    let end = &seeds[3].end;
    let origin =
        crate::origin::Origin::new(end.verdict, end.local, end.remote.unwrap(), end.originator.clone());
    assert_eq!((origin.confidence, origin.process), (Confidence::Guessed, None));
    // A live record of a seeded end: who ended it, and no duration that nobody measured.
    let closed =
        host.close(2, (CLIENT, SERVER), State::LastAck, How { first_fin: Some(Side::Remote), ..HOW });
    assert_eq!((closed.end.id, closed.end.duration), (seeds[1].end.id, None));
    assert_eq!(told(&closed), "close local peer inferred 22 22 33");
}

#[test]
fn a_seed_in_the_queue_belongs_to_the_listener_until_it_is_accepted() {
    let mut host = Host::default();
    let mut waiting = row(3, State::Established, SERVER, Some("10.9.9.9:1"));
    waiting.inode = 0;
    let seeds =
        host.look(Occasion::Start, &[waiting, row(1, State::Listen, "0.0.0.0:6000", None)], &[(100, 11)]);
    assert_eq!(told(&seeds[0]), "seed remote listener inferred - 11 -");
    assert_eq!(seeds[0].end.process_basis, Some(ProcessBasis::Listener));
    let accepted = host.one(socket(3, SERVER, "10.9.9.9:1"), Act::Accept(task(33)));
    assert_eq!(told(&accepted), "accept remote accept observed - 33 -");
    assert_eq!(accepted.end.id, seeds[0].end.id);
}

#[test]
fn what_one_end_comes_to_know_the_other_learns() {
    let mut host = Host::default();
    let mut waiting = row(3, State::Established, SERVER, Some(CLIENT));
    waiting.inode = 0;
    let rows = [
        waiting,
        row(1, State::Listen, "0.0.0.0:6000", None),
        row(2, State::Established, CLIENT, Some(SERVER)),
    ];
    let seeds = host.look(Occasion::Start, &rows, &[(100, 11), (200, 22)]);
    assert_eq!(told(&seeds[2]), "seed local peer inferred 22 22 11");
    host.one(socket(3, SERVER, CLIENT), Act::Accept(task(33)));
    let closed = host.close(2, (CLIENT, SERVER), State::FinWait2, HOW);
    assert_eq!(told(&closed), "close local peer observed 22 22 33");
}

#[test]
fn an_attempt_whose_end_was_lost_is_not_said_to_have_failed() {
    let mut host = Host::default();
    let attempt = host.connect(2, SERVER, 22);
    host.tracker.doubt();
    host.tracker.begin_look();
    let found = host.look(Occasion::Loss, &[], &[]);
    assert_eq!(found.iter().map(told).collect::<Vec<_>>(), ["close local connect observed 22 22 -"]);
    assert_eq!((found[0].end.id, found[0].end.closed_by), (attempt.end.id, Some(ClosedBy::Unknown)));
    // Nor one whose socket is used again.
    host.connect(2, SERVER, 22);
    let events = host.apply(socket(2, "10.0.0.1:0", SERVER), Act::Connect(task(22)));
    assert_eq!(
        events.iter().map(|event| (event.kind, event.repaired)).collect::<Vec<_>>(),
        [(Kind::Close, true), (Kind::Attempt, false)]
    );
}

#[test]
fn the_first_fin_of_a_seed_is_in_its_state_or_comes_as_a_transition() {
    let mut host = Host::default();
    let rows = [
        row(2, State::CloseWait, CLIENT, Some("10.9.9.9:1")),
        row(3, State::Established, SERVER, Some("10.9.9.9:2")),
    ];
    host.look(Occasion::Start, &rows, &[]);
    let closed = host.close(2, (CLIENT, "10.9.9.9:1"), State::LastAck, HOW);
    assert_eq!(closed.end.closed_by, Some(ClosedBy::Remote));
    host.change(socket(3, SERVER, "10.9.9.9:2"), State::Established, State::FinWait1, HOW);
    let closed =
        host.close(3, (SERVER, "10.9.9.9:2"), State::FinWait2, How { done: true, dead: true, ..HOW });
    assert_eq!(closed.end.closed_by, Some(ClosedBy::Local));
}

#[test]
fn while_in_doubt_no_two_ends_are_joined() {
    let mut host = Host::default();
    let (old, _) = host.connected();
    host.tracker.doubt();
    // The client's end was closed and made anew, and no record of that came: only its server's.
    let mut born = socket(9, SERVER, CLIENT);
    born.inode = 0;
    let how = How { born: Born::Child, listener: Some(1), owner: owner(11, 1_000), ..HOW };
    let opened = host.change(born, State::SynRecv, State::Established, how);
    assert_eq!(told(&opened[0]), "open remote handshake observed - 11 -");
    assert_ne!(opened[0].end.flow, old.end.flow);
}

#[test]
fn a_look_repairs_what_a_loss_left() {
    let mut host = Host::default();
    let (client, _) = host.connected();
    host.connect(7, "10.9.9.9:80", 22);
    host.tracker.doubt();
    host.tracker.begin_look();
    // This one has a record after the look began: it is left alone.
    host.listen(8, "0.0.0.0:7000", 11);
    let rows = [
        row(1, State::Listen, "0.0.0.0:6000", None),
        row(2, State::Established, CLIENT, Some(SERVER)),
        row(7, State::Established, "10.0.0.1:50001", Some("10.9.9.9:80")),
        row(9, State::Established, "10.0.0.1:50000", Some("10.9.9.9:443")),
    ];
    let found = host.look(Occasion::Loss, &rows, &[(200, 22), (900, 44)]);
    assert!(found.iter().all(|event| event.repaired));
    assert_eq!(
        found.iter().map(told).collect::<Vec<_>>(),
        [
            "close remote handshake observed 22 11 22",
            "open local connect observed 22 22 -",
            "open local port-range guessed 44 44 -",
        ]
    );
    assert_eq!(found[0].end.closed_by, Some(ClosedBy::Unknown));
    assert_eq!(found[1].end.local, at("10.0.0.1:50001"));
    // What the kernel side kept with the socket knows better, and says so in the end.
    let how = How { born: Born::Connected, owner: owner(22, 5), ..HOW };
    let closed = host.close(9, ("10.0.0.1:50000", "10.9.9.9:443"), State::Established, how);
    assert_eq!((closed.end.verdict.basis, closed.end.id), (Basis::Connect, found[2].end.id));
    // The end that is left has no peer any more, and remembers it.
    let closed = host.close(2, (CLIENT, SERVER), State::LastAck, HOW);
    assert_eq!(
        (told(&closed).as_str(), closed.end.id),
        ("close local connect observed 22 22 11", client.end.id)
    );
}

#[test]
fn the_same_addresses_in_two_namespaces_are_two_flows() {
    let mut host = Host::default();
    let mut flows = Vec::new();
    for (netns, first) in [(1, 10), (2, 20)] {
        let mut client = socket(first, CLIENT, SERVER);
        let mut server = socket(first + 1, SERVER, CLIENT);
        (client.netns, server.netns) = (netns, netns);
        host.one(client, Act::Connect(task(netns)));
        let how = How { born: Born::Connected, owner: owner(netns, host.now), ..HOW };
        let opened = host.change(client, State::SynSent, State::Established, how);
        let born = How { born: Born::Child, ..HOW };
        let accepted = host.change(server, State::SynRecv, State::Established, born);
        assert_eq!(opened[0].end.flow, accepted[0].end.flow);
        assert_eq!(accepted[0].end.originator.as_ref().unwrap().process.key.pid, netns);
        flows.push(opened[0].end.flow);
    }
    assert_ne!(flows[0], flows[1]);
}

#[test]
fn an_end_that_lost_its_peer_is_nobody_else_s() {
    let mut host = Host::default();
    let (client, server) = host.connected();
    // Its RST never arrives: the server's end is still there.
    host.close(2, (CLIENT, SERVER), State::Established, HOW);
    for (cookie, netns) in [(20, 1), (30, 2)] {
        let mut again = socket(cookie, CLIENT, SERVER);
        again.netns = netns;
        host.one(again, Act::Connect(task(44)));
        let how = How { born: Born::Connected, owner: owner(44, host.now), ..HOW };
        let opened = host.change(again, State::SynSent, State::Established, how);
        assert_eq!(told(&opened[0]), "open local connect observed 44 44 -");
        assert_ne!(opened[0].end.flow, client.end.flow);
    }
    let closed = host.close(3, (SERVER, CLIENT), State::Established, HOW);
    assert_eq!(
        (told(&closed).as_str(), closed.end.id),
        ("close remote handshake observed 22 11 22", server.end.id)
    );
}

#[test]
fn what_was_there_before_a_connection_began_is_not_its_other_end() {
    let mut host = Host::default();
    host.look(Occasion::Start, &[row(3, State::Established, SERVER, Some(CLIENT))], &[(300, 33)]);
    host.connect(2, SERVER, 22);
    let how = How { born: Born::Connected, owner: owner(22, host.now), ..HOW };
    let opened = host.change(socket(2, CLIENT, SERVER), State::SynSent, State::Established, how);
    assert_eq!(told(&opened[0]), "open local connect observed 22 22 -");
}

#[test]
fn another_user_is_told_once_and_the_originator_stays() {
    let mut host = Host::default();
    let (client, _) = host.connected();
    let used = |host: &mut Host, pid| host.apply(socket(2, CLIENT, SERVER), Act::Use(task(pid)));
    assert!(used(&mut host, 22).is_empty());
    let handed = used(&mut host, 23);
    assert_eq!(handed.iter().map(told).collect::<Vec<_>>(), ["handover local connect observed 22 23 11"]);
    assert_eq!(
        (handed[0].end.process_basis, handed[0].end.id),
        (Some(ProcessBasis::Handover), client.end.id)
    );
    for pid in [22, 23, 22] {
        assert!(used(&mut host, pid).is_empty(), "{pid}");
    }
    assert_eq!(used(&mut host, 24).len(), 1);
    assert!(used(&mut host, 23).is_empty());
    // The other end knows whom it talks to by now.
    let accepted = host.one(socket(3, SERVER, CLIENT), Act::Accept(task(33)));
    assert_eq!(told(&accepted), "accept remote accept observed 22 33 24");
}

#[test]
fn the_first_use_tells_who_accepted_where_no_probe_saw_it() {
    let mut host = Host::default();
    let (_, server) = host.connected();
    let mut by_uring = task(33);
    by_uring.via = Some(Via::IoUring);
    let accepted = host.one(socket(3, SERVER, CLIENT), Act::Use(by_uring));
    assert_eq!(told(&accepted), "accept remote accept observed 22 33 22");
    assert_eq!((accepted.end.id, accepted.end.via), (server.end.id, Some(Via::IoUring)));
    // The probe was only slower.
    assert!(host.apply(socket(3, SERVER, CLIENT), Act::Accept(task(33))).is_empty());
}

#[test]
fn a_fast_open_is_accepted_before_it_is_open() {
    let mut host = Host { tracker: Tracker::new(false), ..Host::default() };
    host.listen(1, "0.0.0.0:6000", 11);
    assert!(host.apply(socket(2, "10.0.0.1:0", SERVER), Act::Connect(task(22))).is_empty());
    let early = Socket { via: Some(Via::Fastopen), ..socket(3, SERVER, CLIENT) };
    let accepted = host.one(early, Act::Accept(task(33)));
    assert_eq!(
        (told(&accepted).as_str(), accepted.end.via),
        ("accept remote accept observed - 33 -", early.via)
    );
    let how = How { born: Born::Connected, owner: owner(22, 2_000), ..HOW };
    let client = host.change(socket(2, CLIENT, SERVER), State::SynSent, State::Established, how);
    let how = How { born: Born::Child, listener: Some(1), owner: owner(11, 1_000), ..HOW };
    let server = host.change(socket(3, SERVER, CLIENT), State::SynRecv, State::Established, how);
    assert_eq!(told(&server[0]), "open remote accept observed 22 33 22");
    assert_eq!((server[0].end.id, server[0].end.flow), (accepted.end.id, accepted.end.flow));
    assert_eq!(client[0].end.flow, server[0].end.flow);
}

#[test]
fn a_flow_that_was_told_stands() {
    let mut host = Host::default();
    let attempt = host.connect(2, SERVER, 22);
    host.tracker.doubt();
    host.tracker.begin_look();
    let rows =
        [row(3, State::Established, SERVER, Some(CLIENT)), row(2, State::Established, CLIENT, Some(SERVER))];
    let found = host.look(Occasion::Loss, &rows, &[(200, 22), (300, 33)]);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|event| event.end.flow == attempt.end.flow), "{found:?}");
}

#[test]
fn a_listener_s_owner_is_known_after_it_ended() {
    let mut host = Host::default();
    host.listen(1, "0.0.0.0:6000", 11);
    host.processes.apply(1, &ProcessEvent::Exit(key(11)));
    let how = How { born: Born::Child, listener: Some(1), owner: owner(11, 1_000), ..HOW };
    let opened = host.change(socket(3, SERVER, CLIENT), State::SynRecv, State::Established, how);
    assert_eq!(told(&opened[0]), "open remote handshake observed - 11 -");
    // Even where the record of listen() was lost: the kernel side kept it.
    let how = How { listener: Some(77), owner: owner(11, 500), ..how };
    let opened = host.change(socket(4, SERVER, "10.0.0.1:2"), State::SynRecv, State::Established, how);
    assert_eq!(opened[0].end.listener.as_ref().unwrap().id, EndId { cookie: 77, began: 500 });
    assert_eq!(opened[0].end.process.as_ref().unwrap().process.key, key(11));
}
