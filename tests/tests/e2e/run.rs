//! How a run starts and ends: seeds, counts, durations, signals.

use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{Lines, PATIENCE, Running, Watch, binary, endpoint, in_fresh_netns, kind};

use crate::actor;

#[test]
fn ready_has_the_coverage() {
    in_fresh_netns(|| {
        let log = Watch::start(&[]).finish();
        let ready = &log.events[0];
        assert_eq!(kind(ready), "ready");
        assert!(ready["seeded"].is_u64(), "{ready:#}");
        let probes = ready["coverage"]["probes"].as_object().unwrap();
        for job in ["process", "state", "accept", "connect"] {
            assert!(probes[job].is_string(), "{ready:#}");
        }
        assert!(ready["coverage"]["unseen"].is_array(), "{ready:#}");
        assert_eq!(log.stderr, "");
    });
}

#[test]
fn signals_end_watch_with_status_0() {
    in_fresh_netns(|| {
        for signal in [Signal::SIGINT, Signal::SIGTERM] {
            let mut watch = Watch::start(&[]);
            let mut client = actor();
            assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
            watch.at("fail", endpoint(2000, 6000));
            watch.signal(signal);
            let log = watch.ended();
            assert_eq!((log.status.code(), log.stderr.as_str()), (Some(0), ""), "{signal}");
        }
    });
}

#[test]
fn count_does_not_include_ready() {
    in_fresh_netns(|| {
        let watch = Watch::start(&["--count", "3", "--netns", "self"]);
        let mut client = actor();
        for port in 2000..2005 {
            assert!(client.try_say(&format!("connect 127.0.0.1:{port} 127.0.0.1:6000")).is_err());
        }
        let log = watch.ended();
        assert_eq!((log.status.code(), log.stderr.as_str()), (Some(0), ""));
        let kinds: Vec<_> = log.events.iter().map(kind).collect();
        assert_eq!(kinds, ["ready", "fail", "fail", "fail"]);
        let ports: Vec<_> = log.events.iter().skip(1).map(|event| tests::port(event, "local")).collect();
        assert_eq!(ports, [2000, 2001, 2002]);
    });
}

#[test]
fn watch_ends_after_its_duration() {
    in_fresh_netns(|| {
        let begun = std::time::Instant::now();
        let log = Watch::start(&["--duration", "1s"]).ended();
        assert!(begun.elapsed() >= std::time::Duration::from_secs(1));
        assert_eq!((log.status.code(), log.stderr.as_str()), (Some(0), ""));
    });
}

#[test]
fn no_seed_hides_seeds_and_keeps_what_is_known() {
    in_fresh_netns(|| {
        let (mut client, mut server) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        server.say("accept");
        let mut watch = Watch::start(&["--no-seed", "--netns", "self"]);
        client.say("close");
        server.say("close");
        let closed = watch.at("close", endpoint(6000, 2000));
        tests::assert_has(
            &closed,
            json!({
                "process": server.object(),
                "process_basis": "seed",
                "origin": {
                    "side": "remote", "basis": "listener", "confidence": "inferred", "process": client.object(),
                },
            }),
        );
        let log = watch.finish();
        assert!(log.events.iter().all(|event| kind(event) != "seed"));
    });
}

#[test]
fn two_runs_emit_the_same_events_with_unique_ids() {
    in_fresh_netns(|| {
        // Without the connection of the second one's self-test.
        let arguments = ["--netns", "self", "--port", "6000"];
        let mut watches = [Watch::start(&arguments), Watch::start(&arguments)];
        let (mut client, mut server) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        let mut ids = Vec::new();
        for _ in 0..3 {
            // The same ports again.
            client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
            server.say("accept");
            client.say("linger0");
            client.say("close");
            server.say("close");
        }
        for watch in &mut watches {
            watch.expect_times("three connections are over", 6, |event| kind(event) == "close");
            let opens = watch.events().iter().filter(|event| kind(event) == "open");
            let mut own: Vec<_> = opens.map(|event| event["id"].to_string()).collect();
            own.sort();
            own.dedup();
            assert_eq!(own.len(), 6, "an id came twice");
            ids.push(own);
        }
        let [first, second] = watches.map(|watch| words(&watch.finish().events));
        assert_eq!(first, second);
    });
}

/// Everything but times, which each run reads from its own clock, and ids.
fn words(events: &[Value]) -> Vec<Value> {
    let paths = [
        "/event",
        "/netns",
        "/cookie",
        "/local",
        "/remote",
        "/origin/side",
        "/origin/basis",
        "/origin/process/key",
        "/process/key",
        "/process_basis",
        "/closed_by",
    ];
    let values = |event: &Value| paths.map(|path| event.pointer(path).cloned().unwrap_or_default());
    events.iter().skip(1).map(|event| values(event).into_iter().collect()).collect()
}

#[test]
fn closed_pipe_ends_watch_without_an_error() {
    in_fresh_netns(|| {
        let mut command = Command::new(binary());
        command.args(["watch", "--json", "--netns", "self"]).stdin(Stdio::null());
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let stderr = Lines::of(running.stderr());
        let mut stdout = running.stdout();
        tests::first_line(&mut stdout);
        drop(stdout);
        // It notices when it writes.
        let mut client = actor();
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
        assert_eq!(running.ended("netwatch ends").code(), Some(0));
        assert_eq!(stderr.next(PATIENCE), None);
    });
}

/// A start that takes long says what it waits for.
#[test]
fn slow_start_says_what_it_waits_for() {
    in_fresh_netns(|| {
        let mut command = Command::new(binary());
        command.args(["watch", "--duration", "100ms", "--sabotage", "slow=udp"]).args(tests::forced());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        let line = "netwatch: still starting: attaching the probes of `udp`";
        assert!(stderr.lines().any(|other| other == line), "{stderr}");
    });
}
