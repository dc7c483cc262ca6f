//! Shipping, and reading what was shipped, while all goes well and while it does not.

use std::fs;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Recorder, Store, in_fresh_netns, netwatch, until};

use super::{ClickHouse, URL, ask, events, number, objects, recorded, ship};
use crate::{actor, lives};

const CLOSES: &[&str] = &["--event", "close", "--port", "6000"];

/// Plays connections, and waits until they are recorded.
fn play(store: &Store, times: usize) {
    let before = store.log(CLOSES).len();
    for _ in 0..times {
        lives(&mut actor(), &mut actor());
    }
    until("all is recorded", || store.log(CLOSES).len() == before + 2 * times);
}

/// Every event is there once, as the store has it, whatever the filter.
#[test]
fn log_over_hosts_is_the_log_of_each() {
    const TEST: &str = "fleet::ship::log_over_hosts_is_the_log_of_each";
    in_fresh_netns(|| {
        let Some(_server) = ClickHouse::start(TEST) else { return };
        let stores = [Store::new(), Store::new()];
        let hosts = ["one", "two"];
        for store in &stores {
            let recorder = Recorder::start(&store.path(), &[]);
            play(store, 2);
            recorder.finish();
        }
        for (store, host) in stores.iter().zip(hosts) {
            ship(&store.path(), host);
        }
        for (store, host) in stores.iter().zip(hosts) {
            for filter in [
                &[][..],
                &["--port", "6000"],
                &["--process", "actor"],
                &["--process", "*/actor"],
                &["--event", "accept,unlisten"],
                &["--origin", "remote"],
                &["--local", "127.0.0.1:6000"],
                &["--user", "0", "--proto", "tcp"],
                &["--filter", "!process:actor"],
                &["--filter", "port:2000 !event:open"],
                &["--count", "5"],
            ] {
                let until = recorded(store, &["--event", "unlisten"]).last().unwrap()["ts"].clone();
                let all = [filter, &["--until", until.as_str().unwrap()]].concat();
                let (expected, found) = (recorded(store, &all), events(host, &all));
                assert!(!expected.is_empty() || filter == ["--filter", "!process:actor"], "{filter:?}");
                assert_eq!(found, expected, "{filter:?}");
            }
        }
        // Both together, in order of time.
        let both = objects(&["log", "--port", "6000"]);
        let times: Vec<_> = both.iter().map(|event| event["ts"].as_str().unwrap()).collect();
        assert!(times.is_sorted());
        assert_eq!(both.iter().filter(|event| event["event"] == "close").count(), 8);
        let output = netwatch(&["fleet", "log", "--server", URL, "--host", "t*", "--port", "6000"]);
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.lines().count() > 8 && text.lines().all(|line| line.starts_with("two ")), "{text}");
        // Of a connection one row in the last state.
        let closed = "SELECT count() FROM fleet.connections WHERE local_port = 6000 AND state = 'CLOSE' AND side = 'remote'";
        assert_eq!(number(closed), 4);
    });
}

/// The server is not there at first, then it is, then it is killed while rows arrive. Nothing is missing, and nothing
/// is twice.
#[test]
fn a_server_that_is_away_gets_everything_once() {
    const TEST: &str = "fleet::ship::a_server_that_is_away_gets_everything_once";
    in_fresh_netns(|| {
        let Some(mut server) = ClickHouse::installed(TEST) else { return };
        let store = Store::new();
        let arguments = ["--ship", URL, "--ship-name", "one", "--ship-label", "rack=7"];
        let mut recorder = Recorder::start(&store.path(), &arguments);
        recorder.says(&format!("ship: cannot reach {URL}: "));
        play(&store, 1);
        server.starts();
        assert!(netwatch(&["fleet", "setup", URL]).status.success());
        recorder.says(&format!("ship {URL}: the server takes rows again"));
        until("what was recorded first is there", || events("one", CLOSES).len() == 2);
        server.is_killed();
        play(&store, 2);
        recorder.says(&format!("ship: cannot reach {URL}: "));
        server.starts();
        recorder.says("the server takes rows again");
        until("what was recorded is there", || events("one", CLOSES).len() == 6);
        recorder.signal(Signal::SIGTERM);
        let (status, said) = recorder.ended();
        // A line when it goes, and one when it is back.
        assert_eq!((status.code(), said.len()), (Some(0), 5), "{said:?}");
        assert_eq!(events("one", CLOSES), recorded(&store, CLOSES));
        let [host] = &objects(&["hosts"])[..] else { panic!("one host") };
        assert_eq!(
            (&host["host"], &host["labels"][0], &host["lost"]),
            (&"one".into(), &"rack=7".into(), &0.into())
        );
        assert!(
            host["silent"].as_i64().unwrap() < 300 && host["clock_ahead"].as_i64().unwrap().abs() < 60,
            "{host}"
        );
        assert_eq!(store.verify(&[]).0, Some(0));
    });
}

/// The state of shipping is lost, so that everything is sent again.
#[test]
fn what_is_sent_twice_is_there_once() {
    const TEST: &str = "fleet::ship::what_is_sent_twice_is_there_once";
    in_fresh_netns(|| {
        let Some(_server) = ClickHouse::start(TEST) else { return };
        let store = Store::new();
        let recorder = Recorder::start(&store.path(), &[]);
        play(&store, 2);
        recorder.finish();
        ship(&store.path(), "one");
        let rows = number("SELECT count() FROM fleet.ends WHERE local_port = 6000");
        assert!((4..100).contains(&rows), "{rows}");
        // The number of the last batch is put back, as by a crash before it was written.
        let file = store.beside("netwatch.db-ship");
        let mut cursor: Value = serde_json::from_str(&fs::read_to_string(&file).unwrap()).unwrap();
        (cursor["batch"], cursor["link"]) = (0.into(), "".into());
        fs::write(&file, cursor.to_string()).unwrap();
        ship(&store.path(), "one");
        assert_eq!(number("SELECT count() FROM fleet.ends WHERE local_port = 6000"), 2 * rows);
        assert_eq!(events("one", CLOSES), recorded(&store, CLOSES));
        assert_eq!(number("SELECT count() FROM fleet.connections WHERE remote_port = 6000 AND over = 1"), 2);
        ask("OPTIMIZE TABLE fleet.ends FINAL").unwrap();
        assert_eq!(number("SELECT count() FROM fleet.ends WHERE local_port = 6000"), rows);
    });
}

/// What a server refuses is said in one line, and is shipped when it no longer refuses.
#[test]
fn refusals_are_one_line() {
    const TEST: &str = "fleet::ship::refusals_are_one_line";
    in_fresh_netns(|| {
        let Some(_server) = ClickHouse::start(TEST) else { return };
        let store = Store::new();
        let password = store.beside("password");
        fs::write(&password, "wrong\n").unwrap();
        let password = password.to_str().unwrap();
        let said = |arguments: &[&str], part: &str| {
            let mut recorder = Recorder::start(&store.path(), &[&["--ship", URL], arguments].concat());
            let line = recorder.says("ship: ");
            assert!(line.contains(part) && line.contains("the store keeps what is not shipped"), "{line}");
            recorder.signal(Signal::SIGTERM);
            let (status, said) = recorder.ended();
            assert_eq!((status.code(), said.len()), (Some(0), 2), "{said:?}");
        };
        let agent = ["--ship-user", "agent", "--ship-password-file", password];
        said(&agent, "Wrong password for user agent");
        said(&["--ship-user", "reader"], "readonly mode");
        fs::write(password, "secret\n").unwrap();
        let recorder =
            Recorder::start(&store.path(), &[&["--ship", URL, "--ship-name", "one"], &agent[..]].concat());
        until("it is taken", || number("SELECT count() FROM fleet.hosts WHERE host = 'one'") > 0);
        recorder.finish();
        // Tables of others.
        ask("ALTER TABLE fleet.ends DROP COLUMN uid").unwrap();
        said(&[], "column ends.uid is missing, not Nullable(UInt32)");
        ask("INSERT INTO fleet.schema_version (version) VALUES (99)").unwrap();
        said(&[], "made by a newer netwatch (version 99, this one supports 1)");
        for command in [&["setup", URL][..], &["log", "--server", URL], &["trace", "x::1", "--server", URL]] {
            let output = netwatch(&[&["fleet"], command].concat());
            let text = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), text.lines().count()), (Some(1), 1), "{text}");
            assert!(text.contains("made by a newer netwatch"), "{text}");
        }
        let other = URL.replace("fleet", "other");
        let output = netwatch(&["fleet", "log", "--server", &other]);
        assert!(String::from_utf8(output.stderr).unwrap().contains("make them with `netwatch fleet setup`"));
    });
}
