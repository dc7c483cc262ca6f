//! TCP's corners: several listeners on one address, ports and addresses that change, sockets and tuples that
//! are used again.

mod crossing;

use std::collections::HashSet;

use serde_json::{Value, json};
use tests::{Actor, End, Watch, assert_has, end, in_fresh_netns, kind, service, skip, until};

use crate::expect::{CONN, Conn, used_by};
use crate::{actor, endpoint, port_of};

/// Two listeners on one address.
fn co_listeners() -> [Actor; 2] {
    [(); 2].map(|()| {
        let mut server = actor();
        server.say(&format!("listen {} 16 reuseport", CONN.server));
        server
    })
}

/// Which of them the connection came to, according to the kernel.
fn chosen(servers: &mut [Actor; 2]) -> usize {
    let mut chosen = None;
    until("a connection waits", || {
        chosen = servers.iter_mut().position(|server| server.say("pending") == "true");
        chosen.is_some()
    });
    chosen.unwrap()
}

/// More than enough that each listener gets some: the kernel spreads them by chance.
const MANY: u16 = 24;

#[test]
fn each_connection_came_to_one_of_several_listeners() {
    if tests::forced().iter().any(|probe| probe == "state=address") {
        // Where a child keeps its listener's cookie for a moment (5.10, which has no other rung) it is known.
        let test = "corners::each_connection_came_to_one_of_several_listeners";
        return skip(test, "by the sockets' addresses it is not known which of several a child came from");
    }
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut servers = co_listeners();
        let mut client = actor();
        let listens =
            watch.expect_times("two listeners", 2, |event| kind(event) == "listen" && end(6000, 0).of(event));
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
            let born = watch.at("open", conn.server_end());
            assert_has(&born, conn.at_birth(&client.object()));
            assert_has(&born, used_by(&servers[nth].object(), "listener"));
            assert_has(&born, json!({"listener": listener}));
            assert_eq!(servers[nth].say("accept"), local);
            let accept = watch.at("accept", conn.server_end());
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

/// Of connections that are older than netwatch nothing tells which listener they came to: then none is
/// named, or the right one.
#[test]
fn no_wrong_listener_of_several_is_named() {
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
        // The last one waits.
        client.say(&format!("connect 127.0.0.1:1999 {}", CONN.server));
        let waits_at = chosen(&mut servers);
        let mut watch = Watch::start(&[]);
        for (port, nth) in cast {
            let seed = watch.at("seed", end(6000, port));
            assert_has(&seed, used_by(&servers[nth].object(), "seed"));
            assert_has(&seed["origin"], json!({"side": "remote", "process": client.object()}));
            null_or(&seed["listener"]["process"], &servers[nth]);
        }
        let seed = watch.at("seed", end(6000, 1999));
        null_or(&seed["process"], &servers[waits_at]);
        null_or(&seed["listener"]["process"], &servers[waits_at]);
        servers[waits_at].say("accept");
        let accept = watch.at("accept", end(6000, 1999));
        assert_has(&accept, used_by(&servers[waits_at].object(), "accept"));
        null_or(&accept["listener"]["process"], &servers[waits_at]);
    });
}

#[track_caller]
fn null_or(process: &Value, right: &Actor) {
    assert!(process.is_null() || process["pid"] == right.pid(), "not {}: {process:#}", right.pid());
}

/// The port is chosen while the socket becomes a listener already.
#[test]
fn listen_without_bind() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut client) = (actor(), actor());
        let local = server.say("listen - 16");
        let port = port_of(&local);
        assert!(local.starts_with("0.0.0.0:") && port != 0, "{local}");
        let listen = watch.at("listen", end(port, 0));
        assert_has(
            &listen,
            json!({
                "proto": "tcp",
                "family": "ipv4",
                "local": endpoint(&local),
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
        let accept = watch.at("accept", conn.server_end());
        assert_has(&accept, conn.at_server(&client.object()));
        assert_has(&accept["listener"], json!({"id": listen["id"], "process": server.object()}));
        server.say("unlisten");
        let unlisten = watch.at("unlisten", end(port, 0));
        assert_has(&unlisten, json!({"id": listen["id"], "local": endpoint(&local)}));
    });
}

/// connect(AF_UNSPEC), and the socket goes on to another connection.
#[test]
fn one_socket_for_two_connections() {
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
        // The kernel may have let go of the port.
        let conns = [conns[0], Conn { client: &local, ..conns[1] }];
        client.say("send 20");
        second.say("recv 20");
        let opens = conns.map(|conn| watch.at("open", conn.client_end()));
        for (open, conn) in opens.iter().zip(&conns) {
            assert_has(open, conn.at_client(&client.object()));
            assert_has(open, used_by(&client.object(), "connect"));
            assert_eq!(open["cookie"], opens[0]["cookie"]);
        }
        assert_ne!(opens[0]["id"], opens[1]["id"]);
        assert_ne!(opens[0]["flow"], opens[1]["flow"]);
        let closed = watch.at("close", conns[0].client_end());
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
            assert_eq!(log.kinds(conn.client_end()), ["open", "close"]);
            assert_eq!(log.kinds(conn.server_end()), ["open", "accept", "close"]);
        }
    });
}

/// The server's end waits in TIME_WAIT, which is not told, while another process takes the same ports again.
#[test]
fn a_tuple_that_is_used_again_out_of_time_wait() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared_with_states();
        let (mut server, mut old, mut new) = (actor(), actor(), actor());
        CONN.listens(&mut server);
        CONN.connects(&mut old, "");
        server.say("accept");
        server.say("close");
        old.say("eof");
        old.say("close");
        let old_s = [CONN.client_end(), CONN.server_end()].map(|end| watch.at("close", end));
        assert_has(&old_s[0], json!({"closed_by": "remote", "process": old.object()}));
        assert_has(&old_s[1], json!({"closed_by": "local", "process": server.object()}));
        let mut late = Watch::start(&[]);
        CONN.connects(&mut new, "");
        server.say("accept");
        for watch in [&mut watch, &mut late] {
            let opened = watch.expect_times("the new connection", 2, |event| {
                let ends = [CONN.client_end(), CONN.server_end()];
                kind(event) == "open"
                    && ends.iter().any(|end| end.of(event))
                    && event["origin"]["process"]["pid"] == new.pid()
            });
            let accept = watch
                .expect("its accept", |event| kind(event) == "accept" && event["flow"] == opened[0]["flow"]);
            assert_has(&accept, CONN.at_server(&new.object()));
            for event in &opened {
                assert!(old_s.iter().all(|old| old["id"] != event["id"] && old["flow"] != event["flow"]));
            }
        }
        // Whoever came in between saw nothing of the old one: what is in TIME_WAIT is no socket.
        let late = late.finish();
        CONN.kinds(&late, &["open"], &["open", "accept"]);
    });
}

/// Not even a second lies between them, and no TIME_WAIT: each has its own id and its own process.
#[test]
fn a_tuple_that_is_used_again_at_once() {
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
        let client_s = of(&mut watch, "close", CONN.client_end(), TIMES);
        let server_s = of(&mut watch, "close", CONN.server_end(), TIMES);
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

fn of(watch: &mut Watch, event: &str, end: End, times: usize) -> Vec<Value> {
    watch.expect_times(event, times, |seen| kind(seen) == event && end.of(seen))
}

/// The first was reset before anybody accepted it, and waits in the queue still when the second comes.
#[test]
fn two_of_the_same_tuple_wait_to_be_accepted() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut clients) = (actor(), [actor(), actor()]);
        CONN.listens(&mut server);
        CONN.connects(&mut clients[0], "");
        clients[0].say("linger0");
        clients[0].say("close");
        watch.at("close", CONN.server_end());
        CONN.connects(&mut clients[1], "");
        server.say("accept");
        server.say("accept");
        let opens = of(&mut watch, "open", CONN.server_end(), 2);
        let accepts = of(&mut watch, "accept", CONN.server_end(), 2);
        for ((open, accept), client) in opens.iter().zip(&accepts).zip(&clients) {
            assert_has(accept, json!({"id": open["id"], "flow": open["flow"], "cookie": open["cookie"]}));
            assert_has(accept, used_by(&server.object(), "accept"));
            assert_has(&accept["origin"], json!({"basis": "accept", "process": client.object()}));
            assert_has(&accept["peer"], json!({"process": client.object()}));
        }
        assert_ne!(opens[0]["id"], opens[1]["id"]);
        let log = watch.finish();
        assert_eq!(log.kinds(CONN.server_end()), ["open", "close", "open", "accept", "accept"]);
    });
}

/// What is reported is what the kernel used, and not what stood in memory before or after.
#[test]
fn an_address_that_changes_while_connect_reads_it() {
    // Another port, where nobody listens; another address, to which no way leads.
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
                let at = end(port, port_of(remote));
                let found = watch.expect(&format!("what became of port {port}: {got}"), |event| {
                    at.netns == event["netns"] && tests::port(event, "local") == port
                });
                assert_eq!(kind(&found), event, "{found:#}");
                assert_has(&found, used_by(&client.object(), "connect"));
                assert_has(
                    &found,
                    json!({
                        "remote": endpoint(remote),
                        "errno": if opened { Value::Null } else { errno.into() },
                        "origin": {"side": "local", "basis": "connect", "process": client.object()},
                    }),
                );
            }
            let met = seen.iter().all(|times| *times > 0);
            if !met && tests::is_emulated() {
                let test = "corners::an_address_that_changes_while_connect_reads_it";
                skip(test, "the emulator runs one CPU at a time, and the threads never met");
            } else {
                // Else the threads never met.
                assert!(met, "{seen:?}");
            }
        });
    }
}
