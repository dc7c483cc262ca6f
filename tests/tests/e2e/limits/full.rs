//! Maps of the kernel side without room: what is lost is counted, and what is sent twice is emitted once.

use std::collections::HashMap;

use serde_json::{Value, json};
use tests::{Watch, assert_has, endpoint, in_fresh_netns, kind, port};

use crate::actor;

/// Flows that a socket has place for, `SOCKET_FLOWS_MAX`.
const PLACES: usize = 16_384;

/// A watch for which this map is full. `None`, with the reason printed, if there is no probe for `job`.
fn full(map: &str, job: &str, arguments: &[&str]) -> Option<Watch> {
    let sabotage = format!("full={map}");
    let all = [&["--ring", "16777216", "--sabotage", &sabotage], arguments].concat();
    let watch = Watch::alone(&all);
    if watch.ready()["coverage"]["probes"][job].is_null() {
        tests::skip(&format!("limits::full {map}"), &format!("no probe for {job}"));
        return None;
    }
    Some(watch)
}

fn lost(event: &Value, reason: &str, what: &str) -> u64 {
    let is_one = kind(event) == "loss" && event["reason"] == reason;
    if is_one { event["kinds"][what].as_u64().unwrap_or(0) } else { 0 }
}

/// Of attempts those are lost that no state transition reports.
#[test]
fn attempts_without_room_are_counted() {
    in_fresh_netns(|| {
        let Some(mut watch) = full("CALLS", "connect", &[]) else { return };
        let mut client = actor();
        assert_eq!(client.try_say("connect - 192.0.2.1:6000"), Err("ENETUNREACH".to_owned()));
        assert_eq!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000"), Err("ECONNREFUSED".to_owned()));
        watch.at("fail", endpoint(2000, 6000));
        // It is not known of a call without room how it will end.
        watch.expect("a loss", |event| lost(event, "ring", "fail") >= 1);
        let log = watch.finish();
        let fails = log
            .events
            .iter()
            .filter(|event| kind(event) == "fail" && event["process"]["pid"] == client.pid());
        assert_eq!(fails.count(), 1);
    });
}

/// Where sockets have no storage. Those that begin with a record of their own are lost.
#[test]
fn sockets_without_room_are_counted() {
    in_fresh_netns(|| {
        let Some(mut watch) = full("KNOWN_BY_ADDRESS", "state", &["--probe", "state=address"]) else {
            return;
        };
        let (mut client, mut server) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 8");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        for what in ["listen", "connect"] {
            watch.expect(what, |event| lost(event, "ring", what) > 0);
        }
        // Others are reported, by their next record or by the snapshot.
        watch.at("open", endpoint(2000, 6000));
        watch.finish();
    });
}

#[test]
fn ports_of_listeners_without_room_are_in_the_snapshot() {
    in_fresh_netns(|| {
        let Some(mut watch) = full("UNBOUND", "listen", &[]) else { return };
        let mut server = actor();
        let bound = server.say("listen - 8");
        let bound: u64 = bound.rsplit(':').next().unwrap().parse().unwrap();
        watch.expect("a loss", |event| lost(event, "ring", "listen") > 0);
        let listen = watch.expect("the listener", |event| {
            kind(event) == "listen" && event["local"]["port"].as_u64() == Some(bound)
        });
        assert_has(&listen, json!({"repaired": true, "process": {"pid": server.pid()}}));
        watch.finish();
    });
}

/// Which thread accepted is reported twice then, by two probes.
#[test]
fn connections_are_accepted_once() {
    const CONNECTIONS: usize = 200;
    in_fresh_netns(|| {
        let Some(mut watch) = full("ACCEPTED", "accept", &[]) else { return };
        std::thread::scope(|scope| {
            for at in [6000, 6001] {
                scope.spawn(move || {
                    let (mut client, mut server) = (actor(), actor());
                    server.say(&format!("listen 127.0.0.1:{at} 16"));
                    for _ in 0..CONNECTIONS {
                        client.say(&format!("connect - 127.0.0.1:{at}"));
                        server.say("accept");
                        client.say("linger0");
                        client.say("close");
                        server.say("close");
                    }
                });
            }
        });
        watch.expect_times("both ends of each", 4 * CONNECTIONS, |event| kind(event) == "close");
        let log = watch.finish();
        let accepts = log.events.iter().filter(|event| kind(event) == "accept");
        assert_eq!(accepts.count(), 2 * CONNECTIONS);
    });
}

/// Two processes that send at once: a flow has its sender or none.
#[test]
fn sender_without_room_is_not_taken_for_another() {
    const ROUNDS: usize = 1000;
    in_fresh_netns(|| {
        let Some(mut watch) = full("SENDING", "use", &[]) else { return };
        let mut client = actor();
        client.say("udp bind 127.0.0.1:2000");
        let child = client.say(&format!("udp race {ROUNDS}")).parse::<u64>().unwrap();
        client.say("udp close");
        let opens = watch.expect_times("a flow each", 2 * ROUNDS, |event| kind(event) == "open");
        let mut known = 0;
        for open in &opens {
            let mine = open["remote"]["ip"].as_str().unwrap().starts_with("127.1.");
            let sender = if mine { u64::from(client.pid()) } else { child };
            let origin = &open["origin"]["process"];
            assert!(origin.is_null() || origin["pid"] == sender, "{open:#}");
            known += usize::from(!origin.is_null());
        }
        println!("{known} of {} senders are known", opens.len());
        watch.finish();
    });
}

/// Only the last socket is named; the total is right.
#[test]
fn sockets_without_places_are_counted_together() {
    in_fresh_netns(|| {
        let Some(mut watch) = full("NOT_FOLLOWED_BY", "udp", &["--udp-flows", "1"]) else { return };
        let mut clients = [actor(), actor(), actor()];
        for (nth, client) in clients.iter_mut().enumerate() {
            client.say(&format!("udp bind 127.0.0.1:{}", 2000 + nth));
            (0..5).for_each(|_| _ = client.say("udp send sendto 10 127.0.0.1:6000"));
        }
        let total = |events: &[Value]| events.iter().map(|event| lost(event, "limit", "flow")).sum::<u64>();
        // Of other processes as well, one of which may have the only place.
        watch.settles("all are counted", |events| total(events) >= 10);
        let named = watch.events().iter().filter_map(|event| event["sockets"].as_array());
        assert!(named.clone().all(|sockets| sockets.len() <= 1) && named.flatten().count() > 0);
        watch.finish();
    });
}

/// A socket whose flows were idle gets no places back; another one has its own.
#[test]
fn places_that_are_not_given_back_are_lost_to_the_socket_only() {
    in_fresh_netns(|| {
        let Some(mut watch) = full("REMOVED_FLOWS", "udp", &["--udp-idle", "1s"]) else { return };
        let (mut client, mut other) = (actor(), actor());
        client.say("udp bind 127.0.0.1:2000");
        client.say(&format!("udp flood {PLACES} 100000"));
        watch.expect_times("all are idle", PLACES, |event| kind(event) == "close");
        client.say("udp send sendto 10 127.0.0.1:6000");
        other.say("udp bind 127.0.0.1:2001");
        other.say("udp send sendto 10 127.0.0.1:6000");
        watch.at("open", endpoint(2001, 6000));
        watch.expect("a loss", |event| lost(event, "limit", "flow") == 1);
        let log = watch.finish();
        assert!(log.kinds(endpoint(2000, 6000)).is_empty());
    });
}

/// Headers beyond the number that the RFCs allow hide the datagram.
#[test]
fn datagram_behind_too_many_headers_is_not_observed() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        server.say("udp bind [::1]:6000");
        for (headers, from) in [(7, 2001), (6, 2002), (0, 2003)] {
            client.say(&format!("udp extended {headers} {from} 6000"));
            assert!(server.say("udp recv recvfrom").starts_with("0 "));
        }
        let opened = |event: &Value| kind(event) == "open" && port(event, "local") == 6000;
        watch.expect("the last", |event| opened(event) && port(event, "remote") == 2003);
        let mut seen: HashMap<u16, usize> = HashMap::new();
        let here = watch.events().iter().filter(|event| event["netns"] == tests::netns() && opened(event));
        here.for_each(|event| *seen.entry(port(event, "remote")).or_default() += 1);
        assert_eq!(seen, HashMap::from([(2002, 1), (2003, 1)]));
    });
}
