//! How connections are closed: who closed, the bytes, and every state.

use serde_json::{Value, json};
use tests::{Actor, Endpoint, Netns, Watch, Wire, assert_has, endpoint, in_fresh_netns, kind};

use crate::actor;
use crate::connect::slow_line;

/// A connection between two processes on loopback, with the netwatch that saw it begin.
struct Pair {
    watch: Watch,
    client: Actor,
    server: Actor,
}

const CLIENT: (u16, u16) = (2000, 6000);
const SERVER: (u16, u16) = (6000, 2000);

fn at((local, remote): (u16, u16)) -> Endpoint {
    endpoint(local, remote)
}

impl Pair {
    fn seen_by(watch: Watch) -> Self {
        let mut pair = Self { watch, client: actor(), server: actor() };
        pair.server.say("listen 127.0.0.1:6000 16");
        pair.client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        pair.server.say("accept");
        pair
    }

    /// What the `close` of both endpoints must have: the client's first.
    fn closes(mut self, client: Value, server: Value) {
        let closed = [self.watch.at("close", at(CLIENT)), self.watch.at("close", at(SERVER))];
        assert_has(&closed[0], json!({"process": self.client.object(), "process_basis": "connect"}));
        assert_has(&closed[1], json!({"process": self.server.object(), "process_basis": "accept"}));
        assert_has(&closed[0], client);
        assert_has(&closed[1], server);
        assert_eq!(closed[0]["flow"], closed[1]["flow"]);
        for (event, other) in [(&closed[0], &closed[1]), (&closed[1], &closed[0])] {
            assert_eq!(event["peer"]["id"], other["id"]);
            assert!(event["duration_us"].is_u64(), "{event:#}");
        }
        let log = self.watch.finish();
        assert_eq!((log.at("close", at(CLIENT)).len(), log.at("close", at(SERVER)).len()), (1, 1));
    }
}

#[test]
fn close_by_the_server_is_remote_at_the_client() {
    in_fresh_netns(|| {
        let mut pair = Pair::seen_by(Watch::shared());
        pair.server.say("send 70000");
        pair.server.say("close");
        assert_eq!(pair.client.say("eof"), "70000");
        pair.client.say("close");
        pair.closes(
            json!({"closed_by": "remote", "bytes_sent": 0, "bytes_received": 70000, "errno": null}),
            json!({"closed_by": "local", "bytes_sent": 70000, "bytes_received": 0, "errno": null}),
        );
    });
}

#[test]
fn half_close_decides_who_closed() {
    in_fresh_netns(|| {
        let mut pair = Pair::seen_by(Watch::shared());
        pair.client.say("send 5");
        pair.client.say("shutdown");
        assert_eq!(pair.server.say("eof"), "5");
        // The other direction is still open.
        pair.server.say("send 7");
        pair.client.say("recv 7");
        pair.server.say("close");
        pair.client.say("eof");
        pair.client.say("close");
        pair.closes(
            json!({"closed_by": "local", "bytes_sent": 5, "bytes_received": 7}),
            json!({"closed_by": "remote", "bytes_sent": 7, "bytes_received": 5}),
        );
    });
}

#[test]
fn close_with_linger_zero_is_a_local_reset() {
    in_fresh_netns(|| {
        let mut pair = Pair::seen_by(Watch::shared());
        pair.client.say("send 3");
        pair.server.say("recv 3");
        pair.client.say("linger0");
        pair.client.say("close");
        assert_eq!(pair.server.try_say("recv 1"), Err("ECONNRESET".to_owned()));
        pair.closes(
            json!({"closed_by": "reset-local", "bytes_sent": 3, "bytes_received": 0}),
            json!({
                "closed_by": "reset-remote", "bytes_sent": 0, "bytes_received": 3, "errno": "ECONNRESET",
            }),
        );
    });
}

#[test]
fn close_with_unread_data_is_a_local_reset() {
    in_fresh_netns(|| {
        let mut pair = Pair::seen_by(Watch::shared());
        pair.client.say("send 10");
        pair.server.say("recv 4");
        pair.server.say("close");
        assert_eq!(pair.client.try_say("recv 1"), Err("ECONNRESET".to_owned()));
        pair.closes(
            json!({
                "closed_by": "reset-remote", "bytes_sent": 10, "bytes_received": 0, "errno": "ECONNRESET",
            }),
            json!({"closed_by": "reset-local", "bytes_sent": 0, "bytes_received": 10}),
        );
    });
}

#[test]
fn disconnect_is_a_local_reset() {
    in_fresh_netns(|| {
        let mut pair = Pair::seen_by(Watch::shared());
        pair.client.say("disconnect");
        assert_eq!(pair.server.try_say("recv 1"), Err("ECONNRESET".to_owned()));
        pair.closes(
            json!({"closed_by": "reset-local"}),
            json!({"closed_by": "reset-remote", "errno": "ECONNRESET"}),
        );
    });
}

/// A FIN was sent first, but the reset decides.
#[test]
fn reset_after_a_fin_decides_who_closed() {
    in_fresh_netns(|| {
        let mut pair = Pair::seen_by(Watch::shared());
        pair.client.say("shutdown");
        assert_eq!(pair.server.say("eof"), "0");
        pair.server.say("linger0");
        pair.server.say("close");
        pair.closes(
            json!({"closed_by": "reset-remote", "errno": "ECONNRESET"}),
            json!({"closed_by": "reset-local"}),
        );
    });
}

#[test]
fn killed_process_closed_and_is_named() {
    in_fresh_netns(|| {
        let mut pair = Pair::seen_by(Watch::shared());
        let client = pair.client.object();
        pair.client.say("send 9");
        pair.client.kill();
        assert_eq!(pair.server.say("eof"), "9");
        pair.server.say("close");
        let closed = pair.watch.at("close", at(CLIENT));
        // The killed process is still named, completely.
        assert_has(
            &closed,
            json!({
                "process": client,
                "origin": {"process": client},
                "closed_by": "local",
                "bytes_sent": 9,
                "bytes_received": 0,
            }),
        );
        let closed = pair.watch.at("close", at(SERVER));
        assert_has(&closed, json!({"closed_by": "remote", "peer": {"process": client}}));
    });
}

#[test]
fn unacknowledged_data_closes_by_timeout() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    let Wire { a, b, .. } = Wire::between(&here, &there);
    let mut server = there.inside(actor);
    server.say(&format!("listen {b}:6000 16"));
    here.inside(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        client.say(&format!("connect {a}:2000 {b}:6000"));
        client.say("user-timeout 300");
        server.say("accept");
        there.inside(|| tests::loses(&a));
        client.say("send 10");
        assert_eq!(client.try_say("recv 1"), Err("ETIMEDOUT".to_owned()));
        let closed = watch.at("close", at(CLIENT));
        assert_has(
            &closed,
            json!({
                "closed_by": "timeout",
                "errno": "ETIMEDOUT",
                "bytes_sent": 10,
                "process": client.object(),
                "peer": {"process": server.object()},
            }),
        );
    });
}

/// States after the first, in order.
fn states(watch: &Watch, at: Endpoint) -> Vec<String> {
    let ours = watch.events().iter().filter(|event| at.of(event) && kind(event) == "state");
    ours.map(|event| event["state"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn states_option_emits_every_transition() {
    in_fresh_netns(|| {
        let mut pair = Pair::seen_by(Watch::shared_with_states());
        let attempt = pair.watch.at("attempt", at(CLIENT));
        assert_has(
            &attempt,
            json!({
                "state": "SYN_SENT",
                "process": pair.client.object(),
                "process_basis": "connect",
                "origin": {
                    "side": "local", "basis": "connect", "confidence": "observed",
                    "process": pair.client.object(),
                },
            }),
        );
        let open = pair.watch.at("open", at(CLIENT));
        assert_eq!((&attempt["id"], &attempt["flow"]), (&open["id"], &open["flow"]));
        pair.client.say("close");
        pair.server.say("eof");
        pair.server.say("close");
        pair.watch.at("close", at(CLIENT));
        pair.watch.at("close", at(SERVER));
        assert_eq!(states(&pair.watch, at(CLIENT)), ["FIN_WAIT1", "FIN_WAIT2"]);
        // A socket is created in SYN_RECV: that is not always emitted as a transition.
        let server: Vec<_> = states(&pair.watch, at(SERVER));
        assert_eq!(
            server.iter().filter(|state| *state != "SYN_RECV").collect::<Vec<_>>(),
            ["CLOSE_WAIT", "LAST_ACK"]
        );
        let log = pair.watch.finish();
        assert_eq!(log.kinds(at(CLIENT)), ["attempt", "open", "state", "state", "close"]);
        // A listener's states are emitted as listen and unlisten.
        assert_eq!(log.kinds(endpoint(6000, 0)), ["listen"]);
        for event in log.events.iter().filter(|event| at(CLIENT).of(event)) {
            assert_eq!((&event["id"], &event["flow"]), (&open["id"], &open["flow"]));
        }
    });
}

#[test]
fn simultaneous_close_is_local_at_both_endpoints() {
    let (here, there) = (Netns::fresh(), Netns::fresh());
    let Wire { a, b, .. } = Wire::between(&here, &there);
    let (mut server, mut client) = (there.inside(actor), here.inside(actor));
    let mut watch = Watch::shared_with_states_by(&[&here, &there]);
    server.say(&format!("listen {b}:6000 16"));
    client.say(&format!("connect {a}:2000 {b}:6000"));
    server.say("accept");
    // Both FINs are queued for half a second.
    for (netns, other) in [(&here, &b), (&there, &a)] {
        netns.inside(|| slow_line(other));
    }
    client.begin("close");
    server.begin("close");
    client.answer().unwrap();
    server.answer().unwrap();
    let endpoints = [here.inside(|| at(CLIENT)), there.inside(|| at(SERVER))];
    for at in endpoints {
        assert_has(&watch.at("close", at), json!({"closed_by": "local", "errno": null}));
        let closing = states(&watch, at);
        assert_eq!(
            closing.iter().filter(|state| *state != "SYN_RECV").collect::<Vec<_>>(),
            ["FIN_WAIT1", "CLOSING"]
        );
    }
}
