//! `--processes`: how JSON names processes.

use std::collections::HashMap;

use serde_json::Value;
use tests::{Recorder, Store, Watch, endpoint, in_fresh_netns, kind};

use crate::{actor, lives};

const QUIET: [&str; 5] = ["--no-seed", "--netns", "self", "--port", "6000"];

/// Where an event names processes.
const PLACES: [&str; 4] = ["/process", "/origin/process", "/listener/process", "/peer/process"];

/// A connection between two processes.
fn connection() {
    let (mut client, mut server) = (actor(), actor());
    lives(&mut client, &mut server);
}

/// Replaces the keys by the process objects that were printed before. Returns the number of objects too.
fn restored(events: &[Value]) -> (Vec<Value>, usize) {
    let mut objects: HashMap<String, Value> = HashMap::new();
    let (mut restored, mut printed) = (Vec::new(), 0);
    for event in events {
        if kind(event) == "process" {
            let process = event["process"].clone();
            objects.insert(process["key"].as_str().unwrap().to_owned(), process);
            printed += 1;
            continue;
        }
        let mut event = event.clone();
        for place in PLACES {
            if let Some(process) = event.pointer_mut(place).filter(|process| !process.is_null()) {
                *process = objects[process.as_str().unwrap()].clone();
            }
        }
        restored.push(event);
    }
    (restored, printed)
}

/// Without the line numbers.
fn unnumbered(events: &[Value]) -> Vec<Value> {
    let mut events = events.to_vec();
    for event in &mut events {
        event.as_object_mut().unwrap().remove("seq");
    }
    events
}

/// The subject of each event, without times and ids, which differ between netwatches, as do start times of processes.
fn named(events: &[Value]) -> Vec<Vec<Option<&Value>>> {
    let places = || ["/event", "/local", "/remote"].iter().chain(&PLACES);
    let word = |event, place| Value::pointer(event, place).map(|value| value.get("key").unwrap_or(value));
    events.iter().map(|event| places().map(|place| word(event, place)).collect()).collect()
}

#[test]
fn process_is_printed_once_and_before_its_first_event() {
    in_fresh_netns(|| {
        let mut full = Watch::start(&QUIET);
        let mut once = Watch::start(&[&QUIET[..], &["--processes", "once"]].concat());
        let mut keys = Watch::start(&[&QUIET[..], &["--processes", "key"]].concat());
        connection();
        for watch in [&mut full, &mut once, &mut keys] {
            watch.at("unlisten", endpoint(6000, 0));
        }
        let [full, once, keys] = [full, once, keys].map(|watch| watch.finish().events.split_off(1));
        let (events, printed) = restored(&once);
        assert_eq!(printed, 2, "client and server: {once:#?}");
        assert_eq!(named(&events), named(&full));
        // Lines are numbered without a gap.
        let numbers: Vec<_> = once.iter().map(|event| event["seq"].as_u64().unwrap()).collect();
        assert_eq!(numbers, (2..2 + once.len() as u64).collect::<Vec<_>>());
        let without: Vec<_> = once.iter().filter(|event| kind(event) != "process").cloned().collect();
        assert_eq!(named(&keys), named(&without));
    });
}

#[test]
fn log_prints_each_process_once() {
    in_fresh_netns(|| {
        let store = Store::new();
        let recorder = Recorder::start(&store.path(), &[]);
        connection();
        recorder.finish();
        let filter = ["--port", "6000"];
        let (events, printed) = restored(&store.log(&[&filter[..], &["--processes", "once"]].concat()));
        assert_eq!(printed, 2);
        assert_eq!(unnumbered(&events), unnumbered(&store.log(&filter)));
    });
}

/// Both ends of a connection have the ID that other tools compute, and without the option none has.
#[test]
fn community_id_is_that_of_other_tools() {
    in_fresh_netns(|| {
        let events = |options: &[&str]| {
            let mut watch = Watch::start(&[&QUIET[..], options].concat());
            connection();
            watch.at("unlisten", endpoint(6000, 0));
            watch.finish().events.split_off(1)
        };
        for event in events(&["--community-id"]) {
            let is_connection = !event["remote"].is_null();
            // By the reference implementation: 6, 127.0.0.1:2000, 127.0.0.1:6000.
            let id = is_connection.then_some("1:fFxiKQKdSK+FQrCL2z+H/JU8Gt8=");
            assert_eq!(event["community_id"].as_str(), id, "{event}");
        }
        assert!(events(&[]).iter().all(|event| event.get("community_id").is_none()));
    });
}
