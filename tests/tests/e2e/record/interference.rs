//! A store whose files are moved, deleted or truncated while it is recorded to, a disk that stays full, and a reader
//! that does not end: the recorder says so, and counts what it cannot keep.

use std::fs;
use std::io::Write as _;
use std::path::Path;

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Actor, Recorder, Store, in_fresh_netns, kind, until};

use crate::actor;

fn fails(store: &Store) -> usize {
    // No filter hides losses.
    store.log(&["--event", "fail"]).iter().filter(|event| kind(event) == "fail").count()
}

fn attempt(client: &mut Actor, times: usize) {
    for _ in 0..times {
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
    }
}

/// Sum of what is recorded as lost for this reason.
fn lost(store: &Store, reason: &str) -> u64 {
    let events = store.log(&[]);
    let counts = events.iter().filter(|event| kind(event) == "loss" && event["reason"] == reason);
    counts.flat_map(|loss| loss["kinds"].as_object().unwrap().values()).filter_map(Value::as_u64).sum()
}

/// The number before the word.
fn number(line: &str, before: &str) -> u64 {
    let words: Vec<&str> = line.split(' ').collect();
    let place = words.iter().position(|word| *word == before).expect(line);
    words[place - 1].parse().expect(line)
}

/// Records ten attempts, does something to the store, and waits for the line about it.
fn recorded(store: &Store, interfere: impl FnOnce(&Path)) -> (Recorder, Actor, String) {
    let mut recorder = Recorder::start(&store.path(), &[]);
    let mut client = actor();
    attempt(&mut client, 10);
    until("all are recorded", || fails(store) == 10);
    interfere(&store.path());
    let said = recorder.says("while it was being recorded to");
    (recorder, client, said)
}

fn ends(recorder: Recorder) {
    recorder.signal(Signal::SIGTERM);
    let (status, said) = recorder.ended();
    assert_eq!((status.code(), said.len()), (Some(0), 2), "{said:?}");
}

#[test]
fn deleted_store_is_replaced_and_what_went_with_it_is_counted() {
    in_fresh_netns(|| {
        let store = Store::new();
        let (recorder, mut client, said) = recorded(&store, |path| fs::remove_file(path).unwrap());
        assert!(said.contains("was deleted"), "{said}");
        attempt(&mut client, 5);
        until("recording goes on", || fails(&store) == 5);
        let count = number(&said, "events");
        assert!(count >= 10 && lost(&store, "store") == count, "{said}, {}", lost(&store, "store"));
        ends(recorder);
        // Nothing is left of the files beside it.
        let names = fs::read_dir(store.path().parent().unwrap()).unwrap();
        assert_eq!(names.count(), 1);
        assert_eq!((fails(&store), store.verify(&[]).0), (5, Some(0)));
    });
}

#[test]
fn moved_store_is_whole_and_recording_goes_on() {
    in_fresh_netns(|| {
        let (store, elsewhere) = (Store::new(), Store::new());
        let (recorder, mut client, said) =
            recorded(&store, |path| fs::rename(path, elsewhere.path()).unwrap());
        assert!(said.contains("was moved or replaced") && said.contains("; 0 events"), "{said}");
        attempt(&mut client, 5);
        until("recording goes on", || fails(&store) == 5);
        ends(recorder);
        assert_eq!((fails(&store), store.verify(&[]).0), (5, Some(0)));
        assert_eq!((fails(&elsewhere), elsewhere.verify(&[]).0), (10, Some(0)));
    });
}

#[test]
fn truncated_files_are_noticed() {
    in_fresh_netns(|| {
        for (suffix, kept) in [("", false), ("-wal", false), ("-shm", true)] {
            let store = Store::new();
            let mut name = store.path().into_os_string();
            name.push(suffix);
            let truncate =
                |_: &Path| fs::File::options().write(true).open(&name).unwrap().set_len(0).unwrap();
            let (recorder, mut client, said) = recorded(&store, truncate);
            assert!(said.contains(&format!("netwatch.db{suffix} was truncated")), "{said}");
            attempt(&mut client, 5);
            let expected = if kept { 15 } else { 5 };
            until("recording goes on", || fails(&store) == expected);
            let count = number(&said, "events");
            assert!(kept && count == 0 || count >= 10, "{said}");
            assert_eq!(lost(&store, "store"), count, "{said}");
            ends(recorder);
            assert_eq!(store.verify(&[]).0, Some(0));
        }
    });
}

#[test]
fn store_whose_folder_is_removed_ends_the_recorder_with_one_line() {
    in_fresh_netns(|| {
        let store = Store::new();
        let folder = store.beside("folder");
        let recorder = Recorder::start(&folder.join("netwatch.db"), &[]);
        let mut client = actor();
        attempt(&mut client, 10);
        fs::remove_dir_all(&folder).unwrap();
        let (status, said) = recorder.ended();
        assert_eq!((status.code(), said.len()), (Some(1), 2), "{said:?}");
        assert!(said[1].contains("was deleted") && number(&said[1], "events") >= 10, "{said:?}");
        assert!(!folder.exists());
    });
}

#[test]
fn number_of_what_a_full_disk_refused_is_kept() {
    in_fresh_netns(|| {
        let store = Store::in_room_of(4 << 20);
        let mut recorder = Recorder::start(&store.path(), &[]);
        let mut client = actor();
        attempt(&mut client, 1);
        until("it is recorded", || fails(&store) == 1);
        let ballast = store.beside("ballast");
        let mut file = fs::File::create(&ballast).unwrap();
        while file.write_all(&[1; 4096]).is_ok() {}
        // Until its preallocated space is used up as well.
        attempt(&mut client, 2000);
        recorder.says("full");
        attempt(&mut client, 100);
        recorder.signal(Signal::SIGTERM);
        let (status, said) = recorder.ended();
        let last = said.last().unwrap();
        assert_eq!((status.code(), said.len()), (Some(1), 3), "{said:?}");
        let count = number(last, "events");
        assert!(count >= 100 && last.contains("full"), "{last}");
        // Also of the space that the log had. It cannot start then, and the number stays.
        while file.write_all(&[1; 4096]).is_ok() {}
        let (status, said) = Recorder::begin(&store.path(), &[]).ended();
        assert_eq!((status.code(), said.len()), (Some(1), 1), "{said:?}");
        fs::remove_file(&ballast).unwrap();
        drop(file);
        Recorder::start(&store.path(), &[]).finish();
        assert_eq!(lost(&store, "store"), count);
        Recorder::start(&store.path(), &[]).finish();
        assert_eq!((lost(&store, "store"), store.verify(&[]).0), (count, Some(0)));
    });
}

#[test]
fn forgotten_reader_cannot_fill_the_disk() {
    const SIZE: u64 = 16 << 20;
    in_fresh_netns(|| {
        let store = Store::new();
        let mut recorder = Recorder::start(&store.path(), &["--max-size", "16MiB"]);
        let mut client = actor();
        attempt(&mut client, 1);
        until("it is recorded", || fails(&store) == 1);
        let reader = rusqlite::Connection::open(store.path()).unwrap();
        reader.execute_batch("BEGIN; SELECT count(*) FROM connection").unwrap();
        let size = |suffix: &str| {
            let mut name = store.path().into_os_string();
            name.push(suffix);
            fs::metadata(name).map_or(0, |file| file.len())
        };
        // The limit of the log.
        while size("-wal") < SIZE / 8 {
            attempt(&mut client, 200);
        }
        let said = recorder.says("long transaction");
        assert!(said.contains("retrying"), "{said}");
        let length = size("-wal");
        attempt(&mut client, 500);
        assert!(size("-wal") == length && size("") + length <= SIZE, "{length}");
        drop(reader);
        recorder.says("accepts writes again");
        attempt(&mut client, 1);
        recorder.signal(Signal::SIGTERM);
        let (status, said) = recorder.ended();
        assert_eq!((status.code(), said.len()), (Some(0), 3), "{said:?}");
        assert_eq!(store.verify(&[]).0, Some(0));
    });
}
