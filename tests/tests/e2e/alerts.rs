//! Alerts: what built-in detections find, what they leave alone, and where alerts go.

mod detected;
mod exec;
mod rules;

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;

use serde_json::{Value, json};
use tests::{Actor, Judge, Running, Store, Watch, assert_has, check_ecs, in_fresh_netns, kind, netwatch};

use crate::actor;

/// The alerts among events.
pub(super) fn alerts(events: &[Value]) -> Vec<&Value> {
    events.iter().filter(|event| kind(event) == "alert").collect()
}

/// The codes of alerts, and the pids of their processes.
fn codes(events: &[Value]) -> Vec<(String, Value)> {
    let words = |alert: &&Value| {
        let code = alert["code"].as_str().unwrap_or_default();
        (code.to_owned(), alert["process"]["pid"].clone())
    };
    alerts(events).iter().map(words).collect()
}

/// A program that exists only in memory.
pub(super) fn hidden(file: &std::fs::File) -> Actor {
    Actor::start(format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd()))
}

#[test]
fn alert_names_rule_connection_and_process_and_has_the_walk_back() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--detect", "exe-memfd"]);
        let mut server = actor();
        server.say("listen 127.0.0.1:6000 16");
        let file = crate::disguise::memfd();
        let mut client = hidden(&file);
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        let open = watch.at("open", tests::endpoint(2000, 6000));
        let alert = watch.expect("an alert", |event| kind(event) == "alert");
        assert_has(
            &alert,
            json!({
                "rule": {"id": "exe-memfd", "level": "high"},
                "code": "exe-memfd",
                "detail": "it connects, and its executable is an anonymous file in memory",
                "connection": open["id"],
                "proto": "tcp",
                "local": {"ip": "127.0.0.1", "port": 2000},
                "remote": {"ip": "127.0.0.1", "port": 6000},
                "side": "local",
                "process": {"pid": client.pid(), "exe_state": "memfd"},
                "suppressed": 0,
                "trace": {"connection": {"id": open["id"]}},
            }),
        );
        assert_eq!(alert["trace"]["chain"][0]["process"]["pid"], client.pid());
        assert_eq!(watch.finish().status.code(), Some(0));
    });
}

#[test]
fn filter_decides_what_is_shown_and_not_what_is_found() {
    in_fresh_netns(|| {
        let mut only = Watch::start(&["--detect", "exe-memfd", "--event", "alert"]);
        let mut others = Watch::start(&["--detect", "exe-memfd", "--event", "listen"]);
        let mut elsewhere = Watch::start(&["--detect", "exe-memfd", "--port", "7000"]);
        let file = crate::disguise::memfd();
        let mut server = hidden(&file);
        server.say("listen 127.0.0.1:6000 16");
        let mut last = actor();
        last.say("listen 127.0.0.1:7000 16");
        only.expect("an alert", |event| kind(event) == "alert");
        others.at("listen", tests::endpoint(7000, 0));
        elsewhere.at("listen", tests::endpoint(7000, 0));
        let kinds = |watch: Watch| {
            watch.finish().events.iter().map(|event| kind(event).to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(kinds(only), ["ready", "alert"]);
        // Others that start in this namespace listen as well, for their self-test.
        assert!(kinds(others).iter().skip(1).all(|kind| kind == "listen"));
        assert_eq!(kinds(elsewhere), ["ready", "listen"]);
    });
}

#[test]
fn alerts_are_recorded_by_default_and_found_again() {
    in_fresh_netns(|| {
        let store = Store::new();
        let mut watch = Watch::recording(&store.path(), &["--netns", "self"]);
        let file = crate::disguise::memfd();
        let mut server = hidden(&file);
        server.say("listen 127.0.0.1:6000 16");
        let printed = watch.expect("an alert", |event| kind(event) == "alert");
        let log = watch.finish();
        assert_eq!((log.status.code(), log.stderr.as_str()), (Some(0), ""));
        let kept = store.log(&["--event", "alert"]);
        let without_seq = |event: &Value| {
            let mut event = event.clone();
            event.as_object_mut().unwrap().remove("seq");
            event
        };
        assert_eq!(kept.iter().map(without_seq).collect::<Vec<_>>(), [without_seq(&printed)]);
        assert_eq!(alerts(&store.log(&["--port", "6000"])).len(), 1);
        assert_eq!(alerts(&store.log(&["--port", "7000"])).len(), 0);
        assert_eq!(alerts(&store.log(&["--event", "listen"])).len(), 0);
        assert_eq!(alerts(&store.log(&["--scan"])).len(), 1);
        let (status, text) = store.verify(&[]);
        assert_eq!(status, Some(0), "{text}");
        // In the other formats.
        for (format, part) in
            [("ecs", r#""kind":"alert""#), ("ocsf", r#""class_uid":2004"#), ("text", "alert    high ")]
        {
            let output = store.run("log", &["--event", "alert", "--format", format]);
            let text = String::from_utf8(output.stdout).unwrap();
            assert!(text.contains(part) && text.lines().count() == 1, "{format}: {text}");
        }
        let lines = |format: &str| {
            let output = store.run("log", &["--event", "alert", "--format", format]);
            String::from_utf8(output.stdout).unwrap()
        };
        let ecs: Value = serde_json::from_str(&lines("ecs")).unwrap();
        check_ecs(&ecs).unwrap_or_else(|errors| panic!("{errors}\n{ecs:#}"));
        let judged =
            Judge::Ocsf.reads("alerts::alerts_are_recorded_by_default_and_found_again", &lines("ocsf"));
        assert!(judged.is_none_or(|count| count == [json!(1)]));
    });
}

#[test]
fn what_is_held_back_is_counted_and_told_at_the_end() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--detect", "exe-memfd", "--suppress", "1h"]);
        let mut server = actor();
        server.say("listen 127.0.0.1:6000 16");
        let file = crate::disguise::memfd();
        let mut client = hidden(&file);
        for port in 2000..2005 {
            client.say(&format!("connect 127.0.0.1:{port} 127.0.0.1:6000"));
        }
        watch.at("open", tests::endpoint(2004, 6000));
        let log = watch.finish();
        let counts: Vec<_> = alerts(&log.events).iter().map(|alert| alert["suppressed"].clone()).collect();
        // Two that are told of, and three between them.
        assert_eq!(counts, [json!(0), json!(3)]);
        let [.., last] = alerts(&log.events)[..] else { panic!() };
        assert_eq!(last["local"]["port"], 2004);
    });
}

#[test]
fn wrong_options_end_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.json");
    std::fs::write(&broken, "{\"x\":1}").unwrap();
    let broken = broken.to_str().unwrap();
    for (arguments, status, part) in [
        (&["--detect", "shell"][..], 2, "one of all, default, none, shell-on-socket"),
        (&["--detect", "first-connect"], 2, "need --baseline FILE"),
        (&["--detect", "all", "--baseline", "/proc/none/b"], 1, "cannot write the baseline /proc/none/b"),
        (&["--detect", "all", "--baseline", broken], 1, "is no baseline of netwatch"),
        (&["--suppress", "soon"], 2, "`soon`: a time"),
        (&["--suppress", "x/y=1m"], 2, "`y`: one of rule, process"),
    ] {
        let output = netwatch(&[&["watch", "--duration", "1"], arguments].concat());
        let said = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.code() == Some(status) && said.contains(part), "{arguments:?}: {said}");
        assert_eq!(said.lines().count(), 1, "{said}");
    }
}

/// A shell with a connection as its standard input and output, and another program with one.
#[test]
fn shell_on_a_socket_is_told_of_once() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--detect", "shell-on-socket"]);
        let server = TcpListener::bind("127.0.0.1:6000").unwrap();
        let started = |program: &str| {
            let client = TcpStream::connect("127.0.0.1:6000").unwrap();
            let (far, _) = server.accept().unwrap();
            let end = || std::os::fd::OwnedFd::from(client.try_clone().unwrap());
            let mut command = std::process::Command::new(program);
            (Running::start(command.stdin(end()).stdout(end())), far)
        };
        let harmless = started("/bin/cat");
        let (shell, mut far) = started("/bin/sh");
        let alert = watch.expect("an alert", |event| kind(event) == "alert");
        assert_has(&alert, json!({"code": "shell-on-socket", "process": {"pid": shell.pid()}}));
        // It acts on it.
        far.write_all(b"exec 3<>/dev/null; echo x\n").unwrap();
        drop(far);
        drop((harmless, shell));
        let log = watch.finish();
        assert_eq!(codes(&log.events).len(), 1, "{:#?}", alerts(&log.events));
    });
}
