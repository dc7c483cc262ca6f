//! MPTCP: one connection an end, the application's, however many subflows carry it.

use std::net::Ipv4Addr;

use serde_json::{Value, json};
use tests::{Actor, Netns, Watch, Wire, assert_has, counter, in_fresh_netns, ip, kind, port, until};

use crate::expect::{CONN, Conn, assert_via, used_by};
use crate::{actor, endpoint};

const VIA: Option<&str> = Some("mptcp");

fn listens(conn: Conn, server: &mut Actor) {
    server.say(&format!("listen {} 16 mptcp", conn.server));
}

fn connects(conn: Conn, client: &mut Actor) {
    client.say(&format!("connect {} {} mptcp", conn.client, conn.server));
}

fn cookie(actor: &mut Actor) -> u64 {
    actor.say("cookie").parse().unwrap()
}

/// Bytes both ways, and the end.
fn speak(client: &mut Actor, server: &mut Actor) {
    client.say("send 1000");
    server.say("recv 1000");
    server.say("send 234");
    client.say("recv 234");
    client.say("close");
    server.say("eof");
    server.say("close");
}

#[test]
fn one_connection_of_the_application_s_process() {
    let cases = [CONN, Conn { client: "[::1]:2000", server: "[::1]:6000" }];
    for conn in cases {
        in_fresh_netns(|| {
            let mut watch = Watch::start(&[]);
            let (mut client, mut server) = (actor(), actor());
            listens(conn, &mut server);
            connects(conn, &mut client);
            server.say("accept");
            assert_eq!(counter("MPTcpExt", "MPCapableACKRX"), 1, "it is MPTCP");
            let listen = watch.at("listen", tests::end(6000, 0));
            let open = watch.at("open", conn.client_end());
            assert_has(&open, conn.at_client(&client.object()));
            assert_has(&open, used_by(&client.object(), "connect"));
            assert_has(&open, json!({"state": "ESTABLISHED", "cookie": cookie(&mut client)}));
            let accept = watch.at("accept", conn.server_end());
            assert_has(&accept, conn.at_server(&client.object()));
            assert_has(&accept, used_by(&server.object(), "accept"));
            assert_has(
                &accept,
                json!({
                    "cookie": cookie(&mut server),
                    "listener": {"id": listen["id"], "process": server.object()},
                    "peer": {"id": open["id"], "process": client.object()},
                }),
            );
            speak(&mut client, &mut server);
            let closed = [watch.at("close", conn.client_end()), watch.at("close", conn.server_end())];
            assert_has(&closed[0], conn.at_client(&client.object()));
            assert_has(&closed[0], used_by(&client.object(), "connect"));
            assert_has(&closed[1], conn.at_server(&client.object()));
            assert_has(&closed[1], used_by(&server.object(), "accept"));
            for event in [&open, &accept, &closed[0], &closed[1]] {
                assert_via(event, VIA);
            }
            assert_has(&closed[0], json!({"bytes_sent": 1000, "bytes_received": 234, "closed_by": "local"}));
            assert_has(&closed[1], json!({"bytes_sent": 234, "bytes_received": 1000, "closed_by": "remote"}));
            let log = watch.finish();
            conn.kinds(&log, &["open", "close"], &["open", "accept", "close"]);
        });
    }
}

/// A kernel worker opens the second subflow, from another address.
#[test]
fn subflows_are_no_connections() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    let Wire { a, b, .. } = Wire::between(&here, &there);
    let second = Ipv4Addr::from(u32::from(a.parse::<Ipv4Addr>().unwrap()) + 2);
    for netns in [&here, &there] {
        netns.inside(|| ip("mptcp limits set subflow 2 add_addr_accepted 2"));
    }
    here.inside(|| {
        ip(&format!("addr add {second}/28 dev veth"));
        ip(&format!("mptcp endpoint add {second} dev veth subflow"));
    });
    let mut watch = Watch::start(&[]);
    let (mut client, mut server) = (here.inside(actor), there.inside(actor));
    let (local, remote) = (format!("{a}:2000"), format!("{b}:6000"));
    let conn = Conn { client: &local, server: &remote };
    listens(conn, &mut server);
    connects(conn, &mut client);
    server.say("accept");
    // Not before the first data has come is the connection known to be a whole one.
    client.say("send 10");
    server.say("recv 10");
    until("the second subflow is there", || there.inside(|| counter("MPTcpExt", "MPJoinAckRx")) == 1);
    // Somebody who was not there when it began sees one connection, too.
    let mut late = Watch::start(&[]);
    speak(&mut client, &mut server);
    let ends = [here.inside(|| conn.client_end()), there.inside(|| conn.server_end())];
    for (watch, begins) in [(&mut watch, "open"), (&mut late, "seed")] {
        for (end, process) in ends.into_iter().zip([client.object(), server.object()]) {
            let (begun, closed) = (watch.at(begins, end), watch.at("close", end));
            assert_has(&begun, json!({"id": closed["id"], "flow": closed["flow"]}));
            assert_has(&closed, json!({"process": process}));
            assert_has(&closed["origin"], json!({"process": client.object(), "endpoint": endpoint(&local)}));
        }
        assert_eq!(watch.at("close", ends[0])["flow"], watch.at("close", ends[1])["flow"]);
    }
    let kinds = |begins: &'static str| vec![begins, "close"];
    for (watch, client_s, server_s) in
        [(watch, kinds("open"), vec!["open", "accept", "close"]), (late, kinds("seed"), kinds("seed"))]
    {
        let log = watch.finish();
        assert_eq!((log.kinds(ends[0]), log.kinds(ends[1])), (client_s, server_s));
        let here_or_there = |event: &&Value| [here.inum(), there.inum()].iter().any(|n| event["netns"] == *n);
        for event in log.events.iter().filter(here_or_there).filter(|event| kind(event) != "ready") {
            let ports = (port(event, "local"), port(event, "remote"));
            let known = [(2000, 6000), (6000, 2000), (6000, 0)].contains(&ports);
            assert!(known, "a subflow's event: {event:#}");
            assert!(event["process"]["kernel"] != true, "{event:#}");
        }
    }
}

/// One end is MPTCP's, and the connection falls back.
#[test]
fn with_plain_tcp_at_one_end() {
    for plain in ["client", "server"] {
        in_fresh_netns(|| {
            let mut watch = Watch::start(&[]);
            let (mut client, mut server) = (actor(), actor());
            if plain == "server" {
                CONN.listens(&mut server);
                connects(CONN, &mut client);
            } else {
                listens(CONN, &mut server);
                CONN.connects(&mut client, "");
            }
            server.say("accept");
            let open = watch.at("open", CONN.client_end());
            assert_has(&open, CONN.at_client(&client.object()));
            assert_has(&open, used_by(&client.object(), "connect"));
            assert_has(&open, json!({"cookie": cookie(&mut client)}));
            let accept = watch.at("accept", CONN.server_end());
            assert_has(&accept, CONN.at_server(&client.object()));
            assert_has(&accept, used_by(&server.object(), "accept"));
            assert_has(&accept, json!({"cookie": cookie(&mut server)}));
            assert_has(&accept["listener"], json!({"process": server.object()}));
            assert_via(&open, VIA.filter(|_| plain == "server"));
            if plain == "server" {
                assert_via(&accept, None);
            }
            speak(&mut client, &mut server);
            let closed = [watch.at("close", CONN.client_end()), watch.at("close", CONN.server_end())];
            assert_has(&closed[0], CONN.at_client(&client.object()));
            assert_has(&closed[0], json!({"bytes_sent": 1000, "bytes_received": 234, "closed_by": "local"}));
            assert_has(&closed[1], CONN.at_server(&client.object()));
            assert_has(&closed[1], json!({"bytes_sent": 234, "bytes_received": 1000, "closed_by": "remote"}));
            let log = watch.finish();
            CONN.kinds(&log, &["open", "close"], &["open", "accept", "close"]);
        });
    }
}

#[test]
fn refused() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&[]);
        let mut client = actor();
        let connect = format!("connect {} {} mptcp", CONN.client, CONN.server);
        assert_eq!(client.tell(&connect), Err("ECONNREFUSED".to_owned()));
        let fail = watch.at("fail", CONN.client_end());
        let mut expected = CONN.at_client(&client.object());
        expected["errno"] = "ECONNREFUSED".into();
        assert_has(&fail, expected);
        assert_has(&fail, used_by(&client.object(), "connect"));
        assert_via(&fail, VIA);
        assert_eq!(watch.finish().kinds(CONN.client_end()), ["fail"]);
    });
}

#[test]
fn use_by_a_child() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&[]);
        let (mut client, mut server) = (actor(), actor());
        listens(CONN, &mut server);
        connects(CONN, &mut client);
        server.say("accept");
        let child = client.hire();
        client.say("worker send 10");
        server.say("recv 10");
        let handover = watch.at("handover", CONN.client_end());
        assert_has(&handover, CONN.at_client(&client.object()));
        assert_has(&handover, used_by(&child, "handover"));
        assert_via(&handover, VIA);
        client.say("dismiss");
        CONN.closes(&mut watch, &mut client, &mut server);
        let log = watch.finish();
        CONN.kinds(&log, &["open", "handover", "close"], &["open", "accept", "close"]);
    });
}
