//! Connections that are made while netwatch starts: in the snapshot, observed by the probes, or both, and emitted once.

use std::collections::HashMap;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use serde_json::Value;
use tests::{PATIENCE, Watch, in_fresh_netns, kind, netns, port};

use crate::table::{table_of_kernel, table_of_log};

/// So many are open at any time.
const OPEN: usize = 20;

/// Between two connections.
const PAUSE: std::time::Duration = std::time::Duration::from_micros(300);

/// Opens and closes connections until `stop`.
fn restless(stop: &AtomicBool) -> Vec<(TcpStream, TcpStream)> {
    let server = TcpListener::bind("127.0.0.1:6000").unwrap();
    let begun = Instant::now();
    let mut open = Vec::new();
    while !stop.load(Ordering::Relaxed) && begun.elapsed() < PATIENCE {
        let client = TcpStream::connect("127.0.0.1:6000").unwrap();
        open.push((client, server.accept().unwrap().0));
        if open.len() > OPEN {
            open.remove(0);
        }
        // Without a pause there would be more events than a slow machine can read.
        std::thread::sleep(PAUSE);
    }
    open
}

#[test]
fn connection_begun_during_the_start_is_reported_once() {
    in_fresh_netns(|| {
        let own = netns();
        let file = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let all = [&["--netns", "self", "--states"][..], &["--netns", "self"]];
        // A start takes seconds in an emulator.
        let all = if tests::is_emulated() { &all[..1] } else { &all[..] };
        for arguments in all {
            let stop = AtomicBool::new(false);
            let (mut watch, _open) = std::thread::scope(|scope| {
                let others = scope.spawn(|| {
                    nix::sched::setns(&file, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
                    restless(&stop)
                });
                let watch = Watch::start(arguments);
                stop.store(true, Ordering::Relaxed);
                (watch, others.join().unwrap())
            });
            watch.settles("the log agrees with the kernel", |events| {
                table_of_log(events, own) == table_of_kernel()
            });
            // Checks on every run: an endpoint has one flow, and no event after its close.
            let log = watch.finish();
            let mut beginnings = HashMap::new();
            let (clients, servers): (Vec<_>, Vec<_>) = log
                .events
                .iter()
                .filter(|event| port(event, "local") == 6000 || port(event, "remote") == 6000)
                .filter(|event| !event["remote"].is_null())
                .partition(|event| port(event, "remote") == 6000);
            for event in clients.iter().chain(&servers) {
                let begins =
                    kind(event) == "open" || kind(event) == "seed" && event["state"] == "ESTABLISHED";
                *beginnings.entry(event["id"].to_string()).or_insert(0) += i32::from(begins);
            }
            assert!(!beginnings.is_empty());
            assert!(beginnings.values().all(|times| *times <= 1), "{beginnings:?}");
            for (events, side) in [(clients, "local"), (servers, "remote")] {
                // A connection that was closed before the snapshot may have nothing but a close, with an unknown
                // origin.
                let unknown = |event: &Value| kind(event) == "close" && event["origin"]["side"] == "unknown";
                let wrong = events.iter().find(|event| event["origin"]["side"] != side && !unknown(event));
                assert!(wrong.is_none(), "{:#}", wrong.unwrap());
            }
        }
    });
}
