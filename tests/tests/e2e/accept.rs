//! Listeners, and the connections that they receive.

use serde_json::json;
use tests::{Watch, assert_has, endpoint, in_fresh_netns, netns, service};

use crate::{actor, address};

#[test]
fn listen_and_unlisten_are_emitted_for_each_listener() {
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
            let listen = watch.at("listen", endpoint(port, 0));
            server.say("unlisten");
            let unlisten = watch.at("unlisten", endpoint(port, 0));
            for event in [&listen, &unlisten] {
                assert_has(
                    event,
                    json!({
                        "id": listen["id"],
                        "proto": "tcp",
                        "family": family,
                        "netns": netns(),
                        "cookie": listen["cookie"],
                        "local": address(local),
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
fn killing_the_owner_emits_unlisten() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut server = actor();
        let object = server.object();
        server.say("listen 127.0.0.1:6000 16");
        server.kill();
        assert_has(&watch.at("unlisten", endpoint(6000, 0)), json!({"process": object}));
    });
}

#[test]
fn acceptor_is_named_besides_the_listener() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        let opener = server.object();
        let parent = server.fork();
        assert_eq!(opener["pid"], parent);
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        let born = watch.at("open", endpoint(6000, 2000));
        assert_has(&born, json!({"process": opener, "process_basis": "listener"}));
        server.say("accept");
        let accepted = watch.at("accept", endpoint(6000, 2000));
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
        let closed = watch.at("close", endpoint(6000, 2000));
        assert_has(&closed, json!({"process": server.object(), "process_basis": "accept"}));
        let closed = watch.at("close", endpoint(2000, 6000));
        assert_eq!(closed["peer"]["process"]["pid"], server.pid());
    });
}

#[test]
fn connection_keeps_its_listener_after_unlisten() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut client, mut other) = (actor(), actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        let listen = watch.at("listen", endpoint(6000, 0));
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        server.say("accept");
        server.say("unlisten");
        // Another process has the address now, but no part in earlier connections.
        other.say("listen 127.0.0.1:6000 16");
        watch.expect_times("two listeners", 2, |event| {
            tests::kind(event) == "listen" && endpoint(6000, 0).of(event)
        });
        client.say("close");
        server.say("close");
        let closed = watch.at("close", endpoint(6000, 2000));
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
fn unaccepted_connection_has_basis_handshake_and_is_reset() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        let listen = watch.at("listen", endpoint(6000, 0));
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        let connected = watch.at("open", endpoint(2000, 6000));
        let born = watch.at("open", endpoint(6000, 2000));
        // No process accepts: only the handshake proves that a connection came in.
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
                "endpoint": address("127.0.0.1:2000"),
                "process": client.object(),
            },
        });
        assert_has(&born, expected.clone());
        // Closing the listener resets it (inet_csk_listen_stop).
        server.say("unlisten");
        let closed = watch.at("close", endpoint(6000, 2000));
        assert_has(&closed, expected);
        assert_has(&closed, json!({"closed_by": "reset-local"}));
        assert_has(&closed["peer"], json!({"id": connected["id"], "process": client.object()}));
        assert_eq!(client.try_say("recv 1"), Err("ECONNRESET".to_owned()));
        let closed = watch.at("close", endpoint(2000, 6000));
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
        assert_eq!(log.kinds(endpoint(6000, 2000)), ["open", "close"]);
    });
}

#[test]
fn accept_after_close_has_the_same_id() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        client.say("linger0");
        client.say("close");
        let closed = watch.at("close", endpoint(6000, 2000));
        assert_has(&closed, json!({"closed_by": "reset-remote", "process_basis": "listener"}));
        server.say("accept");
        let accepted = watch.at("accept", endpoint(6000, 2000));
        assert_has(
            &accepted,
            json!({
                "id": closed["id"],
                "flow": closed["flow"],
                "cookie": closed["cookie"],
                "local": address("127.0.0.1:6000"),
                "remote": address("127.0.0.1:2000"),
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
        assert_eq!(log.kinds(endpoint(6000, 2000)), ["open", "close", "accept"]);
    });
}

/// An accept() that waits before the connection comes, and before netwatch starts.
#[test]
fn accept_that_began_before_the_start_is_reported() {
    in_fresh_netns(|| {
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        server.begin("accept");
        let mut watch = Watch::start(&[]);
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        server.answer().unwrap();
        let accepted = watch.at("accept", endpoint(6000, 2000));
        let origin = json!({"side": "remote", "basis": "accept", "process": client.object()});
        assert_has(&accepted, json!({"process": server.object(), "origin": origin}));
        // The listener is older than netwatch, and known from the snapshot.
        let seed = watch.at("seed", endpoint(6000, 0));
        assert_has(&accepted["listener"], json!({"id": seed["id"], "process": server.object()}));
    });
}
