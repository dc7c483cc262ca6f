//! One record after another.

use super::*;
use crate::model::NetnsId;

#[test]
fn one_connection_from_listen_to_close() {
    let mut host = Host::default();
    let (client, server) = host.connected();
    assert_eq!(emitted(&client), "open local connect observed 22 22 -");
    assert_eq!(client.endpoint.handshake.map(NonZeroU64::get), Some(1_000));
    assert_eq!(emitted(&server), "open remote handshake observed 22 11 22");
    assert_eq!(server.endpoint.process_basis, Some(ProcessBasis::Listener));
    assert_eq!(server.endpoint.flow, client.endpoint.flow);
    assert_ne!(server.endpoint.id, client.endpoint.id);
    let listener = server.endpoint.listener.clone().unwrap();
    assert_eq!((listener.id.cookie, listener.process.as_ref().unwrap().process.key), (1, key(11)));

    let accepted = host.one(socket(3, SERVER, CLIENT), Act::Accept(task(33)));
    assert_eq!(emitted(&accepted), "accept remote accept observed 22 33 22");
    assert_eq!((accepted.endpoint.id, accepted.endpoint.inode), (server.endpoint.id, 300));
    assert_eq!(accepted.endpoint.listener, server.endpoint.listener);

    let how = How { born: Born::Connected, first_fin: Some(Side::Local), done: true, dead: true, ..HOW };
    let closed = host.close(2, (CLIENT, SERVER), State::FinWait2, how);
    assert_eq!(emitted(&closed), "close local connect observed 22 22 33");
    assert_eq!((closed.endpoint.id, closed.outcome.closed_by), (client.endpoint.id, Some(ClosedBy::Local)));
    assert_eq!(closed.outcome.bytes, Some(Payload { sent: 10, received: 20 }));
    assert_eq!(closed.outcome.duration, Some(3_000));
    let how = How { born: Born::Child, first_fin: Some(Side::Remote), done: true, dead: true, ..HOW };
    let closed = host.close(3, (SERVER, CLIENT), State::LastAck, how);
    assert_eq!(emitted(&closed), "close remote accept observed 22 33 22");
    assert_eq!(closed.outcome.closed_by, Some(ClosedBy::Remote));

    let gone = host.change(
        socket(1, "0.0.0.0:6000", NOWHERE),
        State::Listen,
        State::Close,
        How { born: Born::Listener, ..HOW },
    );
    assert_eq!(gone[0].kind, EventKind::Unlisten);
    assert!(host.tracker.is_empty());
}

#[test]
fn the_table_has_every_endpoint_as_it_is_now() {
    let mut host = Host::default();
    let (client, _) = host.connected();
    let accepted = host.one(socket(3, SERVER, CLIENT), Act::Accept(task(33)));
    let mut table = host.tracker.table();
    table.sort_by_key(|event| event.endpoint.cookie);
    let endpoints: Vec<_> = table.iter().map(|event| event.endpoint.clone()).collect();
    let [listener, connected, taken] = &endpoints[..] else { panic!("{table:#?}") };
    assert_eq!((listener.remote, listener.process.as_ref().unwrap().process.key), (None, key(11)));
    assert_eq!((connected.id, connected.state), (client.endpoint.id, State::Established));
    // The client's endpoint has learned who accepted it.
    assert_eq!(connected.peer.as_ref().unwrap().process.as_ref().unwrap().process.key, key(33));
    assert_eq!(*taken, accepted.endpoint);
    host.close(2, (CLIENT, SERVER), State::Established, HOW);
    assert_eq!(host.tracker.table().len(), 2);
}

#[test]
fn a_client_that_was_gone_first_is_accepted_under_its_id() {
    let mut host = Host::default();
    let (client, server) = host.connected();
    host.close(2, (CLIENT, SERVER), State::Established, HOW);
    let closed = host.close(3, (SERVER, CLIENT), State::Established, How { errno: libc::ECONNRESET, ..HOW });
    assert_eq!(
        (closed.endpoint.id, closed.outcome.closed_by),
        (server.endpoint.id, Some(ClosedBy::ResetRemote))
    );
    assert_eq!(closed.outcome.errno, Some(libc::ECONNRESET));
    // The record has no cookie if none was requested before.
    let accepted = host.one(socket(0, SERVER, CLIENT), Act::Accept(task(33)));
    assert_eq!(emitted(&accepted), "accept remote accept observed 22 33 22");
    assert_eq!((accepted.endpoint.id, accepted.endpoint.flow), (server.endpoint.id, client.endpoint.flow));
    assert_eq!(accepted.endpoint.state, State::Close);
}

#[test]
fn failures_have_their_errno() {
    let mut host = Host::default();
    let refused = How { born: Born::Connected, errno: libc::ECONNREFUSED, ..HOW };
    for (how, errno) in [(refused, libc::ECONNREFUSED), (How { errno: 0, ..refused }, libc::ECANCELED)] {
        let attempt = host.connect(2, SERVER, 22);
        let failed = host.close(2, (CLIENT, SERVER), State::SynSent, how);
        assert_eq!(emitted(&failed), "fail local connect observed 22 22 -");
        assert_eq!((failed.endpoint.id, failed.outcome.errno), (attempt.endpoint.id, Some(errno)));
        assert_eq!(failed.endpoint.local, at(CLIENT));
    }
    // No SYN was sent, or the socket changed state and back within the call.
    let call = Act::Fail { task: task(22), errno: libc::ENETUNREACH };
    let failed = host.one(socket(4, NOWHERE, SERVER), call.clone());
    assert_eq!(emitted(&failed), "fail local connect observed 22 22 -");
    let attempt = host.connect(5, SERVER, 22);
    assert_eq!(host.one(socket(5, NOWHERE, SERVER), call).endpoint.id, attempt.endpoint.id);
    assert!(host.tracker.is_empty());
}

#[test]
fn a_socket_that_is_used_again_is_another_connection() {
    let mut host = Host::default();
    let (client, _) = host.connected();
    // connect(AF_UNSPEC), then connect() again.
    let closed = host.close(2, (CLIENT, SERVER), State::Established, HOW);
    assert_eq!(closed.outcome.closed_by, Some(ClosedBy::ResetLocal));
    let again = host.connect(2, SERVER, 22);
    assert_ne!(again.endpoint.id, client.endpoint.id);
}

#[test]
fn process_running_on_the_cpu_is_never_named() {
    // A child of a listener that is older than netwatch: no storage, no snapshot yet.
    let mut host = Host::default();
    let events = host.change(
        socket(3, SERVER, CLIENT),
        State::SynRecv,
        State::Established,
        How { born: Born::Child, ..HOW },
    );
    assert_eq!(emitted(&events[0]), "open remote handshake observed - - -");
    assert_eq!(events[0].endpoint.process_basis, None);
}

#[test]
fn simultaneous_connects_have_side_both() {
    let mut host = Host::default();
    host.connect(2, SERVER, 22);
    let how = How { born: Born::Connected, owner: owner(22, host.now), ..HOW };
    host.change(socket(2, CLIENT, SERVER), State::SynSent, State::SynRecv, how);
    let opened = host.change(socket(2, CLIENT, SERVER), State::SynRecv, State::Established, how);
    assert_eq!(emitted(&opened[0]), "open both connect observed 22 22 -");
    // A socket connected to itself is not its own peer.
    host.connect(5, CLIENT, 22);
    let how = How { born: Born::Connected, owner: owner(22, host.now), ..HOW };
    let met = host.change(socket(5, CLIENT, CLIENT), State::SynRecv, State::Established, how);
    assert_eq!(emitted(&met[0]), "open both connect observed 22 22 -");
    assert_eq!(met[0].endpoint.peer, None);
}

#[test]
fn simultaneous_connects_share_a_flow_from_the_first_event() {
    let mut host = Host::default();
    let attempts = [(2, CLIENT, SERVER), (3, SERVER, CLIENT)].map(|(cookie, local, remote)| {
        host.one(socket(cookie, local, remote), Act::Connect(task(cookie as u32)))
    });
    assert_eq!(attempts[0].endpoint.flow, attempts[1].endpoint.flow);
    assert_ne!(attempts[0].endpoint.id, attempts[1].endpoint.id);
    for (cookie, local, remote) in [(2, CLIENT, SERVER), (3, SERVER, CLIENT)] {
        let how = How { born: Born::Connected, owner: owner(cookie as u32, host.now), ..HOW };
        let socket = socket(cookie, local, remote);
        host.change(socket, State::SynSent, State::SynRecv, how);
        let opened = host.change(socket, State::SynRecv, State::Established, how);
        assert_eq!(opened[0].endpoint.flow, attempts[0].endpoint.flow);
        let other = if cookie == 2 { 3 } else { 2 };
        assert_eq!(emitted(&opened[0]), format!("open both connect observed {cookie} {cookie} {other}"));
    }
}

#[test]
fn the_same_addresses_in_two_namespaces_are_two_flows() {
    let mut host = Host::default();
    let mut flows = Vec::new();
    for (netns, first) in [(1, 10), (2, 20)] {
        let mut client = socket(first, CLIENT, SERVER);
        let mut server = socket(first + 1, SERVER, CLIENT);
        (client.netns, server.netns) = (NetnsId::new(netns), NetnsId::new(netns));
        host.one(client, Act::Connect(task(netns)));
        let how = How { born: Born::Connected, owner: owner(netns, host.now), ..HOW };
        let opened = host.change(client, State::SynSent, State::Established, how);
        let born = How { born: Born::Child, ..HOW };
        let accepted = host.change(server, State::SynRecv, State::Established, born);
        assert_eq!(opened[0].endpoint.flow, accepted[0].endpoint.flow);
        assert_eq!(accepted[0].endpoint.originator.as_ref().unwrap().process.key.pid, netns);
        flows.push(opened[0].endpoint.flow);
    }
    assert_ne!(flows[0], flows[1]);
}

#[test]
fn endpoint_that_lost_its_peer_is_not_joined_to_another() {
    let mut host = Host::default();
    let (client, server) = host.connected();
    // Its RST is lost: the server's endpoint still exists.
    host.close(2, (CLIENT, SERVER), State::Established, HOW);
    for (cookie, netns) in [(20, 1), (30, 2)] {
        let mut again = socket(cookie, CLIENT, SERVER);
        again.netns = NetnsId::new(netns);
        host.one(again, Act::Connect(task(44)));
        let how = How { born: Born::Connected, owner: owner(44, host.now), ..HOW };
        let opened = host.change(again, State::SynSent, State::Established, how);
        assert_eq!(emitted(&opened[0]), "open local connect observed 44 44 -");
        assert_ne!(opened[0].endpoint.flow, client.endpoint.flow);
    }
    let closed = host.close(3, (SERVER, CLIENT), State::Established, HOW);
    assert_eq!(
        (emitted(&closed).as_str(), closed.endpoint.id),
        ("close remote handshake observed 22 11 22", server.endpoint.id)
    );
}

/// The kernel side sends some records twice where it cannot know that it did.
#[test]
fn record_that_comes_twice_changes_nothing() {
    let mut host = Host::default();
    host.connected();
    for act in [Act::Accept(task(33)), Act::Use(task(44))] {
        host.one(socket(3, SERVER, CLIENT), act.clone());
        let table = format!("{:?}", host.tracker.table());
        assert!(host.apply(socket(3, SERVER, CLIENT), act).is_empty());
        assert_eq!(format!("{:?}", host.tracker.table()), table);
    }
}

#[test]
fn another_user_is_one_handover_and_the_originator_stays() {
    let mut host = Host::default();
    let (client, _) = host.connected();
    let used = |host: &mut Host, pid| host.apply(socket(2, CLIENT, SERVER), Act::Use(task(pid)));
    assert!(used(&mut host, 22).is_empty());
    let handed = used(&mut host, 23);
    assert_eq!(handed.iter().map(emitted).collect::<Vec<_>>(), ["handover local connect observed 22 23 11"]);
    assert_eq!(
        (handed[0].endpoint.process_basis, handed[0].endpoint.id),
        (Some(ProcessBasis::Handover), client.endpoint.id)
    );
    for pid in [22, 23, 22] {
        assert!(used(&mut host, pid).is_empty(), "{pid}");
    }
    assert_eq!(used(&mut host, 24).len(), 1);
    assert!(used(&mut host, 23).is_empty());
    // The peer is updated to the new process.
    let accepted = host.one(socket(3, SERVER, CLIENT), Act::Accept(task(33)));
    assert_eq!(emitted(&accepted), "accept remote accept observed 22 33 24");
}

#[test]
fn first_use_names_the_acceptor_without_an_accept_record() {
    let mut host = Host::default();
    let (_, server) = host.connected();
    let mut by_uring = task(33);
    by_uring.via = Some(Via::IoUring);
    let accepted = host.one(socket(3, SERVER, CLIENT), Act::Use(by_uring));
    assert_eq!(emitted(&accepted), "accept remote accept observed 22 33 22");
    assert_eq!((accepted.endpoint.id, accepted.endpoint.via), (server.endpoint.id, Some(Via::IoUring)));
    // The accept record only came late.
    assert!(host.apply(socket(3, SERVER, CLIENT), Act::Accept(task(33))).is_empty());
}

#[test]
fn a_fast_open_is_accepted_before_it_is_open() {
    let mut host = Host { tracker: Tracker::new(false), ..Host::default() };
    host.listen(1, "0.0.0.0:6000", 11);
    assert!(host.apply(socket(2, "10.0.0.1:0", SERVER), Act::Connect(task(22))).is_empty());
    let mut early = socket(3, SERVER, CLIENT);
    early.socket.via = Some(Via::Fastopen);
    let accepted = host.one(early, Act::Accept(task(33)));
    assert_eq!(
        (emitted(&accepted).as_str(), accepted.endpoint.via),
        ("accept remote accept observed - 33 -", early.via)
    );
    let how = How { born: Born::Connected, owner: owner(22, ns(2_000)), ..HOW };
    let client = host.change(socket(2, CLIENT, SERVER), State::SynSent, State::Established, how);
    let how = How { born: Born::Child, listener: Some(1), owner: owner(11, ns(1_000)), ..HOW };
    let server = host.change(socket(3, SERVER, CLIENT), State::SynRecv, State::Established, how);
    assert_eq!(emitted(&server[0]), "open remote accept observed 22 33 22");
    assert_eq!(
        (server[0].endpoint.id, server[0].endpoint.flow),
        (accepted.endpoint.id, accepted.endpoint.flow)
    );
    assert_eq!(client[0].endpoint.flow, server[0].endpoint.flow);
}

#[test]
fn a_listener_s_owner_is_known_after_it_ended() {
    let mut host = Host::default();
    host.listen(1, "0.0.0.0:6000", 11);
    host.processes.apply(ns(1), &ProcessEvent::Exit(key(11)));
    let how = How { born: Born::Child, listener: Some(1), owner: owner(11, ns(1_000)), ..HOW };
    let opened = host.change(socket(3, SERVER, CLIENT), State::SynRecv, State::Established, how);
    assert_eq!(emitted(&opened[0]), "open remote handshake observed - 11 -");
    // Even if the record of listen() was lost: the kernel side kept it.
    let how = How { listener: Some(77), owner: owner(11, ns(500)), ..how };
    let opened = host.change(socket(4, SERVER, "10.0.0.1:2"), State::SynRecv, State::Established, how);
    assert_eq!(opened[0].endpoint.listener.as_ref().unwrap().id, EndpointId { cookie: 77, began: ns(500) });
    assert_eq!(opened[0].endpoint.process.as_ref().unwrap().process.key, key(11));
}
