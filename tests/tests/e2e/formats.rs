//! The formats of other programs, judged by programs of their own communities.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{
    Actor, Judge, Lines, PATIENCE, Presence, Recorder, Running, Store, binary, check_ecs, in_fresh_netns,
    kind, stranger_s_copy, until,
};

use crate::{actor, lives};

/// A file name that breaks formats: controls, quotes, a line separator, right-to-left, bytes that are not UTF-8.
const HOSTILE: &[u8] = b"a\t\"\n\\x09\xff\xe2\x80\xae";

/// A program with that name.
fn stranger() -> (tempfile::TempDir, Actor) {
    let (folder, path) = stranger_s_copy(Path::new(Actor::program()), OsStr::from_bytes(HOSTILE));
    let actor = Actor::start(&path);
    (folder, actor)
}

/// A connection from port 2000 to 6000 that both ends close, and an attempt from port 2001.
fn play(client: &mut Actor, server: &mut Actor) {
    lives(client, server);
    assert!(client.try_say("connect 127.0.0.1:2001 127.0.0.1:5999").is_err());
}

fn objects(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The line of the connection, and that of the attempt.
fn by_port(records: &[Value]) -> [&Value; 2] {
    [2000, 2001].map(|port| {
        let mut found = records.iter().filter(|record| record["id.orig_p"] == port);
        let record = found.next().unwrap_or_else(|| panic!("no line of port {port}: {records:#?}"));
        assert!(found.next().is_none(), "a second line of port {port}: {records:#?}");
        record
    })
}

#[test]
fn a_recording_is_valid_in_every_format() {
    const TEST: &str = "formats::a_recording_is_valid_in_every_format";
    in_fresh_netns(|| {
        let store = Store::new();
        let recorder = Recorder::start(&store.path(), &[]);
        let (_folder, mut client) = stranger();
        play(&mut client, &mut actor());
        until("all is recorded", || {
            let events = store.log(&[]);
            let times = |ending| events.iter().filter(|event| kind(event) == ending).count();
            times("fail") == 1 && times("close") == 2 && times("unlisten") == 1
        });
        recorder.finish();
        let log = |arguments: &[&str]| {
            let output = store.run("log", arguments);
            assert!(output.status.success(), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let json = store.log(&[]);
        assert_eq!(log(&["--json"]), log(&["--format", "json"]));

        let ecs = objects(&log(&["--format", "ecs"]));
        assert_eq!(ecs.len(), json.len());
        for (event, same) in ecs.iter().zip(&json) {
            check_ecs(event).unwrap_or_else(|errors| panic!("{errors}\n{event:#}"));
            assert_eq!(event["event"]["action"], same["event"]);
            assert_eq!(event["process"]["name"], same["process"]["comm"]);
            assert_eq!(event["process"]["executable"], same["process"]["exe"]);
            let side = same["origin"]["side"].as_str();
            let direction = side.map(|side| if side == "local" { "egress" } else { "ingress" });
            assert_eq!(event["network"]["direction"].as_str(), direction, "{event:#}");
            if direction.is_some() {
                assert_eq!(event["client"]["port"], same["origin"]["endpoint"]["port"]);
            }
        }

        for version in ["1.8", "1.9"] {
            let ocsf = log(&["--format", "ocsf", "--ocsf", version]);
            let activities = objects(&ocsf);
            let fail = activities.iter().find(|event| event["metadata"]["event_code"] == "fail").unwrap();
            assert_eq!((&fail["type_uid"], &fail["status_code"]), (&400_105.into(), &"ECONNREFUSED".into()));
            if let Some(count) = Judge::Ocsf.reads(TEST, &ocsf) {
                assert_eq!(count, [Value::from(json.len())]);
            }
        }

        let comm = json.iter().find(|event| kind(event) == "fail").unwrap()["process"]["comm"].clone();
        assert!(comm.as_str().unwrap().contains("\t\"\n\\x09\\xff"), "{comm}");
        let printed = objects(&log(&["--format", "zeek-json"]));
        let tsv = log(&["--format", "zeek"]);
        let read = [Judge::Zeek.reads(TEST, &tsv), Judge::Zeek.reads(TEST, &log(&["--format", "zeek-json"]))];
        for records in read.into_iter().flatten().chain([printed]) {
            assert_eq!(records.len(), 2, "{records:#?}");
            let [closed, failed] = by_port(&records);
            assert_eq!((&closed["conn_state"], &failed["conn_state"]), (&"SF".into(), &"REJ".into()));
            assert_eq!((&closed["local_orig"], &closed["local_resp"]), (&true.into(), &true.into()));
            assert_eq!((&failed["netwatch.process"], &failed["id.resp_p"]), (&comm, &5999.into()));
        }

        let sysmon = objects(&log(&["--format", "sysmon"]));
        let initiated: Vec<_> = sysmon.iter().map(|event| event["Initiated"].as_str().unwrap()).collect();
        assert_eq!(initiated, ["true", "false"], "{sysmon:#?}");
        for event in &sysmon {
            assert_eq!((&event["EventID"], &event["SourcePort"]), (&3.into(), &2000.into()), "{event:#}");
        }
    });
}

/// The files with every kind of event that the unit tests compare with.
#[test]
fn files_of_the_unit_tests_are_valid() {
    const TEST: &str = "formats::files_of_the_unit_tests_are_valid";
    for event in objects(include_str!("../../../netwatch/tests/formats/ecs.jsonl")) {
        check_ecs(&event).unwrap_or_else(|errors| panic!("{errors}\n{event:#}"));
    }
    for ocsf in [
        include_str!("../../../netwatch/tests/formats/ocsf.jsonl"),
        include_str!("../../../netwatch/tests/formats/ocsf-1.9.jsonl"),
    ] {
        if let Some(count) = Judge::Ocsf.reads(TEST, ocsf) {
            assert_eq!(count, [Value::from(ocsf.lines().count())]);
        }
    }
    let lines = include_str!("../../../netwatch/tests/formats/zeek.jsonl");
    let tsv = include_str!("../../../netwatch/tests/formats/zeek.log");
    if let Some((of_tsv, of_json)) = Judge::Zeek.reads(TEST, tsv).zip(Judge::Zeek.reads(TEST, lines)) {
        assert_eq!(of_tsv, of_json);
        assert!(of_tsv.len() > 5);
    }
}

#[test]
fn the_list_of_fields_of_ecs_is_applied() {
    let with = |more: Value| {
        let mut event = json!({"@timestamp": "2026-01-01T00:00:00Z", "ecs": {"version": "9.4.0"}});
        event.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        check_ecs(&event).is_ok()
    };
    assert!(with(json!({"source": {"ip": "::1", "port": 1}, "netwatch": {"x": {"y": 1}}})));
    for bad in [
        json!({"origin": 1}),
        json!({"source": {"ip": "x"}}),
        json!({"source": {"port": "1"}}),
        json!({"source": {"side": "local"}}),
        json!({"event": {"category": "network"}}),
        json!({"event": {"type": ["open"]}}),
        json!({"network": {"direction": "local"}}),
        json!({"source": 5}),
        json!({"@timestamp": "now"}),
    ] {
        assert!(!with(bad.clone()), "{bad}");
    }
    assert!(check_ecs(&json!({})).is_err());
}

/// A live output with its first lines read, up to one that begins with `until`.
fn live(arguments: &[&str], until: &str) -> (Running, Lines, String) {
    let mut command = Command::new(binary());
    command.args(arguments).args(["--netns", "self"]).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running::start(&mut command);
    let lines = Lines::of(running.stdout());
    let mut first = String::new();
    loop {
        let line = lines.next(PATIENCE).expect("a line");
        first.push_str(&line);
        first.push('\n');
        if line.starts_with(until) {
            return (running, lines, first);
        }
    }
}

#[test]
fn conn_log_has_a_line_at_the_end_of_a_connection_and_an_end_of_its_own() {
    let _presence = Presence::shared();
    in_fresh_netns(|| {
        let arguments = ["watch", "--no-seed", "--format", "zeek", "--port", "2000,2001"];
        let (running, lines, mut log) = live(&arguments, "#types");
        play(&mut actor(), &mut actor());
        for _ in 0..2 {
            log += &(lines.next(PATIENCE).unwrap() + "\n");
        }
        running.signal(Signal::SIGINT);
        let rest: Vec<_> = std::iter::from_fn(|| lines.next(PATIENCE)).collect();
        assert!(rest.len() == 1 && rest[0].starts_with("#close\t"), "{log}{rest:?}");
        log += &rest[0];
        if let Some(records) =
            Judge::Zeek.reads("formats::conn_log_has_a_line_at_the_end_of_a_connection", &log)
        {
            assert_eq!(
                by_port(&records).map(|record| record["conn_state"].as_str()),
                [Some("SF"), Some("REJ")]
            );
        }
    });
}

#[test]
fn a_recorder_prints_other_formats_too() {
    let _presence = Presence::shared();
    in_fresh_netns(|| {
        let store = Store::new();
        let path = store.path();
        let arguments = ["record", "--store", path.to_str().unwrap(), "--print", "--format", "ecs"];
        let (running, lines, first) = live(&arguments, "{");
        check_ecs(&objects(&first)[0]).unwrap();
        play(&mut actor(), &mut actor());
        loop {
            let event = &objects(&lines.next(PATIENCE).expect("a line"))[0];
            check_ecs(event).unwrap_or_else(|errors| panic!("{errors}\n{event:#}"));
            if event["event"]["action"] == "fail" {
                assert_eq!(
                    (&event["error"]["code"], &event["event"]["outcome"]),
                    (&"ECONNREFUSED".into(), &"failure".into())
                );
                break;
            }
        }
        running.signal(Signal::SIGINT);
        while lines.next(PATIENCE).is_some() {}
    });
}
