//! Outputs: what events are delivered to, judged by the programs that users have there.

mod file;
mod metrics;
mod syslog;

use std::net::TcpListener;

use nix::sys::signal::Signal;
use tests::{Recorder, Store, in_fresh_netns, netwatch, until};

use crate::{actor, lives};

/// Plays a connection, and waits until both ends of it are recorded.
fn play(store: &Store) {
    lives(&mut actor(), &mut actor());
    until("all is recorded", || {
        let closed = store.log(&["--event", "close,unlisten"]);
        closed.len() == 3
    });
}

#[test]
fn wrong_outputs_end_the_start() {
    let folder = tempfile::tempdir().unwrap();
    let missing = format!("file:{}/no/such/file", folder.path().display());
    for (arguments, status, part) in [
        (&["watch", "--output", "pigeon:/x"][..], 2, "`pigeon`: the kind is one of"),
        (&["watch", "--output", "syslog:tcp:127.0.0.1"], 2, "expected HOST:PORT"),
        (&["watch", "--output", &missing], 1, "/no/such/file: cannot open it: No such file"),
    ] {
        let output = netwatch(arguments);
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!((output.status.code(), said.lines().count()), (Some(status), 1), "{said}");
        assert!(said.contains(part), "{said}");
    }
}

#[test]
fn end_does_not_wait_for_an_output_that_is_down() {
    in_fresh_netns(|| {
        let store = Store::new();
        let mut recorder = Recorder::begin(&store.path(), &["--output", "syslog:tcp:127.0.0.1:5999"]);
        recorder.says("output syslog:tcp:127.0.0.1:5999: cannot connect: Connection refused");
        recorder.signal(Signal::SIGTERM);
        let (status, said) = recorder.ended();
        assert_eq!(status.code(), Some(0));
        assert!(said.last().unwrap().contains("was not delivered"), "{said:?}");
    });
}

/// It neither connects nor ends, and nothing else waits for it.
#[test]
fn a_server_that_does_not_read_holds_up_nothing() {
    in_fresh_netns(|| {
        let store = Store::new();
        let server = TcpListener::bind("127.0.0.1:5999").unwrap();
        let recorder = Recorder::start(&store.path(), &["--output", "syslog:tcp:127.0.0.1:5999"]);
        play(&store);
        drop(server);
        recorder.signal(Signal::SIGTERM);
        assert_eq!(recorder.ended().0.code(), Some(0));
    });
}
