//! Connections older than netwatch: nobody saw them begin, and nothing is said that does not follow.

use serde_json::{Value, json};
use tests::{Netns, Watch, Wire, assert_has, end, in_fresh_netns, ip, kind, netns, service};

use crate::{actor, endpoint, port_of};

#[test]
fn the_server_s_end_by_its_listener_and_the_client_s_by_its_peer() {
    in_fresh_netns(|| {
        // The last word is the rule of thumb at the client's end.
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
                    "local": endpoint(local),
                    "remote": endpoint(remote),
                    "state": "ESTABLISHED",
                    "service": service(server_port, "tcp"),
                    "process_basis": "seed",
                    "handshake_us": null,
                })
            };
            let listener = watch.at("seed", end(server_port, 0));
            assert_has(
                &listener,
                json!({
                    "proto": "tcp",
                    "local": endpoint(to),
                    "remote": null,
                    "state": "LISTEN",
                    "origin": null,
                    "service": service(server_port, "tcp"),
                    "process": server.object(),
                    "process_basis": "seed",
                }),
            );
            let accepted = watch.at("seed", end(server_port, client_port));
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
                        "endpoint": endpoint(from),
                        "process": client.object(),
                        "port_rule": opposite,
                    },
                }),
            );
            let connected = watch.at("seed", end(client_port, server_port));
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
                        "endpoint": endpoint(from),
                        "process": client.object(),
                        "port_rule": rule,
                    },
                }),
            );
            assert_ne!(accepted["id"], connected["id"]);
            seeds.push((connected, accepted));
        }
        // The last is the first that these close.
        for ((from, to, ..), (connected, accepted)) in cases.iter().zip(&seeds).rev() {
            client.say("send 23");
            client.say("close");
            assert_eq!(server.say("eof"), "23");
            server.say("close");
            let ends = [end(port_of(from), port_of(to)), end(port_of(to), port_of(from))];
            let closed = ends.map(|end| watch.at("close", end));
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
fn one_seed_for_each_socket_and_first_of_all() {
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
            assert_eq!(log.kinds(end(local, remote)), ["seed"]);
        }
    });
}

#[test]
fn without_a_listener_only_ports_speak() {
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
            let seed = watch.at("seed", end(local, remote));
            let origin = &seed["origin"];
            let said =
                json!([origin["side"], origin["basis"], origin["confidence"], origin["endpoint"]["port"]]);
            assert_eq!(said, expected, "{seed:#}");
            // Holding a socket is no ground to be called its originator.
            assert_eq!(origin["process"], Value::Null);
            assert_has(&seed, json!({"process": holder.object(), "process_basis": "seed", "listener": null}));
            // That both are ends of one connection is no guess.
            assert_eq!(seed["flow"], watch.at("seed", end(remote, local))["flow"]);
        }
    });
}

#[test]
fn a_far_peer_is_a_guess_at_best() {
    in_fresh_netns(|| {
        // A route to a network where nobody is.
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
            let seed = watch.at("seed", end(local, remote));
            holder.say("linger0");
            holder.say("close");
            let closed = watch.at("close", end(local, remote));
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
fn a_holder_that_is_gone_is_not_named() {
    in_fresh_netns(|| {
        let (mut client, mut orphaned, mut server) = (actor(), actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        orphaned.say("connect 127.0.0.1:2001 127.0.0.1:6000");
        server.say("accept");
        server.say("accept");
        // Of one the child has it now, of the other nobody.
        let gone = client.fork_and_leave();
        client.ended();
        orphaned.kill();
        let mut watch = Watch::start(&[]);
        let connected = watch.at("seed", end(2000, 6000));
        assert_has(&connected, json!({"process": client.object(), "origin": {"process": client.object()}}));
        assert_ne!(connected["process"]["pid"], gone);
        let accepted = watch.at("seed", end(6000, 2001));
        assert_has(
            &accepted,
            json!({
                "state": "CLOSE_WAIT",
                "process": server.object(),
                "origin": {"side": "remote", "basis": "listener", "confidence": "inferred", "process": null},
            }),
        );
        // Known from the seed, though it is gone when it is told.
        let last = client.object();
        let holder = client.pid();
        drop(client);
        let closed = watch.at("close", end(2000, 6000));
        assert_has(&closed, json!({"process": last, "closed_by": "local"}));
        assert_eq!(closed["process"]["pid"], holder);
    });
}

#[test]
fn one_that_waits_to_be_accepted() {
    in_fresh_netns(|| {
        let (mut client, mut server) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        let mut watch = Watch::start(&[]);
        let waiting = watch.at("seed", end(6000, 2000));
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
        let accepted = watch.at("accept", end(6000, 2000));
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
                "peer": {"id": watch.at("seed", end(2000, 6000))["id"], "process": client.object()},
            }),
        );
        // The other end learns of it.
        client.say("close");
        // Where the answer to its FIN comes in the middle of close(), the kernel waits a minute for the other's.
        server.say("close");
        let closed = watch.at("close", end(2000, 6000));
        assert_has(&closed["origin"], json!({"side": "local", "basis": "peer", "confidence": "observed"}));
    });
}

#[test]
fn one_that_is_being_begun() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    let Wire { a, lost, .. } = Wire::between(&here, &there);
    here.inside(|| {
        let mut client = actor();
        client.say(&format!("connect {a}:2000 {lost}:6000 nonblocking"));
        let mut watch = Watch::start(&[]);
        let seed = watch.at("seed", end(2000, 6000));
        // In SYN_SENT there are none but initiators.
        let origin = json!({
            "side": "local",
            "basis": "handshake",
            "confidence": "observed",
            "process": client.object(),
        });
        assert_has(&seed, json!({"state": "SYN_SENT", "process": client.object(), "origin": origin}));
        client.say("close");
        let fail = watch.at("fail", end(2000, 6000));
        assert_has(&fail, json!({"id": seed["id"], "errno": "ECANCELED", "process": client.object()}));
    });
}
