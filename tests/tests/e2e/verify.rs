//! `netwatch verify`: tampering is reported, and an anchor shows what the chain alone cannot.

use tests::{Recorder, Store, in_fresh_netns, until};

use crate::actor;

/// A store with at least two batches.
fn recorded() -> (Store, String) {
    let store = Store::new();
    let recorder = Recorder::start(&store.path(), &[]);
    let mut client = actor();
    let mut attempt = |times: usize| {
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
        until("it is recorded", || store.log(&[]).len() == times);
    };
    attempt(1);
    let (status, anchor) = store.verify(&["--anchor"]);
    assert_eq!((status, anchor.len()), (Some(0), 64), "{anchor}");
    attempt(2);
    // While the recorder is running.
    assert_eq!(store.verify(&[]).0, Some(0));
    recorder.finish();
    (store, anchor)
}

fn sql(store: &Store, sql: &str) {
    rusqlite::Connection::open(store.path()).unwrap().execute_batch(sql).unwrap();
}

#[test]
fn unaltered_store_is_verified() {
    in_fresh_netns(|| {
        let (store, anchor) = recorded();
        let (status, text) = store.verify(&[]);
        assert!(status == Some(0) && text.contains("verified") && text.lines().count() == 1, "{text}");
        let (status, text) = store.verify(&["--anchor", &anchor]);
        assert!(status == Some(0) && text.contains("the anchor is batch "), "{text}");
        let (status, text) = store.verify(&["--json", "--anchor", &anchor]);
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (status, &object["holds"], &object["anchor"]["batch"]),
            (Some(0), &true.into(), &1.into())
        );
    });
}

#[test]
fn altered_row_is_named_by_its_batch() {
    in_fresh_netns(|| {
        let (store, _) = recorded();
        let db = rusqlite::Connection::open(store.path()).unwrap();
        let of = "SELECT b.id, c.id FROM batch b JOIN connection c ON c.id = b.connection_from \
                  WHERE b.connection_to >= b.connection_from ORDER BY b.id DESC LIMIT 1";
        let (batch, row): (i64, i64) = db.query_row(of, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        drop(db);
        sql(&store, &format!("UPDATE connection SET remote_ip = '127.0.0.2' WHERE id = {row}"));
        let (status, text) = store.verify(&[]);
        let expected = format!("ALTERED: batch {batch}, written 20");
        assert!(status == Some(3) && text.starts_with(&expected), "{text}");
        let (status, text) = store.verify(&["--json"]);
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (status, &object["holds"], &object["broken"]["batch"]),
            (Some(3), &false.into(), &batch.into())
        );
    });
}

#[test]
fn anchor_shows_that_batches_were_removed() {
    in_fresh_netns(|| {
        let (store, _) = recorded();
        let (_, newest) = store.verify(&["--anchor"]);
        // With all rows of the last batch, which may have more than the end of recording.
        let last = "(SELECT max(id) FROM batch)";
        for table in ["segment", "image", "process", "connection", "loss", "stopped", "pruned", "message"] {
            let first = format!("(SELECT {table}_from FROM batch WHERE id = {last})");
            sql(&store, &format!("DELETE FROM {table} WHERE id >= {first}"));
        }
        sql(&store, &format!("DELETE FROM batch WHERE id = {last}"));
        // The remaining chain is valid.
        let (status, text) = store.verify(&[]);
        assert_eq!(status, Some(0), "{text}");
        let (status, text) = store.verify(&["--anchor", &newest]);
        assert!(
            status == Some(3) && text.contains("not found in this chain") && !text.contains("ALTERED"),
            "{text}"
        );
    });
}

#[test]
fn invalid_anchor_is_an_error() {
    in_fresh_netns(|| {
        let (store, _) = recorded();
        let (status, text) = store.verify(&["--anchor", "abc"]);
        assert!(status == Some(2) && text.contains("64 hexadecimal digits"), "{text}");
    });
}

#[test]
fn index_that_hides_rows_is_found_and_read_past() {
    in_fresh_netns(|| {
        let (store, anchor) = recorded();
        let hits = |arguments: &[&str]| store.log(&[&["--port", "2000"], arguments].concat()).len();
        assert_eq!((hits(&[]), hits(&["--scan"])), (2, 2));
        for (name, column) in [("local", "local_port"), ("remote", "remote_port")] {
            sql(
                &store,
                &format!(
                    "DROP INDEX connection_by_{name}_port; \
                     CREATE INDEX connection_by_{name}_port ON connection (segment, {column}) WHERE {column} = 1"
                ),
            );
        }
        assert_eq!(hits(&["--scan"]), 2);
        let trace = store.run("trace", &["--scan", ":6000"]);
        let trace = String::from_utf8(trace.stdout).unwrap();
        assert!(trace.contains("127.0.0.1:2000"), "{trace}");
        for arguments in [&[][..], &["--anchor", &anchor], &["--anchor"]] {
            let (status, text) = store.verify(arguments);
            assert!(
                status == Some(3) && text.starts_with("ALTERED: index connection_by_local_port"),
                "{text}"
            );
        }
    });
}

#[test]
fn seal_shows_that_the_chain_was_hashed_again() {
    in_fresh_netns(|| {
        let store = Store::new();
        let (status, key) = store.verify(&["--new-key"]);
        assert_eq!((status, key.len()), (Some(0), 64), "{key}");
        let recorder = Recorder::start(&store.path(), &["--seal"]);
        let mut client = actor();
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
        until("it is recorded", || store.log(&[]).len() == 1);
        // The end of a run is sealed.
        recorder.finish();
        let (status, text) = store.verify(&["--key", &key]);
        assert!(
            status == Some(0) && text.contains("; sealed up to batch ") && text.ends_with("with 0 after it"),
            "{text}"
        );
        let file = store.beside("key");
        std::fs::write(&file, format!("{key}\n")).unwrap();
        assert_eq!(store.verify(&["--key-file", file.to_str().unwrap()]).0, Some(0));
        // Not another key, and not without the seals.
        let (status, text) = store.verify(&["--key", &"0".repeat(64)]);
        assert!(status == Some(3) && text.starts_with("NOT SEALED"), "{text}");
        sql(&store, "DELETE FROM seal");
        let (status, text) = store.verify(&["--key", &key, "--json"]);
        let object: serde_json::Value = serde_json::from_str(&text).unwrap();
        let broken = object["seals"]["broken"].as_str().unwrap_or_default();
        assert!(status == Some(3) && broken.contains("epochs 0 to 0 are missing"), "{text}");
        assert_eq!(store.verify(&[]).0, Some(0));
    });
}

#[test]
fn long_work_is_silent_on_a_pipe() {
    in_fresh_netns(|| {
        let (store, _) = recorded();
        let verified = store.run("verify", &[]);
        let scanned = store.run("log", &["--scan"]);
        assert!(verified.stderr.is_empty() && scanned.stderr.is_empty() && scanned.status.success());
        assert_eq!(scanned.stdout, store.run("log", &[]).stdout);
    });
}
