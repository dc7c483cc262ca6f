//! Address translation: both endpoints are on this host, and neither has the address that the other one uses. Questions have
//! a share of the processor time, and where other tests make connections an event may come before its answer, so tests of
//! events are alone.

use std::io::Write as _;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::{
    Actor, Debian, Endpoint, Netns, Store, Watch, assert_has, binary, endpoint, in_fresh_netns, ip, sysctl,
};

use crate::{actor, address};

/// What translates addresses, or why that cannot be tested here, which is reported as a skip.
fn translator(test: &str) -> Option<Debian> {
    if !std::path::Path::new("/proc/sys/net/netfilter").exists() {
        tests::skip(test, "this kernel has no connection tracking");
        return None;
    }
    Debian::of_this_run(test)
}

/// Replaces the rules of the calling thread's network namespace.
fn rules(debian: &Debian, rules: &str) {
    debian.inside(|| {
        let mut nft = Command::new("nft").args(["-f", "-"]).stdin(Stdio::piped()).spawn().unwrap();
        write!(nft.stdin.take().unwrap(), "flush ruleset\n{rules}\n").unwrap();
        assert!(nft.wait().unwrap().success(), "{rules}");
    });
}

/// What is sent to port 80 arrives at `to`.
fn redirect(debian: &Debian, proto: &str, to: u16) {
    let chain = "type nat hook output priority -100;";
    rules(debian, &format!("table ip n {{\nchain o {{\n{chain}\n{proto} dport 80 redirect to :{to}\n}}\n}}"));
}

fn seen(local: &str, remote: &str) -> Value {
    json!({"local": address(local), "remote": address(remote), "basis": "conntrack"})
}

/// A client of port 80 on loopback, and a server on 8080.
fn redirected(client: &mut Actor, server: &mut Actor) {
    server.say("listen 127.0.0.1:8080 16");
    client.say("connect 127.0.0.1:2000 127.0.0.1:80");
    server.say("accept");
}

/// Both events are of one flow, each has the other's process, and `client` originated it.
#[track_caller]
fn one_flow(at_client: &Value, at_server: &Value, client: &Actor, server: &Actor) {
    assert_eq!(at_client["flow"], at_server["flow"], "{at_client:#}{at_server:#}");
    assert_eq!(at_server["peer"]["process"]["pid"], client.pid(), "{at_server:#}");
    assert_eq!(at_server["peer"]["id"], at_client["id"]);
    for event in [at_client, at_server] {
        assert_eq!(event["origin"]["process"]["pid"], client.pid(), "{event:#}");
        assert_eq!(event["origin"]["confidence"], "observed", "{event:#}");
    }
    assert_eq!(at_server["process"]["pid"], server.pid());
}

#[test]
fn redirect_on_loopback_is_one_flow() {
    let Some(debian) = translator("nat::redirect_on_loopback_is_one_flow") else { return };
    in_fresh_netns(|| {
        redirect(&debian, "tcp", 8080);
        let mut watch = Watch::alone(&[]);
        let (mut client, mut server) = (actor(), actor());
        redirected(&mut client, &mut server);
        let at_client = watch.at("open", endpoint(2000, 80));
        let at_server = watch.at("open", endpoint(8080, 2000));
        assert_eq!(at_client["nat"], seen("127.0.0.1:2000", "127.0.0.1:8080"));
        assert_eq!(at_server["nat"], seen("127.0.0.1:80", "127.0.0.1:2000"));
        one_flow(&at_client, &at_server, &client, &server);
        client.say("close");
        server.say("close");
        let at_client = watch.at("close", endpoint(2000, 80));
        assert_eq!(at_client["peer"]["process"]["pid"], server.pid());

        // Without a translation both ends are joined as ever, and that none is known is said.
        server.say("listen 127.0.0.1:8081 16");
        client.say("connect 127.0.0.1:2001 127.0.0.1:8081");
        for event in [watch.at("open", endpoint(2001, 8081)), watch.at("open", endpoint(8081, 2001))] {
            assert_eq!(event.get("nat"), Some(&Value::Null), "{event:#}");
        }
    });
}

#[test]
fn snapshots_know_translations() {
    let Some(debian) = translator("nat::snapshots_know_translations") else { return };
    in_fresh_netns(|| {
        redirect(&debian, "tcp", 8080);
        let (mut client, mut server) = (actor(), actor());
        redirected(&mut client, &mut server);
        let mut watch = Watch::alone(&[]);
        let [at_client, at_server] =
            [endpoint(2000, 80), endpoint(8080, 2000)].map(|endpoint| watch.at("seed", endpoint));
        assert_eq!(at_client["nat"], seen("127.0.0.1:2000", "127.0.0.1:8080"));
        assert_eq!(at_client["flow"], at_server["flow"]);
        assert_has(&at_client["origin"], json!({"side": "local", "basis": "peer", "confidence": "inferred"}));
        assert_eq!(at_client["peer"]["process"]["pid"], server.pid());
        let list = Command::new(binary()).args(["list", "--json"]).output().unwrap();
        let rows = String::from_utf8(list.stdout).unwrap();
        let rows: Vec<Value> = rows.lines().map(|row| serde_json::from_str(row).unwrap()).collect();
        let row = rows.iter().find(|row| row["remote"] == address("127.0.0.1:80")).unwrap();
        assert_eq!(row["nat"], seen("127.0.0.1:2000", "127.0.0.1:8080"));
        let row =
            rows.iter().find(|row| row["local"]["port"] == 8080 && row["remote"]["port"] == 2000).unwrap();
        assert_eq!(row["origin"]["process"]["pid"], client.pid(), "{row:#}");
    });
}

/// A host with a bridge to containers in small: the router translates both addresses, and neither end knows.
#[test]
fn translation_in_another_namespace_is_followed() {
    let Some(debian) = translator("nat::translation_in_another_namespace_is_followed") else { return };
    let (outside, router, inside) = (Netns::fresh(), Netns::fresh(), Netns::fresh());
    let wires = [(&outside, "out", "10.201.0", 2), (&inside, "in", "10.202.0", 2)];
    for (netns, name, network, host) in wires {
        router.inside(|| {
            ip(&format!("link add {name} type veth peer name eth0 netns {}", netns.path()));
            ip(&format!("addr add {network}.1/24 dev {name}"));
            ip(&format!("link set {name} up"));
        });
        netns.inside(|| {
            ip(&format!("addr add {network}.{host}/24 dev eth0"));
            ip("link set eth0 up");
            ip(&format!("route add default via {network}.1"));
        });
    }
    router.inside(|| {
        sysctl("net/ipv4/ip_forward", "1");
        rules(
            &debian,
            "table ip n {
                chain pre { type nat hook prerouting priority -100; \
                    tcp dport 80 dnat to 10.202.0.2:8080; udp dport 80 dnat to 10.202.0.2:8080
                }
                chain post { type nat hook postrouting priority 100; oifname in masquerade
                }
            }",
        );
    });
    // As every namespace has that is not mounted.
    let _process = router.inside(actor);
    let (mut client, mut server) = (outside.inside(actor), inside.inside(actor));
    let mut watch = Watch::everywhere(&["--port", "2000"]);
    server.say("listen 10.202.0.2:8080 16");
    client.say("connect 10.201.0.2:2000 10.201.0.1:80");
    server.say("accept");
    let at = |netns: &Netns, local, remote| Endpoint { netns: netns.inum(), local, remote };
    let ends = [at(&outside, 2000, 80), at(&inside, 8080, 2000)];
    let [at_client, at_server] = ends.map(|endpoint| watch.at("open", endpoint));
    assert_eq!(at_client["nat"], seen("10.202.0.1:2000", "10.202.0.2:8080"), "{at_client:#}");
    assert_eq!(at_server["nat"], seen("10.201.0.1:80", "10.201.0.2:2000"), "{at_server:#}");
    one_flow(&at_client, &at_server, &client, &server);

    server.say("udp bind 10.202.0.2:8080");
    client.say("udp bind 10.201.0.2:2000");
    client.say("udp send sendto 10 10.201.0.1:80");
    server.say("udp recv recvfrom");
    let of_udp = |event: &Value, endpoint: Endpoint| endpoint.of(event) && event["proto"] == "udp";
    let [at_client, at_server] = ends.map(|endpoint| {
        watch.expect("a UDP flow", |event| event["event"] == "open" && of_udp(event, endpoint))
    });
    one_flow(&at_client, &at_server, &client, &server);
}

/// The same addresses lead to one server first and then to another.
#[test]
fn translations_of_one_tuple_are_told_apart() {
    let Some(debian) = translator("nat::translations_of_one_tuple_are_told_apart") else { return };
    in_fresh_netns(|| {
        let mut watch = Watch::alone(&[]);
        let mut servers = [actor(), actor()];
        for (server, port) in servers.iter_mut().zip([8080, 8081]) {
            server.say(&format!("listen 127.0.0.1:{port} 16"));
        }
        for round in 0..4 {
            let (server, port) = (&mut servers[round % 2], [8080, 8081][round % 2]);
            redirect(&debian, "tcp", port);
            let mut client = actor();
            client.say("connect 127.0.0.1:2000 127.0.0.1:80");
            server.say("accept");
            let at_server = watch.expect_times("the server's end", round / 2 + 1, |event| {
                event["event"] == "open" && endpoint(port, 2000).of(event)
            });
            let at_client = watch.expect_times("the client's end", round + 1, |event| {
                event["event"] == "open" && endpoint(2000, 80).of(event)
            });
            let (at_client, at_server) = (at_client.last().unwrap(), at_server.last().unwrap());
            assert_eq!(at_client["nat"]["remote"]["port"], port, "{at_client:#}");
            one_flow(at_client, at_server, &client, server);
            // By an RST, so that the port can be used again at once.
            client.say("linger0");
            client.say("close");
            server.say("close");
        }
    });
}

/// What was recorded leads through the translation to the client.
#[test]
fn trace_walks_through_a_translation() {
    let Some(debian) = translator("nat::trace_walks_through_a_translation") else { return };
    in_fresh_netns(|| {
        // Other tests use other ports: the store has all connections of the host.
        redirect(&debian, "tcp", 8099);
        let store = Store::new();
        let mut watch = Watch::recording(&store.path(), &[]);
        let (mut client, mut server) = (actor(), actor());
        server.say("listen 127.0.0.1:8099 16");
        client.say("connect 127.0.0.1:2099 127.0.0.1:80");
        server.say("accept");
        client.say("close");
        server.say("close");
        watch.at("close", endpoint(8099, 2099));
        watch.at("close", endpoint(2099, 80));
        watch.finish();
        let output = store.run("trace", &["--json", ":8099"]);
        let trace: Value = serde_json::from_slice(&output.stdout).unwrap();
        let chain = trace["matches"][0]["chain"].as_array().unwrap();
        assert!(chain.iter().any(|step| step["process"]["pid"] == client.pid()), "{trace:#}");
        let logged = store.log(&["--event", "open"]);
        let at_client = logged.iter().find(|event| endpoint(2099, 80).of(event)).unwrap();
        assert_eq!(at_client["nat"], seen("127.0.0.1:2099", "127.0.0.1:8099"));
    });
}
