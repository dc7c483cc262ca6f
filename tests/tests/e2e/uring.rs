//! Connections that are begun, accepted and used through io_uring: by the calling thread, by the ring's workers, and by
//! the ring's own thread. The latter two are threads of the application and are named as such.

use serde_json::{Value, json};
use tests::{Actor, Watch, assert_has, cannot_detect_via, endpoint, in_fresh_netns};

use crate::actor;
use crate::expect::{CONN, assert_via, used_by};

/// The way, and the kernel's name of the thread that does it (`None`: the calling thread).
const WAYS: [(&str, Option<&str>); 3] =
    [("plain", None), ("async", Some("iou-wrk")), ("sqpoll", Some("iou-sqp"))];

const VIA: Option<&str> = Some("io_uring");

/// The expected process of `event`. The ids of the kernel's threads are not known to the test; their names have the id
/// of the thread that created the ring.
#[track_caller]
fn acted(actor: &Actor, thread: Option<&str>, process: &Value) -> Value {
    let mut expected = actor.object();
    if let Some(name) = thread {
        assert!(process["tid"].is_u64() && process["tid"] != process["pid"], "{process:#}");
        expected["tid"] = process["tid"].clone();
        expected["thread"] = format!("{name}-{}", actor.pid()).into();
    } else {
        expected["thread"] = Value::Null;
    }
    expected
}

#[test]
fn connect_has_via_io_uring() {
    if cannot_detect_via("uring::connect_has_via_io_uring") {
        return;
    }
    for (how, thread) in WAYS {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let (mut client, mut server) = (actor(), actor());
            CONN.listens(&mut server);
            CONN.connects(&mut client, &format!("uring {how} "));
            let open = watch.at("open", CONN.client_endpoint());
            let connector = acted(&client, thread, &open["process"]);
            assert_has(&open, CONN.at_client(&connector));
            assert_has(&open, used_by(&connector, "connect"));
            assert_has(&open, json!({"state": "ESTABLISHED", "listener": null}));
            assert_via(&open, VIA);
            // The peer does not use a ring.
            server.say("accept");
            let accept = watch.at("accept", CONN.server_endpoint());
            assert_has(&accept, CONN.at_server(&connector));
            assert_has(&accept, used_by(&server.object(), "accept"));
            assert_has(&accept["peer"], json!({"id": open["id"], "process": connector}));
            assert_via(&accept, None);
            client.say("send 10");
            server.say("recv 10");
            let closed = CONN.closes(&mut watch, &mut client, &mut server);
            assert_has(&closed[0], CONN.at_client(&connector));
            assert_has(&closed[0], used_by(&connector, "connect"));
            assert_has(&closed[0], json!({"bytes_sent": 10, "closed_by": "local"}));
            assert_via(&closed[0], VIA);
            assert_via(&closed[1], None);
            let log = watch.finish();
            CONN.kinds(&log, &["open", "close"], &["open", "accept", "close"]);
        });
    }
}

#[test]
fn refused_connect_has_via_io_uring() {
    if cannot_detect_via("uring::refused_connect_has_via_io_uring") {
        return;
    }
    for (how, thread) in WAYS {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let mut client = actor();
            let connect = format!("uring {how} connect {} {}", CONN.client, CONN.server);
            assert_eq!(client.try_say(&connect), Err("ECONNREFUSED".to_owned()));
            let fail = watch.at("fail", CONN.client_endpoint());
            let connector = acted(&client, thread, &fail["process"]);
            let mut expected = CONN.at_client(&connector);
            expected["errno"] = "ECONNREFUSED".into();
            assert_has(&fail, expected);
            assert_has(&fail, used_by(&connector, "connect"));
            assert_via(&fail, VIA);
            assert_eq!(watch.finish().kinds(CONN.client_endpoint()), ["fail"]);
        });
    }
}

/// The connection is in the queue already: the first accept takes it.
#[test]
fn accept_of_a_queued_connection_has_via_io_uring() {
    if cannot_detect_via("uring::accept_of_a_queued_connection_has_via_io_uring") {
        return;
    }
    for (how, thread) in WAYS.into_iter().chain([("multishot", None)]) {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let (mut client, mut server) = (actor(), actor());
            CONN.listens(&mut server);
            CONN.connects(&mut client, "");
            // Its origin is known by the handshake, before it is accepted.
            let born = watch.at("open", CONN.server_endpoint());
            assert_has(&born, CONN.at_birth(&client.object()));
            assert_via(&born, None);
            server.say(&format!("uring {how} accept"));
            // If no probe observes the accept, this is the first use.
            server.say(&format!("uring {} send 10", if how == "multishot" { "plain" } else { how }));
            client.say("recv 10");
            let accept = watch.at("accept", CONN.server_endpoint());
            let acceptor = acted(&server, thread, &accept["process"]);
            accepted(&mut watch, &mut client, &mut server, &acceptor);
        });
    }
}

/// The accept comes first. Which thread then takes the connection is up to the kernel.
#[test]
fn accept_before_the_connection_has_via_io_uring() {
    if cannot_detect_via("uring::accept_before_the_connection_has_via_io_uring") {
        return;
    }
    for (how, _) in WAYS.into_iter().chain([("multishot", None)]) {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let (mut client, mut server) = (actor(), actor());
            CONN.listens(&mut server);
            server.begin(&format!("uring {how} accept"));
            CONN.connects(&mut client, "");
            server.answer().unwrap();
            client.say("send 10");
            server.say(&format!("uring {} recv 10", if how == "multishot" { "plain" } else { how }));
            let accept = watch.at("accept", CONN.server_endpoint());
            let mut acceptor = server.object();
            acceptor["tid"] = accept["process"]["tid"].clone();
            accepted(&mut watch, &mut client, &mut server, &acceptor);
        });
    }
}

/// It is accepted while the process waits in another system call, here read(2), which has nothing to do with it.
#[test]
fn accept_during_another_call_has_via_io_uring() {
    if cannot_detect_via("uring::accept_during_another_call_has_via_io_uring") {
        return;
    }
    for how in ["plain", "sqpoll"] {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let (mut client, mut server) = (actor(), actor());
            CONN.listens(&mut server);
            server.say(&format!("uring {how} accept later"));
            CONN.connects(&mut client, "");
            // The accept is complete, whenever its result is read.
            client.say("send 10");
            server.say("uring plain reap");
            server.say(&format!("uring {how} recv 10"));
            let accept = watch.at("accept", CONN.server_endpoint());
            let mut acceptor = server.object();
            acceptor["tid"] = accept["process"]["tid"].clone();
            accepted(&mut watch, &mut client, &mut server, &acceptor);
        });
    }
}

/// Checks the events of the accept, and closes.
#[track_caller]
fn accepted(watch: &mut Watch, client: &mut Actor, server: &mut Actor, acceptor: &Value) {
    let listen = watch.at("listen", endpoint(6000, 0));
    let open = watch.at("open", CONN.client_endpoint());
    let accept = watch.at("accept", CONN.server_endpoint());
    assert_via(&open, None);
    assert_has(&accept, CONN.at_server(&client.object()));
    assert_has(&accept, used_by(acceptor, "accept"));
    assert_has(&accept["listener"], json!({"id": listen["id"], "process": server.object()}));
    assert_has(&accept["peer"], json!({"id": open["id"], "process": client.object()}));
    assert_via(&accept, VIA);
    let closed = CONN.closes(watch, client, server);
    assert_has(&closed[1], CONN.at_server(&client.object()));
    assert_has(&closed[1], used_by(acceptor, "accept"));
    assert_via(&closed[0], None);
    assert_via(&closed[1], VIA);
    let of_server = |event: &&Value| CONN.server_endpoint().of(event);
    let kinds: Vec<_> = watch.events().iter().filter(of_server).map(tests::kind).collect();
    assert_eq!(kinds, ["open", "accept", "close"]);
}

/// Sends and receives of the connector and the acceptor are no handover, by whichever thread.
#[test]
fn use_by_connector_and_acceptor_is_no_handover() {
    if cannot_detect_via("uring::use_by_connector_and_acceptor_is_no_handover") {
        return;
    }
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        CONN.listens(&mut server);
        CONN.connects(&mut client, "");
        server.say("accept");
        for (how, _) in WAYS {
            // One that waits, and one that does not.
            server.begin(&format!("uring {how} recv 10"));
            client.say(&format!("uring {how} send 10"));
            server.answer().unwrap();
            server.say(&format!("uring {how} send 10"));
            client.say(&format!("uring {how} recv 10"));
        }
        let closed = CONN.closes(&mut watch, &mut client, &mut server);
        for (closed, expected) in
            closed.iter().zip([CONN.at_client(&client.object()), CONN.at_server(&client.object())])
        {
            assert_has(closed, expected);
            assert_has(closed, json!({"bytes_sent": 30, "bytes_received": 30}));
            assert_via(closed, None);
        }
        let log = watch.finish();
        CONN.kinds(&log, &["open", "close"], &["open", "accept", "close"]);
    });
}

#[test]
fn use_by_a_child_is_a_handover() {
    if cannot_detect_via("uring::use_by_a_child_is_a_handover") {
        return;
    }
    for (how, thread) in WAYS {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let (mut client, mut server) = (actor(), actor());
            CONN.listens(&mut server);
            CONN.connects(&mut client, "");
            server.say("accept");
            let children = [client.hire(), server.hire()];
            client.say(&format!("worker uring {how} send 10"));
            server.say(&format!("worker uring {how} recv 10"));
            for (endpoint, child) in
                [CONN.client_endpoint(), CONN.server_endpoint()].into_iter().zip(&children)
            {
                let handover = watch.at("handover", endpoint);
                assert_has(&handover["process"], json!({"pid": child["pid"], "comm": "actor"}));
                assert_eq!(handover["process_basis"], "handover");
                assert_eq!(handover["origin"]["process"]["pid"], client.pid());
                if let Some(name) = thread {
                    assert_ne!(handover["process"]["tid"], child["pid"]);
                    let name = format!("{name}-{}", child["pid"]);
                    assert_eq!(handover["process"]["thread"], name);
                } else {
                    assert_eq!(handover["process"]["tid"], child["pid"]);
                }
            }
            client.say("dismiss");
            server.say("dismiss");
            CONN.closes(&mut watch, &mut client, &mut server);
            let log = watch.finish();
            CONN.kinds(&log, &["open", "handover", "close"], &["open", "accept", "handover", "close"]);
        });
    }
}
