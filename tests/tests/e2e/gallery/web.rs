//! Servers that ask somebody else before they act.

use std::net::UdpSocket;
use std::thread::JoinHandle;

use serde_json::Value;
use tests::{Actor, Cgroup, Far, Tree, in_fresh_netns};

use super::{actor, answered, came_from, kinds, with_clients};
use crate::trace::{OUT, Recording};

/// Answers one question, by UDP.
fn resolver() -> (String, JoinHandle<()>) {
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    let at = socket.local_addr().unwrap().to_string();
    let work = move || {
        let (_, from) = socket.recv_from(&mut [0]).unwrap();
        socket.send_to(b"x", from).unwrap();
    };
    (at, std::thread::spawn(work))
}

/// A database or queue that answers on its last connection, when it has read so many bytes from each; its address.
fn server(connections: usize, questions: usize) -> (String, Actor) {
    let mut server = actor();
    let at = server.say("listen 127.0.0.1:0 8");
    server.begin(&format!("answer {connections} {questions}"));
    (at, server)
}

#[test]
fn proxy_that_resolves_names_first_leads_to_the_client() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let far = Far::away();
        let out = far.listen(OUT);
        let (at, resolves) = resolver();
        let (mut proxy, client, _neighbour) = with_clients(&far);
        proxy.begin(&format!("on-request resolve {at} {}:{OUT}", far.ip));
        client.send("x");
        answered(out);
        proxy.answer().expect("it connected");
        resolves.join().unwrap();
        proxy.kill();
        let found = recording.ask(&far.ip);
        came_from(&found, &far, client.port);
        assert_eq!(kinds(&found), ["process", "connection"], "{found:#}");
    });
}

#[test]
fn application_that_asks_its_database_leads_to_the_client() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let far = Far::away();
        let out = far.listen(OUT);
        let (at, mut database) = server(1, 1);
        let (mut web, client, _neighbour) = with_clients(&far);
        web.begin(&format!("on-request query {at} {}:{OUT}", far.ip));
        client.send("x");
        answered(out);
        web.answer().expect("the child connected");
        database.answer().expect("it answered");
        database.kill();
        web.kill();
        let found = recording.ask(&far.ip);
        came_from(&found, &far, client.port);
        assert_eq!(kinds(&found), ["process", "process", "connection"], "{found:#}");
    });
}

/// Both ask over one connection before the first answer comes: whose answer it is cannot be told.
#[test]
fn clients_of_one_pooled_connection_are_not_mixed_up() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let far = Far::away();
        let out = far.listen(OUT);
        let (at, mut database) = server(1, 2);
        let (mut web, second, first) = with_clients(&far);
        web.begin(&format!("pooled {at} {}:{OUT}", far.ip));
        first.send("x");
        second.send("x");
        answered(out);
        web.answer().expect("the child connected");
        database.answer().expect("it answered");
        database.kill();
        web.kill();
        let found = recording.ask(&far.ip);
        assert_ne!(found["origin"]["kind"], "remote", "{found:#}");
        assert_eq!(found["origin"]["ip"], Value::Null);
    });
}

/// The worker's own connection to the queue is possible. Who put the job there is not known.
#[test]
fn job_from_a_queue_is_possible_and_not_followed() {
    in_fresh_netns(|| {
        let recording = Recording::begin();
        let far = Far::away();
        let out = far.listen(OUT);
        let (at, mut queue) = server(2, 1);
        let (mut web, client, _neighbour) = with_clients(&far);
        // The queue reads first from the web server, which connects first.
        web.begin(&format!("on-request push {at}"));
        client.send("x");
        web.answer().expect("it is in the queue");
        let mut worker = actor();
        worker.begin(&format!("pop {at} {}:{OUT}", far.ip));
        answered(out);
        worker.answer().expect("the job is done");
        queue.answer().expect("it gave the job away");
        queue.kill();
        worker.kill();
        web.kill();
        let found = recording.ask(&far.ip);
        let origin = &found["origin"];
        assert_ne!(origin["kind"], "remote", "{found:#}");
        let port: u16 = crate::port_of(&at);
        let possible = origin["possible"].as_array().unwrap();
        assert!(possible.iter().any(|life| life["remote"]["port"] == port), "{found:#}");
    });
}

#[test]
fn thread_pool_with_a_queue_in_memory_leads_to_its_service() {
    in_fresh_netns(|| {
        let group = Cgroup::new(Tree::Unified, "pool.service");
        let recording = Recording::begin();
        let far = Far::away();
        let out = far.listen(OUT);
        let (mut web, client, neighbour) = with_clients(&far);
        group.takes(web.pid());
        web.begin(&format!("on-request pool {}:{OUT}", far.ip));
        client.send("x");
        answered(out);
        web.answer().expect("it connected");
        web.kill();
        let found = recording.ask(&far.ip);
        let origin = &found["origin"];
        assert_eq!(origin["kind"], "service", "{found:#}");
        let mut ports: Vec<_> =
            origin["possible"].as_array().unwrap().iter().map(|life| &life["remote"]["port"]).collect();
        ports.sort_by_key(|port| port.as_u64());
        assert_eq!(ports, [neighbour.port, client.port], "{found:#}");
    });
}
