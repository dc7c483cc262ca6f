//! The `key` of a process: exact where a record or an iterator has its start, marked where only `/proc` was read.

use std::time::Instant;

use serde_json::Value;
use tests::{Actor, PATIENCE, Store, Watch, endpoint, forced, in_fresh_netns, kernel, netns};

use crate::actor;
use crate::expect::CONN;

/// The first kernel where the snapshot is taken by iterators.
const ITERATORS: (u32, u32) = (5, 12);

/// A clock tick in nanoseconds, the unit of starts in `/proc`.
const TICK: u64 = 10_000_000;

/// Pid, start, and whether that is exact.
fn parts(key: &Value) -> (u64, u64, bool) {
    let (pid, start) = key.as_str().and_then(|key| key.split_once('@')).unwrap_or_else(|| panic!("{key}"));
    let digits = start.strip_suffix('~').unwrap_or(start);
    (pid.parse().unwrap(), digits.parse().unwrap(), digits == start)
}

/// The key that `/proc` gives to the same process.
pub(crate) fn coarse(key: &Value) -> String {
    let (pid, start, _) = parts(key);
    format!("{pid}@{}~", start / TICK * TICK)
}

/// The key of the process at one endpoint, as `list` has it.
fn listed(source: &str, local: u16, remote: u16) -> Value {
    let output = tests::netwatch(&["list", "--json", "--source", source]);
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    let is = |row: &Value| row["local"]["port"] == local && row["remote"]["port"] == remote;
    let keys: Vec<Value> = rows.filter(is).map(|row| row["process"]["key"].clone()).collect();
    let [key] = &keys[..] else { panic!("{text}") };
    key.clone()
}

#[test]
fn key_is_exact_and_everywhere_the_same() {
    in_fresh_netns(|| {
        let store = Store::new();
        let mut watch = Watch::recording(&store.path(), &["--netns", &netns().to_string()]);
        let mut server = actor();
        CONN.listens(&mut server);
        let mut clients: Vec<Actor> = (0..4).map(|_| actor()).collect();
        let mut keys = Vec::new();
        for (client, port) in clients.iter_mut().zip(2001..) {
            client.say(&format!("connect 127.0.0.1:{port} {}", CONN.server));
            let open = watch.at("open", endpoint(port, 6000));
            let key = open["process"]["key"].clone();
            assert!(client.has_key(&key), "{open:#}");
            assert_eq!(listed("proc", port, 6000), coarse(&key));
            let best = listed("best", port, 6000);
            if kernel() >= ITERATORS {
                assert_eq!(best, key);
            } else {
                assert_eq!(coarse(&best), coarse(&key));
            }
            let selector = format!(":{port}");
            tests::until("the store has it", || !store.log(&["--port", &port.to_string()]).is_empty());
            let output = store.run("trace", &["--json", &selector]);
            let traced: Value = serde_json::from_slice(&output.stdout).unwrap();
            assert_eq!(traced["matches"][0]["connection"]["process"]["key"], key, "{traced:#}");
            let selector = format!("pid:{}", client.pid());
            let traced: Value =
                serde_json::from_slice(&store.run("trace", &["--json", &selector]).stdout).unwrap();
            assert_eq!(traced["matches"].as_array().map(Vec::len), Some(1), "{traced:#}");
            // The parent: this process, which is older than netwatch.
            let parent = &open["process"]["ancestors"][0]["key"];
            assert_eq!(parts(parent).0, u64::from(std::process::id()));
            keys.extend([key, parent.clone()]);
        }
        let by_iterators = kernel() >= ITERATORS && !forced().iter().any(|probe| probe == "snapshot=proc");
        let mut own = keys.iter().step_by(2);
        assert!(own.all(|key| parts(key).2), "{keys:?}");
        // Without iterators the parent may be known from /proc only, but not if a record was about it.
        assert!(!by_iterators || keys.iter().all(|key| parts(key).2), "{keys:?}");
        let in_ticks = keys.iter().filter(|key| parts(key).1.is_multiple_of(TICK)).count();
        assert!(in_ticks < keys.len() / 2 + usize::from(!by_iterators), "{keys:?}");
    });
}

/// netwatch read a process in `/proc`, and records about it come later: they are about the same one.
#[test]
fn key_of_proc_and_exact_one_are_joined() {
    if forced().iter().any(|probe| probe == "snapshot=iter") {
        return tests::skip("keys::key_of_proc_and_exact_one_are_joined", "iterators are forced");
    }
    in_fresh_netns(|| {
        let (mut client, mut server) = (actor(), actor());
        CONN.listens(&mut server);
        CONN.connects(&mut client, "");
        server.say("accept");
        let mut watch = Watch::start(&["--probe", "snapshot=proc"]);
        let known = watch.at("seed", CONN.client_endpoint())["process"]["key"].clone();
        assert!(client.has_key(&known) && !parts(&known).2, "{known}");
        assert_eq!(listed("proc", 2000, 6000), known);
        // A user that is another process would be reported.
        client.say("send 10");
        server.say("recv 10");
        client.say(&format!("connect 127.0.0.1:2001 {}", CONN.server));
        let exact = watch.at("open", endpoint(2001, 6000))["process"]["key"].clone();
        assert!(parts(&exact).2, "{exact}");
        assert_eq!(coarse(&exact), known);
        server.say("accept");
        server.say("send 10");
        server.say("close");
        client.say("recv 10");
        client.say("close");
        client.say("send 10");
        client.say("close");
        let closed = watch.at("close", CONN.client_endpoint());
        assert_eq!(parts(&closed["process"]["key"]).0, u64::from(client.pid()));
        let log = watch.finish();
        let handovers = log.events.iter().filter(|event| event["event"] == "handover");
        assert_eq!(handovers.count(), 0, "{:#?}", log.events);
    });
}

/// A process connects and exits, and another one with its pid connects, in the same clock tick.
#[test]
fn pid_that_is_reused_within_a_tick_has_another_key() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut server, mut parent) = (actor(), actor());
        CONN.listens(&mut server);
        let deadline = Instant::now() + PATIENCE;
        for port in (2000_u16..).step_by(2) {
            parent.say(&format!("twins {port} {} {}", port + 1, CONN.server));
            let [first, second] = [port, port + 1].map(|port| {
                let open = watch.at("open", endpoint(port, 6000));
                let closed = watch.at("close", endpoint(port, 6000));
                assert_eq!(open["process"]["key"], closed["process"]["key"]);
                assert_eq!(open["process"]["ancestors"][0]["pid"], parent.pid());
                open["process"]["key"].clone()
            });
            assert_ne!(first, second);
            let (first, second) = (parts(&first), parts(&second));
            assert!(first.0 == second.0 && first.1 < second.1 && first.2 && second.2, "{first:?} {second:?}");
            if first.1 / TICK == second.1 / TICK {
                return;
            }
            // Nothing that takes longer than a tick here is an error.
            if Instant::now() >= deadline {
                return tests::skip(
                    "keys::pid_that_is_reused_within_a_tick_has_another_key",
                    "the machine is too slow",
                );
            }
            server.say("accept");
            server.say("close");
            server.say("accept");
            server.say("close");
        }
    });
}
