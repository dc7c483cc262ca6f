//! Stores whose files are moved, deleted or truncated while they are written to, and stores with readers that do not end.

use std::fs::{self, OpenOptions};

use rusqlite::Connection;

use super::*;
use crate::limits;
use crate::store::keep::{GoneOn, Keep};
use crate::store::verify::verify_with;

/// Writes all entries as the recorder does, and returns what was reported.
fn keep_writing(keep: &mut Keep, entries: &[Entry]) -> Vec<GoneOn> {
    let (mut written, mut gone_on) = (0, Vec::new());
    while written < entries.len() {
        let checked = keep.check();
        let taken = if checked.is_ok() { keep.commit(&entries[written..]) } else { Ok(0) };
        if let Err(interference) = checked.and_then(|()| keep.check()) {
            gone_on.push(keep.go_on(&interference).unwrap());
            if !gone_on.last().unwrap().has_last {
                continue;
            }
        }
        keep.confirm();
        written += taken.unwrap();
    }
    gone_on
}

fn lost(gone_on: &GoneOn) -> u64 {
    let count = |entry: &Entry| match entry {
        Entry::Loss(_, loss) => loss.count(),
        _ => 0,
    };
    gone_on.lost.iter().map(count).sum()
}

fn connections(path: &Path) -> usize {
    Reader::open(path).unwrap().connections(&Query::default()).unwrap().len()
}

fn truncate(path: &Path, length: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(length).unwrap();
}

/// What is left after `interfere` was done between two parts of ten connections each, after an earlier run with ten:
/// the number of events that are reported as lost, and of connections in the store.
fn after(interfere: impl FnOnce(&Place)) -> (u64, usize, String) {
    let place = Place::new();
    let mut keep = Keep::open(&place.path(), settings()).unwrap();
    assert!(keep_writing(&mut keep, &stories(1..11)).is_empty());
    keep.close(true).unwrap();
    let mut keep = Keep::open(&place.path(), settings()).unwrap();
    // In batches, of which some are lost with the end of the log.
    for cookie in 11..21 {
        assert!(keep_writing(&mut keep, &stories(cookie..cookie + 1)).is_empty());
    }
    interfere(&place);
    let gone_on = keep_writing(&mut keep, &stories(21..31));
    assert_eq!(gone_on.len(), 1);
    keep.close(true).unwrap();
    assert_eq!(place.verified().broken, None);
    let notice = gone_on[0].notice.clone();
    assert!(notice.contains(&format!("; {} events", lost(&gone_on[0]))), "{notice}");
    (lost(&gone_on[0]), connections(&place.path()), notice)
}

fn side(place: &Place, suffix: &str) -> PathBuf {
    place.0.path().join(format!("netwatch.db{suffix}"))
}

#[test]
fn deleted_store_is_replaced_and_its_events_are_counted() {
    let (lost, there, notice) = after(|place| fs::remove_file(place.path()).unwrap());
    assert_eq!((lost, there), (20, 10), "{notice}");
    assert!(notice.contains("netwatch.db was deleted"), "{notice}");
    let (lost, there, _) = after(|place| {
        for suffix in ["", "-wal", "-shm"] {
            fs::remove_file(side(place, suffix)).unwrap();
        }
    });
    assert_eq!((lost, there), (20, 10));
}

#[test]
fn moved_store_is_whole_and_recording_goes_on_in_a_new_one() {
    let elsewhere = Place::new();
    let (lost, count, notice) = after(|place| fs::rename(place.path(), elsewhere.path()).unwrap());
    assert_eq!((lost, count), (0, 10), "{notice}");
    assert!(notice.contains("moved or replaced"), "{notice}");
    assert_eq!((connections(&elsewhere.path()), elsewhere.verified().broken), (20, None));
}

#[test]
fn truncated_store_is_set_aside() {
    for length in [0, 100, 4096, 40_960] {
        let (lost, there, notice) = after(|place| {
            assert!(fs::metadata(place.path()).unwrap().len() > length);
            truncate(&place.path(), length);
        });
        assert_eq!((lost, there), (20, 10), "{length}: {notice}");
        assert!(notice.contains("netwatch.db-damaged"), "{notice}");
    }
}

#[test]
fn log_that_is_deleted_or_moved_loses_nothing() {
    let (lost, there, notice) = after(|place| fs::remove_file(side(place, "-wal")).unwrap());
    assert_eq!((lost, there), (0, 30), "{notice}");
    assert!(notice.contains("netwatch.db-wal was deleted"), "{notice}");
    let (lost, there, _) = after(|place| fs::rename(side(place, "-wal"), side(place, "-x")).unwrap());
    assert_eq!((lost, there), (0, 30));
}

#[test]
fn truncated_log_loses_what_was_cut_off() {
    for part in [0, 1, 2, 3] {
        let (lost, there, notice) = after(|place| {
            let length = fs::metadata(side(place, "-wal")).unwrap().len();
            truncate(&side(place, "-wal"), length * part / 4);
        });
        assert!(lost > 0 && usize::try_from(lost).unwrap() + 2 * there == 60, "{lost} {there} {notice}");
        assert!(notice.contains("netwatch.db-wal was truncated"), "{notice}");
    }
}

#[test]
fn shared_memory_is_made_anew() {
    let interfere: [fn(&Path); 4] = [
        |shm| fs::remove_file(shm).unwrap(),
        |shm| fs::rename(shm, shm.with_extension("x")).unwrap(),
        |shm| truncate(shm, 0),
        |shm| truncate(shm, 4096),
    ];
    for interfere in interfere {
        let (lost, there, notice) = after(|place| interfere(&side(place, "-shm")));
        assert_eq!((lost, there), (0, 30), "{notice}");
    }
}

#[test]
fn shared_memory_that_is_truncated_during_a_write_is_survived() {
    let place = Place::new();
    let mut keep = Keep::open(&place.path(), settings()).unwrap();
    // More than the cache holds, so that pages are looked up in the shared memory.
    keep_writing(&mut keep, &stories(1..30_001));
    truncate(&side(&place, "-shm"), 0);
    // Without the check before it, as if it happened after the check.
    let written = keep.commit(&stories(30_001..30_011));
    assert!(written.is_err(), "{written:?}");
    // Another program has made it as long as it was.
    truncate(&side(&place, "-shm"), 1 << 20);
    let interference = keep.check().unwrap_err();
    assert!(interference.to_string().contains("-shm was truncated"), "{interference}");
    let gone_on = keep.go_on(&interference).unwrap();
    assert_eq!((lost(&gone_on), gone_on.has_last), (0, true));
    assert!(keep_writing(&mut keep, &stories(30_001..30_011)).is_empty());
    keep.close(true).unwrap();
    assert_eq!((connections(&place.path()), place.verified().broken), (30_010, None));
}

#[test]
fn store_whose_folder_is_gone_or_path_is_taken_ends_with_one_error() {
    let place = Place::new();
    let folder = place.0.path().join("folder");
    let path = folder.join("netwatch.db");
    let mut keep = Keep::open(&path, settings()).unwrap();
    keep_writing(&mut keep, &stories(1..11));
    fs::remove_dir_all(&folder).unwrap();
    let error = keep.go_on(&keep.check().unwrap_err()).err().unwrap();
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains("netwatch.db was deleted") && text.contains("No such file"), "{text}");
    assert_eq!(keep.gone().of(LossReason::Store), 20);
    assert!(!folder.exists());

    let mut keep = Keep::open(&place.path(), settings()).unwrap();
    keep_writing(&mut keep, &stories(1..11));
    fs::rename(place.path(), side(&place, ".1")).unwrap();
    fs::write(place.path(), "what somebody wrote\n".repeat(500)).unwrap();
    let error = keep.go_on(&keep.check().unwrap_err()).err().unwrap();
    let text = format!("{:#}", anyhow::Error::from(error));
    assert!(text.contains("not a netwatch store"), "{text}");
    assert!(fs::read_to_string(place.path()).unwrap().starts_with("what somebody wrote"));
    // It is still in the moved one.
    assert!(keep.gone().is_empty());
}

#[test]
fn what_other_programs_may_do_is_no_interference() {
    let place = Place::new();
    let mut keep = Keep::open(&place.path(), settings()).unwrap();
    for cookie in 1..31 {
        assert!(keep_writing(&mut keep, &stories(cookie..cookie + 1)).is_empty());
    }
    let db = Connection::open(place.path()).unwrap();
    for sql in ["PRAGMA wal_checkpoint(TRUNCATE)", "VACUUM", "PRAGMA wal_checkpoint(TRUNCATE)"] {
        db.execute_batch(sql).unwrap();
        assert_eq!(keep.check(), Ok(()), "{sql}");
        assert!(keep_writing(&mut keep, &stories(31..32)).is_empty());
    }
    drop(db);
    keep.close(true).unwrap();
    assert_eq!(place.verified().broken, None);
}

#[test]
fn log_that_a_reader_holds_ends_at_the_limit() {
    let place = Place::new();
    let size = 4 << 20;
    let retention = Retention { size, ..settings().retention };
    let most = retention.most_log();
    assert!(most >= size / limits::LOG_PART);
    let mut keep = Keep::open(&place.path(), Settings { retention, ..settings() }).unwrap();
    keep_writing(&mut keep, &stories(1..101));
    let reader = Connection::open(place.path()).unwrap();
    reader.execute_batch("BEGIN; SELECT count(*) FROM connection").unwrap();
    let log = || fs::metadata(side(&place, "-wal")).unwrap().len();
    let mut batch = 0;
    let error = loop {
        batch += 1;
        let before = log();
        match keep.commit(&stories(batch * 100 + 1..batch * 100 + 101)) {
            Ok(_) => assert!(before < most, "{before}"),
            Err(error) => break error,
        }
        keep.confirm();
        assert!(batch < 1000);
    };
    assert!(error.may_pass() && error.to_string().contains("MiB"), "{error}");
    let length = log();
    assert!(matches!(keep.commit(&stories(1..2)), Err(StoreError::LogFull { .. })));
    assert_eq!(log(), length);
    assert!(length + fs::metadata(place.path()).unwrap().len() < size);
    drop(reader);
    assert!(keep_writing(&mut keep, &stories(1..2)).is_empty());
    assert!(log() < most, "{}", log());
    keep.close(true).unwrap();
    assert_eq!(place.verified().broken, None);
}

#[test]
fn verify_reads_in_pieces() {
    let place = Place::new();
    let retention = Retention { size: 4 << 20, ..settings().retention };
    let mut writer = place.writer(Settings { retention, ..settings() });
    for batch in 0..20_u64 {
        write(&mut writer, &stories(batch * 300 + 1..batch * 300 + 301));
    }
    let anchor = newest(&place.reader()).unwrap().map(|(link, ..)| link);
    let checkpoint = Connection::open(place.path()).unwrap();
    let mut pieces = 0;
    let checked = verify_with(&place.reader(), anchor, 500, &mut |_| {
        pieces += 1;
        let busy: i64 = checkpoint.query_row("PRAGMA wal_checkpoint(RESTART)", [], |row| row.get(0)).unwrap();
        assert_eq!(busy, 0, "a reader holds the log");
        // Retention overtakes it after some pieces.
        if pieces < 60 {
            write(&mut writer, &stories(pieces * 1000 + 10_000..pieces * 1000 + 10_600));
        }
        std::ops::ControlFlow::Continue(())
    });
    let checked = checked.unwrap();
    assert_eq!(checked.broken, None);
    let (_, last) = checked.range.unwrap();
    assert!(pieces >= 60 && checked.pruned.is_some_and(|(batch, _)| batch > 1), "{pieces} {checked:?}");
    assert_eq!(Some(last), newest(&place.reader()).unwrap().map(|(_, batch, _)| batch));
    assert!(checked.anchored.is_some());
    // The same in the middle of a piece as in one piece.
    place.sql("UPDATE connection SET remote_port = 80 WHERE id = (SELECT max(id) - 100 FROM connection)");
    let broken = |most| verify_with(&place.reader(), None, most, &mut go_on).unwrap().broken;
    assert!(broken(500).is_some());
    assert_eq!(broken(500), broken(u64::MAX));
    assert_eq!(broken(1), broken(u64::MAX));
}

#[test]
fn readers_do_not_hold_the_log() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    write(&mut writer, &stories(1..2));
    let reader = place.reader();
    reader.stand_still().unwrap();
    let count = || reader.connections(&Query::default()).unwrap().len();
    assert_eq!(count(), 1);
    write(&mut writer, &stories(2..3));
    assert_eq!(count(), 1);
    reader.has_stood_still();
    assert_eq!(count(), 2);
}
