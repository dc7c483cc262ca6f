use std::process::Command;

use tests::{Actor, binary, in_fresh_netns, output, stranger_s_copy};

use super::{Audit, reasons};
use crate::{actor, port_of};

/// A file in a folder that is removed with the test.
struct Baseline(tempfile::TempDir);

impl Baseline {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> String {
        self.0.path().join("baseline.toml").to_str().unwrap().to_owned()
    }

    fn write(&self) -> Audit {
        Audit::take(&["--write-baseline", &self.path()])
    }

    fn audit(&self) -> Audit {
        Audit::take(&["--baseline", &self.path()])
    }
}

#[test]
fn listed_ports_are_explained_and_new_ones_are_reported() {
    in_fresh_netns(|| {
        let baseline = Baseline::new();
        let mut server = actor();
        server.say("listen 127.0.0.1:22 8");
        server.say("udp bind 0.0.0.0:5005");
        assert_eq!(baseline.write().status, Some(3));
        let audit = baseline.audit();
        assert_eq!(audit.status, Some(0), "{:#?}", audit.objects);
        assert!(audit.kind("port").all(|port| port["baseline"] == "listed" && port["explained"] == true));
        assert_eq!(audit.port("127.0.0.1:22")["by"], serde_json::json!(["baseline"]));
        assert_eq!(audit.finding("wrong-program")["baseline"], true);

        server.say("listen 127.0.0.1:5006 8");
        let audit = baseline.audit();
        assert_eq!(audit.status, Some(3));
        let port = audit.port("127.0.0.1:5006");
        assert_eq!((&port["baseline"], &port["explained"]), (&"new".into(), &false.into()));
        assert!(reasons(port).contains("new: "), "{port}");
        server.say("unlisten");
        assert_eq!(baseline.audit().status, Some(0));
    });
}

#[test]
fn another_program_on_a_listed_port_is_reported_as_changed() {
    in_fresh_netns(|| {
        let baseline = Baseline::new();
        let mut server = actor();
        server.say("listen 127.0.0.1:5000 8");
        baseline.write();
        drop(server);
        let (_folder, copy) = stranger_s_copy(Actor::program().as_ref(), "other");
        let mut other = Actor::start(&copy);
        other.say("listen 127.0.0.1:5000 8");
        let audit = baseline.audit();
        let port = audit.port("127.0.0.1:5000");
        assert_eq!((audit.status, &port["baseline"]), (Some(3), &"changed".into()));
        assert!(
            reasons(port)
                .contains(&format!("changed: the baseline has tcp 127.0.0.1:5000 {}", Actor::program()))
        );
    });
}

/// The kernel gives it another port each time.
#[test]
fn listener_on_an_ephemeral_port_stays_listed() {
    in_fresh_netns(|| {
        let baseline = Baseline::new();
        let mut server = actor();
        let first = port_of(&server.say("listen 127.0.0.1:0 8"));
        baseline.write();
        let second = server.say("listen 127.0.0.1:0 8");
        assert_ne!(first, port_of(&second));
        let audit = baseline.audit();
        assert_eq!((audit.status, &audit.port(&second)["baseline"]), (Some(0), &"listed".into()));
    });
}

#[test]
fn listed_port_that_is_gone_is_a_note() {
    in_fresh_netns(|| {
        let baseline = Baseline::new();
        let mut server = actor();
        server.say("listen 127.0.0.1:5000 8");
        baseline.write();
        server.say("unlisten");
        let audit = baseline.audit();
        audit.notes_with("tcp 127.0.0.1:5000");
        assert_eq!(audit.status, Some(0));
    });
}

#[test]
fn invalid_baseline_is_a_one_line_error() {
    let baseline = Baseline::new();
    for (text, message) in [
        ("[[port]]\nproto = 'tcp'\naddress = 'any'\nport = 'any'\nexe = 5", "baseline.toml:5: "),
        ("[[port]]\nproto = 'sctp'\naddress = 'any'\nport = 1", "baseline.toml:2: "),
        ("[[port]]\nproto = 'tcp'\naddress = 'here'\nport = 1", "baseline.toml:3: "),
        ("[[port]]\nproto = 'tcp'\naddress = 'any'\nport = 70000", "a port from 1 to 65535"),
        ("[[port]]\nproto = 'tcp'\naddress = 'any'", "port"),
        ("[[prot]]\nproto = 'tcp'", "baseline.toml:1: "),
        ("\n[[finding]]\ncode = 'no-such-thing'", "baseline.toml:3: "),
        ("= 1", "baseline.toml:1: "),
    ] {
        std::fs::write(baseline.path(), text).unwrap();
        let output = output(Command::new(binary()).args(["audit", "--baseline", &baseline.path()]));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(2), 1), "{text}: {stderr}");
        assert!(stderr.contains(message), "{text}: {stderr}");
    }
}

#[test]
fn failed_write_keeps_the_old_baseline() {
    in_fresh_netns(|| {
        let baseline = Baseline::new();
        std::fs::write(baseline.path(), "# reviewed\n").unwrap();
        let nowhere = format!("{}/no/such/folder", baseline.path());
        let output =
            output(Command::new(binary()).args(["audit", "--netns", "self", "--write-baseline", &nowhere]));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
        assert_eq!(std::fs::read_to_string(baseline.path()).unwrap(), "# reviewed\n");
    });
}
