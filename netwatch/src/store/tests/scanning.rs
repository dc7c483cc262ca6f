//! `--scan`: what altered indexes hide is found by reading the tables.

use std::cell::Cell;
use std::ops::ControlFlow;
use std::rc::Rc;

use super::*;
use crate::forensics::{Past as _, Selector};

/// Every index, with a condition that leaves nothing in it.
fn empty_indexes(place: &Place) {
    let db = Connection::open(place.path()).unwrap();
    let mut select = db.prepare("SELECT name, sql FROM sqlite_schema WHERE type = 'index'").unwrap();
    let indexes: Vec<(String, String)> =
        select.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap().map(Result::unwrap).collect();
    for (name, sql) in indexes {
        let sql = sql.split(" WHERE ").next().unwrap();
        let (head, column) = sql.rsplit_once('(').unwrap();
        let first = column.split([',', ')']).next().unwrap();
        let hidden = format!(
            "DROP INDEX {name}; {head}({column} WHERE {first} = -1; PRAGMA writable_schema = ON; \
             UPDATE sqlite_schema SET sql = '{}' WHERE name = '{name}'",
            sql.replace('\'', "''")
        );
        db.execute_batch(&hidden).unwrap();
    }
}

fn scanning(place: &Place) -> Reader {
    let mut reader = place.reader();
    reader.scan(Box::new(|_| ControlFlow::Continue(())));
    reader
}

fn cookies(reader: &Reader, query: &Query) -> Vec<u64> {
    let found = reader.connections(query).unwrap();
    found.iter().map(|end| end.events[0].endpoint.id.cookie).collect()
}

fn events(reader: &Reader, narrow: Narrow) -> usize {
    let mut events = reader.events(narrow, None, None, false).unwrap();
    let mut count = 0;
    while let Some(batch) = events.next_batch().unwrap() {
        count += batch.items.len();
    }
    count
}

#[test]
fn what_indexes_hide_is_found_by_a_scan() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    for batch in 0..5_u64 {
        let mut items = vec![Entry::Clock(BootClock::of_boot(BOOT + batch.cast_signed() * 2_000_000_000))];
        items.extend(stories(batch * 10 + 1..batch * 10 + 11));
        while !items.is_empty() {
            let taken = writer.commit(&items).unwrap();
            items.drain(..taken);
        }
    }
    drop(writer);
    let key = crate::process::tests::process(77, None).key;
    let all = || Query::default();
    let queries = [
        Query { port: Some(40_007), ..all() },
        Query { ip: Some([10, 0, 0, 2].into()), ..all() },
        Query { cookie: Some(5), ..all() },
        Query { pid: Some(77), limit: Some(3), newest_first: true, ..all() },
        Query { comm: Some("p77".into()), ..all() },
        Query { process: Some(key), ..all() },
        Query { exe: Some("/bin/sh".into()), ..all() },
        Query { since: Some(BOOT + 30_000), until: Some(BOOT + 2_000_049_010), ..all() },
    ];
    let matcher = globset::Glob::new("p7*").unwrap().compile_matcher();
    let narrows =
        || [Narrow::All, Narrow::Ports(vec![40_007]), Narrow::Pid(77), Narrow::Named(matcher.clone())];
    let found = |reader: &Reader| {
        let connections: Vec<_> = queries.iter().map(|query| cookies(reader, query)).collect();
        let events = narrows().map(|narrow| events(reader, narrow));
        let runs: Vec<_> = reader.runs().unwrap().iter().map(|run| (run.began, run.last)).collect();
        (connections, events, runs, reader.processes("0123abcd", key).unwrap().len())
    };
    let expected = found(&place.reader());
    assert_eq!(expected.1, [100, 2, 100, 100]);
    assert_eq!(found(&scanning(&place)), expected);
    empty_indexes(&place);
    assert_ne!(found(&place.reader()), expected);
    assert_eq!(found(&scanning(&place)), expected);
    assert!(!place.verified().is_well());
    let history = History::new(scanning(&place)).unwrap();
    assert_eq!(history.select(&Selector::Port(40_007), 16).unwrap().0.len(), 1);
}

#[test]
fn long_work_is_followed_and_ended_by_the_caller() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    for batch in 0..5_u64 {
        write(&mut writer, &stories(batch * 10 + 1..batch * 10 + 11));
    }
    let told = Rc::new(Cell::new(None));
    let mut reader = place.reader();
    let tell = told.clone();
    reader.scan(Box::new(move |progress| {
        tell.set(Some(progress));
        ControlFlow::Continue(())
    }));
    assert_eq!(events(&reader, Narrow::All), 100);
    assert_eq!(told.get(), Some(Progress { done: 1, total: 1 }));
    let mut reader = place.reader();
    reader.scan(Box::new(|_| ControlFlow::Break(())));
    let ended = reader.events(Narrow::All, None, None, false).unwrap().next_batch().map(|_| ());
    assert!(matches!(ended, Err(StoreError::Interrupted)), "{ended:?}");
    let mut calls = 0;
    let ended = verify::verify_with(&place.reader(), None, 1, &mut |progress| {
        calls += 1;
        assert!(progress.done <= progress.total);
        if calls == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(matches!(ended, Err(StoreError::Interrupted)) && calls == 3, "{ended:?}");
    // The store is as it was.
    write(&mut writer, &stories(51..61));
    assert!(place.verified().is_well());
    let mut last = None;
    verify::verify_with(&place.reader(), None, 1, &mut |progress| {
        last = Some(progress);
        ControlFlow::Continue(())
    })
    .unwrap();
    assert_eq!(last, Some(Progress { done: 12, total: 12 }));
}
