//! Every filter shows what it selects and hides the rest: the same scene, with each filter and without one. A filtered
//! output must have those events of the unfiltered one that the filter selects.

mod expression;

use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use tests::{Actor, Netns, Watch, endpoint, in_fresh_netns, kind, port, stranger_s_copy};

use crate::actor;

const NOBODY: u32 = 65534;

/// A filter, and what it selects.
struct Case {
    arguments: Vec<String>,
    shows: Box<dyn Fn(&Value) -> bool>,
}

fn case(arguments: &str, shows: impl Fn(&Value) -> bool + 'static) -> Case {
    Case { arguments: arguments.split(' ').map(str::to_owned).collect(), shows: Box::new(shows) }
}

/// Processes and namespaces of the scene.
struct Cast {
    server: Actor,
    client: Actor,
    /// Another program and another user.
    stranger: Actor,
    /// Another namespace, with the same addresses.
    elsewhere: Netns,
    /// Contains the stranger's program.
    _directory: tempfile::TempDir,
}

impl Cast {
    fn new() -> Self {
        let (directory, path) = stranger_s_copy(Path::new(Actor::program()), "stranger");
        let mut stranger = Command::new(&path);
        stranger.uid(NOBODY).current_dir("/");
        Self {
            server: actor(),
            client: actor(),
            stranger: Actor::start_as(&path, &mut stranger),
            elsewhere: Netns::fresh(),
            _directory: directory,
        }
    }

    /// Causes all kinds of events; the ports identify each endpoint.
    fn play(&mut self) {
        let mut elsewhere = self.elsewhere.inside(actor);
        elsewhere.say("listen 127.0.0.1:6000 16");
        elsewhere.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        for command in ["accept", "linger0", "close", "close", "unlisten"] {
            elsewhere.say(command);
        }
        let Self { server, client, stranger, .. } = self;
        let mut connection = |client: &mut Actor, from: &str, to: &str, listens: &str| {
            server.say(&format!("listen {listens} 16"));
            client.say(&format!("connect {from} {to}"));
            server.say("accept");
            client.say("close");
            server.say("eof");
            server.say("close");
            server.say("unlisten");
        };
        connection(client, "127.0.0.1:2000", "127.0.0.1:6000", "127.0.0.1:6000");
        // Mapped at the server.
        connection(stranger, "127.0.0.1:2001", "127.0.0.1:7000", "[::]:7000");
        connection(client, "[::1]:2002", "[::1]:7001", "[::1]:7001");
        for client in [client, stranger] {
            assert!(client.try_say("connect 127.0.0.1:2003 127.0.0.1:6999").is_err());
            assert!(client.try_say("connect [::1]:2004 [::1]:6999").is_err());
        }
    }

    /// The scene is over after this many events.
    const ENDS: [(&str, usize); 3] = [("close", 8), ("unlisten", 4), ("fail", 4)];
}

/// Runs the scene with all these filters at once, and without one.
fn compare(cases: impl FnOnce(&Cast) -> Vec<Case> + Send) {
    in_fresh_netns(|| {
        let mut cast = Cast::new();
        let cases = cases(&cast);
        let scene = [tests::netns(), cast.elsewhere.inum()];
        let filtered = cases.iter().map(|case| case.arguments.iter().map(String::as_str).collect());
        let all = std::iter::once(Vec::new()).chain(filtered);
        let mut watches =
            Watch::everywhere_alone(all.map(|arguments| [arguments, vec!["--no-seed"]].concat()));
        let mut reference = watches.remove(0);
        cast.play();
        for (ending, times) in Cast::ENDS {
            reference.expect_times("the scene is over", times, |event| {
                kind(event) == ending && of_scene(event, scene)
            });
        }
        let all: Vec<_> = reference.events().iter().filter(|event| of_scene(event, scene)).cloned().collect();
        let expected = |case: &Case| sorted(all.iter().filter(|event| (case.shows)(event)));
        for (watch, case) in watches.iter_mut().zip(&cases) {
            let expected = expected(case);
            // A filter that hides nothing tests nothing.
            assert!(expected.len() < all.len(), "{:?}", case.arguments);
            let what = format!("{:?} shows {expected:#?}", case.arguments);
            watch.expect_times(&what, expected.len(), |event| of_scene(event, scene));
        }
        for (watch, case) in watches.into_iter().zip(&cases) {
            let log = watch.finish();
            assert_eq!(kind(&log.events[0]), "ready");
            assert_eq!(log.events[0]["coverage"], reference.ready()["coverage"], "another rung");
            let shown = log.events.iter().filter(|event| of_scene(event, scene));
            assert_eq!(sorted(shown), expected(case), "{:?}", case.arguments);
            // Other activity of the host.
            let stray = log.events.iter().skip(1).find(|event| !(case.shows)(event));
            assert!(stray.is_none(), "{:?}: {}", case.arguments, stray.unwrap_or(&Value::Null));
        }
    });
}

/// Without the connections of the self-test of each netwatch.
fn of_scene(event: &Value, scene: [u64; 2]) -> bool {
    scene.iter().any(|netns| event["netns"] == *netns) && PORTS.contains(&port(event, "local"))
}

/// All ports of the scene.
const PORTS: [u16; 9] = [2000, 2001, 2002, 2003, 2004, 6000, 6999, 7000, 7001];

/// The order of events on two CPUs may differ between two outputs.
fn sorted<'a>(events: impl Iterator<Item = &'a Value>) -> Vec<String> {
    let mut sorted: Vec<_> = events.map(words).collect();
    sorted.sort();
    sorted
}

/// Identifies an event of the scene, in any output.
fn words(event: &Value) -> String {
    let at = |side: &str| format!("{}:{}", event[side]["ip"], port(event, side));
    format!(
        "{} {} {} {} {} {}",
        kind(event),
        event["netns"],
        at("local"),
        at("remote"),
        event["cookie"],
        event["process"]["pid"]
    )
}

fn ip_is(event: &Value, side: &str, ip: &str) -> bool {
    event[side]["ip"] == ip
}

#[test]
fn by_event_and_port() {
    compare(|_| {
        vec![
            case("--event open", |event| kind(event) == "open"),
            case("--event fail,close", |event| ["fail", "close"].contains(&kind(event))),
            case("--event listen,unlisten", |event| ["listen", "unlisten"].contains(&kind(event))),
            case("--port 2000", |event| port(event, "local") == 2000 || port(event, "remote") == 2000),
            case("--port 7000,2003", |event| {
                ["local", "remote"].iter().any(|side| [7000, 2003].contains(&port(event, side)))
            }),
        ]
    });
}

#[test]
fn by_process_and_user() {
    compare(|cast| {
        let pid = cast.client.pid();
        let exe =
            |event: &Value, end: &str| event["process"]["exe"].as_str().is_some_and(|exe| exe.ends_with(end));
        vec![
            case(&format!("--pid {pid}"), move |event| event["process"]["pid"] == pid),
            case("--process stranger", |event| event["process"]["comm"] == "stranger"),
            case("--process str?nge[q-s]", |event| event["process"]["comm"] == "stranger"),
            case("--process */actor", move |event| exe(event, "/actor")),
            case(&format!("--user {NOBODY}"), |event| event["process"]["uid"] == NOBODY),
            case("--user root", |event| event["process"]["uid"] == 0),
        ]
    });
}

#[test]
fn by_address() {
    compare(|_| {
        vec![
            case("--local 127.0.0.0/8", |event| {
                event["local"]["ip"].as_str().is_some_and(|ip| ip.starts_with("127."))
            }),
            // The server's endpoint is a mapped one.
            case("--local 127.0.0.1/32:7000", |event| {
                ip_is(event, "local", "127.0.0.1") && port(event, "local") == 7000
            }),
            case("--local 127.0.0.1:6000", |event| {
                ip_is(event, "local", "127.0.0.1") && port(event, "local") == 6000
            }),
            case("--remote 127.0.0.1/32:2001", |event| {
                ip_is(event, "remote", "127.0.0.1") && port(event, "remote") == 2001
            }),
            case("--remote ::1/128", |event| ip_is(event, "remote", "::1")),
            case("--remote [::1]:6999", |event| {
                ip_is(event, "remote", "::1") && port(event, "remote") == 6999
            }),
            case("--remote 10.0.0.0/8", |event| {
                event["remote"]["ip"].as_str().is_some_and(|ip| ip.starts_with("10."))
            }),
        ]
    });
}

#[test]
fn by_origin_family_and_protocol() {
    compare(|_| {
        vec![
            case("--origin local", |event| event["origin"]["side"] == "local"),
            case("--origin remote", |event| event["origin"]["side"] == "remote"),
            case("--origin both", |event| event["origin"]["side"] == "both"),
            case("--origin unknown", |event| event["origin"]["side"] == "unknown"),
            case("-4", |event| event["family"] == "ipv4"),
            case("-6", |event| event["family"] == "ipv6"),
            case("--proto udp", |event| event["proto"] == "udp"),
        ]
    });
}

#[test]
fn by_namespace_and_by_several() {
    compare(|cast| {
        let (own, other) = (tests::netns(), cast.elsewhere.inum());
        vec![
            case("--netns self", move |event| event["netns"] == own),
            case(&format!("--netns {other}"), move |event| event["netns"] == other),
            case("--event open --port 2000 --origin local", |event| {
                kind(event) == "open"
                    && (port(event, "local") == 2000 || port(event, "remote") == 2000)
                    && event["origin"]["side"] == "local"
            }),
            case("--netns self -4 --remote 127.0.0.0/8 --process actor", move |event| {
                event["netns"] == own
                    && event["family"] == "ipv4"
                    && event["remote"]["ip"].as_str().is_some_and(|ip| ip.starts_with("127."))
                    && event["process"]["comm"] == "actor"
            }),
        ]
    });
}

/// What is hidden is still tracked.
#[test]
fn filter_hides_events_and_not_what_is_known() {
    in_fresh_netns(|| {
        let (mut client, mut server) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        let mut watch = Watch::everywhere(&["--event", "close", "--origin", "remote", "--netns", "self"]);
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        server.say("accept");
        client.say("close");
        server.say("close");
        let closed = watch.at("close", endpoint(6000, 2000));
        tests::assert_has(
            &closed,
            serde_json::json!({
                "process": server.object(),
                "process_basis": "accept",
                "listener": {"process": server.object()},
                "origin": {"basis": "accept", "process": client.object()},
                "peer": {"process": client.object()},
            }),
        );
        assert!(closed["duration_us"].is_u64());
        assert_eq!(watch.finish().events.len(), 2);
    });
}

#[test]
fn proto_tcp_attaches_no_udp_probe() {
    const UNSEEN: &str = "flows of UDP, UDP-Lite, raw and ping sockets";
    in_fresh_netns(|| {
        for filter in [["--proto", "tcp"], ["--filter", "proto:tcp"]] {
            let mut watch = Watch::everywhere(&[&filter[..], &["--netns", "self"]].concat());
            let coverage = &watch.ready()["coverage"];
            assert_eq!(coverage["probes"]["udp"], Value::Null, "{filter:?}");
            assert!(coverage["unseen"].as_array().unwrap().contains(&UNSEEN.into()), "{coverage}");
            let mut client = actor();
            assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
            watch.at("fail", endpoint(2000, 6000));
        }
    });
}
