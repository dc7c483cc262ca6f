//! Sockets that do not come from a parent by fork: passed, taken, activated; and those that are older than netwatch.

use serde_json::{Value, json};
use tests::{Actor, Watch, assert_has, endpoint, in_fresh_netns, netwatch, until};

use super::{Pair, same_endpoint};
use crate::actor;
use crate::expect::{CONN, used_by};

/// A third actor in the same namespace, with a UNIX socket to receive descriptors.
fn receiver(directory: &tempfile::TempDir) -> (Actor, String) {
    let mut receiver = actor();
    let path = directory.path().join("mailbox").to_str().unwrap().to_owned();
    receiver.say(&format!("mailbox {path}"));
    (receiver, path)
}

#[test]
fn socket_passed_by_the_connector_is_a_handover() {
    in_fresh_netns(|| {
        let directory = tempfile::tempdir().unwrap();
        let mut pair = Pair::new();
        let (mut receiver, path) = receiver(&directory);
        pair.client.say(&format!("give {path}"));
        receiver.say("take");
        receiver.say("send 10");
        pair.server.say("recv 10");
        pair.at_client(&receiver.object());
        receiver.say("send 10");
        pair.server.say("recv 10");
        receiver.say("close");
        pair.finish(&["open", "handover", "close"], &["open", "accept", "close"]);
    });
}

#[test]
fn socket_passed_by_the_acceptor_is_a_handover() {
    in_fresh_netns(|| {
        let directory = tempfile::tempdir().unwrap();
        let mut pair = Pair::new();
        let (mut receiver, path) = receiver(&directory);
        pair.server.say(&format!("give {path}"));
        receiver.say("take");
        receiver.begin("recv 10");
        pair.client.say("send 10");
        receiver.answer().unwrap();
        pair.at_server(&receiver.object());
        receiver.say("close");
        pair.finish(&["open", "close"], &["open", "accept", "handover", "close"]);
    });
}

#[test]
fn socket_taken_by_pidfd_getfd_is_a_handover() {
    in_fresh_netns(|| {
        let mut pair = Pair::new();
        let mut thief = actor();
        let fd = pair.client.say("fd");
        thief.say(&format!("steal {} {fd}", pair.client.pid()));
        thief.say("send 10");
        pair.server.say("recv 10");
        pair.at_client(&thief.object());
        thief.say("close");
        pair.finish(&["open", "handover", "close"], &["open", "accept", "close"]);
    });
}

/// The acceptor and the process that called listen() are both named, however the listener was handed over.
#[test]
fn activated_process_is_the_acceptor() {
    in_fresh_netns(|| {
        let directory = tempfile::tempdir().unwrap();
        for way in ["inherited", "passed"] {
            let mut watch = Watch::shared();
            let (mut opener, mut client) = (actor(), actor());
            CONN.listens(&mut opener);
            let listen = watch.at("listen", endpoint(6000, 0));
            assert_has(&listen, used_by(&opener.object(), "listener"));
            let (mut other, path) = receiver(&directory);
            CONN.connects(&mut client, "");
            let acceptor = if way == "passed" {
                opener.say(&format!("give-listener {path}"));
                other.say("take-listener");
                other.say("accept");
                client.say("send 10");
                other.say("recv 10");
                other.object()
            } else {
                let child = opener.hire();
                opener.say("worker accept");
                client.say("send 10");
                opener.say("worker recv 10");
                child
            };
            let born = watch.at("open", CONN.server_endpoint());
            assert_has(&born, CONN.at_birth(&client.object()));
            assert_has(&born, used_by(&opener.object(), "listener"));
            let accept = watch.at("accept", CONN.server_endpoint());
            assert_has(&accept, CONN.at_server(&client.object()));
            assert_has(&accept, used_by(&acceptor, "accept"));
            let listener = json!({"id": listen["id"], "process": opener.object()});
            assert_eq!(accept["listener"]["id"], listen["id"]);
            assert_has(&accept["listener"], listener);
            client.say("close");
            if way == "passed" {
                other.say("close")
            } else {
                opener.say("worker close")
            };
            let closed = watch.at("close", CONN.server_endpoint());
            assert_has(&closed, used_by(&acceptor, "accept"));
            assert_has(&closed, json!({"listener": {"id": listen["id"], "process": opener.object()}}));
            let log = watch.finish();
            CONN.kinds(&log, &["open", "close"], &["open", "accept", "close"]);
            std::fs::remove_file(path).unwrap();
        }
    });
}

/// inetd's `wait`: what it starts has the listener as its standard input, and accepts.
#[test]
fn activated_program_is_the_acceptor() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut opener, mut client) = (actor(), actor());
        CONN.listens(&mut opener);
        CONN.connects(&mut client, "");
        client.say("send 10");
        let arguments = ["adopt-listener", "accept", "recv+10", "send+10", "close"];
        let pid: u32 = opener
            .say(&format!("spawn listener {} {}", Actor::program(), arguments.join(" ")))
            .parse()
            .unwrap();
        client.say("recv 10");
        let accept = watch.at("accept", CONN.server_endpoint());
        let mut acceptor = opener.object();
        acceptor["pid"] = pid.into();
        acceptor["tid"] = pid.into();
        acceptor["args"] =
            json!([Actor::program(), "adopt-listener", "accept", "recv 10", "send 10", "close"]);
        assert_has(&accept, CONN.at_server(&client.object()));
        assert_has(&accept, used_by(&acceptor, "accept"));
        assert_has(&accept["listener"], json!({"process": opener.object()}));
        client.say("close");
        let closed = watch.at("close", CONN.server_endpoint());
        assert_has(&closed, used_by(&acceptor, "accept"));
        let log = watch.finish();
        CONN.kinds(&log, &["open", "close"], &["open", "accept", "close"]);
    });
}

/// No one saw who connected and who accepted: the oldest holder is named until another process is seen.
#[test]
fn handover_of_a_seed_is_reported() {
    in_fresh_netns(|| {
        let (mut client, mut server) = (actor(), actor());
        CONN.listens(&mut server);
        CONN.connects(&mut client, "");
        server.say("accept");
        let (client_s, server_s) = (client.hire(), server.hire());
        let mut watch = Watch::start(&[]);
        let endpoints = [CONN.client_endpoint(), CONN.server_endpoint()];
        let seeds = endpoints.map(|endpoint| watch.at("seed", endpoint));
        client.say("worker send 10");
        server.say("worker recv 10");
        for ((seed, endpoint), (holder, user)) in
            seeds.iter().zip(endpoints).zip([(&client, &client_s), (&server, &server_s)])
        {
            assert_has(seed, used_by(&holder.object(), "seed"));
            let handover = watch.at("handover", endpoint);
            assert_has(&handover, used_by(user, "handover"));
            assert_eq!(handover["origin"], seed["origin"]);
            same_endpoint(seed, &handover);
        }
        // The oldest holder is no new user.
        server.say("send 10");
        client.say("recv 10");
        for actor in [&mut client, &mut server] {
            actor.say("dismiss");
        }
        let closed = CONN.closes(&mut watch, &mut client, &mut server);
        for (closed, seed) in closed.iter().zip(&seeds) {
            assert_eq!(closed["origin"], seed["origin"]);
        }
        let log = watch.finish();
        CONN.kinds(&log, &["seed", "handover", "close"], &["seed", "handover", "close"]);
    });
}

#[test]
fn list_has_all_holders() {
    in_fresh_netns(|| {
        let directory = tempfile::tempdir().unwrap();
        let (mut client, mut server) = (actor(), actor());
        CONN.listens(&mut server);
        CONN.connects(&mut client, "");
        server.say("accept");
        let child = client.hire();
        let (mut receiver, path) = receiver(&directory);
        client.say(&format!("give {path}"));
        receiver.say("take");
        let cat: u32 = client.say("spawn stream cat").parse().unwrap();
        until("cat runs", || std::fs::read_to_string(format!("/proc/{cat}/comm")).unwrap() == "cat\n");
        let fd: u32 = client.say("fd").parse().unwrap();
        let its: u32 = receiver.say("fd").parse().unwrap();
        let mut expected = vec![
            json!({"pid": client.pid(), "fd": fd, "comm": "actor"}),
            json!({"pid": child["pid"], "fd": fd, "comm": "actor"}),
            json!({"pid": receiver.pid(), "fd": its, "comm": "actor"}),
            json!({"pid": cat, "fd": 0, "comm": "cat"}),
            json!({"pid": cat, "fd": 1, "comm": "cat"}),
        ];
        let output = netwatch(&["list", "--json"]);
        let lines = String::from_utf8(output.stdout).unwrap();
        let mut rows = lines.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let row = rows.find(|row| CONN.client_endpoint().of(row)).unwrap();
        let mut holders = row["holders"].as_array().unwrap().clone();
        for list in [&mut expected, &mut holders] {
            list.sort_by_key(ToString::to_string);
        }
        assert_eq!(holders, expected, "{row:#}");
        // `process` is the oldest of them.
        assert_has(&row["process"], client.object());
    });
}
