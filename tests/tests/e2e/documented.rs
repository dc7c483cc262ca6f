//! docs/events.schema.json describes every kind of event. The harness validates each event that any test reads; here
//! each kind is produced, so that none of the descriptions is without a test.

use std::collections::BTreeSet;
use std::net::{TcpListener, TcpStream};

use tests::{Watch, documented_kinds, endpoint, in_fresh_netns, kind};

use crate::actor;

/// Connections at a time, until the smallest ring has lost a record.
const FLOOD: u16 = 500;

#[test]
fn every_kind_of_event_matches_the_schema() {
    let mut kinds = BTreeSet::new();
    for processes in ["full", "once", "key"] {
        in_fresh_netns(|| kinds.extend(all_but_loss(processes)));
    }
    in_fresh_netns(|| kinds.extend([loss()]));
    let documented: BTreeSet<_> = documented_kinds().into_iter().map(str::to_owned).collect();
    assert_eq!(kinds, documented);
}

/// The kinds of events of a run in which nothing is lost.
fn all_but_loss(processes: &str) -> BTreeSet<String> {
    let mut server = actor();
    server.say("listen 127.0.0.1:6000 16");
    let mut watch = Watch::start(&["--states", "--processes", processes, "--detect", "exe-memfd"]);
    watch.at("seed", endpoint(6000, 0));

    let mut client = actor();
    client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
    server.say("accept");
    let _child = client.hire();
    client.say("worker send 10");
    watch.at("handover", endpoint(2000, 6000));
    assert!(client.try_say("connect 127.0.0.1:2001 127.0.0.1:5999").is_err());
    watch.at("fail", endpoint(2001, 5999));
    let mut other = actor();
    other.say("listen 127.0.0.1:6001 16");
    watch.at("listen", endpoint(6001, 0));
    // Closed by FIN at both endpoints: the states in between are emitted.
    let mut last = actor();
    last.say("connect 127.0.0.1:2002 127.0.0.1:6001");
    other.say("accept");
    last.say("close");
    other.say("eof");
    other.say("close");
    watch.at("state", endpoint(2002, 6001));
    drop((client, server, other, last));
    watch.at("unlisten", endpoint(6001, 0));
    watch.at("close", endpoint(2000, 6000));
    watch.at("close", endpoint(6000, 2000));

    let file = crate::disguise::memfd();
    let path = format!("/proc/{}/fd/{}", std::process::id(), std::os::fd::AsRawFd::as_raw_fd(&file));
    let mut hidden = tests::Actor::start(&path);
    hidden.say("listen 127.0.0.1:6002 16");
    watch.expect("an alert", |event| kind(event) == "alert");

    let log = watch.finish();
    let named = log.events.iter().find(|event| event["process"]["ancestors"].is_array());
    assert_eq!(named.is_some(), processes != "key");
    log.events.iter().map(|event| kind(event).to_owned()).collect()
}

/// Makes netwatch lose records, and returns the kind of event that says so.
fn loss() -> String {
    let mut watch = Watch::alone(&["--ring", "4096"]);
    let server = TcpListener::bind("127.0.0.1:7000").unwrap();
    let to = server.local_addr().unwrap();
    let mut is_lost = false;
    watch.settles("a loss is reported", |events| {
        if is_lost || events.iter().any(|event| kind(event) == "loss") {
            is_lost = true;
            return true;
        }
        for _ in 0..FLOOD {
            let _client = TcpStream::connect(to).unwrap();
            server.accept().unwrap();
        }
        false
    });
    let log = watch.finish();
    let loss = log.events.iter().find(|event| kind(event) == "loss").unwrap();
    kind(loss).to_owned()
}
