//! Raw, ping, packet and UDP-Lite sockets: flows as those of UDP, with the protocol in place of ports.

use std::process::Command;

use serde_json::{Value, json};
use tests::{Store, Watch, assert_has, binary, in_fresh_netns, kind, netns, output, sysctl};

use crate::{actor, address};

/// The next event of a kind in this namespace with this protocol and remote address.
fn flow(watch: &mut Watch, wanted: &str, proto: &str, remote: &str) -> Value {
    let own = netns();
    watch.expect(&format!("{wanted} of {proto} with {remote}"), |event| {
        kind(event) == wanted
            && event["netns"] == own
            && event["proto"] == proto
            && event["remote"]["ip"] == remote
    })
}

fn no_ports(local: &str, remote: &str) -> Value {
    json!({"local": address(&format!("{local}:0")), "remote": address(&format!("{remote}:0"))})
}

fn origin(side: &str, process: &Value) -> Value {
    let confidence = if side == "unknown" { "unknown" } else { "observed" };
    json!({"origin": {"side": side, "confidence": confidence, "process": process}})
}

#[test]
fn raw_socket_is_a_flow_for_each_remote() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        client.say("raw open icmp");
        client.say("raw ask 100 127.0.0.2");
        client.say("raw ask 20 127.0.0.2");
        client.say("raw ask 30 127.0.0.3");
        client.say("raw close");
        let client_s = client.object();
        // The kernel answers each request with as many bytes, and the socket receives both: 127.0.0.2 is this host.
        for (remote, bytes) in [("127.0.0.2", 136), ("127.0.0.3", 38)] {
            let open = flow(&mut watch, "open", "icmp", remote);
            let close = flow(&mut watch, "close", "icmp", remote);
            for event in [&open, &close] {
                assert_has(event, no_ports("127.0.0.1", remote));
                assert_has(event, origin("local", &client_s));
                assert_has(event, json!({"process": client_s, "peer": null, "id": open["id"]}));
            }
            assert_has(&close, json!({"bytes_sent": bytes, "bytes_received": bytes, "closed_by": "local"}));
        }
    });
}

#[test]
fn ping_socket_is_a_flow() {
    in_fresh_netns(|| {
        sysctl("net/ipv4/ping_group_range", "0 2147483647");
        let mut watch = Watch::shared();
        let mut client = actor();
        for (what, proto, local, remote) in
            [("ping", "icmp", "127.0.0.1", "127.0.0.9"), ("ping6", "icmpv6", "::1", "::1")]
        {
            client.say(&format!("raw open {what}"));
            client.say(&format!("raw ask 50 {remote}"));
            assert_eq!(client.say("raw recv"), "58");
            client.say("raw close");
            let close = flow(&mut watch, "close", proto, remote);
            assert_eq!(close["local"]["ip"], local);
            assert_has(&close, origin("local", &client.object()));
            assert_has(&close, json!({"bytes_sent": 58, "bytes_received": 58}));
        }
    });
}

/// A request began with its sender; an answer or a packet of another protocol proves nothing to a socket that receives
/// whatever comes.
#[test]
fn receiver_knows_the_originator_only_of_a_request() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut sender, mut receiver) = (actor(), actor());
        let cases = [
            ("icmp", "icmp", "ask", "127.0.1.1", "remote"),
            ("icmp", "icmp", "answer", "127.0.1.2", "unknown"),
            ("253", "raw:253", "send", "127.0.1.3", "unknown"),
        ];
        for (what, proto, how, address, side) in cases {
            receiver.say(&format!("raw open {what}"));
            receiver.say(&format!("raw bind {address}"));
            sender.say(&format!("raw open {what}"));
            sender.say(&format!("raw bind {}", address.replace("127.0.1", "127.0.2")));
            sender.say(&format!("raw {how} 10 {address}"));
            receiver.say("raw recv");
            let own = netns();
            let open = watch.expect("the receiver's flow", |event| {
                kind(event) == "open" && event["netns"] == own && event["local"]["ip"] == address
            });
            assert_has(
                &open,
                json!({"proto": proto, "process": receiver.object(), "origin": {"side": side}}),
            );
            let sent = flow(&mut watch, "open", proto, address);
            let side = if how == "answer" { "unknown" } else { "local" };
            assert_has(&sent, json!({"process": sender.object(), "origin": {"side": side}}));
            receiver.say("raw close");
            sender.say("raw close");
        }
    });
}

/// A raw socket of the protocol TCP receives what connections receive, and takes nothing from them.
#[test]
fn raw_socket_beside_a_connection_claims_nothing() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut sniffer, mut server, mut client) = (actor(), actor(), actor());
        sniffer.say("raw open 6");
        server.say("listen 127.0.0.1:6000 1");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        server.say("accept");
        let accept = watch.at("accept", tests::endpoint(6000, 2000));
        assert_has(&accept, json!({"proto": "tcp", "process": server.object()}));
        assert_has(&accept, origin("remote", &client.object()));
        let open = flow(&mut watch, "open", "raw:6", "127.0.0.1");
        assert_has(&open, json!({"process": sniffer.object(), "origin": {"side": "unknown"}}));
    });
}

#[test]
fn own_header_has_the_protocol() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        // IPPROTO_RAW: what is sent begins with an IP header.
        client.say("raw open 255");
        client.say("raw headed 250 11 127.0.0.7");
        let open = flow(&mut watch, "open", "raw:250", "127.0.0.7");
        assert_has(&open, origin("local", &client.object()));
        client.say("raw close");
        assert_has(&flow(&mut watch, "close", "raw:250", "127.0.0.7"), json!({"bytes_sent": 11}));
    });
}

#[test]
fn udplite_is_a_flow_with_ports() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        if server.try_say("raw open udplite").is_err() {
            return tests::skip("raw::udplite_is_a_flow_with_ports", "the kernel has no UDP-Lite");
        }
        server.say("raw bind 127.0.0.1:6000");
        client.say("raw open udplite");
        client.say("raw bind 127.0.0.1:2000");
        client.say("raw send 10 127.0.0.1:6000");
        server.say("raw recv");
        let (client_s, server_s) = (client.object(), server.object());
        let open = watch.at("open", tests::endpoint(2000, 6000));
        assert_has(&open, json!({"proto": "udplite", "process": client_s}));
        assert_has(&open, origin("local", &client_s));
        let open = watch.at("open", tests::endpoint(6000, 2000));
        assert_has(&open, json!({"proto": "udplite", "process": server_s, "peer": {"process": client_s}}));
        assert_has(&open, origin("remote", &client_s));
        client.say("raw close");
        assert_has(&watch.at("close", tests::endpoint(2000, 6000)), json!({"bytes_sent": 10}));
    });
}

#[test]
fn packet_socket_is_one_flow() {
    const TEST: &str = "raw::packet_socket_is_one_flow";
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--udp-idle", "1"]);
        let probes = &watch.ready()["coverage"]["probes"];
        if probes["use"].is_null() {
            return tests::skip(TEST, "no probe observes uses");
        }
        if probes["state"].as_str().is_some_and(|probe| probe.contains("by address")) {
            return tests::skip(
                TEST,
                "where sockets are known by their addresses packet sockets have no cookie",
            );
        }
        let (mut sender, mut sniffer) = (actor(), actor());
        sniffer.say("raw open packet");
        sniffer.say("raw bind lo");
        sender.say("raw open packet");
        sender.say("raw bind lo");
        sender.say("raw frame 50");
        sender.say("raw frame 30");
        assert_eq!(sniffer.say("raw recv"), "64");
        let by = |watch: &mut Watch, wanted: &str, pid: u32| {
            watch.expect(&format!("{wanted} of {pid}"), |event| {
                kind(event) == wanted && event["proto"] == "packet" && event["process"]["pid"] == pid
            })
        };
        let sent = by(&mut watch, "open", sender.pid());
        assert_has(&sent, json!({"device": "lo", "netns": netns(), "process": sender.object()}));
        assert_has(&sent, origin("local", &sender.object()));
        let received = by(&mut watch, "open", sniffer.pid());
        assert_has(
            &received,
            json!({"device": "lo", "process": sniffer.object(), "origin": {"side": "unknown"}}),
        );
        sender.say("raw close");
        // Where its release is not probed the flow ends once it is idle.
        let closed = by(&mut watch, "close", sender.pid());
        assert_has(&closed, json!({"id": sent["id"], "bytes_sent": 108, "bytes_received": 0}));
        let closed = by(&mut watch, "close", sniffer.pid());
        assert_has(&closed, json!({"closed_by": "timeout", "bytes_sent": 0, "bytes_received": 64}));
    });
}

#[test]
fn stored_flows_have_their_protocol() {
    in_fresh_netns(|| {
        let store = Store::new();
        let mut watch = Watch::recording(&store.path(), &[]);
        let mut client = actor();
        for (what, remote) in [("icmp", "127.0.3.1"), ("253", "127.0.3.2")] {
            client.say(&format!("raw open {what}"));
            client.say(&format!("raw {} 10 {remote}", if what == "icmp" { "ask" } else { "send" }));
            client.say("raw close");
        }
        for (proto, remote) in [("icmp", "127.0.3.1"), ("raw:253", "127.0.3.2")] {
            flow(&mut watch, "close", proto, remote);
        }
        watch.finish();
        for (filter, wanted) in [("raw", 2), ("raw:253", 1), ("icmp", 1), ("packet", 0)] {
            let logged = store.log(&["--proto", filter, "--event", "open", "--remote", "127.0.3.0/24"]);
            assert_eq!(logged.len(), wanted, "{filter}: {logged:#?}");
        }
        let logged = store.log(&["--proto", "raw:253", "--event", "close"]);
        assert_has(&logged[0], json!({"proto": "raw:253", "process": client.object()}));
        let text = store.run("log", &["--proto", "icmp", "--event", "open"]);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.contains("127.0.0.1 -> 127.0.3.1 "), "{text}");
        assert_eq!(store.verify(&[]).0, Some(0));
    });
}

#[test]
fn protocol_that_does_not_exist_is_refused() {
    for (proto, reason) in [("raw:256", "up to 255"), ("sctp", "raw")] {
        let refused = Command::new(binary()).args(["watch", "--proto", proto]).output().unwrap();
        let text = String::from_utf8_lossy(&refused.stderr).into_owned();
        assert_eq!(refused.status.code(), Some(2), "{text}");
        assert!(text.contains(reason), "{text}");
    }
    let listed = output(Command::new(binary()).args(["list", "-w", "--json"]));
    assert!(listed.status.success());
}
