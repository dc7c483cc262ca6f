//! What a file system that does not answer holds up in the kernel: the memory map of a process, and the way to a network
//! namespace that is mounted there.

use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering};

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use tests::{
    Actor, Cgroup, Hanging, Netns, Tree, Watch, assert_has, endpoint, in_fresh_netns, netwatch, port, until,
};

use super::{connect, hanging, opened};
use crate::actor;

/// How often a page may be refused before the kernel reads it once more with the memory map held: the first time it
/// releases the map meanwhile (filemap_fault() in mm/filemap.c, v6.12).
const REFUSALS: std::ops::Range<usize> = 0..4;

/// A process with a connection, whose memory map is held until the file system answers. `None`, with the reason printed,
/// if there is no FUSE.
fn held(test: &str) -> Option<(Hanging, Actor)> {
    for refusals in REFUSALS {
        let hanging = hanging(test)?;
        let mut client = actor();
        client.say("connect 127.0.0.1:2000 127.0.0.1:6001");
        let writer = client.say(&format!("map {}", hanging.other().display()));
        hanging.refuses(refusals);
        hanging.stops_answering();
        client.say("fault");
        until("it waits for the page", || hanging.unanswered() > 0);
        client.say("remap");
        let state = || std::fs::read_to_string(format!("/proc/{}/task/{writer}/stat", client.pid()));
        let is_held = || state().is_ok_and(|stat| stat.contains(") D "));
        until("the map is written, or held", || is_held() || state().is_err());
        if is_held() {
            return Some((hanging, client));
        }
        // Before the client is killed, which waits for it.
        hanging.answers_again();
    }
    panic!("its memory map cannot be held on this kernel")
}

#[test]
fn held_memory_map_holds_up_nothing() {
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:6001 16");
        let mut watch = Watch::start(&[]);
        let Some((hanging, client)) = held("blocked::held::held_memory_map_holds_up_nothing") else { return };
        let pid = client.pid();
        let is_read = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                // It fails if the process ends first.
                _ = std::fs::read(format!("/proc/{pid}/cmdline"));
                is_read.store(true, Ordering::SeqCst);
            });
            // netwatch reads the cgroup of a process that is moved, and with it all else.
            let group = Tree::Unified.root().map(|_| Cgroup::new(Tree::Unified, "held"));
            if let Some(group) = &group {
                group.takes(pid);
            }
            let ports = connect(20);
            watch.expect("the last", |event| opened(std::slice::from_ref(event)) == ports[19..]);

            let expected = json!({"pid": pid, "comm": "actor", "args": [], "args_truncated": true});
            let listed = netwatch(&["list", "--json"]);
            let rows = String::from_utf8(listed.stdout).unwrap();
            let mut rows = rows.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
            let row = rows.find(|row| port(row, "local") == 2000).expect("its socket");
            assert_has(&row["process"], expected.clone());
            let mut late = Watch::start(&[]);
            assert_has(&late.at("seed", endpoint(2000, 6001))["process"], expected);
            late.finish();
            assert!(netwatch(&["audit", "--json", "--netns", "self"]).stdout.len() > 2);

            assert!(!is_read.load(Ordering::SeqCst), "its memory map is not held");
            hanging.answers_again();
            drop((client, group));
        });
        watch.finish();
    });
}

#[test]
fn namespace_on_a_hanging_mount_holds_up_nothing() {
    let test = "blocked::held::namespace_on_a_hanging_mount_holds_up_nothing";
    in_fresh_netns(|| {
        let Some(hanging) = hanging(test) else { return };
        let hidden = Netns::fresh();
        // The listener is this process's, which is in another namespace.
        let _listener = hidden.inside(|| {
            let own: Option<&str> = None;
            let from = Some("/proc/thread-self/ns/net");
            mount(from, &hanging.other(), own, MsFlags::MS_BIND, own).unwrap();
            TcpListener::bind("127.0.0.1:6003").unwrap()
        });
        let list = || {
            let output = netwatch(&["list", "--json", "--listening", "--netns", "all"]);
            let (rows, notes) = (String::from_utf8(output.stdout), String::from_utf8(output.stderr));
            let rows: Vec<Value> =
                rows.unwrap().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
            let is_there = rows.iter().any(|row| row["netns"] == hidden.inum() && port(row, "local") == 6003);
            (is_there, notes.unwrap())
        };
        assert_eq!(list(), (true, String::new()));
        hanging.stops_answering();
        let (is_there, notes) = list();
        assert!(!is_there);
        assert!(
            notes.contains(&format!("network namespace {}: the file system of", hidden.inum())),
            "{notes}"
        );
        assert!(hanging.unanswered() > 0);
        let mut watch = Watch::start(&[]);
        let ports = connect(1);
        watch.expect("a connection", |event| opened(std::slice::from_ref(event)) == ports);
        watch.finish();
        hanging.answers_again();
        until("it is found again", || list().0);
    });
}
