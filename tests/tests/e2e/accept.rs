//! Listeners, and what becomes of connections that came to them.

use serde_json::json;
use tests::{Watch, assert_has, end, in_fresh_netns, netns, service};

use crate::{actor, endpoint};

#[test]
fn listeners_come_and_go() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut server = actor();
        let mut ids = Vec::new();
        for (local, family) in [
            ("127.0.0.1:6000", "ipv4"),
            ("0.0.0.0:22", "ipv4"),
            ("[::]:6001", "ipv6"),
            ("[::1]:6002", "ipv6"),
        ] {
            let port = crate::port_of(local);
            server.say(&format!("listen {local} 16"));
            let listen = watch.at("listen", end(port, 0));
            server.say("unlisten");
            let unlisten = watch.at("unlisten", end(port, 0));
            for event in [&listen, &unlisten] {
                assert_has(
                    event,
                    json!({
                        "id": listen["id"],
                        "proto": "tcp",
                        "family": family,
                        "netns": netns(),
                        "cookie": listen["cookie"],
                        "local": endpoint(local),
                        "remote": null,
                        "origin": null,
                        "service": service(port, "tcp"),
                        "process": server.object(),
                        "process_basis": "listener",
                    }),
                );
            }
            assert_eq!(listen["state"], "LISTEN");
            assert_ne!(listen["inode"], 0);
            ids.push(listen["id"].clone());
        }
        ids.dedup();
        assert_eq!(ids.len(), 4);
    });
}

#[test]
fn a_listener_that_is_killed_goes_too() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut server = actor();
        let object = server.object();
        server.say("listen 127.0.0.1:6000 16");
        server.kill();
        assert_has(&watch.at("unlisten", end(6000, 0)), json!({"process": object}));
    });
}

#[test]
fn acceptor_and_listener_are_told_apart() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        let opener = server.object();
        let parent = server.fork();
        assert_eq!(opener["pid"], parent);
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        let born = watch.at("open", end(6000, 2000));
        assert_has(&born, json!({"process": opener, "process_basis": "listener"}));
        server.say("accept");
        let accepted = watch.at("accept", end(6000, 2000));
        assert_has(
            &accepted,
            json!({
                "process": server.object(),
                "process_basis": "accept",
                "listener": {"process": opener},
                "origin": {"side": "remote", "basis": "accept", "process": client.object()},
            }),
        );
        let process = &accepted["process"];
        assert_eq!((&process["ppid"], &process["ancestors"][0]["pid"]), (&json!(parent), &json!(parent)));
        client.say("close");
        server.say("close");
        let closed = watch.at("close", end(6000, 2000));
        assert_has(&closed, json!({"process": server.object(), "process_basis": "accept"}));
        let closed = watch.at("close", end(2000, 6000));
        assert_eq!(closed["peer"]["process"]["pid"], server.pid());
    });
}

#[test]
fn a_connection_outlives_its_listener() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut client, mut other) = (actor(), actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        let listen = watch.at("listen", end(6000, 0));
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        server.say("accept");
        server.say("unlisten");
        // Another process has the address now, and nothing to do with what came to it before.
        other.say("listen 127.0.0.1:6000 16");
        watch.expect_times("two listeners", 2, |event| {
            tests::kind(event) == "listen" && end(6000, 0).of(event)
        });
        client.say("close");
        server.say("close");
        let closed = watch.at("close", end(6000, 2000));
        assert_has(
            &closed,
            json!({
                "process": server.object(),
                "listener": {"id": listen["id"], "process": server.object()},
                "origin": {"side": "remote", "basis": "accept", "process": client.object()},
            }),
        );
    });
}

#[test]
fn never_accepted() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        let listen = watch.at("listen", end(6000, 0));
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        let connected = watch.at("open", end(2000, 6000));
        let born = watch.at("open", end(6000, 2000));
        // No process accepts: that a connection came is proven by the handshake alone.
        let expected = json!({
            "id": born["id"],
            "flow": connected["flow"],
            "process": server.object(),
            "process_basis": "listener",
            "listener": {"id": listen["id"], "process": server.object()},
            "origin": {
                "side": "remote",
                "basis": "handshake",
                "confidence": "observed",
                "endpoint": endpoint("127.0.0.1:2000"),
                "process": client.object(),
            },
        });
        assert_has(&born, expected.clone());
        // Its own listener's end is what resets it (inet_csk_listen_stop).
        server.say("unlisten");
        let closed = watch.at("close", end(6000, 2000));
        assert_has(&closed, expected);
        assert_has(&closed, json!({"closed_by": "reset-local"}));
        assert_has(&closed["peer"], json!({"id": connected["id"], "process": client.object()}));
        assert_eq!(client.tell("recv 1"), Err("ECONNRESET".to_owned()));
        let closed = watch.at("close", end(2000, 6000));
        assert_has(
            &closed,
            json!({
                "id": connected["id"],
                "closed_by": "reset-remote",
                "errno": "ECONNRESET",
                "peer": {"id": born["id"], "process": server.object()},
            }),
        );
        let log = watch.finish();
        assert_eq!(log.kinds(end(6000, 2000)), ["open", "close"]);
    });
}

#[test]
fn accepted_after_the_client_was_gone() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        client.say("linger0");
        client.say("close");
        let closed = watch.at("close", end(6000, 2000));
        assert_has(&closed, json!({"closed_by": "reset-remote", "process_basis": "listener"}));
        server.say("accept");
        let accepted = watch.at("accept", end(6000, 2000));
        assert_has(
            &accepted,
            json!({
                "id": closed["id"],
                "flow": closed["flow"],
                "cookie": closed["cookie"],
                "local": endpoint("127.0.0.1:6000"),
                "remote": endpoint("127.0.0.1:2000"),
                "process": server.object(),
                "process_basis": "accept",
                "origin": {
                    "side": "remote", "basis": "accept", "confidence": "observed", "process": client.object(),
                },
                "peer": {"process": client.object()},
            }),
        );
        server.say("close");
        let log = watch.finish();
        assert_eq!(log.kinds(end(6000, 2000)), ["open", "close", "accept"]);
    });
}

/// An accept() that waits already when the connection comes, and even when netwatch comes.
#[test]
fn an_accept_that_was_waiting_is_seen() {
    in_fresh_netns(|| {
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        server.begin("accept");
        let mut watch = Watch::start(&[]);
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        server.answer().unwrap();
        let accepted = watch.at("accept", end(6000, 2000));
        let origin = json!({"side": "remote", "basis": "accept", "process": client.object()});
        assert_has(&accepted, json!({"process": server.object(), "origin": origin}));
        // The listener is older than netwatch, and known all the same.
        let seed = watch.at("seed", end(6000, 0));
        assert_has(&accepted["listener"], json!({"id": seed["id"], "process": server.object()}));
    });
}
