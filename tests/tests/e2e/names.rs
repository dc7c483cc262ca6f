//! Names of hosts, from DNS answers and TLS.

use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::{
    Actor, Netns, Presence, Recorder, Running, Store, Watch, assert_has, binary, endpoint, in_fresh_netns,
    kind, netns, output, until,
};

use crate::actor;
use crate::tools::Scene;

const SERVER: &str = "127.0.0.1:53";

/// A DNS server, which answers as it is told to.
fn server() -> Actor {
    let mut server = actor();
    server.say(&format!("udp bind {SERVER}"));
    server
}

/// A client with a socket for its questions on this port.
fn client(port: u16) -> Actor {
    let mut client = actor();
    client.say(&format!("udp bind 127.0.0.1:{port}"));
    client
}

/// `names`: as in the actor's command. The client has the answer when this returns.
fn resolves(client: &mut Actor, server: &mut Actor, port: u16, names: &str, address: &str) {
    let name = names.split(',').next().unwrap();
    client.say(&format!("dns ask 7 {name} {SERVER}"));
    server.say("udp recv recvfrom");
    server.say(&format!("dns answer 7 {names} {address} 127.0.0.1:{port}"));
    client.say("udp recv recvfrom");
}

fn asked_by(actor: &Actor) -> Value {
    json!({"pid": actor.pid(), "comm": "actor"})
}

/// The name by an answer to `asker`.
#[track_caller]
fn assert_named(name: &Value, text: &str, asker: &Actor, candidates: u32) {
    assert_has(name, json!({"name": text, "basis": "dns-answer", "candidates": candidates}));
    assert_has(&name["asked_by"], asked_by(asker));
    assert!(name["age_ms"].is_u64(), "{name:#}");
}

#[test]
fn connection_has_the_name_that_its_process_asked_for() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut dns, mut client) = (server(), client(1053));
        let mut web = actor();
        web.say("listen 127.0.0.9:6000 16");
        resolves(&mut client, &mut dns, 1053, "WWW.Example.org,cdn.example.net", "127.0.0.9");
        client.say("connect 127.0.0.1:2000 127.0.0.9:6000");
        let open = watch.at("open", endpoint(2000, 6000));
        assert_named(&open["remote_name"], "www.example.org", &client, 1);
        assert_eq!(open.get("local_name"), None);
        // The server is called so by its client.
        let at_server = watch.at("open", endpoint(6000, 2000));
        assert_named(&at_server["local_name"], "www.example.org", &client, 1);
        assert_eq!(at_server.get("remote_name"), None);
        // An attempt that fails has a name, too, and UDP.
        assert!(client.try_say("connect 127.0.0.1:2001 127.0.0.9:5999").is_err());
        assert_named(&watch.at("fail", endpoint(2001, 5999))["remote_name"], "www.example.org", &client, 1);
        client.say("udp send sendto 1 127.0.0.9:9999");
        let datagram = watch.at("open", endpoint(1053, 9999));
        assert_named(&datagram["remote_name"], "www.example.org", &client, 1);
        client.say("close");
        web.say("accept");
        web.say("close");
        assert_eq!(watch.at("close", endpoint(2000, 6000))["remote_name"], open["remote_name"]);
        assert_eq!(watch.at("close", endpoint(6000, 2000))["local_name"], at_server["local_name"]);
    });
}

/// Two names have one address. Each process has the name that it asked for, and a third one the newest.
#[test]
fn names_of_one_address_are_told_apart_by_who_asked() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut dns, mut one, mut other, mut third) = (server(), client(1053), client(1054), actor());
        let mut web = actor();
        web.say("listen 127.0.0.9:6000 16");
        resolves(&mut one, &mut dns, 1053, "one.example.org", "127.0.0.9");
        resolves(&mut other, &mut dns, 1054, "other.example.org", "127.0.0.9");
        let [first, second] = [one.pid(), other.pid()];
        for (port, name, asker, client) in [
            (2000, "one.example.org", first, &mut one),
            (2001, "other.example.org", second, &mut other),
            (2002, "other.example.org", second, &mut third),
        ] {
            client.say(&format!("connect 127.0.0.1:{port} 127.0.0.9:6000"));
            let open = watch.at("open", endpoint(port, 6000));
            assert_has(&open["remote_name"], json!({"name": name, "candidates": 2}));
            assert_eq!(open["remote_name"]["asked_by"]["pid"], asker, "{open:#}");
        }
    });
}

/// What nobody asked for is not believed: another number, another server, another socket, another namespace, or an
/// answer about another name.
#[test]
fn answer_that_nobody_asked_for_is_no_name() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut dns, mut client, mut victim) = (server(), client(1053), client(1054));
        let mut web = actor();
        web.say("listen 127.0.0.9:6000 16");
        let mut stranger = actor();
        stranger.say("udp bind 127.0.0.2:53");
        client.say(&format!("dns ask 7 www.example.org {SERVER}"));
        dns.say("udp recv recvfrom");
        for (teller, id, port) in [(&mut dns, 8, 1053), (&mut stranger, 7, 1053)] {
            teller.say(&format!("dns answer {id} www.example.org 127.0.0.9 127.0.0.1:{port}"));
            client.say("udp recv recvfrom");
        }
        dns.say("dns answer 7 www.example.org 127.0.0.9 127.0.0.1:1054");
        victim.say("udp recv recvfrom");
        // The answer to the question, about another name, and then once more.
        dns.say("dns answer 7 mail.example.org,mail.example.org 127.0.0.8 127.0.0.1:1053");
        client.say("udp recv recvfrom");
        dns.say("dns answer 7 www.example.org 127.0.0.9 127.0.0.1:1053");
        client.say("udp recv recvfrom");
        for (port, client) in [(2000, &mut client), (2001, &mut victim)] {
            client.say(&format!("connect 127.0.0.1:{port} 127.0.0.9:6000"));
            let open = watch.at("open", endpoint(port, 6000));
            assert_eq!(open.get("remote_name"), None, "{open:#}");
        }
    });
}

#[test]
fn answer_counts_in_its_network_namespace_only() {
    in_fresh_netns(|| {
        let other = Netns::fresh();
        let mut watch = Watch::shared_by(&[&other]);
        let (mut dns, mut client) = (server(), client(1053));
        resolves(&mut client, &mut dns, 1053, "www.example.org", "127.0.0.9");
        other.inside(|| {
            let (mut web, mut client) = (actor(), actor());
            web.say("listen 127.0.0.9:6000 16");
            client.say("connect 127.0.0.1:2000 127.0.0.9:6000");
            let open = watch.expect("the connection", |event| {
                kind(event) == "open" && event["process"]["pid"] == client.pid()
            });
            assert_eq!(open.get("remote_name"), None, "{open:#}");
        });
    });
}

#[test]
fn name_in_tls_is_that_of_the_server() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut web, mut client) = (actor(), actor());
        web.say("listen 127.0.0.9:6000 16");
        client.say("connect 127.0.0.1:2000 127.0.0.9:6000");
        web.say("accept");
        client.say("hello Shop.Example.com");
        web.say("recv 100");
        // Later ones are what the client sends inside, whatever it looks like.
        client.say("hello forged.example.com");
        client.say("close");
        let close = watch.at("close", endpoint(2000, 6000));
        let name = json!({
            "name": "shop.example.com", "basis": "tls-sni", "asked_by": null, "age_ms": null, "candidates": 1,
        });
        assert_eq!((&close["remote_name"], close.get("local_name")), (&name, None));
        web.say("close");
        let close = watch.at("close", endpoint(6000, 2000));
        assert_eq!((close.get("remote_name"), &close["local_name"]), (None, &name));
    });
}

#[test]
fn nothing_is_looked_at_without_names() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--no-names"]);
        assert_eq!(watch.ready()["coverage"]["probes"].get("names"), Some(&Value::Null));
        let (mut dns, mut client) = (server(), client(1053));
        let mut web = actor();
        web.say("listen 127.0.0.9:6000 16");
        resolves(&mut client, &mut dns, 1053, "www.example.org", "127.0.0.9");
        client.say("connect 127.0.0.1:2000 127.0.0.9:6000");
        assert_eq!(watch.at("open", endpoint(2000, 6000)).get("remote_name"), None);
    });
}

/// The kernel gives the number of a network namespace that is gone to the next one.
#[test]
fn namespace_with_the_number_of_another_has_no_names_of_it() {
    let mut numbers = std::collections::HashSet::new();
    let mut is_reused = false;
    // Another test may take the number.
    for _ in 0..50 {
        in_fresh_netns(|| {
            is_reused = !numbers.insert(netns().to_string());
            let mut watch = Watch::shared();
            let (mut dns, mut client) = (server(), client(1053));
            let mut web = actor();
            web.say("listen 127.0.0.9:6000 16");
            client.say("connect 127.0.0.1:2000 127.0.0.9:6000");
            let open = watch.at("open", endpoint(2000, 6000));
            assert_eq!(open.get("remote_name"), None, "{open:#}");
            resolves(&mut client, &mut dns, 1053, "www.example.org", "127.0.0.9");
        });
        if is_reused {
            break;
        }
    }
    assert!(is_reused, "no number came again");
}

/// The kernel side has a budget; what it leaves out is told, and connections are as sure as ever.
#[test]
fn flood_of_answers_is_bounded_and_told() {
    in_fresh_netns(|| {
        // Others would miss names that their tests expect.
        let mut watch = Watch::alone(&["--ring", "16777216"]);
        let (mut dns, mut client) = (server(), client(1053));
        dns.begin("dns echo 20000");
        client.say(&format!("dns flood 20000 {SERVER}"));
        dns.answer().unwrap();
        let loss = watch
            .expect("a loss", |event| kind(event) == "loss" && event["kinds"]["names_not_followed"].is_u64());
        assert_eq!(loss["reason"], "limit", "{loss:#}");
        client.say("udp close");
        crate::lives(&mut client, &mut dns);
        let open = watch.at("open", endpoint(6000, 2000));
        assert_has(&open["origin"], json!({"side": "remote", "confidence": "observed"}));
    });
}

/// A real resolver, a real name server and a real client, recorded and found by name.
#[test]
fn curl_is_found_by_the_names_that_it_used() {
    const TEST: &str = "names::curl_is_found_by_the_names_that_it_used";
    in_fresh_netns(|| {
        let Some(mut scene) = Scene::new(TEST) else { return };
        // A flood in another test would take the budget.
        let _presence = Presence::shared();
        let store = Store::new();
        let recorder = Recorder::start(&store.path(), &[]);
        scene.has("/etc/resolv.conf", "nameserver 127.0.0.1\n");
        scene.start(&[
            "dnsmasq",
            "--keep-in-foreground",
            "--no-resolv",
            "--no-hosts",
            "--no-daemon",
            "--listen-address=127.0.0.1",
            "--bind-interfaces",
            "--address=/www.example.org/127.0.0.9",
        ]);
        let mut web = actor();
        web.say("listen 127.0.0.9:6000 16");
        until("the name server answers", || {
            let asked = scene.debian.inside(|| {
                Scene::command(&["getent", "hosts", "www.example.org"]).stdout(Stdio::piped()).output()
            });
            asked.unwrap().stdout.starts_with(b"127.0.0.9")
        });
        let curl = |url: &str, web: &mut Actor| {
            let words = [
                "curl",
                "-sk",
                "--noproxy",
                "*",
                "--connect-timeout",
                "20",
                "--resolve",
                "shop.example.com:6000:127.0.0.9",
                url,
            ];
            let mut curl: Running = scene.debian.inside(|| Running::start(&mut Scene::command(&words)));
            web.say("accept");
            web.say("recv 20");
            web.say("close");
            curl.ended("curl ends");
        };
        curl("http://www.example.org:6000/", &mut web);
        curl("https://shop.example.com:6000/", &mut web);
        until("both are recorded", || {
            let closed = store.log(&["--event", "close", "--process", "curl", "--port", "6000"]);
            closed.len() == 2
        });
        recorder.finish();

        let by_name = |name: &str| store.log(&["--name", name, "--event", "close", "--proto", "tcp"]);
        for (glob, basis) in [("WWW.example.*", "dns-answer"), ("shop.example.com", "tls-sni")] {
            let found = by_name(glob);
            assert_eq!(found.len(), 2, "{found:#?}");
            let at = |key: &str| found.iter().find(|event| event.get(key).is_some()).unwrap();
            let (client, server) = (at("remote_name"), at("local_name"));
            assert_eq!(client["process"]["comm"], "curl");
            assert_eq!(client["remote_name"]["basis"], basis);
            assert_eq!(server["process"]["pid"], web.pid());
            assert_eq!(server["local_name"]["name"], client["remote_name"]["name"]);
            if basis == "dns-answer" {
                assert_eq!(client["remote_name"]["asked_by"]["comm"], "curl");
            }
        }
        assert!(by_name("nobody.example.org").is_empty());
        let text = String::from_utf8(store.run("log", &["--name", "www.*"]).stdout).unwrap();
        assert!(text.contains(" 127.0.0.9:6000") && text.contains("to www.example.org"), "{text}");
        let trace = output(
            Command::new(binary()).args(["trace", "shop.example.com", "--json", "--store"]).arg(store.path()),
        );
        let found: Value = serde_json::from_slice(&trace.stdout).unwrap();
        let connections = found["matches"].as_array().unwrap();
        // One connection with both its ends.
        assert_eq!(connections.len(), 1, "{found:#}");
        assert_eq!(store.verify(&[]).0, Some(0));
    });
}
