//! Requests that go over UNIX sockets from process to process.

use tests::{Far, FarSocket, in_fresh_netns};

use super::{Actor, actor, answered, came_from, kinds, listens, socket, with_clients};
use crate::trace::{OUT, Recording};

/// A web server hands a request to a worker, which forks and connects out.
#[test]
fn worker_behind_a_unix_socket_leads_to_the_client() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let far = Far::away();
        let (_folder, path) = socket("worker");
        let out = far.listen(OUT);
        let mut worker = actor();
        worker.say(&format!("unix-listen {path}"));
        worker.begin(&format!("serve call {}:{OUT}", far.ip));
        let (mut server, client, _neighbour) = with_clients(&far);
        server.begin(&format!("on-request ask {path}"));
        client.send("x");
        answered(out);
        worker.answer().expect("it served");
        server.answer().expect("it has its answer");
        worker.kill();
        server.kill();
        let found = recording.ask(&far.ip);
        came_from(&found, &far, client.port);
        assert_eq!(kinds(&found), ["process", "process", "message", "connection"], "{found:#}");
        let why = found["chain"][2]["why"].as_str().unwrap();
        assert!(why.contains("read a message from actor[") && why.contains(&path), "{why}");
    });
}

/// Over two hops, as over a bus; the second socket has an abstract name.
#[test]
fn two_hops_over_unix_sockets_lead_to_the_client() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let far = Far::away();
        let (_folder, path) = socket("bus");
        let name = format!("@netwatch-test-{}", client_name(&far));
        let out = far.listen(OUT);
        let (mut bus, mut service) = (actor(), actor());
        bus.say(&format!("unix-listen {path}"));
        service.say(&format!("unix-listen {name}"));
        bus.begin(&format!("serve ask {name}"));
        service.begin(&format!("serve call {}:{OUT}", far.ip));
        let (mut server, client, _neighbour) = with_clients(&far);
        server.begin(&format!("on-request ask {path}"));
        client.send("x");
        answered(out);
        for mut one in [service, bus, server] {
            one.answer().expect("it served");
            one.kill();
        }
        let found = recording.ask(&far.ip);
        came_from(&found, &far, client.port);
        let steps = ["process", "process", "message", "message", "connection"];
        assert_eq!(kinds(&found), steps, "{found:#}");
        assert!(found["chain"][2]["why"].as_str().unwrap().contains(&name), "{found:#}");
    });
}

/// The address of a far host is of one test only.
fn client_name(far: &Far) -> String {
    far.ip.replace('.', "-")
}

/// An intruder in a shell runs a client of a daemon, which has another daemon do it, as a container runtime does.
#[test]
fn client_of_a_daemon_leads_to_the_shell_that_ran_it() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let far = Far::away();
        let (_folder, path) = socket("daemon");
        let (_other, inner) = socket("shim");
        let out = far.listen(OUT);
        let (mut daemon, mut shim) = (actor(), actor());
        daemon.say(&format!("unix-listen {path}"));
        shim.say(&format!("unix-listen {inner}"));
        daemon.begin(&format!("serve ask {inner}"));
        shim.begin(&format!("serve call {}:{OUT}", far.ip));
        let (mut shell, client, _neighbour) = with_clients(&far);
        shell.begin("become /bin/bash");
        client.send(&format!("{} 'ask {path}'; exit\n", Actor::program()));
        answered(out);
        for mut one in [shim, daemon] {
            one.answer().expect("it served");
            one.kill();
        }
        shell.ended();
        let found = recording.ask(&far.ip);
        came_from(&found, &far, client.port);
        let steps = kinds(&found);
        assert_eq!(steps.iter().filter(|kind| **kind == "message").count(), 2, "{found:#}");
    });
}

/// Many clients at once, through one worker with a few threads: each trace leads to its own client, or to none.
#[test]
fn parallel_requests_are_never_mixed_up() {
    const CLIENTS: usize = 12;
    const THREADS: usize = 3;
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let far = Far::away();
        let (_folder, path) = socket("worker");
        let outs: Vec<(u16, FarSocket)> =
            (40_001..).take(CLIENTS).map(|port| (port, far.listen(port))).collect();
        let (mut server, mut worker) = (actor(), actor());
        worker.say(&format!("unix-listen {path}"));
        worker.begin(&format!("connect-for-all {} {CLIENTS} {THREADS}", far.ip));
        let at = listens(&mut server);
        let clients: Vec<FarSocket> = (0..CLIENTS)
            .map(|_| {
                let client = far.connect(at);
                server.say("accept");
                client
            })
            .collect();
        server.begin(&format!("forward-all {path} {CLIENTS}"));
        for (client, (port, _)) in clients.iter().zip(&outs) {
            client.send(&port.to_string());
        }
        let ports: Vec<u16> = outs.iter().map(|(port, _)| *port).collect();
        outs.into_iter().for_each(|(_, out)| answered(out));
        worker.answer().expect("all are served");
        server.answer().expect("all are answered");
        worker.kill();
        server.kill();
        let mut known = 0;
        for (client, port) in clients.iter().zip(ports) {
            let found = recording.ask_of(&format!("{}:{port}", far.ip));
            let origin = &found["origin"];
            if origin["kind"] == "remote" {
                assert_eq!(origin["port"], client.port, "{port} {found:#}");
                known += 1;
            } else {
                assert_eq!(origin["ip"], serde_json::Value::Null, "{found:#}");
            }
        }
        assert!(known > 0, "no request was followed");
    });
}
