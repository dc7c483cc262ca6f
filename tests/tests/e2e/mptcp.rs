//! MPTCP: one connection per endpoint, the application's, however many subflows carry it.

use std::net::Ipv4Addr;
use std::sync::OnceLock;

use serde_json::{Value, json};
use tests::{
    Actor, Endpoint, Netns, Watch, Wire, assert_has, counter, in_fresh_netns, ip, mptcp_bytes, port, skip,
    until,
};

use crate::expect::{CONN, Conn, assert_via, used_by};
use crate::{actor, address};

const VIA: Option<&str> = Some("mptcp");

fn listens(conn: Conn, server: &mut Actor) {
    server.say(&format!("listen {} 16 mptcp", conn.server));
}

fn connects(conn: Conn, client: &mut Actor) {
    client.say(&format!("connect {} {} mptcp", conn.client, conn.server));
}

fn cookie(actor: &mut Actor) -> u64 {
    actor.say("cookie").parse().unwrap()
}

/// Sends bytes both ways, and closes.
fn speak(client: &mut Actor, server: &mut Actor) {
    client.say("send 1000");
    server.say("recv 1000");
    server.say("send 234");
    client.say("recv 234");
    client.say("close");
    server.say("eof");
    server.say("close");
}

/// Whether the kernel was built without it; prints a skip line for `test`.
fn lacks_mptcp(test: &str) -> bool {
    static LACKS: OnceLock<bool> = OnceLock::new();
    let listen = || {
        let mut answer = Ok(String::new());
        in_fresh_netns(|| answer = actor().try_say(&format!("listen {} 16 mptcp", CONN.server)));
        answer == Err("EPROTONOSUPPORT".to_owned())
    };
    let lacks = *LACKS.get_or_init(listen);
    if lacks {
        skip(test, "the kernel has no MPTCP (CONFIG_MPTCP)");
    }
    lacks
}

#[test]
fn connection_is_attributed_to_the_application() {
    if lacks_mptcp("mptcp::connection_is_attributed_to_the_application") {
        return;
    }
    let cases = [CONN, Conn { client: "[::1]:2000", server: "[::1]:6000" }];
    for conn in cases {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let (mut client, mut server) = (actor(), actor());
            listens(conn, &mut server);
            connects(conn, &mut client);
            server.say("accept");
            assert_eq!(counter("MPTcpExt", "MPCapableACKRX"), 1, "it is MPTCP");
            let listen = watch.at("listen", tests::endpoint(6000, 0));
            let open = watch.at("open", conn.client_endpoint());
            assert_has(&open, conn.at_client(&client.object()));
            assert_has(&open, used_by(&client.object(), "connect"));
            assert_has(&open, json!({"state": "ESTABLISHED", "cookie": cookie(&mut client)}));
            let accept = watch.at("accept", conn.server_endpoint());
            assert_has(&accept, conn.at_server(&client.object()));
            assert_has(&accept, used_by(&server.object(), "accept"));
            assert_has(
                &accept,
                json!({
                    "cookie": cookie(&mut server),
                    "listener": {"id": listen["id"], "process": server.object()},
                    "peer": {"id": open["id"], "process": client.object()},
                }),
            );
            speak(&mut client, &mut server);
            let closed =
                [watch.at("close", conn.client_endpoint()), watch.at("close", conn.server_endpoint())];
            assert_has(&closed[0], conn.at_client(&client.object()));
            assert_has(&closed[0], used_by(&client.object(), "connect"));
            assert_has(&closed[1], conn.at_server(&client.object()));
            assert_has(&closed[1], used_by(&server.object(), "accept"));
            for event in [&open, &accept, &closed[0], &closed[1]] {
                assert_via(event, VIA);
            }
            assert_has(&closed[0], json!({"closed_by": "local"}));
            assert_has(&closed[0], mptcp_bytes(1000, 234));
            assert_has(&closed[1], json!({"closed_by": "remote"}));
            assert_has(&closed[1], mptcp_bytes(234, 1000));
            let log = watch.finish();
            conn.kinds(&log, &["open", "close"], &["open", "accept", "close"]);
        });
    }
}

/// Two namespaces whose wire has two addresses on the client's side, with a client and a server.
struct Hosts {
    netns: [Netns; 2],
    addresses: [String; 2],
    client: Actor,
    server: Actor,
}

impl Hosts {
    fn new() -> Self {
        let netns = [Netns::fresh(), Netns::fresh()];
        let Wire { a, b, .. } = Wire::between(&netns[0], &netns[1]);
        let second = Ipv4Addr::from(u32::from(a.parse::<Ipv4Addr>().unwrap()) + 2);
        for netns in &netns {
            netns.inside(|| ip("mptcp limits set subflow 2 add_addr_accepted 2"));
        }
        netns[0].inside(|| {
            ip(&format!("addr add {second}/28 dev veth"));
            ip(&format!("mptcp endpoint add {second} dev veth subflow"));
        });
        let (client, server) = (netns[0].inside(actor), netns[1].inside(actor));
        Self { netns, addresses: [format!("{a}:2000"), format!("{b}:6000")], client, server }
    }

    fn conn(&self) -> Conn<'_> {
        Conn { client: &self.addresses[0], server: &self.addresses[1] }
    }

    fn endpoints(&self) -> [Endpoint; 2] {
        let [here, there] = [&self.netns[0], &self.netns[1]].map(Netns::inum);
        [
            Endpoint { netns: here, local: 2000, remote: 6000 },
            Endpoint { netns: there, local: 6000, remote: 2000 },
        ]
    }

    /// A connection with two subflows, of which a kernel worker opens the second, from another address.
    fn connect(&mut self) {
        let Self { addresses: [local, remote], client, server, netns } = self;
        server.say(&format!("listen {remote} 16 mptcp"));
        client.say(&format!("connect {local} {remote} mptcp"));
        server.say("accept");
        // The connection is fully established only after the first data.
        client.say("send 10");
        server.say("recv 10");
        let joined = || netns[1].inside(|| counter("MPTcpExt", "MPJoinAckRx"));
        until("the second subflow is there", || joined() == 1);
    }

    /// Closes it, and checks that it was one connection: kinds of events at the client's endpoint and at the server's,
    /// in order.
    fn are_reported_as_one(&mut self, mut watch: Watch, client_s: &[&str], server_s: &[&str]) {
        speak(&mut self.client, &mut self.server);
        let endpoints = self.endpoints();
        let (client, server) = (self.client.object(), self.server.object());
        let mut flows = Vec::new();
        for (endpoint, process, kinds) in
            [(endpoints[0], &client, client_s), (endpoints[1], &server, server_s)]
        {
            let (begun, closed) = (watch.at(kinds[0], endpoint), watch.at("close", endpoint));
            assert_has(&begun, json!({"id": closed["id"], "flow": closed["flow"], "process": process}));
            assert_has(&closed, json!({"process": process}));
            assert_has(
                &closed["origin"],
                json!({"process": client, "endpoint": address(self.conn().client)}),
            );
            flows.push(closed["flow"].clone());
        }
        assert_eq!(flows[0], flows[1]);
        let log = watch.finish();
        assert_eq!(
            (log.kinds(endpoints[0]), log.kinds(endpoints[1])),
            (client_s.to_vec(), server_s.to_vec())
        );
        let ours = |event: &&Value| endpoints.iter().any(|endpoint| event["netns"] == endpoint.netns);
        for event in log.events.iter().filter(ours) {
            let ports = (port(event, "local"), port(event, "remote"));
            let known = [(2000, 6000), (6000, 2000), (6000, 0)].contains(&ports);
            assert!(known, "a subflow's event: {event:#}");
            assert!(event["process"]["kernel"] != true, "{event:#}");
        }
    }
}

#[test]
fn subflows_are_no_connections() {
    if lacks_mptcp("mptcp::subflows_are_no_connections") {
        return;
    }
    let mut hosts = Hosts::new();
    let watch = Watch::shared_by(&hosts.netns.each_ref());
    hosts.connect();
    hosts.are_reported_as_one(watch, &["open", "close"], &["open", "accept", "close"]);
}

#[test]
fn seed_with_subflows_is_one_connection() {
    if lacks_mptcp("mptcp::seed_with_subflows_is_one_connection") {
        return;
    }
    let mut hosts = Hosts::new();
    hosts.connect();
    hosts.are_reported_as_one(Watch::on_wires(&[]), &["seed", "close"], &["seed", "close"]);
}

/// One endpoint is MPTCP, and the connection falls back to TCP.
#[test]
fn plain_tcp_at_one_endpoint_is_one_connection() {
    if lacks_mptcp("mptcp::plain_tcp_at_one_endpoint_is_one_connection") {
        return;
    }
    for plain in ["client", "server"] {
        in_fresh_netns(|| {
            let mut watch = Watch::shared();
            let (mut client, mut server) = (actor(), actor());
            if plain == "server" {
                CONN.listens(&mut server);
                connects(CONN, &mut client);
            } else {
                listens(CONN, &mut server);
                CONN.connects(&mut client, "");
            }
            server.say("accept");
            let open = watch.at("open", CONN.client_endpoint());
            assert_has(&open, CONN.at_client(&client.object()));
            assert_has(&open, used_by(&client.object(), "connect"));
            assert_has(&open, json!({"cookie": cookie(&mut client)}));
            let accept = watch.at("accept", CONN.server_endpoint());
            assert_has(&accept, CONN.at_server(&client.object()));
            assert_has(&accept, used_by(&server.object(), "accept"));
            assert_has(&accept, json!({"cookie": cookie(&mut server)}));
            assert_has(&accept["listener"], json!({"process": server.object()}));
            assert_via(&open, VIA.filter(|_| plain == "server"));
            if plain == "server" {
                assert_via(&accept, None);
            }
            speak(&mut client, &mut server);
            let closed =
                [watch.at("close", CONN.client_endpoint()), watch.at("close", CONN.server_endpoint())];
            assert_has(&closed[0], CONN.at_client(&client.object()));
            let counts = |closed: &Value, sent: u64, received: u64| {
                // Every kernel counts the bytes of the endpoint that is plain TCP.
                if closed["via"] == "mptcp" {
                    assert_has(closed, mptcp_bytes(sent, received));
                } else {
                    assert_has(closed, json!({"bytes_sent": sent, "bytes_received": received}));
                }
            };
            counts(&closed[0], 1000, 234);
            assert_has(&closed[0], json!({"closed_by": "local"}));
            assert_has(&closed[1], CONN.at_server(&client.object()));
            counts(&closed[1], 234, 1000);
            assert_has(&closed[1], json!({"closed_by": "remote"}));
            let log = watch.finish();
            CONN.kinds(&log, &["open", "close"], &["open", "accept", "close"]);
        });
    }
}

#[test]
fn refused_attempt_has_via_mptcp() {
    if lacks_mptcp("mptcp::refused_attempt_has_via_mptcp") {
        return;
    }
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        let connect = format!("connect {} {} mptcp", CONN.client, CONN.server);
        assert_eq!(client.try_say(&connect), Err("ECONNREFUSED".to_owned()));
        let fail = watch.at("fail", CONN.client_endpoint());
        let mut expected = CONN.at_client(&client.object());
        expected["errno"] = "ECONNREFUSED".into();
        assert_has(&fail, expected);
        assert_has(&fail, used_by(&client.object(), "connect"));
        assert_via(&fail, VIA);
        assert_eq!(watch.finish().kinds(CONN.client_endpoint()), ["fail"]);
    });
}

#[test]
fn use_by_a_child_is_a_handover() {
    if lacks_mptcp("mptcp::use_by_a_child_is_a_handover") {
        return;
    }
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        listens(CONN, &mut server);
        connects(CONN, &mut client);
        server.say("accept");
        let child = client.hire();
        client.say("worker send 10");
        server.say("recv 10");
        let handover = watch.at("handover", CONN.client_endpoint());
        assert_has(&handover, CONN.at_client(&client.object()));
        assert_has(&handover, used_by(&child, "handover"));
        assert_via(&handover, VIA);
        client.say("dismiss");
        CONN.closes(&mut watch, &mut client, &mut server);
        let log = watch.finish();
        CONN.kinds(&log, &["open", "handover", "close"], &["open", "accept", "close"]);
    });
}
