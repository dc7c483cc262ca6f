//! Connections older than netwatch: no one saw them begin, and nothing is claimed that does not follow.

use serde_json::{Value, json};
use tests::{Netns, Watch, Wire, assert_has, endpoint, in_fresh_netns, ip, kind, netns, service};

use crate::{actor, address, port_of};

#[test]
fn server_endpoint_has_basis_listener_and_client_endpoint_peer() {
    in_fresh_netns(|| {
        // The last word is the rule of thumb at the client.
        let cases = [
            ("127.0.0.1:2000", "127.0.0.1:6000", "ipv4", "unknown"),
            ("127.0.0.1:900", "127.0.0.1:40000", "ipv4", "remote"),
            ("127.0.0.1:50000", "127.0.0.1:22", "ipv4", "local"),
            ("[::1]:2001", "[::1]:7001", "ipv6", "unknown"),
            ("[::ffff:127.0.0.1]:2002", "[::ffff:127.0.0.1]:7002", "ipv4", "unknown"),
        ];
        let (mut client, mut server) = (actor(), actor());
        for (from, to, ..) in cases {
            server.say(&format!("listen {to} 16"));
            client.say(&format!("connect {from} {to}"));
            server.say("accept");
            client.say("send 100");
            server.say("recv 100");
        }
        let mut watch = Watch::start(&[]);
        let mut seeds = Vec::new();
        for (from, to, family, rule) in cases {
            let (client_port, server_port) = (port_of(from), port_of(to));
            let common = |local: &str, remote: &str| {
                json!({
                    "proto": "tcp",
                    "family": family,
                    "mapped": if from.contains("ffff") { json!(true) } else { Value::Null },
                    "netns": netns(),
                    "local": address(local),
                    "remote": address(remote),
                    "state": "ESTABLISHED",
                    "service": service(server_port, "tcp"),
                    "process_basis": "seed",
                    "handshake_us": null,
                })
            };
            let listener = watch.at("seed", endpoint(server_port, 0));
            assert_has(
                &listener,
                json!({
                    "proto": "tcp",
                    "local": address(to),
                    "remote": null,
                    "state": "LISTEN",
                    "origin": null,
                    "service": service(server_port, "tcp"),
                    "process": server.object(),
                    "process_basis": "seed",
                }),
            );
            let accepted = watch.at("seed", endpoint(server_port, client_port));
            assert_has(&accepted, common(to, from));
            let opposite = match rule {
                "local" => "remote",
                "remote" => "local",
                unknown => unknown,
            };
            assert_has(
                &accepted,
                json!({
                    "process": server.object(),
                    "listener": {"id": listener["id"], "process": server.object()},
                    "origin": {
                        "side": "remote",
                        "basis": "listener",
                        "confidence": "inferred",
                        "endpoint": address(from),
                        "process": client.object(),
                        "port_rule": opposite,
                    },
                }),
            );
            let connected = watch.at("seed", endpoint(client_port, server_port));
            assert_has(&connected, common(from, to));
            assert_has(
                &connected,
                json!({
                    "flow": accepted["flow"],
                    "process": client.object(),
                    "listener": null,
                    "origin": {
                        "side": "local",
                        "basis": "peer",
                        "confidence": "inferred",
                        "endpoint": address(from),
                        "process": client.object(),
                        "port_rule": rule,
                    },
                }),
            );
            assert_ne!(accepted["id"], connected["id"]);
            seeds.push((connected, accepted));
        }
        // The actors close the last connection first.
        for ((from, to, ..), (connected, accepted)) in cases.iter().zip(&seeds).rev() {
            client.say("send 23");
            client.say("close");
            assert_eq!(server.say("eof"), "23");
            server.say("close");
            let endpoints = [endpoint(port_of(from), port_of(to)), endpoint(port_of(to), port_of(from))];
            let closed = endpoints.map(|endpoint| watch.at("close", endpoint));
            let said = [("local", [123, 0]), ("remote", [0, 123])];
            for (nth, (seed, other)) in [(connected, accepted), (accepted, connected)].iter().enumerate() {
                let (closed_by, [sent, received]) = said[nth];
                assert_has(
                    &closed[nth],
                    json!({
                        "id": seed["id"],
                        "flow": seed["flow"],
                        "origin": {"side": seed["origin"]["side"], "basis": seed["origin"]["basis"]},
                        "process": {"pid": seed["process"]["pid"], "key": seed["process"]["key"]},
                        "process_basis": "seed",
                        "peer": {"id": other["id"], "process": {"pid": other["process"]["pid"]}},
                        "duration_us": null,
                        "closed_by": closed_by,
                        "bytes_sent": sent,
                        "bytes_received": received,
                    }),
                );
            }
        }
    });
}

#[test]
fn one_seed_for_each_socket_before_other_events() {
    in_fresh_netns(|| {
        let (mut client, mut server) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        server.say("accept");
        let mut watch = Watch::everywhere(&["--event", "seed"]);
        let seeded = usize::try_from(watch.ready()["seeded"].as_u64().unwrap()).unwrap();
        let is_seed = |event: &Value| kind(event) == "seed";
        watch.expect_times("as many seeds as ready says", seeded, is_seed);
        let log = watch.finish();
        assert_eq!(log.events.iter().filter(|event| is_seed(event)).count(), seeded);
        for (local, remote) in [(6000, 0), (2000, 6000), (6000, 2000)] {
            assert_eq!(log.kinds(endpoint(local, remote)), ["seed"]);
        }
    });
}

#[test]
fn without_a_listener_the_basis_is_port_range_or_none() {
    in_fresh_netns(|| {
        let (mut client, mut server) = (actor(), actor());
        for (from, to) in [("127.0.0.1:50000", "127.0.0.1:6001"), ("127.0.0.1:2100", "127.0.0.1:6002")] {
            server.say(&format!("listen {to} 16"));
            client.say(&format!("connect {from} {to}"));
            server.say("accept");
            server.say("unlisten");
        }
        let mut watch = Watch::start(&[]);
        let cases = [
            (50000, 6001, &client, json!(["local", "port-range", "guessed", 50000])),
            (6001, 50000, &server, json!(["remote", "port-range", "guessed", 50000])),
            (2100, 6002, &client, json!(["unknown", "none", "unknown", null])),
            (6002, 2100, &server, json!(["unknown", "none", "unknown", null])),
        ];
        for (local, remote, holder, expected) in cases {
            let seed = watch.at("seed", endpoint(local, remote));
            let origin = &seed["origin"];
            let said =
                json!([origin["side"], origin["basis"], origin["confidence"], origin["endpoint"]["port"]]);
            assert_eq!(said, expected, "{seed:#}");
            // Holding a socket is no evidence of having originated it.
            assert_eq!(origin["process"], Value::Null);
            assert_has(&seed, json!({"process": holder.object(), "process_basis": "seed", "listener": null}));
            // That both belong to one connection is certain.
            assert_eq!(seed["flow"], watch.at("seed", endpoint(remote, local))["flow"]);
        }
    });
}

#[test]
fn remote_peer_without_a_listener_is_guessed_or_unknown() {
    in_fresh_netns(|| {
        // A route to a network without hosts.
        ip("addr add 10.9.0.1/24 dev lo");
        let mut holder = actor();
        let cases = [
            (45000, 6000, "local", "port-range", "guessed"),
            (6000, 45000, "remote", "port-range", "guessed"),
            (6001, 900, "local", "port-range", "guessed"),
            (2100, 6002, "unknown", "none", "unknown"),
            (45001, 45002, "unknown", "none", "unknown"),
        ];
        for (local, remote, ..) in cases {
            holder.say(&format!("repair 10.9.0.1:{local} 10.9.0.2:{remote}"));
        }
        let mut watch = Watch::start(&[]);
        for (local, remote, side, basis, confidence) in cases.into_iter().rev() {
            let seed = watch.at("seed", endpoint(local, remote));
            holder.say("linger0");
            holder.say("close");
            let closed = watch.at("close", endpoint(local, remote));
            assert_eq!(closed["id"], seed["id"]);
            assert_eq!(closed["closed_by"], "reset-local");
            for event in [&seed, &closed] {
                assert_has(
                    event,
                    json!({
                        "process": holder.object(),
                        "process_basis": "seed",
                        "listener": null,
                        "peer": null,
                        "origin": {
                            "side": side, "basis": basis, "confidence": confidence, "process": null,
                        },
                    }),
                );
            }
        }
    });
}

#[test]
fn exited_holder_is_not_named() {
    in_fresh_netns(|| {
        let (mut client, mut orphaned, mut server) = (actor(), actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        orphaned.say("connect 127.0.0.1:2001 127.0.0.1:6000");
        server.say("accept");
        server.say("accept");
        // One socket is held by the child now, the other by no process.
        let gone = client.fork_and_leave();
        client.ended();
        orphaned.kill();
        let mut watch = Watch::start(&[]);
        let connected = watch.at("seed", endpoint(2000, 6000));
        assert_has(&connected, json!({"process": client.object(), "origin": {"process": client.object()}}));
        assert_ne!(connected["process"]["pid"], gone);
        let accepted = watch.at("seed", endpoint(6000, 2001));
        assert_has(
            &accepted,
            json!({
                "state": "CLOSE_WAIT",
                "process": server.object(),
                "origin": {"side": "remote", "basis": "listener", "confidence": "inferred", "process": null},
            }),
        );
        // Known from the seed, although it has exited when the event is emitted.
        let last = client.object();
        let holder = client.pid();
        drop(client);
        let closed = watch.at("close", endpoint(2000, 6000));
        assert_has(&closed, json!({"process": last, "closed_by": "local"}));
        assert_eq!(closed["process"]["pid"], holder);
    });
}

#[test]
fn queued_connection_belongs_to_its_listener() {
    in_fresh_netns(|| {
        let (mut client, mut server) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        let mut watch = Watch::start(&[]);
        let waiting = watch.at("seed", endpoint(6000, 2000));
        assert_has(
            &waiting,
            json!({
                "state": "ESTABLISHED",
                "process": server.object(),
                "process_basis": "listener",
                "listener": {"process": server.object()},
                "origin": {
                    "side": "remote",
                    "basis": "listener",
                    "confidence": "inferred",
                    "process": client.object(),
                },
            }),
        );
        server.say("accept");
        let accepted = watch.at("accept", endpoint(6000, 2000));
        assert_has(
            &accepted,
            json!({
                "id": waiting["id"],
                "flow": waiting["flow"],
                "process": server.object(),
                "process_basis": "accept",
                "origin": {
                    "side": "remote", "basis": "accept", "confidence": "observed", "process": client.object(),
                },
                "peer": {"id": watch.at("seed", endpoint(2000, 6000))["id"], "process": client.object()},
            }),
        );
        // The peer's origin is updated as well.
        client.say("close");
        // If the answer to its FIN comes during close(), the kernel waits a minute for the other's.
        server.say("close");
        let closed = watch.at("close", endpoint(2000, 6000));
        assert_has(&closed["origin"], json!({"side": "local", "basis": "peer", "confidence": "observed"}));
    });
}

#[test]
fn attempt_in_progress_has_basis_handshake() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    let Wire { a, lost, .. } = Wire::between(&here, &there);
    here.inside(|| {
        let mut client = actor();
        client.say(&format!("connect {a}:2000 {lost}:6000 nonblocking"));
        let mut watch = Watch::start(&[]);
        let seed = watch.at("seed", endpoint(2000, 6000));
        // Only an originator can be in SYN_SENT.
        let origin = json!({
            "side": "local",
            "basis": "handshake",
            "confidence": "observed",
            "process": client.object(),
        });
        assert_has(&seed, json!({"state": "SYN_SENT", "process": client.object(), "origin": origin}));
        client.say("close");
        let fail = watch.at("fail", endpoint(2000, 6000));
        assert_has(&fail, json!({"id": seed["id"], "errno": "ECANCELED", "process": client.object()}));
    });
}

/// A process restores both endpoints of a connection (`TCP_REPAIR`), as for a container that is moved: connect() sends
/// nothing, and nobody originated it here.
#[test]
fn restored_connection_has_no_originator() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&[]);
        let (mut client, mut server) = (actor(), actor());
        client.say("repair 127.0.0.1:45000 127.0.0.1:6000");
        server.say("repair 127.0.0.1:6000 127.0.0.1:45000");
        for (at, actor) in [(endpoint(45000, 6000), &mut client), (endpoint(6000, 45000), &mut server)] {
            let open = watch.at("open", at);
            actor.say("linger0");
            actor.say("close");
            let closed = watch.at("close", at);
            assert_eq!(closed["id"], open["id"]);
            for event in [&open, &closed] {
                assert_has(
                    event,
                    json!({
                        "process": actor.object(),
                        "process_basis": "seed",
                        "listener": null,
                        "handshake_us": null,
                        "origin": {
                            "side": "unknown", "basis": "repair", "confidence": "unknown", "process": null,
                        },
                    }),
                );
            }
        }
    });
}
