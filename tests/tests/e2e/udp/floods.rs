//! Floods of datagrams; sockets with several senders or several local addresses; extension headers.

use std::collections::HashMap;

use serde_json::{Value, json};
use tests::{Watch, assert_has, endpoint, in_fresh_netns, kind};

use super::CASE;
use crate::actor;
use crate::attacks::memory;

/// Number of remote addresses, how often a datagram is sent to each, and how many of them have a place, which is
/// `SOCKET_FLOWS_MAX`.
const REMOTES: u64 = 40_000;
const ROUNDS: u64 = 5;
const PLACES: u64 = 16_384;

/// How much memory may grow once a socket has all its places, in KiB.
const GROWTH: u64 = 8 << 10;

/// One socket sends to very many addresses. It gets the places that a socket has, the rest is counted, memory does not
/// grow, and TCP connections keep their peers and originators.
#[test]
fn flood_takes_neither_memory_nor_certainty() {
    in_fresh_netns(|| {
        let mut watch = Watch::alone(&["--ring", "16777216", "--port", "6000"]);
        let (mut flooder, mut client, mut server) = (actor(), actor(), actor());
        server.say("listen 127.0.0.1:6000 10");
        flooder.say("udp bind 127.0.0.1:2000");
        let lost = |events: &[Value]| {
            let limits = events.iter().filter(|event| kind(event) == "loss" && event["reason"] == "limit");
            limits.map(|event| event["kinds"]["flow"].as_u64().unwrap_or(0)).sum::<u64>()
        };
        flooder.say(&format!("udp flood {} 10000", PLACES + 1));
        watch.settles("all places are taken", |events| lost(events) == 1);
        let before = memory(watch.pid());
        let mut connections = 0;
        std::thread::scope(|scope| {
            let flood = scope.spawn(|| {
                (0..ROUNDS).for_each(|_| _ = flooder.say(&format!("udp flood {REMOTES} 20000")));
            });
            while connections < 200 {
                client.say("connect - 127.0.0.1:6000");
                server.say("accept");
                client.say("close");
                server.say("close");
                connections += 1;
            }
            flood.join().unwrap();
        });
        let closes = watch
            .expect_times("both ends of each connection", 2 * connections, |event| kind(event) == "close");
        for close in &closes {
            let own = if close["local"]["port"] == 6000 { "remote" } else { "local" };
            let origin = json!({"side": own, "confidence": "observed", "process": client.object()});
            assert_has(&close["origin"], origin);
            assert!(!close["peer"]["process"].is_null(), "{close:#}");
        }
        let expected = 1 + ROUNDS * (REMOTES - PLACES);
        watch.settles("all datagrams are counted", |events| lost(events) >= expected);
        assert_eq!(lost(watch.events()), expected);
        let named = watch.events().iter().filter_map(|event| event["sockets"].as_array()).flatten();
        assert!(named.clone().count() > 0 && named.clone().all(|socket| flooder.has_key(&socket["process"])));
        let others =
            watch.events().iter().filter(|event| kind(event) == "loss" && event["reason"] != "limit");
        assert_eq!(others.count(), 0);
        let after = memory(watch.pid());
        println!("{connections} connections; {before} KiB before the flood, {after} KiB after it");
        assert!(after < before + GROWTH, "{before} KiB before, {after} KiB after");
    });
}

/// Two processes that have one socket send on it at once: each flow has its sender.
#[test]
fn concurrent_senders_are_distinguished() {
    in_fresh_netns(|| {
        const ROUNDS: usize = 1000;
        let mut watch = Watch::shared();
        let mut client = actor();
        client.say("udp bind 127.0.0.1:2000");
        let child = client.say(&format!("udp race {ROUNDS}")).parse::<u64>().unwrap();
        client.say("udp close");
        let opens = watch.expect_times("a flow each", 2 * ROUNDS, |event| kind(event) == "open");
        let mut senders = HashMap::new();
        // Without a probe at the end of the call the sender is not known, and none is named.
        let is_seen = !watch.ready()["coverage"]["probes"]["use"].is_null();
        for open in &opens {
            // Nor if the thread was preempted before its call returned, for longer than the event is held back.
            if !is_seen || open["origin"]["process"].is_null() {
                assert_has(&open["origin"], json!({"side": "local", "basis": "handshake", "process": null}));
                continue;
            }
            let mine = open["remote"]["ip"].as_str().unwrap().starts_with("127.1.");
            let sender = if mine { u64::from(client.pid()) } else { child };
            assert_has(&open["origin"], json!({"side": "local", "basis": "connect"}));
            assert_eq!(open["origin"]["process"]["pid"], sender, "{open:#}");
            *senders.entry(sender).or_insert(0) += 1;
        }
        let known = |sender: u64| senders.get(&sender).copied().unwrap_or(0);
        let are_known = known(client.pid().into()) > ROUNDS / 2 && known(child) > ROUNDS / 2;
        assert!(!is_seen || are_known, "{senders:?}");
    });
}

/// A server that is bound to no address answers from another one than it was asked at.
#[test]
fn bytes_of_an_answer_from_another_address_are_of_its_own_flow() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        server.say("udp bind 0.0.0.0:6000");
        client.say("udp bind 127.0.0.1:2000");
        client.say("udp send sendto 10 127.0.0.1:6000");
        server.say("udp recv recvfrom");
        server.say("udp send from 127.0.0.9 20 127.0.0.1:2000");
        client.say("udp recv recvfrom");
        server.say("udp close");
        client.say("udp close");
        let is = |event: &Value, local: &str, remote: &str| {
            kind(event) == "close" && event["local"]["ip"] == local && event["remote"]["ip"] == remote
        };
        for (local, remote, side, (sent, received)) in
            [("127.0.0.1", "127.0.0.9", "remote", (0, 20)), ("127.0.0.9", "127.0.0.1", "local", (20, 0))]
        {
            let close = watch.expect("the answer's flow", |event| is(event, local, remote));
            assert_has(&close, json!({"bytes_sent": sent, "bytes_received": received}));
            // It is a flow of its own, whose first datagram the server sent.
            assert_has(&close["origin"], json!({"side": side}));
        }
        for (at, side, (sent, received)) in
            [(CASE.client_endpoint(), "local", (10, 0)), (CASE.server_endpoint(), "remote", (0, 10))]
        {
            let close = watch
                .expect("the question's flow", |event| is(event, "127.0.0.1", "127.0.0.1") && at.of(event));
            assert_has(&close, json!({"bytes_sent": sent, "bytes_received": received}));
            assert_has(&close["origin"], json!({"side": side, "process": client.object()}));
        }
    });
}

/// Extension headers lie between the header of IPv6 and that of UDP.
#[test]
fn extension_headers_are_skipped() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        server.say("udp bind [::1]:6000");
        client.say("udp bind [::1]:2000");
        client.say("udp extend");
        client.say("udp send sendto 10 [::1]:6000");
        assert!(server.say("udp recv recvfrom").starts_with("10 "));
        client.say("udp close");
        server.say("udp close");
        for (at, side, (sent, received)) in
            [(endpoint(2000, 6000), "local", (10, 0)), (endpoint(6000, 2000), "remote", (0, 10))]
        {
            let close = watch.at("close", at);
            assert_has(&close, json!({"bytes_sent": sent, "bytes_received": received}));
            assert_has(&close["origin"], json!({"side": side, "process": client.object()}));
        }
    });
}

/// Datagrams of one flow on two processors at once are all counted.
#[test]
fn concurrent_datagrams_of_one_flow_are_counted() {
    in_fresh_netns(|| {
        const ROUNDS: u64 = 20_000;
        let mut watch = Watch::shared();
        let mut client = actor();
        client.say("udp bind 127.0.0.1:2000");
        client.say(&format!("udp together {ROUNDS}"));
        client.say("udp close");
        let close = watch.at("close", endpoint(2000, 9));
        assert_has(&close, json!({"bytes_sent": 2 * ROUNDS, "bytes_received": 0}));
    });
}
