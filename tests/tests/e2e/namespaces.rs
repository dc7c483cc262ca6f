//! The same addresses in two namespaces, and one connection with its endpoints in two.

use std::collections::HashSet;

use serde_json::{Value, json};
use tests::{Actor, Endpoint, Log, Netns, Watch, Wire, assert_has, endpoint, loses};

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
    let endpoints = netns.map(|netns| netns.inside(|| [endpoint(2000, 6000), endpoint(6000, 2000)]));
    let events = endpoints.map(|pair| pair.map(|endpoint| watch.at(event, endpoint)));
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
    let mut live = Watch::shared_by(&netns);
    let mut twins = netns.map(twins);
    two_flows(&mut live, "open", netns, &twins);
    let mut seeded = Watch::everywhere(&["--port", "2000"]);
    two_flows(&mut seeded, "seed", netns, &twins);
    // One connection is closed, and the other is not.
    twins[0].0.say("close");
    twins[0].1.say("close");
    let closed = live.at("close", netns[0].inside(|| endpoint(6000, 2000)));
    assert_eq!(closed["peer"]["process"]["pid"], twins[0].0.pid());
    for log in [live.finish(), seeded.finish()] {
        let endpoints = netns.map(|netns| netns.inside(|| [endpoint(2000, 6000), endpoint(6000, 2000)]));
        let closes = |nth: usize| {
            endpoints[nth].iter().map(|endpoint| log.at("close", *endpoint).len()).sum::<usize>()
        };
        assert_eq!((closes(0), closes(1)), (2, 0));
    }
}

#[test]
fn endpoints_in_two_namespaces_are_one_flow() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    let Wire { a, b, .. } = Wire::between(&here, &there);
    let mut live = Watch::shared_by(&[&here, &there]);
    let (mut client, mut server) = (here.inside(actor), there.inside(actor));
    server.say(&format!("listen {b}:6000 16"));
    client.say(&format!("connect {a}:2000 {b}:6000"));
    server.say("accept");
    let endpoints = [here.inside(|| endpoint(2000, 6000)), there.inside(|| endpoint(6000, 2000))];
    let connected = live.at("open", endpoints[0]);
    let accepted = live.at("accept", endpoints[1]);
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

    let mut seeded = Watch::on_wires(&[]);
    let (connected, accepted) = (seeded.at("seed", endpoints[0]), seeded.at("seed", endpoints[1]));
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
        let closed = endpoints.map(|endpoint| watch.at("close", endpoint));
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

/// Two namespaces with a wire, a client in the one and a server in the other.
struct Pair {
    here: Netns,
    there: Netns,
    client: Actor,
    server: Actor,
    addresses: [String; 2],
}

impl Pair {
    /// The same addresses and ports in every pair: they do not show which endpoints belong together.
    fn on(wire: &Wire, [here, there]: [Netns; 2]) -> Self {
        wire.connects(&here, &there);
        let (mut client, mut server) = (here.inside(actor), there.inside(actor));
        let Wire { a, b, .. } = wire;
        server.say(&format!("listen {b}:6000 16"));
        client.say(&format!("connect {a}:2000 {b}:6000"));
        server.say("accept");
        let addresses = [a, b].map(ToString::to_string);
        Self { here, there, client, server, addresses }
    }

    fn endpoints(&self) -> [Endpoint; 2] {
        [self.here.inside(|| endpoint(2000, 6000)), self.there.inside(|| endpoint(6000, 2000))]
    }

    fn close(&mut self) {
        self.client.say("close");
        self.server.say("close");
    }

    /// All events of this pair.
    fn of<'a>(&self, log: &'a Log) -> Vec<&'a Value> {
        let endpoints = self.endpoints();
        // The number of a removed namespace is reused: another test may have had it.
        let is_here = |event: &Value| self.addresses.iter().any(|address| event["local"]["ip"] == *address);
        log.events
            .iter()
            .filter(|event| is_here(event) && endpoints.iter().any(|endpoint| endpoint.of(event)))
            .collect()
    }

    /// Only these two processes are named: no process is right, and another one is wrong.
    fn names_no_stranger(&self, log: &Log) {
        let events = self.of(log);
        assert!(!events.is_empty());
        for event in events {
            for named in ["/process", "/origin/process", "/peer/process", "/listener/process"] {
                let Some(process) = event.pointer(named).filter(|process| !process.is_null()) else {
                    continue;
                };
                let right = process["pid"] == self.client.pid() || process["pid"] == self.server.pid();
                assert!(right, "{named} is a stranger: {event:#}");
            }
        }
    }

    fn flows(&self, log: &Log) -> HashSet<String> {
        self.of(log).iter().map(|event| event["flow"].to_string()).collect()
    }
}

/// Namespaces for two pairs, and a view of them.
fn watched() -> (Watch, [[Netns; 2]; 2]) {
    let places = [(); 2].map(|()| [Netns::fresh(), Netns::fresh()]);
    (Watch::shared_by(&places.iter().flatten().collect::<Vec<_>>()), places)
}

#[test]
fn unrelated_endpoints_are_not_joined() {
    let wire = Wire::default();
    let (live, places) = watched();
    let mut pairs = places.map(|both| Pair::on(&wire, both));
    let seeded = Watch::on_wires(&[]);
    for pair in &mut pairs {
        pair.close();
    }
    for mut watch in [live, seeded] {
        for endpoint in pairs.iter().flat_map(Pair::endpoints) {
            watch.at("close", endpoint);
        }
        let log = watch.finish();
        for pair in &pairs {
            pair.names_no_stranger(&log);
        }
        assert!(pairs[0].flows(&log).is_disjoint(&pairs[1].flows(&log)));
    }
}

/// An endpoint that still exists after its peer was closed is the only one that fits the new client's addresses, until
/// the new server's endpoint is created.
#[test]
fn endpoint_that_lost_its_peer_is_not_joined_to_another() {
    let wire = Wire::default();
    let (live, [first, second]) = watched();
    let mut old = Pair::on(&wire, first);
    // The reset is lost.
    old.here.inside(|| loses(&wire.b));
    old.client.say("linger0");
    old.client.say("close");
    let seeded = Watch::on_wires(&[]);
    let mut new = Pair::on(&wire, second);
    new.close();
    old.server.say("linger0");
    old.server.say("close");
    for mut watch in [live, seeded] {
        for endpoint in new.endpoints() {
            watch.at("close", endpoint);
        }
        watch.at("close", old.endpoints()[1]);
        let log = watch.finish();
        new.names_no_stranger(&log);
        old.names_no_stranger(&log);
        assert!(old.flows(&log).is_disjoint(&new.flows(&log)));
    }
}
