//! The same addresses in two places, and one connection with its ends in two.

use serde_json::{Value, json};
use tests::{Actor, Netns, Watch, assert_has, end, kind, veth};

use crate::actor;

const CONNECT: &str = "connect 127.0.0.1:2000 127.0.0.1:6000";

/// In each namespace a client and a server, on the same addresses.
fn twins(netns: &Netns) -> (Actor, Actor) {
    netns.inside(|| {
        let (mut client, mut server) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        client.say(CONNECT);
        server.say("accept");
        (client, server)
    })
}

fn two_flows(watch: &mut Watch, event: &str, netns: [&Netns; 2], twins: &[(Actor, Actor); 2]) {
    let ends = netns.map(|netns| netns.inside(|| [end(2000, 6000), end(6000, 2000)]));
    let events = ends.map(|ends| ends.map(|end| watch.at(event, end)));
    for (nth, [client, server]) in events.iter().enumerate() {
        assert_eq!(client["flow"], server["flow"]);
        assert_eq!(client["process"]["pid"], twins[nth].0.pid());
        assert_eq!(server["process"]["pid"], twins[nth].1.pid());
        for event in [client, server] {
            assert_eq!(event["netns"], netns[nth].inum());
            assert_eq!(event["origin"]["process"]["pid"], twins[nth].0.pid(), "{event:#}");
        }
    }
    assert_ne!(events[0][0]["flow"], events[1][0]["flow"]);
}

#[test]
fn the_same_addresses_in_two_namespaces_are_two_flows() {
    let netns = [&Netns::fresh(), &Netns::fresh()];
    let mut live = Watch::start(&[]);
    let mut twins = netns.map(twins);
    two_flows(&mut live, "open", netns, &twins);
    let mut seeded = Watch::start(&[]);
    two_flows(&mut seeded, "seed", netns, &twins);
    // One ends, and the other does not.
    twins[0].0.say("close");
    twins[0].1.say("close");
    let closed = live.at("close", netns[0].inside(|| end(6000, 2000)));
    assert_eq!(closed["peer"]["process"]["pid"], twins[0].0.pid());
    for log in [live.finish(), seeded.finish()] {
        let ends = netns.map(|netns| netns.inside(|| [end(2000, 6000), end(6000, 2000)]));
        let closes = |nth: usize| ends[nth].iter().map(|end| log.at("close", *end).len()).sum::<usize>();
        assert_eq!((closes(0), closes(1)), (2, 0));
    }
}

#[test]
fn ends_in_two_namespaces_are_one_flow() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    veth(&here, "10.77.8.1", &there, "10.77.8.2");
    let mut live = Watch::start(&[]);
    let (mut client, mut server) = (here.inside(actor), there.inside(actor));
    server.say("listen 10.77.8.2:6000 16");
    client.say("connect 10.77.8.1:2000 10.77.8.2:6000");
    server.say("accept");
    let ends = [here.inside(|| end(2000, 6000)), there.inside(|| end(6000, 2000))];
    let connected = live.at("open", ends[0]);
    let accepted = live.at("accept", ends[1]);
    assert_eq!(connected["flow"], accepted["flow"]);
    assert_has(
        &accepted,
        json!({
            "netns": there.inum(),
            "process": server.object(),
            "origin": {"side": "remote", "basis": "accept", "process": client.object()},
            "peer": {"id": connected["id"], "process": client.object()},
        }),
    );

    let mut seeded = Watch::start(&[]);
    let (connected, accepted) = (seeded.at("seed", ends[0]), seeded.at("seed", ends[1]));
    assert_eq!(connected["flow"], accepted["flow"]);
    assert_has(
        &connected,
        json!({
            "netns": here.inum(),
            "process": client.object(),
            "origin": {"side": "local", "basis": "peer", "confidence": "inferred", "process": client.object()},
        }),
    );
    assert_has(
        &accepted,
        json!({
            "process": server.object(),
            "origin": {
                "side": "remote", "basis": "listener", "confidence": "inferred", "process": client.object(),
            },
        }),
    );

    client.say("close");
    server.say("eof");
    server.say("close");
    for watch in [&mut live, &mut seeded] {
        let closed = ends.map(|end| watch.at("close", end));
        assert_has(
            &closed[0],
            json!({"closed_by": "local", "peer": {"id": closed[1]["id"], "process": server.object()}}),
        );
        assert_has(
            &closed[1],
            json!({"closed_by": "remote", "peer": {"id": closed[0]["id"], "process": client.object()}}),
        );
    }
}

/// Two pairs of namespaces with the same addresses and ports on their wires: which end belongs to which
/// cannot be told from the outside. Saying nothing is right, and saying the wrong thing is not.
#[test]
fn nothing_is_joined_that_does_not_belong_together() {
    let wires = [(Netns::fresh(), Netns::fresh()), (Netns::fresh(), Netns::fresh())];
    let live = Watch::start(&[]);
    let mut actors: Vec<_> = wires
        .iter()
        .map(|(here, there)| {
            veth(here, "10.77.9.1", there, "10.77.9.2");
            let (mut client, mut server) = (here.inside(actor), there.inside(actor));
            server.say("listen 10.77.9.2:6000 16");
            client.say("connect 10.77.9.1:2000 10.77.9.2:6000");
            server.say("accept");
            (client, server)
        })
        .collect();
    let ends: Vec<_> = wires
        .iter()
        .map(|(here, there)| [here.inside(|| end(2000, 6000)), there.inside(|| end(6000, 2000))])
        .collect();
    let mut seeded = Watch::start(&[]);
    for end in ends.iter().flatten() {
        seeded.at("seed", *end);
    }
    for (client, server) in &mut actors {
        client.say("close");
        server.say("close");
    }
    for mut watch in [live, seeded] {
        for end in ends.iter().flatten() {
            watch.at("close", *end);
        }
        let log = watch.finish();
        for (nth, ends) in ends.iter().enumerate() {
            let pids = [actors[nth].0.pid(), actors[nth].1.pid()];
            let ours = log.events.iter().filter(|event| ends.iter().any(|end| end.of(event)));
            for event in ours {
                for named in [&event["process"], &event["origin"]["process"], &event["peer"]["process"]] {
                    let right = named.is_null() || pids.iter().any(|pid| named["pid"] == *pid);
                    assert!(right, "pair {nth} names a stranger: {event:#}");
                }
            }
        }
        let flows = |nth: usize| -> Vec<Value> {
            let ours = log.events.iter().filter(|event| ends[nth].iter().any(|end| end.of(event)));
            ours.filter(|event| kind(event) == "close").map(|event| event["flow"].clone()).collect()
        };
        let (one, other) = (flows(0), flows(1));
        assert!(one.iter().all(|flow| !other.contains(flow)), "{one:?} {other:?}");
    }
}
