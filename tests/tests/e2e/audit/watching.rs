//! `netwatch audit --watch`: says so the moment that something unexplained listens.

use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Lines, PATIENCE, Presence, Running, binary, forced, in_fresh_netns};

use crate::{actor, endpoint};

struct Watching {
    running: Running,
    lines: Lines,
    _presence: Presence,
}

impl Watching {
    fn start(arguments: &[&str]) -> Self {
        let presence = Presence::shared();
        let mut command = Command::new(binary());
        command.args(["audit", "--watch", "--json", "--netns", "self"]).args(arguments).args(forced());
        let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let lines = Lines::of(running.stdout());
        Self { running, lines, _presence: presence }
    }

    /// Waits for the line that `is` it.
    #[track_caller]
    fn expect(&mut self, is: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        let mut seen = Vec::new();
        loop {
            let Ok(Some(line)) = self.lines.before(deadline) else { panic!("in vain: {seen:#?}") };
            let object: Value = serde_json::from_str(&line).expect("an object");
            if is(&object) {
                return object;
            }
            seen.push(object);
        }
    }

    fn finish(mut self) -> Option<i32> {
        self.running.signal(Signal::SIGTERM);
        self.running.ended("netwatch ends").code()
    }
}

#[test]
fn what_begins_to_listen_is_told_at_once() {
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:5000 8");
        // No second look: what is told is told by the event.
        let mut watching = Watching::start(&["--every", "1h"]);
        let first = watching.expect(|object| object["kind"] == "port");
        assert_eq!((&first["local"], &first["explained"]), (&endpoint("127.0.0.1:5000"), &false.into()));
        assert!(first.get("ts").is_none());
        server.say("listen 127.0.0.1:4444 8");
        server.say("unlisten");
        let told = watching.expect(|object| object["local"] == endpoint("127.0.0.1:4444"));
        assert_eq!((&told["kind"], &told["explained"]), (&"port".into(), &false.into()));
        assert_eq!(told["process"]["pid"], server.pid());
        assert!(told["ts"].is_string());
        server.say("listen 127.0.0.1:22 8");
        let finding = watching.expect(|object| object["kind"] == "finding");
        assert_eq!((&finding["code"], &finding["severity"]), (&"wrong-program".into(), &"high".into()));
        assert_eq!(watching.finish(), Some(3));
    });
}

/// What has no event of its own is seen at the next look.
#[test]
fn the_host_is_looked_at_again() {
    in_fresh_netns(|| {
        let mut watching = Watching::start(&["--every", "100ms"]);
        let mut server = actor();
        server.say("udp bind 127.0.0.1:5005");
        let told = watching.expect(|object| object["proto"] == "udp");
        assert_eq!((&told["kind"], &told["process"]["pid"]), (&"port".into(), &server.pid().into()));
        watching.finish();
    });
}

/// A socket that the probes told of and that every look hides.
#[test]
fn the_live_table_is_a_view_too() {
    in_fresh_netns(|| {
        let hidden = ["net=4444", "diag=4444", "iter=4444"].map(|what| ["--hide", what]).concat();
        let mut watching = Watching::start(&[&["--every", "100ms"], &hidden[..]].concat());
        let mut server = actor();
        server.say("listen 127.0.0.1:4445 8");
        server.say("listen 127.0.0.1:4444 8");
        let told = watching.expect(|object| object["code"] == "views-disagree");
        assert_eq!((&told["severity"], &told["local"]), (&"critical".into(), &endpoint("127.0.0.1:4444")));
        let evidence = told["evidence"].as_str().unwrap();
        assert!(
            evidence.contains("is shown by the live event stream, not by /proc/net and sock_diag"),
            "{evidence}"
        );
        assert_eq!(watching.finish(), Some(3));
    });
}

/// However short it is watched, the host is looked at once.
#[test]
fn a_short_watch_is_an_audit_too() {
    in_fresh_netns(|| {
        let ended = |mut watching: Watching| {
            let status = watching.running.ended("netwatch ends").code();
            let lines = std::iter::from_fn(|| watching.lines.next(PATIENCE));
            let objects = lines.map(|line| serde_json::from_str::<Value>(&line).expect("an object"));
            (status, objects.filter(|object| object["kind"] != "note").collect::<Vec<_>>())
        };
        assert_eq!(ended(Watching::start(&["--duration", "0"])), (Some(0), vec![]));
        let mut server = actor();
        server.say("listen 127.0.0.1:5000 8");
        let (status, objects) = ended(Watching::start(&["--duration", "0"]));
        assert_eq!((status, &objects[0]["local"]), (Some(3), &endpoint("127.0.0.1:5000")));
    });
}

/// What goes away and comes back is told again.
#[test]
fn what_comes_back_is_news() {
    in_fresh_netns(|| {
        let mut watching = Watching::start(&["--every", "100ms"]);
        let mut server = actor();
        let is = |object: &Value| object["kind"] == "port" && object["local"] == endpoint("127.0.0.1:4444");
        server.say("listen 127.0.0.1:4444 8");
        watching.expect(is);
        server.say("unlisten");
        // Told of another, the look before has not seen the first any more.
        for port in [4445, 4446] {
            server.say(&format!("udp bind 127.0.0.1:{port}"));
            watching.expect(|object| object["local"]["port"] == port);
        }
        server.say("listen 127.0.0.1:4444 8");
        watching.expect(is);
        watching.finish();
    });
}
