//! Nothing is lost in silence: what did not fit is counted and told, and the table is right again.

use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Lines, PATIENCE, Presence, Running, Watch, binary, end, in_fresh_netns, kind, port};

use crate::actor;
use crate::table::{table_of_kernel, table_of_log};

/// Many times what the smallest ring and a stuck reader's pipe hold.
const FLOOD: u16 = 3000;

/// What stays open of a flood.
#[derive(Default)]
struct Rest {
    _streams: Vec<TcpStream>,
    _listeners: Vec<TcpListener>,
}

/// As many connections as fast as they go. Every hundredth stays open, and so does every other of the
/// listeners that come and go meanwhile. Returns the clients' ports too.
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

/// The records that these say were lost, which their kinds must add up to.
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
fn what_does_not_fit_is_counted_and_healed() {
    in_fresh_netns(|| {
        let netns = tests::netns();
        let mut watch = Watch::alone(&["--ring", "4096"]);
        // An emulator makes a few hundred a second.
        let connections = if tests::is_emulated() { FLOOD / 3 } else { FLOOD };
        let (_rest, ports) = flood("127.0.0.1:6000", connections);
        watch.settles("losses are told, and the log agrees with the kernel", |events| {
            !losses(events, "ring").is_empty() && table_of_log(events, netns) == table_of_kernel()
        });
        // It has not forgotten how to look.
        let mut client = actor();
        assert!(client.tell("connect 127.0.0.1:2000 127.0.0.1:5999").is_err());
        watch.at("fail", end(2000, 5999));
        let kernel = table_of_kernel();
        let log = watch.finish();
        assert_eq!(table_of_log(&log.events, netns), kernel);
        assert!(kernel.len() > usize::from(connections) * 3 / 100, "{}", kernel.len());

        // The connections of which nobody was told are fewer than the records that were lost.
        let seen = |event: &&Value| kind(event) == "open" && port(event, "remote") == 6000;
        let opened = log.events.iter().filter(seen).filter(|event| event["repaired"] != true);
        let opened: Vec<_> = opened.map(|event| port(event, "local")).collect();
        let missing = ports.iter().filter(|port| !opened.contains(port)).count();
        let lost = lost(&losses(&log.events, "ring"));
        assert!(missing > 0 && lost >= missing as u64, "{missing} missing, {lost} lost");
        // What was found on looking again says so.
        assert!(log.events.iter().any(|event| event["repaired"] == true));
        // No attempt failed, whatever the records were of which nobody was told.
        let failed = |event: &&Value| kind(event) == "fail" && port(event, "remote") == 6000;
        let failed = log.events.iter().find(failed);
        assert!(failed.is_none(), "{:#}", failed.unwrap());
    });
}

/// A log that nobody reads. Its stdout is a pipe that is full soon. The other half keeps
/// other tests from having one meanwhile: all of them would have to take the flood.
fn stuck() -> (Running, Presence) {
    let presence = Presence::alone();
    let mut command = Command::new(binary());
    command.args(["watch", "--json", "--netns", "self"]).stdin(Stdio::null()).stdout(Stdio::piped());
    (Running::start(&mut command), presence)
}

#[test]
fn what_a_stuck_reader_misses_is_told_when_it_reads_again() {
    in_fresh_netns(|| {
        let (mut running, _alone) = stuck();
        let mut stdout = running.stdout();
        tests::first_line(&mut stdout);
        let (_rest, _) = flood("127.0.0.1:6000", 4 * FLOOD);
        // Whoever floods is not the one who waits: now somebody reads.
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
        assert!(client.tell("connect 127.0.0.1:2000 127.0.0.1:5999").is_err());
        let last = end(2000, 5999);
        next(&|event| last.of(event) && kind(event) == "fail");
        running.signal(Signal::SIGINT);
        assert_eq!(running.ended("netwatch ends").code(), Some(0));
    });
}

#[test]
fn a_reader_that_never_reads_does_not_keep_it() {
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
