//! `netwatch audit --watch`: reports an unexplained listener at once.

use std::process::{Command, Stdio};
use std::time::Instant;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Lines, PATIENCE, Presence, Running, binary, forced, in_fresh_netns};

use crate::{actor, address};

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

    /// Waits for the line for which `is` holds.
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
fn new_listener_is_reported_by_its_event() {
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:5000 8");
        // There is no second audit: the event causes the report.
        let mut watching = Watching::start(&["--every", "1h"]);
        let first = watching.expect(|object| object["kind"] == "port");
        assert_eq!((&first["local"], &first["explained"]), (&address("127.0.0.1:5000"), &false.into()));
        assert!(first.get("ts").is_none());
        server.say("listen 127.0.0.1:4444 8");
        server.say("unlisten");
        let reported = watching.expect(|object| object["local"] == address("127.0.0.1:4444"));
        assert_eq!((&reported["kind"], &reported["explained"]), (&"port".into(), &false.into()));
        assert_eq!(reported["process"]["pid"], server.pid());
        assert!(reported["ts"].is_string());
        server.say("listen 127.0.0.1:22 8");
        let finding = watching.expect(|object| object["kind"] == "finding");
        assert_eq!((&finding["code"], &finding["severity"]), (&"wrong-program".into(), &"high".into()));
        assert_eq!(watching.finish(), Some(3));
    });
}

/// A socket without an event of its own is reported by the next audit.
#[test]
fn host_is_audited_again_after_the_interval() {
    in_fresh_netns(|| {
        let mut watching = Watching::start(&["--every", "100ms"]);
        let mut server = actor();
        server.say("udp bind 127.0.0.1:5005");
        let reported = watching.expect(|object| object["proto"] == "udp");
        assert_eq!((&reported["kind"], &reported["process"]["pid"]), (&"port".into(), &server.pid().into()));
        watching.finish();
    });
}

/// A socket that the probes reported and that every snapshot hides.
#[test]
fn live_event_stream_is_a_view() {
    in_fresh_netns(|| {
        let hidden = ["net=4444", "diag=4444", "iter=4444"].map(|what| ["--hide", what]).concat();
        let mut watching = Watching::start(&[&["--every", "100ms"], &hidden[..]].concat());
        let mut server = actor();
        server.say("listen 127.0.0.1:4445 8");
        server.say("listen 127.0.0.1:4444 8");
        let reported = watching.expect(|object| object["code"] == "views-disagree");
        assert_eq!(
            (&reported["severity"], &reported["local"]),
            (&"critical".into(), &address("127.0.0.1:4444"))
        );
        let evidence = reported["evidence"].as_str().unwrap();
        assert!(
            evidence.contains("is shown by the live event stream, not by /proc/net and sock_diag"),
            "{evidence}"
        );
        assert_eq!(watching.finish(), Some(3));
    });
}

/// Even with a duration of 0 the host is audited once.
#[test]
fn zero_duration_audits_once() {
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
        assert_eq!((status, &objects[0]["local"]), (Some(3), &address("127.0.0.1:5000")));
    });
}

/// A port that is closed and opened again is reported again.
#[test]
fn port_that_comes_back_is_reported_again() {
    in_fresh_netns(|| {
        let mut watching = Watching::start(&["--every", "100ms"]);
        let mut server = actor();
        let is = |object: &Value| object["kind"] == "port" && object["local"] == address("127.0.0.1:4444");
        server.say("listen 127.0.0.1:4444 8");
        watching.expect(is);
        server.say("unlisten");
        // If another is reported, the snapshot before did not have the first any more.
        for port in [4445, 4446] {
            server.say(&format!("udp bind 127.0.0.1:{port}"));
            watching.expect(|object| object["local"]["port"] == port);
        }
        server.say("listen 127.0.0.1:4444 8");
        watching.expect(is);
        watching.finish();
    });
}
