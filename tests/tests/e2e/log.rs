//! `netwatch log`: the same filters and formats as `watch`, over what was recorded.

use serde_json::Value;
use tests::{Recorder, Store, in_fresh_netns, kind, netwatch, port, until};

use crate::actor;

/// A store with attempts from port 2000, 2001, … to 6000, in this order.
fn attempts(times: u16) -> (Store, Recorder) {
    let store = Store::new();
    let recorder = Recorder::start(&store.path(), &[]);
    let mut client = actor();
    for n in 0..times {
        assert!(client.try_say(&format!("connect 127.0.0.1:{} 127.0.0.1:6000", 2000 + n)).is_err());
    }
    // It is read while it is written to.
    until("all is recorded", || store.log(&[]).len() == usize::from(times));
    (store, recorder)
}

fn ports(events: &[Value]) -> Vec<u16> {
    events.iter().map(|event| port(event, "local")).collect()
}

#[test]
fn filters_select_as_in_watch() {
    in_fresh_netns(|| {
        let (store, recorder) = attempts(10);
        let all = store.log(&[]);
        let pid = all[0]["process"]["pid"].to_string();
        let none: [u16; 0] = [];
        for (arguments, expected) in [
            (&["--port", "2003"][..], &[2003][..]),
            (&["--port", "2003,2001"], &[2001, 2003]),
            (&["--port", "7"], &none),
            (&["--count", "2"], &[2008, 2009]),
            (&["--count", "2", "--port", "2001,2002,2003"], &[2002, 2003]),
            (&["--local", "127.0.0.1:2005"], &[2005]),
            (&["--remote", "127.0.0.1", "--port", "2005"], &[2005]),
            (&["--remote", "10.0.0.0/8"], &none),
            (&["--pid", &pid, "--count", "1"], &[2009]),
            (&["--pid", "1"], &none),
            (&["--process", "act*", "--count", "1"], &[2009]),
            (&["--process", "*/actor", "--count", "1"], &[2009]),
            (&["--process", "nobody"], &none),
            (&["--event", "open"], &none),
            (&["--user", "0", "--origin", "local", "--proto", "tcp", "-4", "--count", "1"], &[2009]),
            (&["--user", "1"], &none),
            (&["-6"], &none),
            (&["--since", "1h", "--count", "1"], &[2009]),
            (&["--since", "today", "--until", "1h"], &none),
            (&["--until", "yesterday"], &none),
        ] {
            assert_eq!(ports(&store.log(arguments)), expected, "{arguments:?}");
        }
        // Limits at the time of an event are inclusive.
        let ts = all[4]["ts"].as_str().unwrap();
        assert_eq!(ports(&store.log(&["--since", ts])), [2004, 2005, 2006, 2007, 2008, 2009]);
        assert_eq!(ports(&store.log(&["--until", ts])), [2000, 2001, 2002, 2003, 2004]);
        recorder.finish();
    });
}

#[test]
fn text_has_the_date() {
    in_fresh_netns(|| {
        let (store, recorder) = attempts(1);
        recorder.finish();
        let output = store.run("log", &[]);
        let text = String::from_utf8(output.stdout).unwrap();
        let (date, line) = text.split_once(' ').unwrap();
        assert!(date.parse::<jiff::civil::Date>().is_ok(), "{text}");
        assert!(line.contains("fail") && line.contains("127.0.0.1:2000 -> 127.0.0.1:6000"), "{text}");
        assert_eq!(text.lines().count(), 1);
    });
}

#[test]
fn missing_store_is_a_one_line_error() {
    let output = netwatch(&["log", "--store", "/nowhere/netwatch.db"]);
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
    assert!(stderr.contains("no store at /nowhere/netwatch.db"), "{stderr}");
}

#[test]
fn losses_are_printed_with_any_filter() {
    in_fresh_netns(|| {
        let (store, recorder) = attempts(1);
        recorder.finish();
        // As a recorder does it, without the chain.
        let db = rusqlite::Connection::open(store.path()).unwrap();
        db.execute_batch(
            "INSERT INTO loss SELECT 1, id, started + 1, 'ring', 'change', 5 FROM segment; \
             UPDATE batch SET loss_to = 1 WHERE id = 1",
        )
        .unwrap();
        let log = store.log(&["--port", "7"]);
        assert_eq!(log.iter().map(kind).collect::<Vec<_>>(), ["loss"]);
        assert_eq!((&log[0]["count"], &log[0]["reason"]), (&5.into(), &"ring".into()));
    });
}

/// On a terminal, made by script(1), output goes through a pager.
#[test]
fn terminal_gets_a_pager() {
    if std::process::Command::new("script").arg("--version").output().is_err() {
        return tests::skip("log::terminal_gets_a_pager", "there is no script(1), which makes a terminal");
    }
    in_fresh_netns(|| {
        let (store, recorder) = attempts(2);
        let netwatch = tests::binary();
        let log = format!("{} log --store {}", netwatch.display(), store.path().display());
        let paged = store.beside("paged");
        let on_a_terminal = |pager: &str| {
            let mut script = std::process::Command::new("script");
            script.args(["--quiet", "--return", "--command", &log, "/dev/null"]).env("PAGER", pager);
            let output = tests::output(&mut script);
            assert_eq!(output.status.code(), Some(0), "{output:?}");
            String::from_utf8(output.stdout).unwrap()
        };
        let printed = on_a_terminal(&format!("cat >{}", paged.display()));
        assert_eq!(printed.trim(), "");
        let shown = std::fs::read_to_string(&paged).unwrap();
        assert!(shown.lines().count() == 2 && shown.contains("127.0.0.1:2001"), "{shown}");
        // No pager, and one that exits early.
        assert!(on_a_terminal("").contains("127.0.0.1:2001"));
        on_a_terminal("true");
        recorder.finish();
    });
}
