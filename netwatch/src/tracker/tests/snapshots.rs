//! What a snapshot adds, at the start and after a loss.

use super::*;

#[test]
fn seeds_are_inferred_and_joined() {
    let mut host = Host::default();
    let rows = [
        row(1, State::Listen, "0.0.0.0:6000", None),
        row(2, State::Established, CLIENT, Some(SERVER)),
        row(3, State::Established, SERVER, Some(CLIENT)),
        // A remote peer: port numbers only.
        row(4, State::Established, "10.0.0.1:50000", Some("10.9.9.9:443")),
        row(5, State::Established, "10.0.0.1:7000", Some("10.9.9.9:7001")),
        row(6, State::TimeWait, "10.0.0.1:7002", Some("10.9.9.9:7001")),
    ];
    let seeds = host.snapshot(Occasion::Start, &rows, &[(100, 11), (200, 22), (300, 33), (400, 44)]);
    assert_eq!(
        seeds.iter().map(emitted).collect::<Vec<_>>(),
        [
            "seed unknown none unknown - 11 -",
            "seed local peer inferred 22 22 33",
            "seed remote listener inferred 22 33 22",
            "seed local port-range guessed 44 44 -",
            "seed unknown none unknown - - -",
        ]
    );
    assert_eq!(seeds[1].endpoint.flow, seeds[2].endpoint.flow);
    assert_eq!(seeds[2].endpoint.listener.as_ref().unwrap().id, seeds[0].endpoint.id);
    assert_eq!(seeds[0].endpoint.side(), None);
    // The process of a guessed connection is not named as its originator.
    let end = &seeds[3].endpoint;
    let origin =
        crate::origin::Origin::new(end.verdict, end.local, end.remote.unwrap(), end.originator.clone());
    assert_eq!((origin.confidence, origin.process), (Confidence::Guessed, None));
    // A live record of a seeded endpoint: it has who closed, but no duration, which was not measured.
    let closed =
        host.close(2, (CLIENT, SERVER), State::LastAck, How { first_fin: Some(Side::Remote), ..HOW });
    assert_eq!((closed.endpoint.id, closed.outcome.duration), (seeds[1].endpoint.id, None));
    assert_eq!(emitted(&closed), "close local peer inferred 22 22 33");
}

#[test]
fn a_seed_in_the_queue_belongs_to_the_listener_until_it_is_accepted() {
    let mut host = Host::default();
    let mut waiting = row(3, State::Established, SERVER, Some("10.9.9.9:1"));
    waiting.inode = 0;
    let seeds =
        host.snapshot(Occasion::Start, &[waiting, row(1, State::Listen, "0.0.0.0:6000", None)], &[(100, 11)]);
    assert_eq!(emitted(&seeds[0]), "seed remote listener inferred - 11 -");
    assert_eq!(seeds[0].endpoint.process_basis, Some(ProcessBasis::Listener));
    let accepted = host.one(socket(3, SERVER, "10.9.9.9:1"), Act::Accept(task(33)));
    assert_eq!(emitted(&accepted), "accept remote accept observed - 33 -");
    assert_eq!(accepted.endpoint.id, seeds[0].endpoint.id);
}

#[test]
fn endpoint_learns_its_origin_from_its_peer() {
    let mut host = Host::default();
    let mut waiting = row(3, State::Established, SERVER, Some(CLIENT));
    waiting.inode = 0;
    let rows = [
        waiting,
        row(1, State::Listen, "0.0.0.0:6000", None),
        row(2, State::Established, CLIENT, Some(SERVER)),
    ];
    let seeds = host.snapshot(Occasion::Start, &rows, &[(100, 11), (200, 22)]);
    assert_eq!(emitted(&seeds[2]), "seed local peer inferred 22 22 11");
    host.one(socket(3, SERVER, CLIENT), Act::Accept(task(33)));
    let closed = host.close(2, (CLIENT, SERVER), State::FinWait2, HOW);
    assert_eq!(emitted(&closed), "close local peer observed 22 22 33");
}

#[test]
fn attempt_whose_result_was_lost_is_not_reported_as_failed() {
    let mut host = Host::default();
    let attempt = host.connect(2, SERVER, 22);
    host.tracker.doubt();
    host.tracker.begin_snapshot();
    let found = host.snapshot(Occasion::Loss, &[], &[]);
    assert_eq!(found.iter().map(emitted).collect::<Vec<_>>(), ["close local connect observed 22 22 -"]);
    assert_eq!(
        (found[0].endpoint.id, found[0].outcome.closed_by),
        (attempt.endpoint.id, Some(ClosedBy::Unknown))
    );
    // Nor one whose socket is used again.
    host.connect(2, SERVER, 22);
    let events = host.apply(socket(2, "10.0.0.1:0", SERVER), Act::Connect(task(22)));
    assert_eq!(
        events.iter().map(|event| (event.kind, event.repaired)).collect::<Vec<_>>(),
        [(EventKind::Close, true), (EventKind::Attempt, false)]
    );
}

#[test]
fn the_first_fin_of_a_seed_is_in_its_state_or_comes_as_a_transition() {
    let mut host = Host::default();
    let rows = [
        row(2, State::CloseWait, CLIENT, Some("10.9.9.9:1")),
        row(3, State::Established, SERVER, Some("10.9.9.9:2")),
    ];
    host.snapshot(Occasion::Start, &rows, &[]);
    let closed = host.close(2, (CLIENT, "10.9.9.9:1"), State::LastAck, HOW);
    assert_eq!(closed.outcome.closed_by, Some(ClosedBy::Remote));
    host.change(socket(3, SERVER, "10.9.9.9:2"), State::Established, State::FinWait1, HOW);
    let closed =
        host.close(3, (SERVER, "10.9.9.9:2"), State::FinWait2, How { done: true, dead: true, ..HOW });
    assert_eq!(closed.outcome.closed_by, Some(ClosedBy::Local));
}

#[test]
fn ambiguous_endpoints_are_not_joined() {
    let mut host = Host::default();
    let (old, _) = host.connected();
    host.tracker.doubt();
    // The client's endpoint was closed and connected again, without a record of that: only the server's came.
    let mut born = socket(9, SERVER, CLIENT);
    born.inode = 0;
    let how = How { born: Born::Child, listener: Some(1), owner: owner(11, ns(1_000)), ..HOW };
    let opened = host.change(born, State::SynRecv, State::Established, how);
    assert_eq!(emitted(&opened[0]), "open remote handshake observed - 11 -");
    assert_ne!(opened[0].endpoint.flow, old.endpoint.flow);
}

#[test]
fn snapshot_repairs_the_table_after_a_loss() {
    let mut host = Host::default();
    let (client, _) = host.connected();
    host.connect(7, "10.9.9.9:80", 22);
    host.tracker.doubt();
    host.tracker.begin_snapshot();
    // This one has a record that is newer than the snapshot: it is kept.
    host.listen(8, "0.0.0.0:7000", 11);
    let rows = [
        row(1, State::Listen, "0.0.0.0:6000", None),
        row(2, State::Established, CLIENT, Some(SERVER)),
        row(7, State::Established, "10.0.0.1:50001", Some("10.9.9.9:80")),
        row(9, State::Established, "10.0.0.1:50000", Some("10.9.9.9:443")),
    ];
    let found = host.snapshot(Occasion::Loss, &rows, &[(200, 22), (900, 44)]);
    assert!(found.iter().all(|event| event.repaired));
    assert_eq!(
        found.iter().map(emitted).collect::<Vec<_>>(),
        [
            "close remote handshake observed 22 11 22",
            "open local connect observed 22 22 -",
            "open local port-range guessed 44 44 -",
        ]
    );
    assert_eq!(found[0].outcome.closed_by, Some(ClosedBy::Unknown));
    assert_eq!(found[1].endpoint.local, at("10.0.0.1:50001"));
    // The kernel side's state of the socket is better, and used at the close.
    let how = How { born: Born::Connected, owner: owner(22, ns(5)), ..HOW };
    let closed = host.close(9, ("10.0.0.1:50000", "10.9.9.9:443"), State::Established, how);
    assert_eq!((closed.endpoint.verdict.basis, closed.endpoint.id), (Basis::Connect, found[2].endpoint.id));
    // The remaining endpoint has no peer any more, but still names it.
    let closed = host.close(2, (CLIENT, SERVER), State::LastAck, HOW);
    assert_eq!(
        (emitted(&closed).as_str(), closed.endpoint.id),
        ("close local connect observed 22 22 11", client.endpoint.id)
    );
}

#[test]
fn older_endpoint_is_not_the_peer_of_a_new_connection() {
    let mut host = Host::default();
    host.snapshot(Occasion::Start, &[row(3, State::Established, SERVER, Some(CLIENT))], &[(300, 33)]);
    host.connect(2, SERVER, 22);
    let how = How { born: Born::Connected, owner: owner(22, host.now), ..HOW };
    let opened = host.change(socket(2, CLIENT, SERVER), State::SynSent, State::Established, how);
    assert_eq!(emitted(&opened[0]), "open local connect observed 22 22 -");
}

#[test]
fn emitted_flow_is_kept() {
    let mut host = Host::default();
    let attempt = host.connect(2, SERVER, 22);
    host.tracker.doubt();
    host.tracker.begin_snapshot();
    let rows =
        [row(3, State::Established, SERVER, Some(CLIENT)), row(2, State::Established, CLIENT, Some(SERVER))];
    let found = host.snapshot(Occasion::Loss, &rows, &[(200, 22), (300, 33)]);
    assert_eq!(found.len(), 2);
    assert!(found.iter().all(|event| event.endpoint.flow == attempt.endpoint.flow), "{found:?}");
}

#[test]
fn endpoint_of_a_simultaneous_connect_has_no_listener() {
    let mut host = Host::default();
    let seeds = host.snapshot(Occasion::Start, &[row(2, State::SynRecv, CLIENT, Some(SERVER))], &[(200, 22)]);
    assert_eq!(emitted(&seeds[0]), "seed local port-range guessed 22 22 -");
    let opened = host.change(socket(2, CLIENT, SERVER), State::SynRecv, State::Established, HOW);
    assert_eq!(emitted(&opened[0]), "open both handshake observed 22 22 -");
    // So it is not accepted: its holder just uses it.
    assert!(host.apply(socket(2, CLIENT, SERVER), Act::Use(task(22))).is_empty());
}

#[test]
fn listener_with_a_lost_port_is_emitted_from_the_snapshot() {
    let mut host = Host::default();
    assert_eq!(host.apply(socket(1, NOWHERE, NOWHERE), Act::Listen(task(11))), []);
    let mut out = Vec::new();
    // The record of its call may still come.
    assert_eq!(host.tracker.settle(host.now.saturating_add(LOST), &mut out), 0);
    assert_eq!(host.tracker.settle(host.now.saturating_add(LOST + 1), &mut out), 1);
    assert_eq!(host.tracker.settle(host.now.saturating_add(LOST + 2), &mut out), 0);
    assert_eq!(out, []);
    let emitted = host.snapshot(Occasion::Loss, &[row(1, State::Listen, "0.0.0.0:6000", None)], &[(100, 11)]);
    assert_eq!(
        emitted.iter().map(|event| (event.kind, event.endpoint.local)).collect::<Vec<_>>(),
        [(EventKind::Listen, at("0.0.0.0:6000"))]
    );
    let how = How { born: Born::Child, listener: Some(1), ..HOW };
    let opened = host.change(socket(3, SERVER, CLIENT), State::SynRecv, State::Established, how);
    assert_eq!(opened[0].endpoint.listener.as_ref().unwrap().id, emitted[0].endpoint.id);
    assert_eq!(host.tracker.settle(BootTime::END, &mut out), 0);
    assert_eq!(out, []);
}

#[test]
fn port_that_stays_unknown_is_not_waited_for() {
    let mut host = Host::default();
    host.tracker.expect_no_ports();
    assert_eq!(host.apply(socket(1, NOWHERE, NOWHERE), Act::Listen(task(11))), []);
    let mut out = Vec::new();
    assert_eq!(host.tracker.settle(host.now.saturating_add(PATIENCE + 1), &mut out), 0);
    assert_eq!(out.iter().map(|event| event.endpoint.local).collect::<Vec<_>>(), [at(NOWHERE)]);
}

#[test]
fn endpoints_of_a_network_namespace_that_is_gone_end_after_two_snapshots() {
    let mut host = Host::default();
    let mut elsewhere = socket(2, CLIENT, SERVER);
    elsewhere.socket.netns = NetnsId::new(2);
    host.apply(elsewhere, Act::Connect(task(22)));
    let here = row(9, State::Listen, "0.0.0.0:80", None);
    // The snapshot may have missed the namespace.
    host.snapshot(Occasion::Loss, std::slice::from_ref(&here), &[]);
    assert_eq!(host.tracker.table().len(), 2);
    let ended = host.snapshot(Occasion::Loss, &[here], &[]);
    assert_eq!(ended.iter().map(|event| event.kind).collect::<Vec<_>>(), [EventKind::Close]);
    assert_eq!(host.tracker.table().len(), 1);
}
