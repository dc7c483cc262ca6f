//! Connections begun while netwatch runs: both endpoints, from the first event to the last.

use serde_json::{Value, json};
use tests::{Actor, Watch, Wire, assert_has, endpoint, in_fresh_netns, netns, service};

use crate::{actor, address, port_of};

/// Who connects to whom, and what the rule of thumb says at the client.
struct Case {
    client: &'static str,
    server: &'static str,
    /// Where the server listens, if not at the address that the client connects to.
    listens: Option<&'static str>,
    nonblocking: bool,
    port_rule: &'static str,
}

impl Case {
    const fn new(client: &'static str, server: &'static str, port_rule: &'static str) -> Self {
        Self { client, server, listens: None, nonblocking: false, port_rule }
    }

    const fn nonblocking(mut self) -> Self {
        self.nonblocking = true;
        self
    }

    const fn listens(mut self, at: &'static str) -> Self {
        self.listens = Some(at);
        self
    }

    /// What the events of both endpoints have in common, seen from `local`.
    fn addresses(&self, local: &str, remote: &str) -> Value {
        let socket = if local == self.client { self.client } else { self.listens.unwrap_or(self.server) };
        // A socket of the other family than the packets is a mapped one.
        let packets = address(local)["ip"].as_str().unwrap().contains(':');
        let mapped = socket.contains('[') && !packets;
        json!({
            "proto": "tcp",
            "family": if packets { "ipv6" } else { "ipv4" },
            "mapped": if mapped { json!(true) } else { Value::Null },
            "netns": netns(),
            "local": address(local),
            "remote": address(remote),
            "service": service(port_of(self.server), "tcp"),
            "via": null,
        })
    }
}

/// Runs a connection from listen to close, and compares every event of it.
fn lives(case: &Case, watch: &mut Watch, client: &mut Actor, server: &mut Actor) {
    let listens = case.listens.unwrap_or(case.server);
    let (client_port, server_port) = (port_of(case.client), port_of(case.server));
    let (client_endpoint, server_endpoint) =
        (endpoint(client_port, server_port), endpoint(server_port, client_port));

    server.say(&format!("listen {listens} 16"));
    let listen = watch.at("listen", endpoint(server_port, 0));
    let how = if case.nonblocking { " nonblocking" } else { "" };
    client.say(&format!("connect {} {}{how}", case.client, case.server));
    if case.nonblocking {
        client.say("finish");
    }

    let initiator = client.object();
    let by_client = |basis: &str, side: &str, rule: &str| {
        json!({
            "side": side,
            "basis": basis,
            "confidence": "observed",
            "endpoint": address(case.client),
            "process": initiator,
            "port_rule": rule,
        })
    };
    let connected = watch.at("open", client_endpoint);
    let origin = by_client("connect", "local", case.port_rule);
    assert_has(&connected, case.addresses(case.client, case.server));
    assert_has(
        &connected,
        json!({
            "state": "ESTABLISHED",
            "origin": origin,
            "process": client.object(),
            "process_basis": "connect",
            "listener": null,
            "errno": null,
        }),
    );
    assert!(connected["handshake_us"].is_u64(), "{connected:#}");

    let rule = match case.port_rule {
        "local" => "remote",
        "remote" => "local",
        unknown => unknown,
    };
    let listener = json!({"id": listen["id"], "process": server.object()});
    let born = watch.at("open", server_endpoint);
    assert_has(&born, case.addresses(case.server, case.client));
    assert_has(
        &born,
        json!({
            "flow": connected["flow"],
            "state": "ESTABLISHED",
            "origin": by_client("handshake", "remote", rule),
            "process": server.object(),
            "process_basis": "listener",
            "listener": listener,
            "errno": null,
        }),
    );
    assert_ne!(born["id"], connected["id"]);
    assert_ne!(born["cookie"], connected["cookie"]);

    server.say("accept");
    let accepted = watch.at("accept", server_endpoint);
    let client_peer = json!({"id": connected["id"], "process": client.object()});
    assert_has(&accepted, case.addresses(case.server, case.client));
    assert_has(
        &accepted,
        json!({
            "id": born["id"],
            "cookie": born["cookie"],
            "flow": connected["flow"],
            "state": "ESTABLISHED",
            "origin": by_client("accept", "remote", rule),
            "process": server.object(),
            "process_basis": "accept",
            "listener": listener,
            "peer": client_peer,
        }),
    );

    client.say("send 1000");
    server.say("recv 1000");
    server.say("send 234");
    client.say("recv 234");
    client.say("close");
    server.say("eof");
    server.say("close");
    let closed = watch.at("close", client_endpoint);
    assert_has(&closed, case.addresses(case.client, case.server));
    assert_has(
        &closed,
        json!({
            "id": connected["id"],
            "flow": connected["flow"],
            "origin": origin,
            "process": client.object(),
            "process_basis": "connect",
            "peer": {"id": born["id"], "process": server.object()},
            "errno": null,
            "handshake_us": connected["handshake_us"],
            "bytes_sent": 1000,
            "bytes_received": 234,
            "closed_by": "local",
        }),
    );
    assert!(closed["duration_us"].is_u64(), "{closed:#}");
    let closed = watch.at("close", server_endpoint);
    assert_has(&closed, case.addresses(case.server, case.client));
    assert_has(
        &closed,
        json!({
            "id": born["id"],
            "flow": connected["flow"],
            "origin": by_client("accept", "remote", rule),
            "process": server.object(),
            "process_basis": "accept",
            "listener": listener,
            "peer": client_peer,
            "errno": null,
            "bytes_sent": 234,
            "bytes_received": 1000,
            "closed_by": "remote",
        }),
    );
    assert!(closed["duration_us"].is_u64(), "{closed:#}");
    server.say("unlisten");
    assert_eq!(watch.at("unlisten", endpoint(server_port, 0))["id"], listen["id"]);
}

#[test]
fn originator_is_the_connector_whatever_the_ports() {
    in_fresh_netns(|| {
        let cases = [
            Case::new("127.0.0.1:12345", "127.0.0.1:23456", "unknown"),
            // The rule of thumb is wrong.
            Case::new("127.0.0.1:900", "127.0.0.1:40000", "remote"),
            Case::new("127.0.0.1:40001", "127.0.0.1:901", "local"),
            Case::new("127.0.0.1:902", "127.0.0.1:903", "unknown"),
            // A display server.
            Case::new("127.0.0.1:2000", "127.0.0.1:6000", "unknown"),
            Case::new("[::1]:2001", "[::1]:7001", "unknown"),
            Case::new("[::1]:904", "[::1]:7002", "remote"),
            Case::new("[::ffff:127.0.0.1]:2003", "[::ffff:127.0.0.1]:7003", "unknown"),
            // Mapped at one endpoint only: the server's, the client's.
            Case::new("127.0.0.1:2004", "127.0.0.1:7004", "unknown").listens("[::]:7004"),
            Case::new("[::ffff:127.0.0.1]:2005", "[::ffff:127.0.0.1]:7005", "unknown")
                .listens("127.0.0.1:7005"),
            Case::new("127.0.0.1:2006", "127.0.0.1:7006", "unknown").nonblocking(),
            Case::new("[::1]:2007", "[::1]:7007", "unknown").nonblocking(),
            Case::new("[::ffff:127.0.0.1]:905", "[::ffff:127.0.0.1]:7008", "remote").nonblocking(),
        ];
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        for case in &cases {
            lives(case, &mut watch, &mut client, &mut server);
        }
        let log = watch.finish();
        // Each event once, and no other.
        for case in &cases {
            let (client, server) = (port_of(case.client), port_of(case.server));
            assert_eq!(log.kinds(endpoint(client, server)), ["open", "close"]);
            assert_eq!(log.kinds(endpoint(server, client)), ["open", "accept", "close"]);
            assert_eq!(log.kinds(endpoint(server, 0)), ["listen", "unlisten"]);
        }
    });
}

#[test]
fn ephemeral_port_is_reported() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        let to = server.say("listen 127.0.0.1:0 16");
        let from = client.say(&format!("connect - {to}"));
        let open = watch.at("open", endpoint(port_of(&from), port_of(&to)));
        assert_has(&open, json!({"local": address(&from), "remote": address(&to)}));
        assert_has(&open["origin"], json!({"endpoint": address(&from), "process": client.object()}));
    });
}

#[test]
fn socket_connected_to_itself_has_side_both() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        client.say("connect 127.0.0.1:4000 127.0.0.1:4000");
        let open = watch.at("open", endpoint(4000, 4000));
        assert_has(&open, json!({"process": client.object(), "process_basis": "connect"}));
        assert_has(&open["origin"], json!({"side": "both", "confidence": "observed"}));
        client.say("close");
        watch.at("close", endpoint(4000, 4000));
    });
}

/// Neither listens: their SYNs cross.
#[test]
fn simultaneous_connects_have_side_both() {
    let (here, there) = (tests::Netns::fresh(), tests::Netns::fresh());
    let wire = Wire::between(&here, &there);
    let mut actors = [here.inside(actor), there.inside(actor)];
    let mut watch = Watch::shared_by(&[&here, &there]);
    let Wire { a, b, .. } = &wire;
    let commands = [format!("connect {a}:2000 {b}:6000"), format!("connect {b}:6000 {a}:2000")];
    for (netns, other) in [(&here, b), (&there, a)] {
        netns.inside(|| slow_line(other));
    }
    for (actor, command) in actors.iter_mut().zip(&commands) {
        actor.begin(command);
    }
    for actor in &mut actors {
        actor.answer().unwrap();
    }
    let opens = [
        watch.at("open", here.inside(|| endpoint(2000, 6000))),
        watch.at("open", there.inside(|| endpoint(6000, 2000))),
    ];
    for (open, process) in opens.iter().zip(&actors) {
        let origin = json!({
            "side": "both",
            "basis": "connect",
            "confidence": "observed",
            "endpoint": open["local"],
            "process": process.object(),
        });
        assert_has(open, json!({"process": process.object(), "process_basis": "connect", "origin": origin}));
    }
    assert_eq!(opens[0]["flow"], opens[1]["flow"]);
}

/// Delays by half a second what the calling thread's namespace sends by its veth.
pub(crate) fn slow_line(other: &str) {
    // Room for one full packet, and then 2,500 bytes a second.
    tests::tool("tc", "qdisc add dev veth root tbf rate 20kbit burst 1600 limit 20000");
    fill_line(other, 2);
}

/// The first datagram uses up the burst, the next waits for half a second, and so do all after it. If the burst was
/// used up already, one is enough: a second would cause a retransmission of the SYN.
fn fill_line(other: &str, datagrams: usize) {
    const DISCARD: u16 = 9;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
    for _ in 0..datagrams {
        socket.send_to(&[0; 1400], (other, DISCARD)).unwrap();
    }
}

/// On loopback the connector is the current task at every step of its handshake. Here it is not.
#[test]
fn process_running_at_the_end_of_a_handshake_is_not_named() {
    let (here, there) = (tests::Netns::fresh(), tests::Netns::fresh());
    let Wire { a, b, .. } = Wire::between(&here, &there);
    let mut server = there.inside(actor);
    server.say(&format!("listen {b}:6000 16"));
    let (mut busy, mut blocked, mut polling) = here.inside(|| (actor(), actor(), actor()));
    let mut watch = Watch::shared_by(&[&here, &there]);
    busy.say("busy");
    here.inside(|| slow_line(&b));
    // The queue empties meanwhile, depending on the machine: so each gets a few tries at a slow handshake.
    const TRIES: u16 = 5;
    let mut slow = [false, false];
    for port in 2000..2000 + 2 * TRIES {
        let (client, how, slow) = match slow {
            [false, _] => (&mut blocked, "", &mut slow[0]),
            [true, false] => (&mut polling, " nonblocking", &mut slow[1]),
            [true, true] => break,
        };
        if port != 2000 {
            here.inside(|| fill_line(&b, 1));
        }
        client.begin(&format!("connect {a}:{port} {b}:6000{how}"));
        client.answer().unwrap();
        if !how.is_empty() {
            client.say("finish");
        }
        server.say("accept");
        let open = watch.at("open", here.inside(|| endpoint(port, 6000)));
        assert_has(&open, json!({"process": client.object(), "process_basis": "connect"}));
        assert_has(
            &open["origin"],
            json!({"side": "local", "basis": "connect", "confidence": "observed", "process": client.object()}),
        );
        *slow = open["handshake_us"].as_u64().unwrap() > 400_000;
        let born = watch.at("open", there.inside(|| endpoint(6000, port)));
        assert_has(&born, json!({"process": server.object(), "process_basis": "listener"}));
        let accepted = watch.at("accept", there.inside(|| endpoint(6000, port)));
        for event in [&born, &accepted] {
            assert_has(&event["origin"], json!({"side": "remote", "process": client.object()}));
            assert_eq!(event["flow"], open["flow"]);
        }
        client.say("close");
        // Otherwise the client may wait a minute in FIN_WAIT2: if the answer to its FIN comes while close() holds the
        // socket (`net/ipv4/tcp_input.c`, tcp_rcv_state_process).
        server.say("close");
        watch.at("close", here.inside(|| endpoint(port, 6000)));
    }
    assert_eq!(slow, [true, true], "no handshake was slow enough to prove anything");
    let log = watch.finish();
    let named = format!("\"pid\":{},", busy.pid());
    let ours = |event: &&Value| [here.inum(), there.inum()].iter().any(|inum| event["netns"] == *inum);
    for event in log.events.iter().filter(ours) {
        assert!(!event.to_string().contains(&named), "{event:#}");
    }
}
