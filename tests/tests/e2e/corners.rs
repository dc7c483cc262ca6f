//! Special cases of TCP: several listeners on one address, ports and addresses that change, reused sockets and tuples.

mod crossing;

use std::collections::HashSet;

use serde_json::{Value, json};
use tests::{Actor, Endpoint, Watch, assert_has, endpoint, in_fresh_netns, kind, service, skip, until};

use crate::expect::{CONN, Conn, used_by};
use crate::{actor, address, port_of};

/// Two listeners on one address.
fn co_listeners() -> [Actor; 2] {
    [(); 2].map(|()| {
        let mut server = actor();
        server.say(&format!("listen {} 16 reuseport", CONN.server));
        server
    })
}

/// Which of them the kernel chose for the connection.
fn chosen(servers: &mut [Actor; 2]) -> usize {
    let mut chosen = None;
    until("a connection waits", || {
        chosen = servers.iter_mut().position(|server| server.say("pending") == "true");
        chosen.is_some()
    });
    chosen.unwrap()
}

/// Enough that each listener gets some: the kernel distributes them by a hash.
const MANY: u16 = 24;

#[test]
fn connection_names_its_listener_of_several() {
    if tests::forced().iter().any(|probe| probe == "state=address") {
        // If a child keeps its listener's cookie for a moment (5.10, which has no other rung) it is known.
        let test = "corners::connection_names_its_listener_of_several";
        return skip(test, "by the sockets' addresses it is not known which of several a child came from");
    }
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut servers = co_listeners();
        let mut client = actor();
        let listens = watch
            .expect_times("two listeners", 2, |event| kind(event) == "listen" && endpoint(6000, 0).of(event));
        assert_ne!(listens[0]["id"], listens[1]["id"]);
        for (listen, server) in listens.iter().zip(&servers) {
            assert_has(listen, used_by(&server.object(), "listener"));
        }
        let mut seen = [0; 2];
        for port in 2000..2000 + MANY {
            let local = format!("127.0.0.1:{port}");
            let conn = Conn { client: &local, ..CONN };
            conn.connects(&mut client, "");
            let nth = chosen(&mut servers);
            seen[nth] += 1;
            let listener = json!({"id": listens[nth]["id"], "process": servers[nth].object()});
            let born = watch.at("open", conn.server_endpoint());
            assert_has(&born, conn.at_birth(&client.object()));
            assert_has(&born, used_by(&servers[nth].object(), "listener"));
            assert_has(&born, json!({"listener": listener}));
            assert_eq!(servers[nth].say("accept"), local);
            let accept = watch.at("accept", conn.server_endpoint());
            assert_has(&accept, conn.at_server(&client.object()));
            assert_has(&accept, used_by(&servers[nth].object(), "accept"));
            assert_has(&accept, json!({"listener": listener}));
            let closed = conn.closes(&mut watch, &mut client, &mut servers[nth]);
            assert_has(&closed[1], json!({"listener": listener}));
            assert_has(&closed[0]["peer"], json!({"process": servers[nth].object()}));
        }
        assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
    });
}

/// For connections that are older than netwatch the listener cannot be known: none is named, or the right one.
#[test]
fn seed_names_no_wrong_listener_of_several() {
    in_fresh_netns(|| {
        let mut servers = co_listeners();
        let mut client = actor();
        let mut cast = Vec::new();
        for port in 2000..2000 + MANY {
            client.say(&format!("connect 127.0.0.1:{port} {}", CONN.server));
            let nth = chosen(&mut servers);
            servers[nth].say("accept");
            cast.push((port, nth));
        }
        // The last one stays in the queue.
        client.say(&format!("connect 127.0.0.1:1999 {}", CONN.server));
        let waits_at = chosen(&mut servers);
        let mut watch = Watch::start(&[]);
        for (port, nth) in cast {
            let seed = watch.at("seed", endpoint(6000, port));
            assert_has(&seed, used_by(&servers[nth].object(), "seed"));
            assert_has(&seed["origin"], json!({"side": "remote", "process": client.object()}));
            null_or(&seed["listener"]["process"], &servers[nth]);
        }
        let seed = watch.at("seed", endpoint(6000, 1999));
        null_or(&seed["process"], &servers[waits_at]);
        null_or(&seed["listener"]["process"], &servers[waits_at]);
        servers[waits_at].say("accept");
        let accept = watch.at("accept", endpoint(6000, 1999));
        assert_has(&accept, used_by(&servers[waits_at].object(), "accept"));
        null_or(&accept["listener"]["process"], &servers[waits_at]);
    });
}

#[track_caller]
fn null_or(process: &Value, right: &Actor) {
    assert!(process.is_null() || process["pid"] == right.pid(), "not {}: {process:#}", right.pid());
}

/// The kernel chooses the port while the socket becomes a listener.
#[test]
fn listen_without_bind_reports_the_port() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut client) = (actor(), actor());
        let local = server.say("listen - 16");
        let port = port_of(&local);
        assert!(local.starts_with("0.0.0.0:") && port != 0, "{local}");
        let listen = watch.at("listen", endpoint(port, 0));
        assert_has(
            &listen,
            json!({
                "proto": "tcp",
                "family": "ipv4",
                "local": address(&local),
                "remote": null,
                "origin": null,
                "state": "LISTEN",
                "service": service(port, "tcp"),
            }),
        );
        assert_has(&listen, used_by(&server.object(), "listener"));
        let remote = format!("127.0.0.1:{port}");
        let conn = Conn { server: &remote, ..CONN };
        conn.connects(&mut client, "");
        server.say("accept");
        let accept = watch.at("accept", conn.server_endpoint());
        assert_has(&accept, conn.at_server(&client.object()));
        assert_has(&accept["listener"], json!({"id": listen["id"], "process": server.object()}));
        server.say("unlisten");
        let unlisten = watch.at("unlisten", endpoint(port, 0));
        assert_has(&unlisten, json!({"id": listen["id"], "local": address(&local)}));
    });
}

/// connect(AF_UNSPEC), and the socket connects again.
#[test]
fn reconnected_socket_is_two_connections() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut first, mut second) = (actor(), actor(), actor());
        let conns = [CONN, Conn { server: "127.0.0.1:6001", ..CONN }];
        for (conn, server) in conns.iter().zip([&mut first, &mut second]) {
            conn.listens(server);
        }
        conns[0].connects(&mut client, "");
        first.say("accept");
        client.say("send 10");
        first.say("recv 10");
        client.say("disconnect");
        client.say(&format!("reconnect {}", conns[1].server));
        let local = second.say("accept");
        // The kernel may have released the port.
        let conns = [conns[0], Conn { client: &local, ..conns[1] }];
        client.say("send 20");
        second.say("recv 20");
        let opens = conns.map(|conn| watch.at("open", conn.client_endpoint()));
        for (open, conn) in opens.iter().zip(&conns) {
            assert_has(open, conn.at_client(&client.object()));
            assert_has(open, used_by(&client.object(), "connect"));
            assert_eq!(open["cookie"], opens[0]["cookie"]);
        }
        assert_ne!(opens[0]["id"], opens[1]["id"]);
        assert_ne!(opens[0]["flow"], opens[1]["flow"]);
        let closed = watch.at("close", conns[0].client_endpoint());
        assert_has(&closed, conns[0].at_client(&client.object()));
        assert_has(
            &closed,
            json!({
                "id": opens[0]["id"],
                "closed_by": "reset-local",
                "bytes_sent": 10,
                "peer": {"process": first.object()},
            }),
        );
        let closed = conns[1].closes(&mut watch, &mut client, &mut second);
        assert_has(&closed[0], conns[1].at_client(&client.object()));
        assert_has(
            &closed[0],
            json!({
                "id": opens[1]["id"],
                "closed_by": "local",
                "bytes_sent": 20,
                "peer": {"process": second.object()},
            }),
        );
        assert_has(&closed[1], json!({"flow": opens[1]["flow"], "bytes_received": 20}));
        let log = watch.finish();
        for conn in conns {
            assert_eq!(log.kinds(conn.client_endpoint()), ["open", "close"]);
            assert_eq!(log.kinds(conn.server_endpoint()), ["open", "accept", "close"]);
        }
    });
}

/// The server's endpoint is in TIME_WAIT, which is not emitted, while another process uses the same ports again.
#[test]
fn tuple_reused_from_time_wait_is_a_new_connection() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared_with_states();
        let (mut server, mut old, mut new) = (actor(), actor(), actor());
        CONN.listens(&mut server);
        CONN.connects(&mut old, "");
        server.say("accept");
        server.say("close");
        old.say("eof");
        old.say("close");
        let old_s =
            [CONN.client_endpoint(), CONN.server_endpoint()].map(|endpoint| watch.at("close", endpoint));
        assert_has(&old_s[0], json!({"closed_by": "remote", "process": old.object()}));
        assert_has(&old_s[1], json!({"closed_by": "local", "process": server.object()}));
        let mut late = Watch::start(&[]);
        CONN.connects(&mut new, "");
        server.say("accept");
        for watch in [&mut watch, &mut late] {
            let opened = watch.expect_times("the new connection", 2, |event| {
                let endpoints = [CONN.client_endpoint(), CONN.server_endpoint()];
                kind(event) == "open"
                    && endpoints.iter().any(|endpoint| endpoint.of(event))
                    && event["origin"]["process"]["pid"] == new.pid()
            });
            let accept = watch
                .expect("its accept", |event| kind(event) == "accept" && event["flow"] == opened[0]["flow"]);
            assert_has(&accept, CONN.at_server(&new.object()));
            for event in &opened {
                assert!(old_s.iter().all(|old| old["id"] != event["id"] && old["flow"] != event["flow"]));
            }
        }
        // The later netwatch saw nothing of the old one: TIME_WAIT is not a socket.
        let late = late.finish();
        CONN.kinds(&late, &["open"], &["open", "accept"]);
    });
}

/// Within a second, and without TIME_WAIT: each has its own id and its own process.
#[test]
fn tuple_reused_at_once_is_a_new_connection() {
    const TIMES: usize = 10;
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut clients) = (actor(), [actor(), actor()]);
        CONN.listens(&mut server);
        for nth in 0..TIMES {
            let client = &mut clients[nth % 2];
            CONN.connects(client, "");
            server.say("accept");
            client.say("linger0");
            client.say("close");
            server.say("close");
        }
        let client_s = of(&mut watch, "close", CONN.client_endpoint(), TIMES);
        let server_s = of(&mut watch, "close", CONN.server_endpoint(), TIMES);
        for (nth, (at_client, at_server)) in client_s.iter().zip(&server_s).enumerate() {
            let connector = clients[nth % 2].object();
            assert_has(at_client, CONN.at_client(&connector));
            assert_has(at_client, used_by(&connector, "connect"));
            assert_has(at_client, json!({"closed_by": "reset-local", "flow": at_server["flow"]}));
            assert_has(&at_client["peer"], json!({"id": at_server["id"], "process": server.object()}));
            assert_eq!(at_server["origin"]["process"]["pid"], connector["pid"], "{at_server:#}");
            assert_has(at_server, used_by(&server.object(), "accept"));
            assert_has(at_server, json!({"closed_by": "reset-remote"}));
        }
        let all = client_s.iter().chain(&server_s);
        let (ids, flows): (HashSet<_>, HashSet<_>) =
            all.map(|event| (event["id"].to_string(), event["flow"].to_string())).unzip();
        assert_eq!((ids.len(), flows.len()), (2 * TIMES, TIMES));
    });
}

fn of(watch: &mut Watch, event: &str, endpoint: Endpoint, times: usize) -> Vec<Value> {
    watch.expect_times(event, times, |seen| kind(seen) == event && endpoint.of(seen))
}

/// The first was reset before it was accepted, and is still in the queue when the second comes.
#[test]
fn two_queued_connections_of_one_tuple_are_kept_apart() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut clients) = (actor(), [actor(), actor()]);
        CONN.listens(&mut server);
        CONN.connects(&mut clients[0], "");
        clients[0].say("linger0");
        clients[0].say("close");
        watch.at("close", CONN.server_endpoint());
        CONN.connects(&mut clients[1], "");
        server.say("accept");
        server.say("accept");
        let opens = of(&mut watch, "open", CONN.server_endpoint(), 2);
        let accepts = of(&mut watch, "accept", CONN.server_endpoint(), 2);
        for ((open, accept), client) in opens.iter().zip(&accepts).zip(&clients) {
            assert_has(accept, json!({"id": open["id"], "flow": open["flow"], "cookie": open["cookie"]}));
            assert_has(accept, used_by(&server.object(), "accept"));
            assert_has(&accept["origin"], json!({"basis": "accept", "process": client.object()}));
            assert_has(&accept["peer"], json!({"process": client.object()}));
        }
        assert_ne!(opens[0]["id"], opens[1]["id"]);
        let log = watch.finish();
        assert_eq!(log.kinds(CONN.server_endpoint()), ["open", "close", "open", "accept", "accept"]);
    });
}

/// The event has the address that the kernel used, not the one in memory before or after.
#[test]
fn address_rewritten_during_connect_is_the_one_used() {
    // Another port, with no listener; another address, without a route.
    for (second, errno) in [("127.0.0.1:6001", "ECONNREFUSED"), ("192.0.2.1:6000", "ENETUNREACH")] {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let (mut server, mut client) = (actor(), actor());
            server.say(&format!("listen {} 1000", CONN.server));
            let answer = client.say(&format!("rewrite {} {second} 20000", CONN.server));
            let mut seen = [0; 2];
            for (port, got) in (20000..).zip(answer.split(' ')) {
                let opened = got == CONN.server;
                assert!(opened || got == errno, "{got}");
                seen[usize::from(opened)] += 1;
                let (event, remote) = if opened { ("open", CONN.server) } else { ("fail", second) };
                let at = endpoint(port, port_of(remote));
                let found = watch.expect(&format!("what became of port {port}: {got}"), |event| {
                    at.netns == event["netns"] && tests::port(event, "local") == port
                });
                assert_eq!(kind(&found), event, "{found:#}");
                assert_has(&found, used_by(&client.object(), "connect"));
                assert_has(
                    &found,
                    json!({
                        "remote": address(remote),
                        "errno": if opened { Value::Null } else { errno.into() },
                        "origin": {"side": "local", "basis": "connect", "process": client.object()},
                    }),
                );
            }
            // Whatever happened was reported as it was. On a busy machine or in an emulator the threads may never meet.
            if seen.contains(&0) {
                let test = "corners::address_rewritten_during_connect_is_the_one_used";
                skip(test, "the threads never ran at the same time");
            }
        });
    }
}
