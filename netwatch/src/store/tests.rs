//! The store as a whole: what is written is read back completely, or not at all.

mod alerts;
mod altered;
mod bounds;
mod causes;
mod clock;
mod interference;
mod keys;
mod large;
mod names;
mod opening;
mod scanning;
mod sealing;
mod tampering;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use proptest::prelude::*;
use rusqlite::Connection;
use tempfile::TempDir;

use super::chain::{Contents, Format};
use super::entry::Entry;
use super::rows::tests::any_event;
use super::writer::{Settings, Writer};
use super::*;
use crate::clock::BootClock;
use crate::loss::{Loss, LossReason};
use crate::model::ExeState;
use crate::model::tests::ns;
use crate::process::{Actor, ExeStatus, Process};
use crate::tracker::{ConnectionEvent, EndpointId, EventKind, HostFacts};

const BOOT: i64 = 1_700_000_000_000_000_000;

fn clock() -> BootClock {
    BootClock::of_boot(BOOT)
}

fn settings() -> Settings {
    let retention = Retention { age: Duration::from_secs(1 << 40), size: 2 << 30 };
    Settings { retention, boot: "0123abcd".into(), filter: None, clock: clock(), seal: false }
}

/// A folder for one store.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("netwatch.db")
    }

    fn writer(&self, settings: Settings) -> Writer {
        Writer::open(&self.path(), settings).unwrap()
    }

    fn reader(&self) -> Reader {
        Reader::open(&self.path()).unwrap()
    }

    fn sql(&self, sql: &str) {
        Connection::open(self.path()).unwrap().execute_batch(sql).unwrap();
    }

    fn verified(&self) -> Checked {
        verify(&self.reader(), Ask::default(), &mut go_on).unwrap()
    }
}

fn go_on(_: Progress) -> std::ops::ControlFlow<()> {
    std::ops::ControlFlow::Continue(())
}

fn write(writer: &mut Writer, items: &[Entry]) {
    let mut written = 0;
    while written < items.len() {
        written += writer.commit(&items[written..]).unwrap();
    }
}

const STATUS: ExeStatus = ExeStatus { state: ExeState::Deleted, world_writable: true };

fn item(mut event: ConnectionEvent) -> Entry {
    event.facts.exe = event.endpoint.actors().map(|actor| actor.process.exe_status());
    Entry::Event(event)
}

fn story(cookie: u64, port: u16) -> Vec<ConnectionEvent> {
    let local = format!("10.0.0.1:{port}");
    let mut open = crate::tracker::tests::event(EventKind::Open, &local, Some("10.0.0.2:443"));
    open.endpoint.id = EndpointId { cookie, began: ns(cookie * 1000) };
    open.endpoint.flow = open.endpoint.id;
    open.endpoint.cookie = crate::model::Cookie::new(cookie);
    open.at = ns(cookie * 1000 + 5);
    open.endpoint.process = Some(Actor::leader(crate::process::tests::process(77, None)));
    let mut close = open.clone();
    close.kind = EventKind::Close;
    close.at = close.at.saturating_add(1000);
    close.endpoint.state = crate::model::State::Close;
    close.outcome.duration = Some(1000);
    vec![open, close]
}

fn stories(cookies: std::ops::Range<u64>) -> Vec<Entry> {
    cookies.flat_map(|cookie| story(cookie, 40_000 + (cookie % 1000) as u16)).map(item).collect()
}

/// As it is read back: with the status of executables in the processes.
fn recorded(event: &ConnectionEvent) -> ConnectionEvent {
    let status = event.facts.exe;
    let mut event = event.clone();
    let put = |actor: &mut Option<Actor>, status: Option<ExeStatus>| {
        if let Some(actor) = actor {
            Arc::make_mut(&mut actor.process).exe_status = status;
        }
    };
    put(&mut event.endpoint.originator, status.originator);
    put(&mut event.endpoint.process, status.process);
    if let Some(listener) = &mut event.endpoint.listener {
        put(&mut Arc::make_mut(listener).process, status.listener);
    }
    if let Some(peer) = &mut event.endpoint.peer {
        put(&mut peer.process, status.peer);
    }
    event.facts = HostFacts { device: event.facts.device, ..HostFacts::default() };
    event
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn every_event_that_is_written_is_read_back(
        mut batches in prop::collection::vec(prop::collection::vec(any_event(), 0..6), 1..4),
    ) {
        let place = Place::new();
        let mut writer = place.writer(settings());
        let mut expected = Vec::new();
        for batch in &mut batches {
            // Few endpoints, so that several events are about one; two at the same time.
            for event in batch.iter_mut() {
                event.endpoint.id.began = ns(7);
                event.endpoint.remote = event.endpoint.remote.filter(|_| event.endpoint.id.cookie != 0);
            }
            let items: Vec<_> = batch.iter().cloned().map(item).collect();
            write(&mut writer, &items);
            for item in &items {
                let Entry::Event(event) = item else { unreachable!() };
                expected.push(recorded(event));
            }
        }
        drop(writer);
        let reader = place.reader();
        for cookie in 0..4 {
            let id = EndpointId { cookie, began: ns(7) };
            let own: Vec<_> = expected.iter().filter(|event| event.endpoint.id == id).cloned().collect();
            let back = reader.end("0123abcd", id).unwrap().map(|end| end.events).unwrap_or_default();
            prop_assert_eq!(back, own);
        }
        prop_assert_eq!(place.verified().broken, None);
    }
}

#[test]
fn begun_and_ended_in_one_batch_is_one_row() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    write(&mut writer, &stories(1..4));
    write(&mut writer, &story(9, 9).into_iter().take(1).map(item).collect::<Vec<_>>());
    write(&mut writer, &story(9, 9).into_iter().skip(1).map(item).collect::<Vec<_>>());
    let db = Connection::open(place.path()).unwrap();
    let rows: Vec<(String, Option<String>)> = db
        .prepare("SELECT events, odd FROM connection ORDER BY id")
        .unwrap()
        .query_map([], |row| Ok((row.get(0)?, row.get(1)?)))
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let both = ("open+0 close+1000".to_owned(), None);
    let (open, close) = (("open+0".to_owned(), None), ("close+0".to_owned(), None));
    assert_eq!(rows, [both.clone(), both.clone(), both, open, close]);
    // All views can be read, and have one row per endpoint.
    let count = |view: &str| -> i64 {
        db.query_row(&format!("SELECT count(*) FROM {view}"), [], |row| row.get(0)).unwrap()
    };
    assert_eq!((count("connections"), count("events"), count("processes")), (4, 8, 1));
}

#[test]
fn queries_find_by_every_key() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    write(&mut writer, &stories(1..50));
    let reader = place.reader();
    let ask = |query: Query| {
        let found = reader.connections(&query).unwrap();
        found.iter().map(|end| end.events[0].endpoint.id.cookie).collect::<Vec<_>>()
    };
    let all = || Query::default();
    assert_eq!(ask(Query { port: Some(40_007), ..all() }), [7]);
    assert_eq!(ask(Query { port: Some(443), limit: Some(2), ..all() }), [1, 2]);
    assert_eq!(ask(Query { port: Some(443), limit: Some(2), newest_first: true, ..all() }), [49, 48]);
    assert_eq!(ask(Query { ip: Some([10, 0, 0, 2].into()), limit: Some(1), ..all() }), [1]);
    assert_eq!(ask(Query { ip: Some([10, 0, 0, 3].into()), ..all() }).len(), 0);
    assert_eq!(ask(Query { cookie: Some(5), ..all() }), [5]);
    assert_eq!(ask(Query { cookie: Some(5), began: Some(ns(1)), ..all() }).len(), 0);
    assert_eq!(ask(Query { pid: Some(77), ..all() }).len(), 49);
    assert_eq!(ask(Query { pid: Some(78), ..all() }).len(), 0);
    assert_eq!(ask(Query { comm: Some("p77".into()), limit: Some(1), ..all() }), [1]);
    assert_eq!(ask(Query { exe: Some("/bin/sh".into()), ..all() }).len(), 0);
    assert_eq!(ask(Query { boot: Some("other".into()), ..all() }).len(), 0);
    assert_eq!(ask(Query { since: Some(BOOT + 49_000), until: Some(BOOT + 49_010), ..all() }), [48, 49]);
    let key = crate::process::tests::process(77, None).key;
    assert_eq!(ask(Query { process: Some(key), ..all() }).len(), 49);
    assert_eq!(reader.processes("0123abcd", key).unwrap().len(), 1);
}

#[test]
fn processes_come_back_with_their_line() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    let mut last = crate::process::tests::process(1, None);
    for pid in 2..100 {
        last = crate::process::tests::process(pid, Some(&last));
    }
    let mut shell = Process::clone(&last);
    shell.stdio = [5, 5, 0].map(crate::model::Cookie::new);
    shell.birth = Some(crate::process::Birth {
        at: ns(17),
        cause: crate::process::Cause::of_socket(crate::model::Cookie::new(u64::MAX >> 1)),
    });
    let shell = Arc::new(shell);
    write(&mut writer, &[Entry::Process(shell.clone(), STATUS), Entry::Process(shell.clone(), STATUS)]);
    let reader = place.reader();
    let states = reader.processes("0123abcd", shell.key).unwrap();
    let mut expected = Process::clone(&shell);
    expected.exe_status = Some(STATUS);
    assert_eq!(states.iter().map(|actor| &*actor.process).collect::<Vec<_>>(), [&expected]);
}

#[test]
fn losses_and_runs_are_read() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    let at = jiff::Timestamp::from_nanosecond(i128::from(BOOT) + 55).unwrap();
    let loss = Loss::new(LossReason::Ring, [("change", 3), ("connect", 4)].into());
    write(&mut writer, &[Entry::Loss(at, loss.clone())]);
    write(&mut writer, &stories(1..2));
    let reader = place.reader();
    let losses = reader.losses(BOOT, BOOT + 100).unwrap();
    assert_eq!((losses.len(), losses[0].at, &losses[0].loss, losses[0].time), (1, ns(55), &loss, at));
    assert_eq!(reader.losses(BOOT, BOOT + 10).unwrap().len(), 0);
    assert!(!reader.runs().unwrap()[0].stopped);
    write(&mut writer, &[Entry::Stopped(at)]);
    drop(writer);
    write(&mut place.writer(settings()), &stories(2..3));
    let stopped: Vec<_> = place.reader().runs().unwrap().iter().map(|run| run.stopped).collect();
    assert_eq!(stopped, [true, false]);
}

#[test]
fn a_set_clock_makes_another_segment() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    let back = BootClock::of_boot(BOOT - 3_600_000_000_000);
    let mut items = stories(1..3);
    items.push(Entry::Clock(back));
    items.extend(stories(3..5));
    write(&mut writer, &items);
    let reader = place.reader();
    let clocks: Vec<_> = reader.connections(&Query::default()).unwrap().iter().map(|end| end.clock).collect();
    assert_eq!(clocks, [clock(), clock(), back, back]);
    assert_eq!(place.verified().broken, None);
}

#[test]
fn retention_by_size_drops_the_oldest_and_the_chain_holds() {
    let place = Place::new();
    let size = 4 << 20;
    let retention = Retention { size, ..settings().retention };
    let mut writer = place.writer(Settings { retention, ..settings() });
    let mut anchor = None;
    for batch in 0..120_u64 {
        write(&mut writer, &stories(batch * 300 + 1..batch * 300 + 301));
        if batch == 119 {
            anchor = newest(&place.reader()).unwrap();
        }
    }
    let disk = |suffix: &str| {
        let name = format!("{}{suffix}", place.path().display());
        std::fs::metadata(name).map_or(0, |file| file.len())
    };
    assert!(disk("") + disk("-wal") <= size, "{} {}", disk(""), disk("-wal"));
    let checked =
        verify(&place.reader(), Ask { anchor: anchor.map(|(link, ..)| link), key: None }, &mut go_on)
            .unwrap();
    assert_eq!(checked.broken, None);
    assert!(checked.pruned.is_some() && checked.anchored.is_some(), "{checked:?}");
    let left = place.reader().connections(&Query::default()).unwrap();
    assert_eq!(left.last().unwrap().events[0].endpoint.id.cookie, 36_000);
    assert!(left.len() > 5000 && left[0].events[0].endpoint.id.cookie > 1, "{}", left.len());
    drop(writer);
    // The next rows to be deleted are deleted by another program.
    place.sql("DELETE FROM batch WHERE id = (SELECT min(id) FROM batch)");
    assert!(place.verified().broken.is_some());
}

#[test]
fn retention_by_age_drops_everything_that_is_old() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    write(&mut writer, &stories(1..11));
    drop(writer);
    std::thread::sleep(Duration::from_millis(20));
    let retention = Retention { age: Duration::from_millis(10), ..settings().retention };
    let mut writer = place.writer(Settings { retention, ..settings() });
    writer.commit(&[]).unwrap();
    assert_eq!(place.reader().connections(&Query::default()).unwrap().len(), 0);
    let checked = place.verified();
    assert_eq!((checked.broken, checked.pruned.map(|(batch, _)| batch)), (None, Some(1)));
}

#[test]
fn other_files_are_refused_and_left_alone() {
    let place = Place::new();
    let open = || Writer::open(&place.path(), settings()).map(|_| ()).unwrap_err().to_string();
    let read = || Reader::open(&place.path()).map(|_| ()).unwrap_err().to_string();
    assert!(read().contains("no store at"), "{}", read());
    std::fs::write(place.path(), "not a database, but long enough to be looked at ".repeat(100)).unwrap();
    let before = std::fs::read(place.path()).unwrap();
    assert!(open().contains("not a netwatch store") && read().contains("not a netwatch store"), "{}", open());
    assert_eq!(std::fs::read(place.path()).unwrap(), before);
    std::fs::remove_file(place.path()).unwrap();
    place.sql("CREATE TABLE t (x)");
    assert!(open().contains("not a netwatch store") && read().contains("not a netwatch store"));
    std::fs::remove_file(place.path()).unwrap();
    drop(place.writer(settings()));
    place.sql("PRAGMA user_version = 99");
    assert!(open().contains("newer netwatch (store version 99"), "{}", open());
    assert!(read().contains("newer netwatch"));
}

#[test]
fn a_second_writer_is_refused() {
    let place = Place::new();
    let _first = place.writer(settings());
    let reported = Writer::open(&place.path(), settings()).map(|_| ()).unwrap_err().to_string();
    assert!(
        reported.contains("is recording to") && reported.contains(&std::process::id().to_string()),
        "{reported}"
    );
}

#[test]
fn a_store_is_for_its_owner_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let place = Place::new();
    let path = place.0.path().join("a/b/netwatch.db");
    let mut writer = Writer::open(&path, settings()).unwrap();
    write(&mut writer, &stories(1..2));
    let mode = |path: &Path| std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!((mode(&path), mode(path.parent().unwrap())), (0o600, 0o700));
    assert_eq!(mode(&path.with_extension("db-wal")), 0o600);
}

/// What root can do: compute all hashes again.
fn rehash(path: &Path) {
    rehash_from(path, 0);
}

/// The same from a batch on.
fn rehash_from(path: &Path, first: i64) {
    let db = Connection::open(path).unwrap();
    let columns = Format::Two.batch_columns();
    let batches: Vec<Vec<i64>> = db
        .prepare(&format!("SELECT {} FROM batch WHERE id >= ? ORDER BY id", columns.join(",")))
        .unwrap()
        .query_map([first], |row| (0..columns.len()).map(|column| row.get(column)).collect())
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    let previous =
        db.query_row("SELECT hash FROM batch WHERE id = ?", [first - 1], |row| row.get::<_, Vec<u8>>(0));
    let mut previous = previous.map_or(Link::NONE, |hash| Link::from_bytes(&hash).unwrap());
    for batch in batches {
        let mut contents = Contents::new();
        for table in Format::Two.tables() {
            let (from, to) = (batch[4 + 2 * table as usize], batch[5 + 2 * table as usize]);
            verify::hash_rows(&db, table, Format::Two, from, to, &mut contents).unwrap();
        }
        previous = contents.link(Format::Two, &previous, &batch);
        db.execute("UPDATE batch SET hash = ? WHERE id = ?", (previous.bytes(), batch[0])).unwrap();
    }
}
