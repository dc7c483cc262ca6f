//! The text format.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tests::{Actor, Lines, PATIENCE, Running, Watch, binary, endpoint, in_fresh_netns, stranger_s_copy};

use crate::{actor, lives};

/// Without seeds, and without the connection of another netwatch's self-test.
const QUIET: [&str; 5] = ["--no-seed", "--netns", "self", "--port", "6000"];

/// An output in text, with its first line read.
fn text() -> (Running, Lines, String) {
    let mut command = Command::new(binary());
    command.args(["watch", "--format", "text"]).args(QUIET).stdin(Stdio::null()).stdout(Stdio::piped());
    let mut running = Running::start(&mut command);
    let lines = Lines::of(running.stdout());
    let ready = lines.next(PATIENCE).unwrap();
    (running, lines, ready)
}

#[test]
fn line_has_process_direction_peer_and_basis() {
    in_fresh_netns(|| {
        let mut json = Watch::start(&QUIET);
        let (running, lines, ready) = text();
        assert!(ready.contains("ready"), "{ready}");
        let (mut client, mut server) = (actor(), actor());
        lives(&mut client, &mut server);
        json.at("unlisten", endpoint(6000, 0));
        let events = json.finish().events;
        running.signal(Signal::SIGINT);
        let shown: Vec<_> = std::iter::from_fn(|| lines.next(PATIENCE)).collect();
        let all = shown.join("\n");
        assert_eq!(shown.len(), events.len() - 1, "{all}\n{events:#?}");
        for (line, event) in shown.iter().zip(events.iter().skip(1)) {
            assert!(line.contains(tests::kind(event)), "{line}\n{event:#}");
            assert!(line.contains("127.0.0.1:6000"), "{line}");
            // Colours are for terminals.
            assert!(!line.contains(char::is_control), "{line:?}");
            let pid = event["process"]["pid"].to_string();
            assert!(line.contains("actor") && line.contains(&pid), "{line}\n{event:#}");
            if !event["remote"].is_null() {
                assert!(line.contains("127.0.0.1:2000"), "{line}");
                assert!(line.contains(event["origin"]["basis"].as_str().unwrap()), "{line}\n{event:#}");
            }
        }
    });
}

#[test]
fn a_name_cannot_forge_a_line_or_a_colour() {
    in_fresh_netns(|| {
        let (running, lines, _) = text();
        let name = OsStr::from_bytes(b"a\n\x1b[31m\xffb");
        let (_directory, path) = stranger_s_copy(Path::new(Actor::program()), name);
        let mut client = Actor::start(&path);
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
        let line = lines.next(PATIENCE).unwrap();
        assert!(line.contains(r"a\x0a\x1b[31m\xffb"), "{line:?}");
        running.signal(Signal::SIGINT);
        assert_eq!(lines.next(PATIENCE), None);
    });
}
