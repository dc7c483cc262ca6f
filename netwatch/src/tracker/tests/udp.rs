//! UDP flows.

use std::sync::Arc;

use super::*;
use crate::names::HostName;

/// A datagram at the client's endpoint (cookie 2) or the server's (cookie 3).
fn datagram(host: &mut Host, cookie: u64, received: bool, old_socket: bool) -> Vec<ConnectionEvent> {
    let (local, remote) = if cookie == 2 { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    host.apply(
        udp(cookie, local, remote),
        Act::Datagram { received, old_socket, answers: false, thread: None },
    )
}

/// The first datagram of a flow, sent by a thread.
fn sends(host: &mut Host, cookie: u64, (local, remote): (&str, &str), thread: u32) -> Vec<ConnectionEvent> {
    let act = Act::Datagram { received: false, old_socket: false, answers: false, thread: Some(thread) };
    host.apply(udp(cookie, local, remote), act)
}

/// The first datagram of a flow, received.
fn receives(host: &mut Host, cookie: u64, (local, remote): (&str, &str)) -> Vec<ConnectionEvent> {
    let act = Act::Datagram { received: true, old_socket: false, answers: false, thread: None };
    host.apply(udp(cookie, local, remote), act)
}

fn udp(cookie: u64, local: &str, remote: &str) -> SocketRecord {
    let mut record = socket(cookie, local, remote);
    record.socket.proto = Proto::Udp;
    record
}

fn emitted_all(events: &[ConnectionEvent]) -> Vec<String> {
    events.iter().map(emitted).collect()
}

/// Two sockets whose creation was observed.
fn host() -> Host {
    let mut host = Host::default();
    host.apply(udp(2, NOWHERE, NOWHERE), Act::Born(task(22)));
    host.apply(udp(3, NOWHERE, NOWHERE), Act::Born(task(33)));
    host
}

#[test]
fn first_sender_is_the_originator() {
    let mut host = host();
    // The send call has not returned when the datagram arrives.
    assert!(sends(&mut host, 2, (CLIENT, SERVER), 24).is_empty());
    assert!(datagram(&mut host, 3, true, false).is_empty());
    let opened = host.apply(udp(2, CLIENT, SERVER), Act::Sent(task(24)));
    assert_eq!(
        emitted_all(&opened),
        ["open local connect observed 24 24 33", "open remote handshake observed 24 33 24"]
    );
    assert_eq!(opened[0].endpoint.flow, opened[1].endpoint.flow);
    // Further datagrams cause no events.
    assert!(datagram(&mut host, 3, false, false).is_empty());
    let key = host.tracker.flows_of(Cookie::new(2).unwrap())[0].0;
    host.tracker.count(key, Payload { sent: 1, received: 2 });
    let closed = host.apply(udp(2, NOWHERE, NOWHERE), Act::Release);
    assert_eq!(emitted_all(&closed), ["close local connect observed 24 24 33"]);
    assert_eq!(closed[0].outcome.bytes, Some(Payload { sent: 1, received: 2 }));
    assert_eq!(
        (closed[0].endpoint.id, closed[0].outcome.closed_by),
        (opened[0].endpoint.id, Some(ClosedBy::Local))
    );
    assert!(host.apply(udp(2, NOWHERE, NOWHERE), Act::Release).is_empty());
    // The other endpoint stays, and is closed after the idle time.
    let TrackedFlow { key, flow, began } = host.tracker.flows().next().unwrap();
    assert_eq!((Some(flow.cookie), flow.addresses.remote), (Cookie::new(3), at(CLIENT)));
    assert_eq!((flow.addresses.local, began), (at(SERVER).ip, Some(opened[1].endpoint.id.began)));
    let mut out = Vec::new();
    host.tracker.idle(host.now.saturating_add(IDLE), key, &mut out);
    assert_eq!(emitted_all(&out), ["close remote handshake observed 24 33 24"]);
    assert_eq!(out[0].outcome.closed_by, Some(ClosedBy::Timeout));
    assert_eq!(host.tracker.flows().count(), 0);
    // A later datagram begins another flow, whose first sender may only continue.
    let again = datagram(&mut host, 3, true, false);
    assert_ne!(again[0].endpoint.id, opened[1].endpoint.id);
    assert_eq!(emitted_all(&again), ["open unknown idle unknown - 33 -"]);
    // Another remote address was not idle.
    assert_eq!(
        emitted_all(&receives(&mut host, 3, (SERVER, "10.9.9.9:5"))),
        ["open remote handshake observed - 33 -"]
    );
}

#[test]
fn name_of_a_flow_is_that_of_its_server_too() {
    let mut host = host();
    sends(&mut host, 2, (CLIENT, SERVER), 24);
    datagram(&mut host, 3, true, false);
    let mut opened = host.apply(udp(2, CLIENT, SERVER), Act::Sent(task(24)));
    let name = HostName::said("www.example.org", opened[0].at);
    host.tracker.name(&mut opened[0], name);
    let mut out = Vec::new();
    let flows: Vec<_> = host.tracker.flows().map(|flow| flow.key).collect();
    flows.into_iter().for_each(|key| host.tracker.idle(host.now.saturating_add(IDLE), key, &mut out));
    let names = |cookie| {
        let event = out.iter().find(|event| event.endpoint.cookie == Cookie::new(cookie)).unwrap();
        let text = |name: Option<&Arc<HostName>>| name.map(|name| name.name.to_string());
        (text(event.endpoint.names.remote()), text(event.endpoint.names.local()))
    };
    let name = Some("www.example.org".to_owned());
    assert_eq!((names(2), names(3)), ((name.clone(), None), (None, name)));
}

#[test]
fn concurrent_senders_on_one_socket_are_distinguished() {
    let mut host = host();
    let (first, second) = ((CLIENT, SERVER), (CLIENT, "10.9.9.9:5"));
    assert!(sends(&mut host, 2, first, 24).is_empty());
    assert!(sends(&mut host, 2, second, 25).is_empty());
    let opened = host.apply(udp(2, CLIENT, SERVER), Act::Sent(task(25)));
    assert_eq!(emitted_all(&opened), ["open local connect observed 25 25 -"]);
    assert_eq!(opened[0].endpoint.remote, Some(at(second.1)));
    let opened = host.apply(udp(2, CLIENT, SERVER), Act::Sent(task(24)));
    assert_eq!(emitted_all(&opened), ["open local connect observed 24 24 -"]);
    assert_eq!(opened[0].endpoint.remote, Some(at(first.1)));
}

#[test]
fn a_thread_that_only_uses_the_socket_is_not_the_sender() {
    let mut host = host();
    // The datagram was queued, and leaves in the context of another process, which has the socket as well.
    assert!(sends(&mut host, 2, (CLIENT, SERVER), 24).is_empty());
    assert!(host.apply(udp(2, CLIENT, SERVER), Act::Use(task(24))).is_empty());
    let mut out = Vec::new();
    host.tracker.settle(host.now.saturating_add(PATIENCE + 1), &mut out);
    assert_eq!(emitted_all(&out), ["open local handshake observed - 22 -"]);
}

#[test]
fn an_answer_from_another_address_is_a_flow_of_its_sender() {
    let mut host = host();
    let alias = "10.0.0.77:6000";
    sends(&mut host, 2, (CLIENT, SERVER), 22);
    datagram(&mut host, 3, true, false);
    host.apply(udp(2, CLIENT, SERVER), Act::Sent(task(22)));
    // The server answers from another of its addresses, and the client gets that.
    assert!(sends(&mut host, 3, (alias, CLIENT), 33).is_empty());
    assert!(receives(&mut host, 2, (CLIENT, alias)).is_empty());
    let opened = host.apply(udp(3, alias, CLIENT), Act::Sent(task(33)));
    assert_eq!(
        emitted_all(&opened),
        ["open local connect observed 33 33 22", "open remote handshake observed 33 22 33"]
    );
    // Each flow has a count of its own.
    assert_eq!(host.tracker.flows_of(Cookie::new(3).unwrap()).len(), 2);
}

#[test]
fn an_answer_to_a_multicast_datagram_is_a_flow_of_its_sender() {
    let mut host = host();
    sends(&mut host, 2, ("10.0.0.1:5353", "224.0.0.251:5353"), 22);
    let answered = receives(&mut host, 2, ("10.0.0.1:5353", "10.0.0.9:5353"));
    assert_eq!(emitted_all(&answered), ["open remote handshake observed - 22 -"]);
    let other = receives(&mut host, 2, ("10.0.0.1:5353", "10.0.0.9:9"));
    assert_eq!(emitted_all(&other), ["open remote handshake observed - 22 -"]);
}

#[test]
fn losses_of_one_protocol_cast_no_doubt_on_the_other() {
    let mut host = host();
    host.tracker.doubt_udp();
    let (client, _) = host.connected();
    assert_eq!(client.endpoint.process.as_ref().map(|actor| actor.process.key.pid), Some(22));
    let joined = |host: &Host, proto| {
        host.tracker
            .table()
            .iter()
            .filter(|event| event.endpoint.proto == proto)
            .any(|event| event.endpoint.peer.is_some())
    };
    assert!(joined(&host, Proto::Tcp));
    sends(&mut host, 12, (CLIENT, SERVER), 22);
    receives(&mut host, 13, (SERVER, CLIENT));
    host.tracker.settle(BootTime::END, &mut Vec::new());
    assert!(!joined(&host, Proto::Udp));
}

#[test]
fn sockets_that_are_gone_are_forgotten_after_a_loss() {
    let mut host = host();
    sends(&mut host, 2, (CLIENT, SERVER), 22);
    host.tracker.begin_snapshot();
    sends(&mut host, 4, (CLIENT, "10.9.9.9:5"), 22);
    let mut there = row(5, State::Close, "0.0.0.0:7000", None);
    there.socket.proto = Proto::Udp;
    let ended = host.snapshot(Occasion::Loss, &[there], &[]);
    assert_eq!(emitted_all(&ended).len(), 1, "{ended:?}");
    assert_eq!((ended[0].kind, ended[0].endpoint.cookie), (EventKind::Close, Cookie::new(2)));
    let has = [2, 3, 4, 5].map(|cookie| host.tracker.has_udp(Cookie::new(cookie).unwrap()));
    assert_eq!(has, [false, false, true, true]);
    // A later flow with the same addresses is not taken for the one that ended.
    assert_eq!(emitted_all(&receives(&mut host, 2, (CLIENT, SERVER))).len(), 1);
}

#[test]
fn unnamed_sender_is_not_waited_for_long() {
    let mut host = host();
    datagram(&mut host, 2, false, false);
    let mut out = Vec::new();
    host.tracker.settle(host.now.saturating_add(PATIENCE), &mut out);
    assert!(out.is_empty());
    host.tracker.settle(host.now.saturating_add(PATIENCE + 1), &mut out);
    // The creator of the socket is its process, but not named as the sender.
    assert_eq!(emitted_all(&out), ["open local handshake observed - 22 -"]);
    assert_eq!(out[0].endpoint.process_basis, Some(ProcessBasis::Listener));
}

#[test]
fn first_datagram_to_an_older_socket_may_be_an_answer() {
    let mut host = Host::default();
    host.snapshot(Occasion::Start, &[], &[]);
    assert_eq!(emitted_all(&datagram(&mut host, 3, true, true)), ["open unknown none unknown - - -"]);
    // After a long time, a flow without a known beginning is a new one.
    host.now = host.now.saturating_add(IDLE + 1);
    let other = udp(3, SERVER, "10.9.9.9:5");
    let late =
        host.apply(other, Act::Datagram { received: true, old_socket: true, answers: false, thread: None });
    assert_eq!(emitted_all(&late), ["open remote handshake observed - - -"]);
}

#[test]
fn another_user_of_the_only_flow_is_one_handover() {
    let mut host = host();
    sends(&mut host, 2, (CLIENT, SERVER), 22);
    host.apply(udp(2, CLIENT, SERVER), Act::Sent(task(22)));
    let handed = host.apply(udp(2, CLIENT, SERVER), Act::Use(task(23)));
    assert_eq!(emitted_all(&handed), ["handover local connect observed 22 23 -"]);
    assert!(host.apply(udp(2, CLIENT, SERVER), Act::Use(task(22))).is_empty());
    // With several flows it is unknown which one is used.
    let other = udp(2, CLIENT, "10.9.9.9:5");
    host.apply(other, Act::Datagram { received: true, old_socket: false, answers: false, thread: None });
    assert!(host.apply(udp(2, CLIENT, SERVER), Act::Use(task(24))).is_empty());
}

#[test]
fn connected_socket_is_a_seed_and_its_first_datagram_no_open() {
    let mut host = Host::default();
    let mut rows =
        [row(2, State::Established, CLIENT, Some("10.9.9.9:53")), row(3, State::Close, "0.0.0.0:6000", None)];
    rows.iter_mut().for_each(|row| row.socket.proto = Proto::Udp);
    let seeds = host.snapshot(Occasion::Start, &rows, &[(200, 22), (300, 33)]);
    assert_eq!(emitted_all(&seeds), ["seed local port-range guessed 22 22 -"]);
    let known = udp(2, CLIENT, "10.9.9.9:53");
    assert!(
        host.apply(known, Act::Datagram { received: true, old_socket: true, answers: false, thread: None })
            .is_empty()
    );
    let closed = host.apply(udp(2, NOWHERE, NOWHERE), Act::Release);
    assert_eq!((closed[0].kind, closed[0].endpoint.id), (EventKind::Close, seeds[0].endpoint.id));
}

/// Raw sockets are in no snapshot: those with a flow are kept, and a limited number of others.
#[test]
fn a_limited_number_of_sockets_outside_snapshots_is_kept() {
    let raw = |cookie| {
        let mut record = udp(cookie, NOWHERE, NOWHERE);
        record.socket.proto = Proto::Icmp;
        record
    };
    let mut host = Host::default();
    let last = u64::try_from(super::super::udp::MOST_UNLISTED).unwrap() + 10;
    for cookie in 1..=last {
        host.apply(raw(cookie), Act::Born(task(22)));
    }
    host.apply(udp(last + 1, NOWHERE, NOWHERE), Act::Born(task(22)));
    let mut record = udp(2, "10.0.0.1:0", "10.0.0.2:0");
    record.socket.proto = Proto::Icmp;
    host.apply(record, Act::Datagram { received: true, old_socket: false, answers: false, thread: None });
    host.tracker.begin_snapshot();
    let closed = host.snapshot(Occasion::Loss, &[], &[]);
    assert!(closed.is_empty(), "{closed:?}");
    let kept = (1..=last + 1).filter(|cookie| host.tracker.has_udp(Cookie::new(*cookie).unwrap())).count();
    assert_eq!(kept, super::super::udp::MOST_UNLISTED + 1);
    assert!(host.tracker.has_udp(Cookie::new(2).unwrap()));
    assert!(!host.tracker.has_udp(Cookie::new(last + 1).unwrap()));
}

#[test]
fn answer_and_raw_packet_prove_no_originator() {
    for (proto, received, answers, side) in [
        (Proto::Icmp, true, false, Side::Remote),
        (Proto::Icmp, true, true, Side::Unknown),
        (Proto::Icmp, false, true, Side::Unknown),
        (Proto::Raw(253), true, false, Side::Unknown),
        (Proto::Raw(253), false, false, Side::Local),
        (Proto::Packet, true, false, Side::Unknown),
        (Proto::Udp, true, false, Side::Remote),
    ] {
        let mut host = Host::default();
        let mut record = udp(2, "10.0.0.1:0", "10.0.0.2:0");
        record.socket.proto = proto;
        host.apply(record, Act::Datagram { received, old_socket: false, answers, thread: None });
        let found: Vec<_> = host.tracker.table().iter().map(|event| event.endpoint.verdict.side).collect();
        let pending = host.tracker.flows().count();
        assert_eq!(pending, 1);
        assert!(found.iter().all(|found| *found == side), "{proto:?} {received} {answers}: {found:?}");
        assert_eq!(found.len(), usize::from(received));
    }
}
