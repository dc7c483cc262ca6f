//! Flows that share a socket, a process, a wire or addresses; and what is none.

use std::collections::HashSet;

use serde_json::{Value, json};
use tests::{End, Netns, Watch, Wire, assert_has, end, in_fresh_netns, kind};

use super::{CASE, Case, lives, service};
use crate::expect::{CONN, used_by};
use crate::{actor, endpoint};

/// One socket, three flows: one that another began, and two of its own.
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
        // Nobody has the last one.
        for (port, bytes) in [(2000, 20), (2001, 30), (2002, 40), (2001, 31)] {
            hub.say(&format!("udp send sendto {bytes} 127.0.0.1:{port}"));
        }
        let (hub_s, first_s, other_s) = (hub.object(), first.object(), other.object());
        let flows = [
            (2000, "remote", &first_s, (20, 10), &first_s),
            (2001, "local", &hub_s, (61, 0), &other_s),
            (2002, "local", &hub_s, (40, 0), &Value::Null),
        ];
        let opens = flows.map(|(port, ..)| watch.at("open", end(6000, port)));
        hub.say("udp close");
        for ((port, side, initiator, (sent, received), peer), open) in flows.into_iter().zip(&opens) {
            let close = watch.at("close", end(6000, port));
            let origin = json!({"side": side, "confidence": "observed", "process": initiator});
            for event in [open, &close] {
                assert_has(event, json!({"id": open["id"], "flow": open["flow"], "origin": origin}));
                assert_has(event, json!({"cookie": opens[0]["cookie"], "process": hub_s}));
            }
            assert_has(&close, json!({"bytes_sent": sent, "bytes_received": received}));
            if peer.is_null() {
                assert_eq!(close["peer"], Value::Null);
            } else {
                let other_end = watch.at("open", end(port, 6000));
                assert_has(&other_end, json!({"flow": open["flow"], "origin": {"process": initiator}}));
                assert_has(&close["peer"], json!({"id": other_end["id"], "process": peer}));
            }
        }
        let ids: HashSet<_> = opens.iter().map(|open| open["id"].to_string()).collect();
        let flows: HashSet<_> = opens.iter().map(|open| open["flow"].to_string()).collect();
        assert_eq!((ids.len(), flows.len()), (3, 3));
    });
}

/// A flow is what was sent, and not what was tried.
#[test]
fn what_never_left_is_no_flow() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        client.say("udp bind 0.0.0.0:2000");
        assert_eq!(client.tell("udp send sendto 10 192.0.2.1:6000"), Err("ENETUNREACH".to_owned()));
        assert_eq!(client.tell("udp send sendto 65508 127.0.0.1:6000"), Err("EMSGSIZE".to_owned()));
        // This one does, though nobody is there.
        client.say("udp send sendto 0 127.0.0.1:6001");
        client.say("udp close");
        let close = watch.at("close", end(2000, 6001));
        assert_has(&close, json!({"bytes_sent": 0, "bytes_received": 0, "peer": null}));
        assert_has(&close, json!({"origin": {"side": "local", "process": client.object()}}));
        let log = watch.finish();
        assert_eq!(log.kinds(end(2000, 6001)), ["open", "close"]);
        assert!(log.kinds(end(2000, 6000)).is_empty());
    });
}

/// Who sends the first datagram is the originator, whoever made the socket; who uses it afterwards is told
/// once.
#[test]
fn sent_first_by_a_child() {
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
        let open = watch.at("open", case.client_end());
        assert_has(&open, case.record(true, &child));
        assert_has(&open, used_by(&child, "connect"));
        let handover = watch.at("handover", case.client_end());
        assert_has(&handover, case.record(true, &child));
        assert_has(&handover, used_by(&client.object(), "handover"));
        assert_has(&handover, json!({"id": open["id"], "flow": open["flow"]}));
        assert_has(&watch.at("open", case.server_end()), case.record(false, &child));
        client.say("dismiss");
        client.say("udp close");
        let close = watch.at("close", case.client_end());
        assert_has(&close, case.record(true, &child));
        assert_has(&close, json!({"bytes_sent": 50}));
        assert_eq!(watch.finish().kinds(case.client_end()), ["open", "handover", "close"]);
    });
}

/// The question was asked before netwatch looked: its answer is no beginning.
#[test]
fn an_answer_is_not_taken_for_a_question() {
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
        for (end, wrong, process) in
            [(CASE.client_end(), "remote", &client), (CASE.server_end(), "local", &server)]
        {
            let close = watch.at("close", end);
            assert_ne!(close["origin"]["side"], wrong, "{close:#}");
            assert_has(&close, json!({"process": process.object()}));
        }
        let flow = watch.at("close", CASE.client_end())["flow"].clone();
        assert_eq!(watch.at("close", CASE.server_end())["flow"], flow);
    });
}

/// A name server in another namespace; datagrams that are cut up on the way, by the card and by IP.
#[test]
fn through_a_wire() {
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
    let ends = [here.inside(|| end(2000, 53)), there.inside(|| end(53, 2000))];
    let opens = ends.map(|end| watch.at("open", end));
    client.say("udp close");
    server.say("udp close");
    let closes = ends.map(|end| watch.at("close", end));
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
                        "endpoint": endpoint(&format!("{a}:2000")),
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
    for end in ends {
        assert_eq!(log.kinds(end), ["open", "close"]);
    }
}

/// Sockets of both kinds on the same addresses are no ends of one connection.
#[test]
fn tcp_and_udp_on_the_same_ports() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--proto", "udp"]);
        let mut both = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        CONN.listens(&mut server);
        CONN.connects(&mut client, "");
        server.say("accept");
        let mut case = (actor(), actor());
        lives(&CASE, &mut watch, &mut case.0, &mut case.1);
        let of = |proto: &'static str, at: End| {
            move |event: &Value| kind(event) == "open" && event["proto"] == proto && at.of(event)
        };
        let [tcp, udp] = ["tcp", "udp"].map(|proto| {
            let client_s = both.expect(proto, of(proto, CASE.client_end()));
            let server_s = both.expect(proto, of(proto, CASE.server_end()));
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

/// Nothing passes any more: the flow is over at both ends, though the sockets are not, and another begins with the
/// next datagram.
#[test]
fn idle() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--udp-idle", "1s"]);
        let (mut client, mut server) = (actor(), actor());
        server.say("udp bind 127.0.0.1:6000");
        client.say("udp bind 127.0.0.1:2000");
        client.say("udp send sendto 10 127.0.0.1:6000");
        server.say("udp recv recvfrom");
        for (at, sent, received) in [(end(2000, 6000), 10, 0), (end(6000, 2000), 0, 10)] {
            let (open, close) = (watch.at("open", at), watch.at("close", at));
            assert_has(&close, json!({"id": open["id"], "closed_by": "timeout", "errno": null}));
            assert_has(&close, json!({"bytes_sent": sent, "bytes_received": received}));
            assert_has(&close["origin"], json!({"process": client.object(), "confidence": "observed"}));
        }
        // Now the other side begins.
        server.say("udp send sendto 20 127.0.0.1:2000");
        let opens = watch.expect_times("another flow", 4, |event| kind(event) == "open");
        for (open, side) in
            opens[2..].iter().map(|open| (open, if end(6000, 2000).of(open) { "local" } else { "remote" }))
        {
            assert_has(&open["origin"], json!({"side": side, "process": server.object()}));
            assert!(opens[..2].iter().all(|old| old["id"] != open["id"] && old["flow"] != open["flow"]));
        }
    });
}

/// The table is full: what is followed is followed on, and that there is more is told.
#[test]
fn more_than_there_is_room_for() {
    in_fresh_netns(|| {
        // Other tests' flows take their places in the table, too: whichever these are, one more is too many.
        let mut watch = Watch::start(&["--udp-flows", "1", "--ring", "16777216"]);
        let mut client = actor();
        client.say("udp bind 127.0.0.1:2000");
        for port in [6000, 6001] {
            client.say(&format!("udp send sendto 10 127.0.0.1:{port}"));
        }
        let loss = watch.expect("a loss", |event| kind(event) == "loss" && event["kinds"]["flow"].is_u64());
        assert!(loss["kinds"]["flow"].as_u64() >= Some(1), "{loss:#}");
        // Told all the same, and not taken for anybody else's.
        for port in [6000, 6001] {
            let open = watch.at("open", end(2000, port));
            assert_has(&open["origin"], json!({"side": "local", "process": client.object()}));
        }
    });
}
