//! No loss is silent: what did not fit is counted and reported, and the tables are repaired.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Lines, PATIENCE, Presence, Running, Watch, binary, endpoint, in_fresh_netns, kind, port};

use crate::actor;
use crate::table::{table_of_kernel, table_of_log};

/// Many times what the smallest ring and a stuck reader's pipe hold.
const FLOOD: u16 = 3000;

/// Sockets that stay open after a flood.
#[derive(Default)]
struct Rest {
    _streams: Vec<TcpStream>,
    _listeners: Vec<TcpListener>,
}

/// Makes connections as fast as possible. Every hundredth stays open, and so does every other of the listeners that are
/// opened meanwhile. Also returns the clients' ports.
fn flood(address: &str, connections: u16) -> (Rest, Vec<u16>) {
    let server = TcpListener::bind(address).unwrap();
    let to = server.local_addr().unwrap();
    let mut rest = Rest::default();
    let mut ports = Vec::new();
    for nth in 0..connections {
        let client = TcpStream::connect(to).unwrap();
        let (accepted, from) = server.accept().unwrap();
        ports.push(from.port());
        if nth % 100 == 0 {
            rest._streams.extend([client, accepted]);
        } else if nth % 100 == 1 {
            // The first of these stays.
            rest._listeners.push(TcpListener::bind("127.0.0.1:0").unwrap());
            drop(TcpListener::bind("127.0.0.1:0").unwrap());
        }
    }
    rest._listeners.push(server);
    (rest, ports)
}

fn losses<'a>(events: &'a [Value], reason: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| kind(event) == "loss" && event["reason"] == reason).collect()
}

/// The number of records that these losses report, which must be the sum over their kinds.
fn lost(losses: &[&Value]) -> u64 {
    let count = |loss: &&Value| {
        let count = loss["count"].as_u64().unwrap();
        let kinds = loss["kinds"].as_object().unwrap();
        assert_eq!(kinds.values().map(|lost| lost.as_u64().unwrap()).sum::<u64>(), count, "{loss:#}");
        assert!(count > 0, "{loss:#}");
        count
    };
    losses.iter().map(count).sum()
}

#[test]
fn lost_records_are_counted_and_repaired() {
    in_fresh_netns(|| {
        let netns = tests::netns();
        let mut watch = Watch::alone(&["--ring", "4096"]);
        // An emulator makes a few hundred a second.
        let connections = if tests::is_emulated() { FLOOD / 3 } else { FLOOD };
        let (_rest, ports) = flood("127.0.0.1:6000", connections);
        watch.settles("losses are reported, and the log agrees with the kernel", |events| {
            !losses(events, "ring").is_empty() && table_of_log(events, netns) == table_of_kernel()
        });
        // It still observes new attempts.
        let mut client = actor();
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:5999").is_err());
        watch.at("fail", endpoint(2000, 5999));
        let kernel = table_of_kernel();
        let log = watch.finish();
        assert_eq!(table_of_log(&log.events, netns), kernel);
        assert!(kernel.len() > usize::from(connections) * 3 / 100, "{}", kernel.len());

        missing_are_no_more_than_lost(&log.events, &ports);
        // Events from the repair are marked.
        assert!(log.events.iter().any(|event| event["repaired"] == true));
        // No attempt is reported as failed because records were lost.
        let failed = |event: &&Value| kind(event) == "fail" && port(event, "remote") == 6000;
        let failed = log.events.iter().find(failed);
        assert!(failed.is_none(), "{:#}", failed.unwrap());
    });
}

/// Some connections to port 6000 from these ports are missing, and no more than records were lost.
#[track_caller]
fn missing_are_no_more_than_lost(events: &[Value], ports: &[u16]) {
    let seen = |event: &&Value| kind(event) == "open" && port(event, "remote") == 6000;
    let opened = events.iter().filter(seen).filter(|event| event["repaired"] != true);
    let opened: Vec<_> = opened.map(|event| port(event, "local")).collect();
    let missing = ports.iter().filter(|port| !opened.contains(port)).count();
    let lost = lost(&losses(events, "ring"));
    assert!(missing > 0 && lost >= missing as u64, "{missing} missing, {lost} lost");
}

/// A snapshot fails in the moment in which a loss is reported: the loss is reported all the same, and another snapshot
/// repairs the tables.
#[test]
fn loss_is_reported_although_the_snapshot_fails() {
    in_fresh_netns(|| {
        let netns = tests::netns();
        let mut watch = Watch::alone(&["--ring", "4096", "--sabotage", "fail=snapshot"]);
        let connections = if tests::is_emulated() { FLOOD / 3 } else { FLOOD };
        let (_rest, ports) = flood("127.0.0.1:6000", connections);
        watch.settles("losses are reported, and the log agrees with the kernel", |events| {
            !losses(events, "ring").is_empty() && table_of_log(events, netns) == table_of_kernel()
        });
        let log = watch.finish();
        assert!(log.stderr.contains("cannot take a snapshot of the host, will retry"), "{}", log.stderr);
        missing_are_no_more_than_lost(&log.events, &ports);
    });
}

/// A netwatch whose output is not read: its stdout is a pipe that is full soon. The presence keeps other tests from
/// having one meanwhile, since all of them would receive the flood.
fn stuck() -> (Running, Presence) {
    let presence = Presence::alone();
    let mut command = Command::new(binary());
    command.args(["watch", "--json", "--netns", "self"]).stdin(Stdio::null()).stdout(Stdio::piped());
    (Running::start(&mut command), presence)
}

#[test]
fn events_missed_by_a_stuck_reader_are_reported_as_a_loss() {
    in_fresh_netns(|| {
        let (mut running, _alone) = stuck();
        let mut stdout = running.stdout();
        tests::first_line(&mut stdout);
        let (_rest, _) = flood("127.0.0.1:6000", 4 * FLOOD);
        // The flood is over before somebody reads.
        let lines = Lines::of(stdout);
        let next = |wanted: &dyn Fn(&Value) -> bool| {
            loop {
                let line = lines.next(PATIENCE).expect("netwatch is running");
                let event: Value = serde_json::from_str(&line).unwrap();
                tests::validate(&event);
                if wanted(&event) {
                    return event;
                }
            }
        };
        let loss = next(&|event| kind(event) == "loss" && event["reason"] == "stdout");
        assert!(lost(&[&loss]) > 0);
        let mut client = actor();
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:5999").is_err());
        let last = endpoint(2000, 5999);
        next(&|event| last.of(event) && kind(event) == "fail");
        running.signal(Signal::SIGINT);
        assert_eq!(running.ended("netwatch ends").code(), Some(0));
    });
}

#[test]
fn signal_ends_watch_although_nobody_reads() {
    in_fresh_netns(|| {
        let (mut running, _alone) = stuck();
        let mut stdout = running.stdout();
        tests::first_line(&mut stdout);
        let (_rest, _) = flood("127.0.0.1:6000", FLOOD);
        running.signal(Signal::SIGTERM);
        assert_eq!(running.ended("netwatch ends though nobody reads").code(), Some(0));
        drop(stdout);
    });
}
