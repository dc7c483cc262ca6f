//! Connections that carry data before they are established: without connect(2), or with one that sends nothing. The
//! server may accept and read before the client's endpoint is open.

use serde_json::{Value, json};
use tests::{Actor, Netns, Watch, Wire, assert_has, counter, in_fresh_netns, sysctl};

use crate::connect::slow_line;
use crate::expect::{CONN, Conn, assert_via, used_by};
use crate::{actor, address};

/// For client and server.
const ON: &str = "3";
/// Without cookies: the first SYN has data already.
const WITHOUT_COOKIES: &str = "519";

const VIA: Option<&str> = Some("fastopen");

/// How often data in a SYN was sent and accepted.
fn counted() -> [u64; 2] {
    ["TCPFastOpenActive", "TCPFastOpenPassive"].map(|name| counter("TcpExt", name))
}

/// The two ways, with ten bytes.
fn begin(way: &str, conn: Conn, client: &mut Actor) {
    let Conn { client: local, server: remote } = conn;
    if way == "MSG_FASTOPEN" {
        client.say(&format!("fastopen {local} {remote} 10"));
    } else {
        client.say(&format!("connect {local} {remote} fastopen"));
        client.say("send 10");
    }
}

/// Compares the events of both endpoints, from first to last. `fast`: the SYN had data.
fn lives(way: &str, conn: Conn, fast: bool, watch: &mut Watch, client: &mut Actor, server: &mut Actor) {
    let before = counted();
    begin(way, conn, client);
    server.say("accept");
    server.say("recv 10");
    assert_eq!(counted(), before.map(|count| count + u64::from(fast)), "{way}: data in the SYN");

    let open = watch.at("open", conn.client_endpoint());
    assert_has(&open, conn.at_client(&client.object()));
    assert_has(&open, used_by(&client.object(), "connect"));
    assert_has(&open, json!({"state": "ESTABLISHED", "listener": null}));
    let accept = watch.at("accept", conn.server_endpoint());
    assert_has(&accept, conn.at_server(&client.object()));
    assert_has(&accept, used_by(&server.object(), "accept"));
    assert_has(
        &accept,
        json!({
            "flow": open["flow"],
            "listener": {"process": server.object()},
            "peer": {"id": open["id"], "process": client.object()},
        }),
    );
    let born = watch.at("open", conn.server_endpoint());
    assert_has(&born, json!({"id": accept["id"], "cookie": accept["cookie"], "flow": open["flow"]}));
    assert_has(&born["origin"], json!({"side": "remote", "process": client.object()}));
    if fast {
        for event in [&open, &accept, &born] {
            assert_via(event, VIA);
        }
    } else {
        // A SYN that requests a cookie is a plain one.
        assert_via(&accept, None);
        assert_via(&born, None);
    }
    let closed = conn.closes(watch, client, server);
    assert_has(&closed[0], conn.at_client(&client.object()));
    assert_has(&closed[1], conn.at_server(&client.object()));
    assert_has(&closed[0], json!({"bytes_sent": 10, "bytes_received": 0, "closed_by": "local"}));
    assert_has(&closed[1], json!({"bytes_sent": 0, "bytes_received": 10, "closed_by": "remote"}));
}

#[test]
fn second_connection_has_via_fastopen() {
    let cases = [
        Conn { client: "127.0.0.1:2000", server: "127.0.0.1:6000" },
        Conn { client: "[::1]:2000", server: "[::1]:6000" },
    ];
    for way in ["MSG_FASTOPEN", "TCP_FASTOPEN_CONNECT"] {
        for conn in cases {
            in_fresh_netns(|| {
                sysctl("net/ipv4/tcp_fastopen", ON);
                let mut watch = Watch::shared();
                let (mut client, mut server) = (actor(), actor());
                server.say(&format!("listen {} 16 fastopen", conn.server));
                // It gets the cookie.
                let first = Conn { client: &conn.client.replace("2000", "2001"), ..conn };
                lives(way, first, false, &mut watch, &mut client, &mut server);
                lives(way, conn, true, &mut watch, &mut client, &mut server);
                let log = watch.finish();
                for conn in [first, conn] {
                    assert_eq!(log.kinds(conn.client_endpoint()), ["open", "close"]);
                    let mut kinds = log.kinds(conn.server_endpoint());
                    kinds[..2].sort_unstable();
                    assert_eq!(kinds, ["accept", "open", "close"]);
                }
            });
        }
    }
}

#[test]
fn accept_before_the_client_is_established_is_reported() {
    for way in ["MSG_FASTOPEN", "TCP_FASTOPEN_CONNECT"] {
        let (here, there) = (Netns::fresh(), Netns::fresh());
        let Wire { a, b, .. } = Wire::between(&here, &there);
        for netns in [&here, &there] {
            netns.inside(|| sysctl("net/ipv4/tcp_fastopen", WITHOUT_COOKIES));
        }
        let (mut client, mut server) = (here.inside(actor), there.inside(actor));
        server.say(&format!("listen {b}:6000 16 fastopen"));
        let mut watch = Watch::shared_by(&[&here, &there]);
        // The server's answers are delayed, the SYN is not.
        there.inside(|| slow_line(&a));
        let (local, remote) = (format!("{a}:2000"), format!("{b}:6000"));
        let conn = Conn { client: &local, server: &remote };
        let endpoints = [here.inside(|| conn.client_endpoint()), there.inside(|| conn.server_endpoint())];
        if way == "MSG_FASTOPEN" {
            client.begin(&format!("fastopen {local} {remote} 10"));
        } else {
            client.say(&format!("connect {local} {remote} fastopen"));
            client.begin("send 10");
        }
        server.say("accept");
        server.say("recv 10");
        let accept = watch.at("accept", endpoints[1]);
        client.answer().unwrap();
        let [open, born] = endpoints.map(|endpoint| watch.at("open", endpoint));
        let connector = client.object();
        let at_server = there.inside(|| conn.at_server(&connector));
        for event in [&accept, &born] {
            assert_has(event, at_server.clone());
            assert_has(event, used_by(&server.object(), "accept"));
            assert_has(event, json!({"listener": {"process": server.object()}}));
            assert_has(event, json!({"id": accept["id"], "flow": open["flow"]}));
            assert_via(event, VIA);
        }
        assert_eq!((&accept["state"], &born["state"]), (&json!("SYN_RECV"), &json!("ESTABLISHED")));
        assert_has(&open, here.inside(|| conn.at_client(&connector)));
        assert_has(&open, used_by(&client.object(), "connect"));
        assert_via(&open, VIA);
        assert!(open["handshake_us"].as_u64().unwrap() > 400_000, "{open:#}");
        let seq = |event: &Value| event["seq"].as_u64().unwrap();
        assert!(seq(&accept) < seq(&open) && seq(&accept) < seq(&born), "{way}");
        client.say("close");
        server.say("close");
        let [client_s, server_s] = endpoints.map(|endpoint| watch.at("close", endpoint));
        assert_has(&client_s, json!({"id": open["id"], "bytes_sent": 10, "closed_by": "local"}));
        assert_has(&server_s, json!({"id": born["id"], "bytes_received": 10, "closed_by": "remote"}));
        let log = watch.finish();
        assert_eq!(log.kinds(endpoints[0]), ["open", "close"]);
        assert_eq!(log.kinds(endpoints[1]), ["accept", "open", "close"]);
    }
}

/// The SYN is sent in the context of the child, but the originator is the parent.
#[test]
fn connector_is_the_originator_if_a_child_sends_the_syn() {
    in_fresh_netns(|| {
        sysctl("net/ipv4/tcp_fastopen", WITHOUT_COOKIES);
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        server.say(&format!("listen {} 16 fastopen", CONN.server));
        client.say(&format!("connect {} {} fastopen", CONN.client, CONN.server));
        let child = client.hire();
        client.say("worker send 10");
        server.say("accept");
        server.say("recv 10");
        let open = watch.at("open", CONN.client_endpoint());
        assert_has(&open, CONN.at_client(&client.object()));
        assert_via(&open, VIA);
        assert_has(&watch.at("accept", CONN.server_endpoint()), CONN.at_server(&client.object()));
        let handover = watch.at("handover", CONN.client_endpoint());
        assert_has(&handover, CONN.at_client(&client.object()));
        assert_has(&handover, used_by(&child, "handover"));
        assert_eq!(handover["id"], open["id"]);
    });
}

#[test]
fn refused_fast_open_has_via_fastopen() {
    for way in ["MSG_FASTOPEN", "TCP_FASTOPEN_CONNECT"] {
        in_fresh_netns(|| {
            sysctl("net/ipv4/tcp_fastopen", WITHOUT_COOKIES);
            let mut watch = Watch::shared();
            let mut client = actor();
            let Conn { client: local, server: remote } = CONN;
            let got = if way == "MSG_FASTOPEN" {
                client.try_say(&format!("fastopen {local} {remote} 10"))
            } else {
                client.say(&format!("connect {local} {remote} fastopen"));
                client.try_say("send 10")
            };
            assert_eq!(got, Err("ECONNREFUSED".to_owned()), "{way}");
            let fail = watch.at("fail", CONN.client_endpoint());
            let mut expected = CONN.at_client(&client.object());
            expected["errno"] = "ECONNREFUSED".into();
            assert_has(&fail, expected);
            assert_has(&fail, used_by(&client.object(), "connect"));
            assert_eq!(fail["remote"], address(remote));
            assert_via(&fail, VIA);
            assert_eq!(watch.finish().kinds(CONN.client_endpoint()), ["fail"]);
        });
    }
}
