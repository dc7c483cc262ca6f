//! An intrusion over three hosts. The hosts are network namespaces with an agent each; since one kernel has them all, an
//! agent knows both ends of a connection. What an agent on a host of its own could not know is taken out of its store
//! before that is shipped.

use serde_json::Value;
use tests::{Actor, Far, Netns, Recorder, Store, Wire, in_fresh_netns, ip, sysctl, until};

use super::{ClickHouse, objects, ship};
use crate::{actor, port_of};

/// The port on the far host that the last host connects to.
const OUT: u16 = 443;

/// Connects two hosts. Returns the addresses.
fn wire(a: &Netns, b: &Netns, name: &str) -> (String, String) {
    let Wire { a: here, b: there, .. } = Wire::default();
    a.inside(|| ip(&format!("link add {name} type veth peer name {name} netns {}", b.path())));
    for (host, address) in [(a, &here), (b, &there)] {
        host.inside(|| {
            sysctl(&format!("net/ipv6/conf/{name}/disable_ipv6"), "1");
            ip(&format!("addr add {address}/28 dev {name}"));
            ip(&format!("link set {name} up"));
        });
    }
    (here, there)
}

/// Removes what is known of ends of other hosts: `own` has the network namespace of the host.
fn is_on_its_own(store: &Store) {
    let db = rusqlite::Connection::open(store.path()).unwrap();
    db.execute_batch(
        "UPDATE connection SET peer_cookie = NULL, peer_began = NULL, peer_process = NULL, flow_cookie = NULL, \
         flow_began = NULL, odd = NULL WHERE remote_ip IS NOT NULL;\
         UPDATE connection SET originator = NULL WHERE side = 2;",
    )
    .unwrap();
}

struct Host {
    netns: Netns,
    store: Store,
    recorder: Option<Recorder>,
    actor: Actor,
    port: u16,
}

impl Host {
    /// Records, and listens on all addresses.
    fn new() -> Self {
        let (netns, store) = (Netns::fresh(), Store::new());
        let (recorder, actor, port) = netns.inside(|| {
            let recorder = Recorder::start(&store.path(), &[]);
            let mut actor = actor();
            let port = port_of(&actor.say("listen 0.0.0.0:0 8"));
            (recorder, actor, port)
        });
        Self { netns, store, recorder: Some(recorder), actor, port }
    }
}

#[test]
fn intrusion_over_three_hosts_leads_to_the_first_originator() {
    const TEST: &str = "fleet::walk::intrusion_over_three_hosts_leads_to_the_first_originator";
    in_fresh_netns(|| {
        let Some(_server) = ClickHouse::start(TEST) else { return };
        let mut hosts = [Host::new(), Host::new(), Host::new()];
        let (_, b) = wire(&hosts[0].netns, &hosts[1].netns, "ab");
        let (_, c) = wire(&hosts[1].netns, &hosts[2].netns, "bc");
        let outside = hosts[0].netns.inside(Far::away);
        let target = hosts[2].netns.inside(Far::away);
        // A connection between the first two, by which the difference of their clocks is known.
        let mut other = hosts[0].netns.inside(actor);
        other.say(&format!("connect - {b}:{}", hosts[1].port));
        hosts[1].actor.say("accept");
        hosts[1].actor.say("close");
        other.say("close");
        other.kill();
        // From outside to the first, from there to the second, to the third, and out.
        let out = target.listen(OUT);
        let steps = [
            format!("proxy {b}:{}", hosts[1].port),
            format!("proxy {c}:{}", hosts[2].port),
            format!("proxy {}:{OUT}", target.ip),
        ];
        for (host, step) in hosts.iter_mut().zip(&steps) {
            host.actor.begin(step);
        }
        let attacker = outside.connect(hosts[0].port);
        for host in &mut hosts {
            host.actor.answer().expect("a hop");
        }
        out.connected();
        let pids: Vec<u32> = hosts.iter().map(|host| host.actor.pid()).collect();
        let (outside_ip, port) = (outside.ip.clone(), attacker.port);
        attacker.close();
        let names = ["web1", "app1", "db1"];
        for (host, name) in hosts.into_iter().zip(names) {
            let Host { netns, store, recorder, actor, .. } = host;
            // Every process is gone.
            actor.kill();
            until("the end is recorded", || !store.log(&["--event", "unlisten"]).is_empty());
            netns.inside(|| recorder.map(Recorder::finish));
            is_on_its_own(&store);
            ship(&store.path(), name);
        }
        out.close();
        let found = &objects(&["trace", &format!("db*:{}:{OUT}", target.ip)])[0];
        let [walk] = &found["matches"].as_array().unwrap()[..] else { panic!("{found:#}") };
        let hops: Vec<_> = walk["hops"].as_array().unwrap().iter().collect();
        let on: Vec<_> = hops.iter().map(|hop| hop["host"].as_str().unwrap()).collect();
        assert_eq!(on, ["db1", "app1", "web1"], "{walk:#}");
        for (hop, pid) in hops.iter().zip(pids.iter().rev()) {
            assert_eq!(hop["trace"]["chain"][0]["process"]["pid"], *pid, "{hop:#}");
        }
        let origin = &walk["origin"];
        assert_eq!(
            (&walk["host"], &origin["kind"], &origin["ip"], &origin["port"]),
            (&"web1".into(), &"remote".into(), &Value::from(outside_ip.clone()), &port.into())
        );
        assert_eq!(walk["confidence"], "observed", "{walk:#}");
        let missing = walk["missing"].as_str().unwrap();
        assert!(missing.contains(&format!("no host of the fleet has the address {outside_ip}")), "{missing}");
        // One kernel has one clock.
        let link = &hops[2]["link"];
        assert_eq!((&link["compared"], &link["others"]), (&1.into(), &0.into()), "{link}");
        assert!(link["clock_ahead_ms"].as_i64().unwrap().abs() < 1000, "{link}");
        let text = tests::netwatch(&["fleet", "trace", "db1::443", "--server", super::URL]);
        let text = String::from_utf8(text.stdout).unwrap();
        assert!(text.starts_with(&format!("web1: came from {outside_ip}:{port} (observed)\n")), "{text}");
    });
}
