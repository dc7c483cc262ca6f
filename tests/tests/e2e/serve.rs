//! The record in a browser: who is answered, what pages say, and what the server gives up.

use std::io::{BufRead as _, BufReader, Read as _, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{PATIENCE, Recorder, Running, Store, binary, in_fresh_netns, kind, netns, netwatch, until};

use crate::{actor, lives};

/// Clients at once (`SERVED_CLIENTS`).
const CLIENTS: usize = 64;

/// A server, its port and its token.
struct Server {
    running: Running,
    port: u16,
    token: String,
}

impl Server {
    fn start(store: &Store, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(["serve", "--store"]).arg(store.path()).args(arguments).stdout(Stdio::piped());
        let mut running = Running::start(&mut command);
        let mut line = String::new();
        BufReader::new(running.stdout()).read_line(&mut line).unwrap();
        let (address, token) = line.trim().split_once("#token=").unwrap_or_else(|| panic!("{line}"));
        let port = address.trim_end_matches('/').rsplit(':').next().and_then(|port| port.parse().ok());
        Self { running, port: port.unwrap_or(0), token: token.to_owned() }
    }

    fn connect(&self) -> TcpStream {
        let stream = TcpStream::connect(("127.0.0.1", self.port)).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    /// Status and body of a page.
    fn get(&self, path: &str) -> (u16, String) {
        let authorization = format!("Authorization: Bearer {}\r\n", self.token);
        get(self.connect(), &format!("127.0.0.1:{}", self.port), path, &authorization)
    }

    fn page(&self, path: &str) -> String {
        let (status, page) = self.get(path);
        assert_eq!(status, 200, "{path}: {page}");
        page
    }
}

fn get(mut stream: impl Write + std::io::Read, host: &str, path: &str, headers: &str) -> (u16, String) {
    write!(stream, "GET {path} HTTP/1.1\r\nHost: {host}\r\n{headers}Connection: close\r\n\r\n").unwrap();
    answer(stream)
}

fn answer(mut stream: impl std::io::Read) -> (u16, String) {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).unwrap();
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {text:?}"));
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    (status.unwrap_or_else(|| panic!("{head}")), body.to_owned())
}

/// A store with a connection that was closed, and its events.
fn recorded() -> (Store, Vec<Value>) {
    let store = Store::new();
    let recorder = Recorder::start(&store.path(), &[]);
    lives(&mut actor(), &mut actor());
    until("all is recorded", || {
        let events = store.log(&[]);
        events.iter().filter(|event| kind(event) == "close").count() == 2
            && events.iter().any(|event| kind(event) == "unlisten")
    });
    recorder.finish();
    let events = store.log(&["--event", "close"]);
    (store, events)
}

#[test]
fn connection_is_found_and_walked_back() {
    in_fresh_netns(|| {
        let (store, events) = recorded();
        let server = Server::start(&store, &[]);
        let client = events.iter().find(|event| event["local"]["port"] == 2000).unwrap();
        let who = format!("actor[{}]", client["process"]["pid"]);
        let page = server.page("/?q=port:2000+origin:local");
        assert!(page.contains("127.0.0.1:6000") && page.contains(&who), "{page}");
        assert!(page.contains("connect (observed)"), "{page}");
        let id = client["id"].as_str().unwrap();
        for path in [format!("/c/{id}"), format!("/walk/{id}")] {
            assert!(page.contains(&format!("href=\"{path}\"")), "{page}");
            let page = server.page(&path);
            assert!(page.contains(&who) && page.contains("127.0.0.1:6000"), "{path}: {page}");
        }
        assert!(server.page(&format!("/walk/{id}")).contains("<svg"));
        assert!(server.page("/originators?q=port:6000").contains("actor"));
        let newest = String::from_utf8(store.run("verify", &["--anchor"]).stdout).unwrap();
        let link = newest.split_whitespace().find(|word| word.len() == 64).unwrap();
        assert!(server.page("/state").contains(link), "{newest}");
        assert!(server.page("/?q=port:1").contains("Nothing matches"));
        // What cannot be asked is said.
        for (path, status) in
            [("/?q=port:x", 400), ("/c/nothing", 400), ("/c/a-1-1", 404), ("/walk/a-1-1", 404), ("/x", 404)]
        {
            assert_eq!(server.get(path).0, status, "{path}");
        }
        assert_eq!(get(server.connect(), &format!("127.0.0.1:{}", server.port), "/", "").0, 401);
        assert_eq!(get(server.connect(), "evil.example", "/", "").0, 421);
    });
}

#[test]
fn exports_have_what_the_log_has() {
    in_fresh_netns(|| {
        let (store, _) = recorded();
        let server = Server::start(&store, &[]);
        // Other tests are recorded as well.
        let lines = server.page(&format!("/export/jsonl?q=event:close+netns:{}", netns()));
        let exported: Vec<Value> = lines
            .lines()
            .filter_map(|line| serde_json::from_str(line).ok())
            .filter(Value::is_object)
            .collect();
        let mut ids: Vec<_> = exported.iter().map(|event| event["id"].clone()).collect();
        let mut logged: Vec<_> =
            store.log(&["--event", "close"]).iter().map(|event| event["id"].clone()).collect();
        ids.sort_by_key(Value::to_string);
        logged.sort_by_key(Value::to_string);
        assert_eq!(ids, logged, "{lines}");
        assert!(server.page("/export/csv").contains("ts,event,id,proto,local,remote"));
    });
}

#[test]
fn server_gives_up_what_it_does_not_need() {
    in_fresh_netns(|| {
        let (store, _) = recorded();
        let mut server = Server::start(&store, &[]);
        server.page("/");
        let status = std::fs::read_to_string(format!("/proc/{}/status", server.running.pid())).unwrap();
        for line in
            ["CapEff:\t0000000000000000", "CapPrm:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"]
        {
            assert!(status.contains(line), "{status}");
        }
        server.running.signal(Signal::SIGTERM);
        assert!(server.running.ended("the server ends").success());
    });
}

#[test]
fn clients_are_limited() {
    in_fresh_netns(|| {
        let (store, _) = recorded();
        let server = Server::start(&store, &[]);
        let mut idle: Vec<_> = (0..CLIENTS).map(|_| server.connect()).collect();
        // The last of them is served: it is not closed.
        let last = idle.pop().unwrap();
        let host = format!("127.0.0.1:{}", server.port);
        let mut further = server.connect();
        // Closed at once, or reset because of what it sends.
        let _ =
            write!(further, "GET /assets/style.css HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
        let mut bytes = Vec::new();
        let _ = further.read_to_end(&mut bytes);
        assert!(bytes.is_empty(), "{}", String::from_utf8_lossy(&bytes));
        assert_eq!(get(last, &host, "/assets/style.css", "").0, 200);
        drop(idle);
        until("there is a place again", || {
            let mut stream = server.connect();
            let sent =
                write!(stream, "GET /assets/style.css HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
            let mut bytes = Vec::new();
            sent.is_ok() && stream.read_to_end(&mut bytes).is_ok() && bytes.starts_with(b"HTTP/1.1 200")
        });
    });
}

#[test]
fn header_bomb_is_refused() {
    in_fresh_netns(|| {
        let (store, _) = recorded();
        let server = Server::start(&store, &[]);
        let host = format!("127.0.0.1:{}", server.port);
        let many = "X: y\r\n".repeat(100);
        assert_eq!(get(server.connect(), &host, "/", &many).0, 431);
        let mut stream = server.connect();
        // It may answer before all is sent.
        let _ = write!(stream, "GET / HTTP/1.1\r\nHost: {host}\r\nX: {}\r\n\r\n", "y".repeat(1_000_000));
        let mut bytes = Vec::new();
        let _ = stream.read_to_end(&mut bytes);
        assert!(
            bytes.is_empty() || bytes.starts_with(b"HTTP/1.1 431"),
            "{}",
            String::from_utf8_lossy(&bytes)
        );
        assert_eq!(server.get("/").0, 200);
    });
}

#[test]
fn unix_socket_is_for_the_owner_and_the_group() {
    in_fresh_netns(|| {
        let (store, _) = recorded();
        let path = store.beside("web.sock");
        let place = format!("unix:{}", path.display());
        let server = Server::start(&store, &["--listen", &place]);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        let authorization = format!("Authorization: Bearer {}\r\n", server.token);
        let page =
            |authorization: &str| get(UnixStream::connect(&path).unwrap(), "localhost", "/", authorization).0;
        assert_eq!(page(&authorization), 200);
        assert_eq!(page(""), 401);
        // One that was killed leaves its socket.
        drop(server);
        let server = Server::start(&store, &["--listen", &place]);
        assert_eq!(page(&format!("Authorization: Bearer {}\r\n", server.token)), 200);
    });
}

#[test]
fn wrong_places_are_refused() {
    let store = Store::new();
    let refused = |arguments: &[&str], status: i32, says: &str| {
        let output = netwatch(&[&["serve"], arguments].concat());
        let text = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), text.lines().count()), (Some(status), 1), "{text}");
        assert!(text.contains(says), "{text}");
    };
    refused(&["--listen", "0.0.0.0:0"], 2, "no loopback address");
    refused(&["--listen", "localhost"], 2, "127.0.0.1:8080");
    refused(&["--listen", "unix:"], 2, "unix:PATH");
    refused(&["--token-file", "/nonexistent"], 2, "/nonexistent");
    refused(&["--store", store.path().to_str().unwrap()], 1, "no store at");
}
