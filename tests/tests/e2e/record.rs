//! `netwatch record`: what is printed is what is recorded, and how it starts and exits.

mod disk;
mod failures;
mod interference;

use std::collections::BTreeSet;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{
    PATIENCE, Recorder, Running, Store, Watch, assert_has, binary, endpoint, in_fresh_netns, kind, until,
};

use crate::actor;

/// All but the line number.
fn without_seq(event: &Value) -> String {
    let mut event = event.clone();
    event.as_object_mut().unwrap().remove("seq");
    event.to_string()
}

fn reported(events: &[Value]) -> BTreeSet<String> {
    events.iter().filter(|event| !["ready", "loss"].contains(&kind(event))).map(without_seq).collect()
}

/// Several kinds of events.
fn scene() {
    let (mut client, mut server) = (actor(), actor());
    server.say("listen 127.0.0.1:6000 16");
    for port in [2000, 2001] {
        client.say(&format!("connect 127.0.0.1:{port} 127.0.0.1:6000"));
        server.say("accept");
        client.say("send 10");
        server.say("recv 10");
    }
    server.fork();
    server.say("send 5");
    client.say("recv 5");
    client.say("close");
    server.say("close");
    assert!(client.try_say("connect 127.0.0.1:2002 127.0.0.1:6001").is_err());
    server.say("unlisten");
}

#[test]
fn recorded_events_are_those_that_were_printed() {
    in_fresh_netns(|| {
        let store = Store::new();
        let mut before = actor();
        before.say("listen 127.0.0.1:7000 16");
        let mut watch = Watch::recording(&store.path(), &["--netns", "self"]);
        scene();
        watch.at("fail", endpoint(2002, 6001));
        let log = watch.finish();
        assert_eq!((log.status.code(), log.stderr.as_str()), (Some(0), ""));
        let printed = reported(&log.events);
        assert!(printed.len() > 10, "{printed:?}");
        let kept = store.log(&[]);
        assert_eq!(reported(&kept), printed);
        // Newest last, and numbered.
        assert!(kept.iter().map(|event| event["ts"].as_str()).is_sorted(), "{kept:#?}");
        assert!(kept.iter().map(|event| event["seq"].as_u64()).eq((1..=kept.len() as u64).map(Some)));
        let (status, text) = store.verify(&[]);
        assert_eq!(status, Some(0), "{text}");
    });
}

#[test]
fn short_connection_is_one_row_per_endpoint() {
    in_fresh_netns(|| {
        let store = Store::new();
        let recorder = Recorder::start(&store.path(), &[]);
        let (mut client, mut server) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 16");
        // Far more than there are batches meanwhile.
        const TIMES: usize = 200;
        for _ in 0..TIMES {
            client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
            server.say("accept");
            client.say("linger0");
            client.say("close");
            server.say("close");
        }
        recorder.finish();
        let db = rusqlite::Connection::open(store.path()).unwrap();
        let count =
            |sql: &str| -> usize { db.query_row(sql, [], |row| row.get::<_, i64>(0)).unwrap() as usize };
        let batches = count("SELECT count(*) FROM batch");
        let rows = count("SELECT count(*) FROM connection WHERE 2000 IN (local_port, remote_port)");
        assert!(rows >= 2 * TIMES && rows <= 2 * TIMES + 2 * batches, "{rows} rows, {batches} batches");
        assert_eq!(
            count("SELECT count(*) FROM connections WHERE closed_by = 'reset-local' AND local_port = 2000"),
            TIMES
        );
        assert_eq!(count("SELECT count(*) FROM events WHERE event = 'accept' AND local_port = 6000"), TIMES);
        // The usual values of connections on loopback are predicted, so no row stores exceptions.
        assert_eq!(
            count(
                "SELECT count(*) FROM connection WHERE odd IS NOT NULL AND 2000 IN (local_port, remote_port)"
            ),
            0
        );
        // Each process is stored once.
        assert!(count("SELECT count(*) FROM processes WHERE exe LIKE '%/actor' AND signs IS NULL") < 20);
    });
}

#[test]
fn filter_decides_what_is_recorded() {
    in_fresh_netns(|| {
        let store = Store::new();
        let recorder = Recorder::start(&store.path(), &["--port", "6001"]);
        scene();
        until("the event is there", || !store.log(&[]).is_empty());
        recorder.finish();
        let kinds: Vec<_> = store.log(&[]).iter().map(|event| kind(event).to_owned()).collect();
        assert_eq!(kinds, ["fail"]);
        let db = rusqlite::Connection::open(store.path()).unwrap();
        let filter: String = db.query_row("SELECT filter FROM segment", [], |row| row.get(0)).unwrap();
        assert!(filter.starts_with("--port 6001"), "{filter}");
    });
}

#[test]
fn store_is_for_its_owner_only() {
    use std::os::unix::fs::PermissionsExt as _;
    in_fresh_netns(|| {
        let store = Store::new();
        let path = store.beside("folder/netwatch.db");
        let mut command = Command::new("sh");
        let line = format!("umask 0; exec {} record --store {}", binary().display(), path.display());
        let mut recorder = Recorder::of(command.args(["-c", &line]).stdout(Stdio::null()));
        recorder.says("recording to");
        let mode = |path: &std::path::Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
        assert_eq!(mode(&path.with_extension("db-wal")), 0o600);
        recorder.finish();
    });
}

#[test]
fn second_recorder_names_the_first() {
    in_fresh_netns(|| {
        let store = Store::new();
        let first = Recorder::start(&store.path(), &[]);
        let (status, said) = Recorder::begin(&store.path(), &[]).ended();
        assert_eq!((status.code(), said.len()), (Some(1), 1), "{said:?}");
        assert!(said[0].contains(&format!("netwatch[{}]", first.pid())), "{said:?}");
        first.finish();
    });
}

#[test]
fn service_manager_is_notified() {
    in_fresh_netns(|| {
        let store = Store::new();
        let socket = store.beside("notify");
        let manager = UnixDatagram::bind(&socket).unwrap();
        manager.set_read_timeout(Some(PATIENCE)).unwrap();
        let hear = |what: &str| {
            let mut buffer = [0; 256];
            loop {
                let length = manager.recv(&mut buffer).unwrap_or_else(|error| panic!("{what}: {error}"));
                if String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == what) {
                    return;
                }
            }
        };
        let mut command = Command::new(binary());
        command.arg("record").arg("--store").arg(store.path()).stdout(Stdio::null());
        command.env("NOTIFY_SOCKET", &socket).env("WATCHDOG_USEC", "400000");
        let recorder = Recorder::of(&mut command);
        hear("READY=1");
        hear("WATCHDOG=1");
        hear("WATCHDOG=1");
        recorder.signal(Signal::SIGTERM);
        hear("STOPPING=1");
        let (status, said) = recorder.ended();
        assert_eq!((status.code(), said.len()), (Some(0), 1), "{said:?}");
        // It was closed properly: there is nothing to recover.
        assert!(!store.path().with_extension("db-wal").exists());
        let db = rusqlite::Connection::open(store.path()).unwrap();
        assert_eq!(db.query_row("SELECT count(*) FROM stopped", [], |row| row.get(0)), Ok(1));
    });
}

#[test]
fn recorder_does_not_wait_for_a_stuck_reader() {
    in_fresh_netns(|| {
        let store = Store::new();
        let mut command = Command::new(binary());
        command.args(["record", "--print", "--json", "--netns", "self", "--store"]).arg(store.path());
        let mut stuck =
            Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
        let mut stdout = stuck.stdout();
        tests::first_line(&mut stdout);
        let mut client = actor();
        // More than fits into a pipe.
        const TIMES: usize = 1500;
        for _ in 0..TIMES {
            assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
        }
        until("all is recorded", || store.log(&["--event", "fail", "--port", "6000"]).len() == TIMES);
        stuck.signal(Signal::SIGTERM);
        assert_eq!(stuck.ended("netwatch ends, whoever reads").code(), Some(0));
    });
}

#[test]
fn options_are_read_from_a_file() {
    in_fresh_netns(|| {
        let store = Store::new();
        let config = store.beside("netwatch.toml");
        let write = |text: &str| std::fs::write(&config, text).unwrap();
        let start = || {
            let mut command = Command::new(binary());
            Recorder::of(command.arg("record").arg("--config").arg(&config).stdout(Stdio::null()))
        };
        write(&format!("# of a test\nstore = '{}'\nnetns = 'self'\nport = [6001]\n", store.path().display()));
        let mut recorder = start();
        recorder.says("recording to");
        scene();
        until("the event is there", || !store.log(&[]).is_empty());
        recorder.finish();
        assert_eq!(store.log(&[]).len(), 1);
        for (text, message) in
            [("retain = '7d'\nport = 'x'\n", ":2: port: "), ("a = 1", ":1: a: "), ("port", ":1: ")]
        {
            write(text);
            let (status, said) = start().ended();
            assert_eq!((status.code(), said.len()), (Some(2), 1), "{said:?}");
            assert!(said[0].contains(&format!("{}{message}", config.display())), "{said:?}");
        }
    });
}

#[test]
fn a_shell_on_a_socket_is_marked() {
    in_fresh_netns(|| {
        let store = Store::new();
        let mut watch = Watch::recording(&store.path(), &["--netns", "self"]);
        let listener = std::net::TcpListener::bind("127.0.0.1:6000").unwrap();
        let mut remote = std::net::TcpStream::connect("127.0.0.1:6000").unwrap();
        let (accepted, _) = listener.accept().unwrap();
        let port = remote.local_addr().unwrap().port();
        let mut command = Command::new("sh");
        let output = accepted.try_clone().unwrap();
        let mut shell = Running::start(
            command
                .arg0("-sh")
                .stdin(std::os::fd::OwnedFd::from(accepted))
                .stdout(std::os::fd::OwnedFd::from(output)),
        );
        std::io::Write::write_all(&mut remote, b"echo here\n").unwrap();
        let used = watch.at("handover", endpoint(6000, port));
        assert_has(&used["process"], json!({"signs": ["shell-on-socket"]}));
        drop(remote);
        shell.ended("the shell ends with its input");
        let printed = reported(&watch.finish().events);
        assert_eq!(reported(&store.log(&[])), printed);
        let text = store.run("log", &["--event", "handover"]);
        assert!(String::from_utf8_lossy(&text.stdout).contains("! shell on a socket"), "{text:?}");
        let db = rusqlite::Connection::open(store.path()).unwrap();
        let marked = "SELECT count(*) FROM processes WHERE signs = 'shell-on-socket' AND stdin <> 0";
        assert!(db.query_row(marked, [], |row| row.get::<_, i64>(0)).unwrap() >= 1);
    });
}
