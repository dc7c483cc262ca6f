//! Flows that share a socket, a process, a wire or addresses; and what is not a flow.

use std::collections::HashSet;

use serde_json::{Value, json};
use tests::{Endpoint, Netns, Watch, Wire, assert_has, endpoint, in_fresh_netns, kind, netns};

use super::{CASE, Case, lives, service};
use crate::expect::{CONN, used_by};
use crate::{actor, address};

/// One socket, three flows: one begun by another process, and two of its own.
#[test]
fn one_socket_has_many_flows() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut hub, mut first, mut other) = (actor(), actor(), actor());
        hub.say("udp bind 127.0.0.1:6000");
        first.say("udp bind 127.0.0.1:2000");
        first.say("udp send sendto 10 127.0.0.1:6000");
        hub.say("udp recv recvfrom");
        other.say("udp bind 127.0.0.1:2001");
        // No socket has the last port.
        for (port, bytes) in [(2000, 20), (2001, 30), (2002, 40), (2001, 31)] {
            hub.say(&format!("udp send sendto {bytes} 127.0.0.1:{port}"));
        }
        let (hub_s, first_s, other_s) = (hub.object(), first.object(), other.object());
        let flows = [
            (2000, "remote", &first_s, (20, 10), &first_s),
            (2001, "local", &hub_s, (61, 0), &other_s),
            (2002, "local", &hub_s, (40, 0), &Value::Null),
        ];
        let opens = flows.map(|(port, ..)| watch.at("open", endpoint(6000, port)));
        hub.say("udp close");
        for ((port, side, initiator, (sent, received), peer), open) in flows.into_iter().zip(&opens) {
            let close = watch.at("close", endpoint(6000, port));
            let origin = json!({"side": side, "confidence": "observed", "process": initiator});
            for event in [open, &close] {
                assert_has(event, json!({"id": open["id"], "flow": open["flow"], "origin": origin}));
                assert_has(event, json!({"cookie": opens[0]["cookie"], "process": hub_s}));
            }
            assert_has(&close, json!({"bytes_sent": sent, "bytes_received": received}));
            if peer.is_null() {
                assert_eq!(close["peer"], Value::Null);
            } else {
                let other_endpoint = watch.at("open", endpoint(port, 6000));
                assert_has(&other_endpoint, json!({"flow": open["flow"], "origin": {"process": initiator}}));
                assert_has(&close["peer"], json!({"id": other_endpoint["id"], "process": peer}));
            }
        }
        let ids: HashSet<_> = opens.iter().map(|open| open["id"].to_string()).collect();
        let flows: HashSet<_> = opens.iter().map(|open| open["flow"].to_string()).collect();
        assert_eq!((ids.len(), flows.len()), (3, 3));
    });
}

/// A flow is what was sent, not what was attempted.
#[test]
fn datagram_that_was_not_sent_is_no_flow() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        client.say("udp bind 0.0.0.0:2000");
        assert_eq!(client.try_say("udp send sendto 10 192.0.2.1:6000"), Err("ENETUNREACH".to_owned()));
        assert_eq!(client.try_say("udp send sendto 65508 127.0.0.1:6000"), Err("EMSGSIZE".to_owned()));
        // This one is sent, although there is no receiver.
        client.say("udp send sendto 0 127.0.0.1:6001");
        client.say("udp close");
        let close = watch.at("close", endpoint(2000, 6001));
        assert_has(&close, json!({"bytes_sent": 0, "bytes_received": 0, "peer": null}));
        assert_has(&close, json!({"origin": {"side": "local", "process": client.object()}}));
        let log = watch.finish();
        assert_eq!(log.kinds(endpoint(2000, 6001)), ["open", "close"]);
        assert!(log.kinds(endpoint(2000, 6000)).is_empty());
    });
}

/// The sender of the first datagram is the originator, whoever created the socket; another user is emitted once.
#[test]
fn child_that_sends_first_is_the_originator() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        server.say("udp bind 127.0.0.1:6000");
        client.say("udp bind 127.0.0.1:2000");
        client.say("udp connect 127.0.0.1:6000");
        let child = client.hire();
        client.say("worker udp send send 10");
        for _ in 0..2 {
            client.say("udp send send 10");
            client.say("worker udp send send 10");
        }
        let case = Case { connects: true, ..CASE };
        let open = watch.at("open", case.client_endpoint());
        assert_has(&open, case.record(true, &child));
        assert_has(&open, used_by(&child, "connect"));
        let handover = watch.at("handover", case.client_endpoint());
        assert_has(&handover, case.record(true, &child));
        assert_has(&handover, used_by(&client.object(), "handover"));
        assert_has(&handover, json!({"id": open["id"], "flow": open["flow"]}));
        assert_has(&watch.at("open", case.server_endpoint()), case.record(false, &child));
        client.say("dismiss");
        client.say("udp close");
        let close = watch.at("close", case.client_endpoint());
        assert_has(&close, case.record(true, &child));
        assert_has(&close, json!({"bytes_sent": 50}));
        assert_eq!(watch.finish().kinds(case.client_endpoint()), ["open", "handover", "close"]);
    });
}

/// The query was sent before netwatch started: the answer does not begin the flow.
#[test]
fn answer_to_an_older_datagram_is_no_origin() {
    in_fresh_netns(|| {
        let (mut client, mut server) = (actor(), actor());
        server.say("udp bind 127.0.0.1:6000");
        client.say("udp bind 127.0.0.1:2000");
        client.say("udp send sendto 10 127.0.0.1:6000");
        server.say("udp recv recvfrom");
        let mut watch = Watch::start(&[]);
        server.say("udp send sendto 20 127.0.0.1:2000");
        client.say("udp recv recvfrom");
        client.say("udp close");
        server.say("udp close");
        for (endpoint, wrong, process) in
            [(CASE.client_endpoint(), "remote", &client), (CASE.server_endpoint(), "local", &server)]
        {
            let close = watch.at("close", endpoint);
            assert_ne!(close["origin"]["side"], wrong, "{close:#}");
            assert_has(&close, json!({"process": process.object()}));
        }
        let flow = watch.at("close", CASE.client_endpoint())["flow"].clone();
        assert_eq!(watch.at("close", CASE.server_endpoint())["flow"], flow);
    });
}

/// A name server in another namespace; datagrams that are divided by segmentation offload and by IP.
#[test]
fn fragmented_and_segmented_flow_is_counted() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    let Wire { a, b, .. } = Wire::between(&here, &there);
    let mut watch = Watch::shared_by(&[&here, &there]);
    let (mut client, mut server) = (here.inside(actor), there.inside(actor));
    server.say(&format!("udp bind {b}:53"));
    client.say(&format!("udp bind {a}:2000"));
    client.say(&format!("udp send sendto 40 {b}:53"));
    server.say("udp recv recvfrom");
    server.say(&format!("udp send sendto 20000 {a}:2000"));
    assert!(client.say("udp recv recvfrom").starts_with("20000 "));
    client.say("udp segment 1000");
    client.say(&format!("udp send sendto 3000 {b}:53"));
    for _ in 0..3 {
        assert!(server.say("udp recv recvfrom").starts_with("1000 "));
    }
    let endpoints = [here.inside(|| endpoint(2000, 53)), there.inside(|| endpoint(53, 2000))];
    let opens = endpoints.map(|endpoint| watch.at("open", endpoint));
    client.say("udp close");
    server.say("udp close");
    let closes = endpoints.map(|endpoint| watch.at("close", endpoint));
    for (nth, (side, rule)) in [("local", "local"), ("remote", "remote")].into_iter().enumerate() {
        for event in [&opens[nth], &closes[nth]] {
            assert_has(
                event,
                json!({
                    "proto": "udp",
                    "id": opens[nth]["id"],
                    "flow": opens[0]["flow"],
                    "netns": ([here.inum(), there.inum()][nth]),
                    "service": service(53, "udp"),
                    "process": ([client.object(), server.object()][nth]),
                    "origin": {
                        "side": side,
                        "confidence": "observed",
                        "endpoint": address(&format!("{a}:2000")),
                        "process": client.object(),
                        "port_rule": rule,
                    },
                }),
            );
        }
    }
    assert_has(&closes[0], json!({"bytes_sent": 3040, "bytes_received": 20000}));
    assert_has(&closes[1], json!({"bytes_sent": 20000, "bytes_received": 3040}));
    for (close, other) in closes.iter().zip([&closes[1], &closes[0]]) {
        assert_has(&close["peer"], json!({"id": other["id"], "process": other["process"]}));
    }
    let log = watch.finish();
    for endpoint in endpoints {
        assert_eq!(log.kinds(endpoint), ["open", "close"]);
    }
}

/// A TCP and a UDP socket on the same addresses are not endpoints of one connection.
#[test]
fn tcp_and_udp_on_the_same_ports_are_not_joined() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--proto", "udp"]);
        let mut both = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        CONN.listens(&mut server);
        CONN.connects(&mut client, "");
        server.say("accept");
        let mut case = (actor(), actor());
        lives(&CASE, &mut watch, &mut case.0, &mut case.1);
        let of = |proto: &'static str, at: Endpoint| {
            move |event: &Value| kind(event) == "open" && event["proto"] == proto && at.of(event)
        };
        let [tcp, udp] = ["tcp", "udp"].map(|proto| {
            let client_s = both.expect(proto, of(proto, CASE.client_endpoint()));
            let server_s = both.expect(proto, of(proto, CASE.server_endpoint()));
            assert_eq!(client_s["flow"], server_s["flow"]);
            client_s
        });
        assert_ne!(tcp["flow"], udp["flow"]);
        assert_has(&tcp["process"], client.object());
        assert_has(&udp["process"], case.0.object());
        let log = watch.finish();
        let others = log.events.iter().find(|event| kind(event) != "ready" && event["proto"] != "udp");
        assert_eq!(others, None);
    });
}

/// No datagram passes any more: both endpoints of the flow are closed, although the sockets are not, and the next
/// datagram begins another flow.
#[test]
fn idle_flow_is_closed_by_timeout() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--udp-idle", "1s"]);
        let (mut client, mut server) = (actor(), actor());
        server.say("udp bind 127.0.0.1:6000");
        client.say("udp bind 127.0.0.1:2000");
        client.say("udp send sendto 10 127.0.0.1:6000");
        server.say("udp recv recvfrom");
        for (at, sent, received) in [(endpoint(2000, 6000), 10, 0), (endpoint(6000, 2000), 0, 10)] {
            let (open, close) = (watch.at("open", at), watch.at("close", at));
            assert_has(&close, json!({"id": open["id"], "closed_by": "timeout", "errno": null}));
            assert_has(&close, json!({"bytes_sent": sent, "bytes_received": received}));
            assert_has(&close["origin"], json!({"process": client.object(), "confidence": "observed"}));
        }
        // The other side sends first now, which proves nothing: it may be a late answer.
        server.say("udp send sendto 20 127.0.0.1:2000");
        let opens = watch.expect_times("another flow", 4, |event| kind(event) == "open");
        for open in &opens[2..] {
            let origin =
                json!({"side": "unknown", "basis": "idle", "confidence": "unknown", "process": null});
            assert_has(&open["origin"], origin);
            assert!(opens[..2].iter().all(|old| old["id"] != open["id"] && old["flow"] != open["flow"]));
        }
        assert_has(&opens[2..][0]["process"], json!({"comm": client.object()["comm"]}));
    });
}

/// The table is full: no event about a flow that has no place, and a count of its datagrams.
#[test]
fn flows_without_a_place_are_counted() {
    in_fresh_netns(|| {
        // Flows of other tests take places as well, so perhaps none of these has one; one has none for sure.
        let mut watch = Watch::start(&["--udp-flows", "1", "--ring", "16777216"]);
        let mut client = actor();
        client.say("udp bind 127.0.0.1:2000");
        for port in [6000, 6001] {
            client.say(&format!("udp send sendto 10 127.0.0.1:{port}"));
        }
        // The sockets with the most datagrams are named.
        client.say("udp flood 500 100000");
        let of_client = |event: &Value| {
            let sockets = event["sockets"].as_array();
            sockets.into_iter().flatten().find(|socket| client.has_key(&socket["process"])).cloned()
        };
        let loss = watch.expect("a loss", |event| kind(event) == "loss" && of_client(event).is_some());
        assert_has(&loss, json!({"reason": "limit"}));
        assert!(loss["kinds"]["flow"].as_u64() >= Some(1), "{loss:#}");
        assert_has(&of_client(&loss).unwrap(), json!({"comm": client.object()["comm"]}));
        let log = watch.finish();
        assert!([6000, 6001].iter().any(|port| log.kinds(endpoint(2000, *port)).is_empty()));
    });
}

/// The `open` of an endpoint with these addresses.
fn opened(watch: &mut Watch, local: &str, remote: &str) -> Value {
    let (own, local, remote) = (netns(), address(local), address(remote));
    watch.expect(&format!("open of {local} - {remote}"), |event| {
        kind(event) == "open" && event["netns"] == own && event["local"] == local && event["remote"] == remote
    })
}

/// A server on a wildcard address answers from another address than it was asked at: a flow of its own, which the server
/// originated.
#[test]
fn answer_from_another_address_is_originated_by_the_server() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        for (wildcard, asked, own, client_at) in [
            ("0.0.0.0:6000", "127.0.0.2:6000", "127.0.0.1:6000", "127.0.0.1:2000"),
            ("[::]:6001", "127.0.0.3:6001", "127.0.0.1:6001", "127.0.0.1:2001"),
        ] {
            server.say(&format!("udp bind {wildcard}"));
            client.say(&format!("udp bind {client_at}"));
            client.say(&format!("udp send sendto 10 {asked}"));
            server.say("udp recv recvfrom");
            let to = if wildcard.starts_with('[') {
                client_at.replace("127.", "[::ffff:127.").replace(":20", "]:20")
            } else {
                client_at.into()
            };
            server.say(&format!("udp send sendto 20 {to}"));
            client.say("udp recv recvfrom");
            let asks = opened(&mut watch, client_at, asked);
            assert_has(&asks["origin"], json!({"side": "local", "process": client.object()}));
            let is_asked = opened(&mut watch, asked, client_at);
            assert_has(
                &is_asked,
                json!({"flow": asks["flow"], "origin": {"side": "remote", "process": client.object()}}),
            );
            let answers = opened(&mut watch, own, client_at);
            assert_has(
                &answers["origin"],
                json!({"side": "local", "basis": "connect", "process": server.object()}),
            );
            let is_answered = opened(&mut watch, client_at, own);
            assert_has(
                &is_answered,
                json!({"flow": answers["flow"], "origin": {"side": "remote", "confidence": "observed", "process": server.object()}}),
            );
            assert_ne!(answers["flow"], asks["flow"]);
        }
    });
}

/// The reply to a broadcast or multicast query comes from the server's own address, and is originated by the server.
#[test]
fn reply_to_a_query_to_many_is_originated_by_its_sender() {
    in_fresh_netns(|| {
        tests::ip("link add dummy9 type veth peer name dummy9b");
        tests::ip("link set dummy9 up");
        tests::ip("link set dummy9b up");
        tests::ip("addr add 10.99.0.1/24 brd + dev dummy9");
        tests::ip("route add 224.0.0.0/4 dev dummy9");
        let mut watch = Watch::shared();
        for (nth, asked) in [(0, "10.99.0.255:6000"), (1, "224.0.0.77:6001")] {
            let (client_at, own) = (format!("10.99.0.1:200{nth}"), format!("10.99.0.1:600{nth}"));
            let client = std::net::UdpSocket::bind(&client_at).unwrap();
            client.set_broadcast(true).unwrap();
            let receiver = std::net::UdpSocket::bind(format!("0.0.0.0:600{nth}")).unwrap();
            receiver.join_multicast_v4(&[224, 0, 0, 77].into(), &[10, 99, 0, 1].into()).unwrap();
            client.send_to(b"who", asked).unwrap();
            let (_, from) = receiver.recv_from(&mut [0; 3]).unwrap();
            receiver.send_to(b"me", from).unwrap();
            client.recv(&mut [0; 2]).unwrap();
            let asks = opened(&mut watch, &client_at, asked);
            assert_has(&asks["origin"], json!({"side": "local"}));
            let answers = opened(&mut watch, &own, &client_at);
            assert_has(&answers["origin"], json!({"side": "local", "confidence": "observed"}));
            let is_answered = opened(&mut watch, &client_at, &own);
            assert_has(
                &is_answered,
                json!({"flow": answers["flow"], "origin": {"side": "remote", "confidence": "observed"}}),
            );
        }
    });
}
