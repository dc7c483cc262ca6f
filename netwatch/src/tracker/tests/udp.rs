//! UDP flows.

use super::*;

/// A datagram at the client's endpoint (cookie 2) or the server's (cookie 3).
fn datagram(host: &mut Host, cookie: u64, received: bool, old_socket: bool) -> Vec<ConnectionEvent> {
    let (local, remote) = if cookie == 2 { (CLIENT, SERVER) } else { (SERVER, CLIENT) };
    host.apply(udp(cookie, local, remote), Act::Datagram { received, old_socket })
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
    assert!(datagram(&mut host, 2, false, false).is_empty());
    assert!(datagram(&mut host, 3, true, false).is_empty());
    let opened = host.apply(udp(2, CLIENT, SERVER), Act::Use(task(24)));
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
    let (key, cookie, remote) = host.tracker.flows().next().unwrap();
    assert_eq!((Some(cookie), remote), (Cookie::new(3), at(CLIENT)));
    let mut out = Vec::new();
    host.tracker.idle(host.now.saturating_add(IDLE), key, &mut out);
    assert_eq!(emitted_all(&out), ["close remote handshake observed 24 33 24"]);
    assert_eq!(out[0].outcome.closed_by, Some(ClosedBy::Timeout));
    assert_eq!(host.tracker.flows().count(), 0);
    // A later datagram begins another flow.
    let again = datagram(&mut host, 3, true, false);
    assert_ne!(again[0].endpoint.id, opened[1].endpoint.id);
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
    let late = host.apply(other, Act::Datagram { received: true, old_socket: true });
    assert_eq!(emitted_all(&late), ["open remote handshake observed - - -"]);
}

#[test]
fn another_user_of_the_only_flow_is_one_handover() {
    let mut host = host();
    datagram(&mut host, 2, false, false);
    host.apply(udp(2, CLIENT, SERVER), Act::Use(task(22)));
    let handed = host.apply(udp(2, CLIENT, SERVER), Act::Use(task(23)));
    assert_eq!(emitted_all(&handed), ["handover local connect observed 22 23 -"]);
    assert!(host.apply(udp(2, CLIENT, SERVER), Act::Use(task(22))).is_empty());
    // With several flows it is unknown which one is used.
    let other = udp(2, CLIENT, "10.9.9.9:5");
    host.apply(other, Act::Datagram { received: true, old_socket: false });
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
    assert!(host.apply(known, Act::Datagram { received: true, old_socket: true }).is_empty());
    let closed = host.apply(udp(2, NOWHERE, NOWHERE), Act::Release);
    assert_eq!((closed[0].kind, closed[0].endpoint.id), (EventKind::Close, seeds[0].endpoint.id));
}
