//! Failures of a store: nothing recorded before is lost, and recording resumes or fails with one clear line.

use std::fs::OpenOptions;
use std::io::{Seek as _, SeekFrom, Write as _};

use nix::sys::signal::Signal;
use tests::{Recorder, Store, Watch, endpoint, in_fresh_netns, kind, until};

use crate::actor;

fn fails(store: &Store) -> usize {
    store.log(&["--event", "fail"]).len()
}

/// A store with this many attempts to connect.
fn recorded(store: &Store, times: usize) {
    let recorder = Recorder::start(&store.path(), &[]);
    let mut client = actor();
    for _ in 0..times {
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
    }
    until("all is recorded", || fails(store) == times);
    recorder.finish();
}

#[track_caller]
fn ends_with_one_line(store: &Store, says: &str) {
    let (status, said) = Recorder::begin(&store.path(), &[]).ended();
    assert_eq!((status.code(), said.len()), (Some(1), 1), "{said:?}");
    assert!(said[0].contains(says), "{said:?}");
}

#[test]
fn killed_recorder_loses_at_most_a_second() {
    in_fresh_netns(|| {
        let store = Store::new();
        let mut client = actor();
        for round in 1..=3 {
            let mut watch = Watch::recording(&store.path(), &["--netns", "self"]);
            let before = fails(&store);
            for _ in 0..round * 100 {
                assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
            }
            watch.expect_times("all are printed", round * 100, |event| kind(event) == "fail");
            // Not before some are written, so that it is killed while it writes others.
            until("something is written", || fails(&store) > before);
            let killed = jiff::Timestamp::now();
            watch.signal(Signal::SIGKILL);
            let log = watch.killed();
            let kept = store.log(&[]);
            let second = jiff::SignedDuration::from_secs(1);
            for event in log.iter().filter(|event| kind(event) == "fail") {
                let ts: jiff::Timestamp = event["ts"].as_str().unwrap().parse().unwrap();
                let is_kept = kept.iter().any(|other| other["id"] == event["id"]);
                assert!(is_kept || killed.duration_since(ts) < second, "{event:#} is lost, killed {killed}");
            }
            let (status, text) = store.verify(&[]);
            assert_eq!(status, Some(0), "{text}");
        }
    });
}

#[test]
fn full_disk_is_reported_and_recording_resumes() {
    in_fresh_netns(|| {
        let store = Store::in_room_of(4 << 20);
        let mut recorder = Recorder::start(&store.path(), &[]);
        let mut client = actor();
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
        until("it is recorded", || fails(&store) == 1);
        let ballast = store.beside("ballast");
        let mut file = std::fs::File::create(&ballast).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        // Until its preallocated space is used up as well.
        let mut attempts = 1;
        let mut more = |times: usize| {
            for _ in 0..times {
                assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
            }
            attempts += times;
            attempts
        };
        more(2000);
        let said = recorder.says("full");
        assert!(said.contains("retrying"), "{said}");
        assert!(fails(&store) >= 1);
        std::fs::remove_file(&ballast).unwrap();
        drop(file);
        recorder.says("accepts writes again");
        let all = more(1);
        until("nothing is missing", || fails(&store) == all);
        assert_eq!(store.verify(&[]).0, Some(0));
        recorder.signal(Signal::SIGTERM);
        let (status, said) = recorder.ended();
        assert_eq!((status.code(), said.len()), (Some(0), 3), "{said:?}");
    });
}

#[test]
fn read_only_file_system_is_a_one_line_error() {
    in_fresh_netns(|| {
        let store = Store::in_room_of(8 << 20);
        recorded(&store, 3);
        store.becomes_read_only();
        ends_with_one_line(&store, "cannot open");
        assert_eq!(fails(&store), 3);
        let none = Store::in_room_of(8 << 20);
        none.becomes_read_only();
        ends_with_one_line(&none, "cannot open");
    });
}

#[test]
fn a_foreign_file_is_left_alone() {
    in_fresh_netns(|| {
        let store = Store::new();
        let text = "what somebody wrote\n".repeat(1000);
        std::fs::write(store.path(), &text).unwrap();
        ends_with_one_line(&store, "not a netwatch store");
        assert_eq!(std::fs::read_to_string(store.path()).unwrap(), text);
        std::fs::remove_file(store.path()).unwrap();
        rusqlite::Connection::open(store.path()).unwrap().execute_batch("CREATE TABLE t (x)").unwrap();
        ends_with_one_line(&store, "not a netwatch store");
    });
}

#[test]
fn a_newer_store_is_left_alone() {
    in_fresh_netns(|| {
        let store = Store::new();
        recorded(&store, 3);
        let db = rusqlite::Connection::open(store.path()).unwrap();
        db.pragma_update(None, "user_version", 99).unwrap();
        ends_with_one_line(&store, "newer netwatch");
        db.pragma_update(None, "user_version", 2).unwrap();
        assert_eq!((fails(&store), store.verify(&[]).0), (3, Some(0)));
    });
}

#[test]
fn damaged_store_is_a_one_line_error() {
    in_fresh_netns(|| {
        let store = Store::new();
        recorded(&store, 100);
        let mut file = OpenOptions::new().write(true).open(store.path()).unwrap();
        let length = file.metadata().unwrap().len();
        // All but the first page, which identifies the file.
        file.seek(SeekFrom::Start(4096)).unwrap();
        file.write_all(&vec![0xa5; usize::try_from(length).unwrap() - 4096]).unwrap();
        ends_with_one_line(&store, "move it away");
        assert_eq!(std::fs::metadata(store.path()).unwrap().len(), length);
        let (status, text) = store.verify(&[]);
        assert!(status == Some(1) && text.contains("damaged") && text.lines().count() == 1, "{text}");
    });
}

#[test]
fn store_of_a_killed_recorder_is_continued() {
    in_fresh_netns(|| {
        let store = Store::new();
        recorded(&store, 3);
        let mut watch = Watch::recording(&store.path(), &["--netns", "self"]);
        let mut client = actor();
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6001").is_err());
        watch.at("fail", endpoint(2000, 6001));
        until("it is recorded", || fails(&store) == 4);
        watch.signal(Signal::SIGKILL);
        drop(watch.killed());
        let recorder = Recorder::start(&store.path(), &[]);
        recorder.finish();
        assert_eq!((fails(&store), store.verify(&[]).0), (4, Some(0)));
    });
}
