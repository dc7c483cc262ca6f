//! Sockets that are bound to a network interface, and link-local addresses: the name of the interface in every output.

use std::net::UdpSocket;
use std::process::Command;

use serde_json::{Value, json};
use tests::{Actor, Recorder, Store, Watch, assert_has, binary, in_fresh_netns, ip, kind, netns, output};

use crate::{actor, address};

fn list(arguments: &[&str]) -> Vec<Value> {
    let listed = output(Command::new(binary()).args(["list", "--json", "-a"]).args(arguments));
    let text = String::from_utf8(listed.stdout).unwrap();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn table(arguments: &[&str]) -> String {
    String::from_utf8(output(Command::new(binary()).args(["list", "-an"]).args(arguments)).stdout).unwrap()
}

fn of_actor(watch: &mut Watch, actor: &Actor, wanted: &str, port: u16) -> Value {
    let own = netns();
    watch.expect(&format!("{wanted} of port {port}"), |event| {
        kind(event) == wanted
            && event["netns"] == own
            && event["process"]["pid"] == actor.pid()
            && event["local"]["port"] == port
    })
}

/// Two listeners with one address and port, each on its own interface.
#[test]
fn listeners_on_two_interfaces_are_told_apart() {
    in_fresh_netns(|| {
        ip("link add dummy7 type veth peer name dummy7b");
        ip("link set dummy7 up");
        let mut watch = Watch::shared();
        let mut server = actor();
        for device in ["lo", "dummy7"] {
            server.say(&format!("listen 0.0.0.0:7001 1 device={device}"));
        }
        for device in ["lo", "dummy7"] {
            let (own, pid) = (netns(), server.pid());
            let event = watch.expect("a listener on its device", |event| {
                kind(event) == "listen"
                    && event["netns"] == own
                    && event["process"]["pid"] == pid
                    && event["device"] == device
            });
            assert_eq!((&event["local"], &event["scope"]), (&address("0.0.0.0:7001"), &Value::Null));
        }
        for device in ["lo", "dummy7"] {
            let rows = list(&["--device", device]);
            assert_eq!(
                (rows.len(), &rows[0]["device"], &rows[0]["local"]),
                (1, &json!(device), &address("0.0.0.0:7001"))
            );
            assert!(table(&[]).contains(&format!(" 0.0.0.0%{device}:7001 ")), "{}", table(&[]));
        }
        let audit = output(Command::new(binary()).args(["audit", "--json", "--netns", "self"]));
        let audit = String::from_utf8(audit.stdout).unwrap();
        let ports = audit.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let mut reach: Vec<_> = ports
            .filter(|port| port["kind"] == "port")
            .map(|port| {
                (port["device"].as_str().unwrap().to_owned(), port["reach"].as_str().unwrap().to_owned())
            })
            .collect();
        reach.sort();
        assert_eq!(
            reach,
            [("dummy7", "device"), ("lo", "loopback")].map(|(a, b)| (a.to_owned(), b.to_owned()))
        );
    });
}

/// A connection of a bound socket has its device at that end only; `--device` finds it.
#[test]
fn connection_of_a_bound_socket_has_its_device() {
    in_fresh_netns(|| {
        let mut all = Watch::shared();
        let mut filtered = Watch::start(&["--device", "lo"]);
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:7002 1");
        client.say("connect 127.0.0.1:2002 127.0.0.1:7002 device=lo");
        server.say("accept");
        let open = of_actor(&mut all, &client, "open", 2002);
        assert_eq!((&open["device"], &open["scope"]), (&json!("lo"), &Value::Null));
        let accept = of_actor(&mut all, &server, "accept", 7002);
        assert_eq!(accept["device"], Value::Null);
        let found = of_actor(&mut filtered, &client, "open", 2002);
        assert_eq!(found["device"], "lo");
        client.say("close");
        of_actor(&mut filtered, &client, "close", 2002);

        // The store keeps it.
        let store = Store::new();
        let recorder = Recorder::start(&store.path(), &["--port", "7003"]);
        server.say("listen 127.0.0.1:7003 1");
        client.say("connect 127.0.0.1:2003 127.0.0.1:7003 device=lo");
        client.say("close");
        recorder.finish();
        let logged = store.log(&["--device", "lo", "--event", "open"]);
        assert_eq!(logged.len(), 1, "{logged:#?}");
        assert_has(&logged[0], json!({"device": "lo", "local": {"port": 2003}}));
    });
}

/// TCP and UDP over link-local addresses: the interface is their scope.
#[test]
fn link_local_addresses_have_their_scope() {
    in_fresh_netns(|| {
        ip("link add dummy8 type veth peer name dummy8b");
        ip("link set dummy8 up");
        ip("link set dummy8b up");
        ip("addr add fe80::8/64 dev dummy8 nodad");
        // The second word is the index: net/ipv6/addrconf.c, if6_seq_show().
        let addresses = std::fs::read_to_string("/proc/thread-self/net/if_inet6").unwrap();
        let line = addresses.lines().find(|line| line.ends_with("dummy8")).unwrap();
        let index = u32::from_str_radix(line.split(' ').nth(1).unwrap(), 16).unwrap();
        let mut watch = Watch::shared();
        let (mut server, mut client) = (actor(), actor());
        server.say(&format!("listen [fe80::8%{index}]:7003 1"));
        client.say(&format!("connect [fe80::8%{index}]:2003 [fe80::8%{index}]:7003"));
        server.say("accept");
        for (actor, wanted, port) in
            [(&client, "open", 2003), (&server, "accept", 7003), (&server, "listen", 7003)]
        {
            let event = of_actor(&mut watch, actor, wanted, port);
            assert_eq!(event["scope"], "dummy8", "{event:#}");
        }
        // Sockets that are bound to no interface: that of the datagram.
        let own = std::process::id();
        let receiver = UdpSocket::bind("[::]:7004").unwrap();
        let sender = UdpSocket::bind("[::]:2004").unwrap();
        sender.send_to(b"x", format!("[ff02::1%{index}]:7004")).unwrap();
        receiver.recv(&mut [0; 1]).unwrap();
        for port in [2004, 7004] {
            let event = watch.expect("the flow", |event| {
                kind(event) == "open" && event["process"]["pid"] == own && event["local"]["port"] == port
            });
            assert_eq!((&event["scope"], &event["device"]), (&json!("dummy8"), &Value::Null), "{event:#}");
        }
    });
}
