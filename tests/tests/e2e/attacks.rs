//! Everything at once that someone without privileges, or in a container, can do to keep netwatch from telling who
//! connects: nothing of it takes memory without bound, certainty about TCP, or a record in silence.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use serde_json::{Value, json};
use tests::{Actor, Cgroup, Hanging, Netns, Tree, Watch, assert_has, in_fresh_netns, kind};

use crate::actor;

/// Connections that are checked in each of the two rounds.
const CONNECTIONS: usize = 100;

/// By how much memory may grow from the end of the first round to that of the second, in KiB.
const GROWTH: u64 = 8 << 10;

/// Number of remote addresses to which datagrams are sent in a round.
const REMOTES: usize = 40_000;

/// Number of control groups and of network namespaces that are created and removed in a round.
const CGROUPS: usize = 1000;
const NAMESPACES: usize = 20;

/// Memory of the agent in KiB.
pub(crate) fn memory(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse().unwrap()
}

/// The attackers.
struct Attackers {
    flooder: Actor,
    racer: Actor,
    /// Its executable is on a file system that does not answer.
    hanging: Option<(Hanging, Actor)>,
}

impl Attackers {
    fn new() -> Self {
        let (mut flooder, mut racer) = (actor(), actor());
        flooder.say("udp bind 127.0.0.1:3000");
        racer.say("udp bind 127.0.0.1:3001");
        let hanging = Hanging::with(Path::new(Actor::program())).ok().map(|hanging| {
            let program = Actor::start(hanging.program());
            hanging.stops_answering();
            (hanging, program)
        });
        Self { flooder, racer, hanging }
    }

    /// One round, until `connections` is done and each attack was made once.
    fn attack(&mut self, connections: impl FnOnce() + Send) {
        let Self { flooder, racer, hanging } = self;
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| flooder.say(&format!("udp flood {REMOTES} 20000")));
            scope.spawn(|| racer.say("udp race 200"));
            scope.spawn(|| {
                if Tree::Unified.root().is_some() {
                    (0..CGROUPS).for_each(|_| drop(Cgroup::new(Tree::Unified, "victim")));
                }
            });
            scope.spawn(|| {
                for _ in 0..NAMESPACES {
                    // With a listener that is gone with it.
                    Netns::fresh().inside(|| drop(std::net::TcpListener::bind("127.0.0.1:6000").unwrap()));
                }
            });
            if let Some((_, program)) = hanging {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        let refused = program.try_say("connect - 127.0.0.1:3003");
                        assert_eq!(refused, Err("ECONNREFUSED".to_owned()));
                    }
                });
            }
            connections();
            over.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn all_attacks_at_once_take_nothing() {
    in_fresh_netns(|| {
        let mut watch = Watch::alone(&["--ring", "16777216", "--port", "6000"]);
        let mut attackers = Attackers::new();
        let (mut client, mut server) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        // Arguments of 64 MiB.
        client.say("swell 64 the-first the-last");
        let mut before = None;
        for round in 1..=2 {
            attackers.attack(|| {
                for _ in 0..CONNECTIONS {
                    client.say("connect - 127.0.0.1:6000");
                    server.say("accept");
                    client.say("close");
                    server.say("close");
                }
            });
            let is_close = |event: &Value| {
                kind(event) == "close"
                    && [&event["local"], &event["remote"]].iter().any(|at| at["port"] == 6000)
            };
            let closes = watch.expect_times("both endpoints close", 2 * CONNECTIONS * round, is_close);
            for close in &closes[2 * CONNECTIONS * (round - 1)..] {
                let side = if close["local"]["port"] == 6000 { "remote" } else { "local" };
                let expected =
                    json!({"side": side, "confidence": "observed", "process": {"pid": client.pid()}});
                assert_has(&close["origin"], expected);
                assert!(!close["peer"]["process"].is_null(), "{close:#}");
            }
            let now = memory(watch.pid());
            println!("after round {round}: {now} KiB");
            let before = *before.get_or_insert(now);
            assert!(now < before + GROWTH, "{before} KiB after the first round, {now} KiB after the second");
        }
        // What was not followed was counted, and nothing else was lost.
        let losses = || watch.events().iter().filter(|event| kind(event) == "loss");
        assert!(losses().all(|loss| loss["reason"] == "limit"), "{:#?}", losses().collect::<Vec<_>>());
        assert!(losses().any(|loss| loss["kinds"]["flow"].is_u64()));
    });
}
