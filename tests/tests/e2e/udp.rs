//! UDP: a flow is a socket and a remote address, and the sender of its first datagram originated it.

use serde_json::{Value, json};
use tests::{Actor, Endpoint, Watch, assert_has, endpoint, in_fresh_netns, netns, service};

use crate::expect::{assert_via, used_by};
use crate::{actor, address, port_of};

mod floods;
mod flows;

/// Who sends first, to whom, and by which calls.
#[derive(Clone, Copy)]
struct Case {
    client: &'static str,
    server: &'static str,
    /// Where the server's socket is bound, if not at the address that the client sends to.
    binds: Option<&'static str>,
    connects: bool,
    sends: &'static str,
    receives: &'static str,
    /// What the rule of thumb says at the client.
    port_rule: &'static str,
}

const CASE: Case = Case {
    client: "127.0.0.1:2000",
    server: "127.0.0.1:6000",
    binds: None,
    connects: false,
    sends: "sendto",
    receives: "recvfrom",
    port_rule: "unknown",
};

impl Case {
    fn client_endpoint(&self) -> Endpoint {
        endpoint(port_of(self.client), port_of(self.server))
    }

    fn server_endpoint(&self) -> Endpoint {
        endpoint(port_of(self.server), port_of(self.client))
    }

    /// What every event of an endpoint has, `initiator` being the client's process.
    fn record(&self, at_client: bool, initiator: &Value) -> Value {
        let (local, remote) = if at_client { (self.client, self.server) } else { (self.server, self.client) };
        let rule = match (self.port_rule, at_client) {
            ("local", false) => "remote",
            ("remote", false) => "local",
            (rule, _) => rule,
        };
        let socket = if at_client { self.client } else { self.binds.unwrap_or(self.server) };
        let packets_v6 = address(local)["ip"].as_str().unwrap().contains(':');
        json!({
            "proto": "udp",
            "family": if packets_v6 { "ipv6" } else { "ipv4" },
            "mapped": if socket.contains('[') && !packets_v6 { json!(true) } else { Value::Null },
            "netns": netns(),
            "local": address(local),
            "remote": address(remote),
            "service": service(port_of(self.server), "udp"),
            "errno": null,
            "listener": null,
            "origin": {
                "side": if at_client { "local" } else { "remote" },
                "confidence": "observed",
                "endpoint": address(self.client),
                "process": initiator,
                "port_rule": rule,
            },
        })
    }
}

/// A flow from open to close: 150 bytes go to the server and 30 come back.
fn lives(case: &Case, watch: &mut Watch, client: &mut Actor, server: &mut Actor) {
    let Case { client: local, server: remote, sends, receives, .. } = case;
    server.say(&format!("udp bind {}", case.binds.unwrap_or(remote)));
    client.say(&format!("udp bind {local}"));
    // A connect() sends nothing, and begins no flow.
    let to = if case.connects {
        client.say(&format!("udp connect {remote}"));
        String::new()
    } else {
        format!(" {remote}")
    };
    client.say(&format!("udp send {sends} 100{to}"));
    assert_eq!(server.say(&format!("udp recv {receives}")).split(' ').next(), Some("100"));
    let opens = [watch.at("open", case.client_endpoint()), watch.at("open", case.server_endpoint())];
    // To an IPv6 socket every peer has an IPv6 address.
    let from = address(local);
    let plain = from["ip"].as_str().filter(|ip| !ip.contains(':'));
    let to = match plain {
        Some(ip) if case.binds.unwrap_or(remote).contains('[') => format!("[::ffff:{ip}]:{}", port_of(local)),
        Some(ip) => format!("{ip}:{}", port_of(local)),
        None => (*local).to_owned(),
    };
    server.say(&format!("udp send sendto 30 {to}"));
    assert_eq!(client.say(&format!("udp recv {receives}")).split(' ').next(), Some("30"));
    let to = if case.connects { String::new() } else { format!(" {remote}") };
    client.say(&format!("udp send {sends} 50{to}"));
    server.say(&format!("udp recv {receives}"));

    let (initiator, responder) = (client.object(), server.object());
    client.say("udp close");
    let client_s = watch.at("close", case.client_endpoint());
    server.say("udp close");
    let server_s = watch.at("close", case.server_endpoint());
    for (event, at_client) in [(&opens[0], true), (&opens[1], false), (&client_s, true), (&server_s, false)] {
        assert_has(event, case.record(at_client, &initiator));
        assert_has(event, json!({"flow": opens[0]["flow"]}));
        assert_via(event, None);
        assert_eq!(event["process"]["pid"], if at_client { &initiator } else { &responder }["pid"]);
    }
    assert_has(&opens[0], used_by(&initiator, "connect"));
    assert_eq!(opens[0]["origin"]["basis"], "connect");
    assert_has(&opens[1]["process"], responder.clone());
    assert_ne!(opens[0]["id"], opens[1]["id"]);
    let [at_client, at_server] = opens.map(|open| open["id"].clone());
    assert_has(
        &client_s,
        json!({
            "id": at_client,
            "process": initiator,
            "bytes_sent": 150,
            "bytes_received": 30,
            "peer": {"id": at_server, "process": responder},
        }),
    );
    assert_has(
        &server_s,
        json!({
            "id": at_server,
            "process": responder,
            "bytes_sent": 30,
            "bytes_received": 150,
            "peer": {"id": at_client, "process": initiator},
        }),
    );
    assert!(client_s["duration_us"].is_u64() && server_s["duration_us"].is_u64(), "{client_s:#}");
}

/// Runs the cases one after another, and checks that there were no more events.
fn all(cases: &[Case]) {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        for case in cases {
            lives(case, &mut watch, &mut client, &mut server);
        }
        let log = watch.finish();
        for case in cases {
            assert_eq!(log.kinds(case.client_endpoint()), ["open", "close"]);
            assert_eq!(log.kinds(case.server_endpoint()), ["open", "close"]);
        }
    });
}

#[test]
fn every_send_and_receive_call_is_observed() {
    all(&[
        CASE,
        Case { client: "127.0.0.1:2001", sends: "sendmsg", receives: "recvmsg", ..CASE },
        Case { client: "127.0.0.1:2002", sends: "sendmmsg", receives: "recvmmsg", ..CASE },
        Case { client: "127.0.0.1:2003", connects: true, sends: "send", receives: "recv", ..CASE },
        Case { client: "127.0.0.1:2004", connects: true, sends: "write", receives: "read", ..CASE },
        Case {
            client: "127.0.0.1:2005",
            connects: true,
            sends: "sendmsg",
            receives: "recvmsg-anonymous",
            ..CASE
        },
        Case { client: "127.0.0.1:2006", connects: true, sends: "sendmmsg", receives: "recvmmsg", ..CASE },
    ]);
}

#[test]
fn every_address_family_is_observed() {
    let v6 = Case { client: "[::1]:2000", server: "[::1]:6000", ..CASE };
    let mapped = "[::ffff:127.0.0.1]:6000";
    all(&[
        v6,
        Case { client: "[::1]:2001", connects: true, sends: "send", receives: "recv", ..v6 },
        Case { client: "127.0.0.1:2002", binds: Some("0.0.0.0:6000"), ..CASE },
        Case { client: "[::1]:2003", binds: Some("[::]:6000"), ..v6 },
        // IPv4 on an IPv6 socket: the server's, and the client's.
        Case { client: "127.0.0.1:2004", binds: Some("[::]:6000"), ..CASE },
        Case { client: "[::ffff:127.0.0.1]:2005", server: mapped, binds: Some("127.0.0.1:6000"), ..CASE },
        Case {
            client: "[::ffff:127.0.0.1]:2006",
            server: mapped,
            binds: Some("127.0.0.1:6000"),
            connects: true,
            sends: "sendmsg",
            ..CASE
        },
    ]);
}

/// If datagrams were observed, ports are no evidence.
#[test]
fn originator_is_the_first_sender_whatever_the_ports() {
    all(&[
        Case { client: "127.0.0.1:40000", server: "127.0.0.1:53", port_rule: "local", ..CASE },
        Case {
            client: "127.0.0.1:40001",
            server: "127.0.0.1:53",
            port_rule: "local",
            connects: true,
            sends: "send",
            receives: "recvmsg",
            ..CASE
        },
        // The rule of thumb is wrong for these, or unknown.
        Case { client: "127.0.0.1:123", server: "127.0.0.1:6000", port_rule: "remote", ..CASE },
        Case { client: "127.0.0.1:53", server: "127.0.0.1:40002", port_rule: "remote", ..CASE },
        Case { client: "127.0.0.1:123", server: "127.0.0.1:124", ..CASE },
        Case { client: "[::1]:546", server: "[::1]:547", ..CASE },
    ]);
}

/// An unbound socket gets its port with its first datagram.
#[test]
fn ephemeral_port_is_reported() {
    for connects in [false, true] {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let (mut client, mut server) = (actor(), actor());
            server.say("udp bind 127.0.0.1:53");
            client.say("udp unbound 127.0.0.1");
            if connects {
                client.say("udp connect 127.0.0.1:53");
                client.say("udp send write 20");
            } else {
                client.say("udp send sendto 20 127.0.0.1:53");
            }
            let answer = server.say("udp recv recvfrom");
            let (bytes, from) = answer.split_once(' ').unwrap();
            assert_eq!(bytes, "20");
            let open = watch.at("open", endpoint(port_of(from), 53));
            let expected = json!({
                "local": address(from),
                "remote": address("127.0.0.1:53"),
                "service": service(53, "udp"),
                "origin": {
                    "side": "local",
                    "basis": "connect",
                    "confidence": "observed",
                    "endpoint": address(from),
                    "process": client.object(),
                },
            });
            assert_has(&open, expected.clone());
            assert_has(&open, used_by(&client.object(), "connect"));
            client.say("udp close");
            let close = watch.at("close", endpoint(port_of(from), 53));
            assert_has(&close, expected);
            assert_has(&close, json!({"id": open["id"], "bytes_sent": 20, "bytes_received": 0}));
        });
    }
}
