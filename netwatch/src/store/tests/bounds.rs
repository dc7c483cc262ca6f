//! What is read of a store is limited, to the newest.

use super::*;
use crate::forensics::{Past as _, Selector};
use crate::model::{NetnsId, Proto};
use crate::origin::Side;
use crate::store::{History, Visited};
use crate::tracker::ProcessBasis;

/// More than are read of a process, `MOST_OF_PROCESS` of `store/history.rs`.
const MANY: u64 = 300;
const MOST_OF_PROCESS: usize = 256;

fn filled(change: impl Fn(&mut ConnectionEvent)) -> Place {
    let place = Place::new();
    let mut writer = place.writer(settings());
    let mut items = stories(1..MANY + 1);
    for entry in &mut items {
        if let Entry::Event(event) = entry {
            change(event);
        }
    }
    write(&mut writer, &items);
    place
}

#[test]
fn newest_connections_of_a_process_are_read() {
    let place = filled(|event| event.endpoint.process_basis = Some(ProcessBasis::Connect));
    let history = History::new(place.reader()).unwrap();
    let key = crate::process::tests::process(77, None).key;
    let lives = history.of_process(&"0123abcd".into(), key, ns(u64::MAX >> 8)).unwrap();
    assert_eq!(lives.len(), MOST_OF_PROCESS);
    let oldest = lives.iter().map(|life| life.end().id.cookie).min();
    assert_eq!(oldest, Some(MANY - MOST_OF_PROCESS as u64 + 1));
}

#[test]
fn connections_that_a_selector_matches_are_limited() {
    let place = filled(|_| {});
    let history = History::new(place.reader()).unwrap();
    let select = |most| {
        let (lives, more) = history.select(&"10.0.0.2".parse::<Selector>().unwrap(), most).unwrap();
        (lives.len(), lives.iter().map(|life| life.end().id.cookie).max(), more)
    };
    assert_eq!(select(16), (16, Some(MANY), true));
    assert_eq!(select(MANY as usize), (MANY as usize, Some(MANY), false));
}

#[test]
fn connections_to_a_port_are_counted_up_to_the_limit() {
    let place = filled(|event| {
        event.endpoint.socket.local.port = 22;
        event.endpoint.verdict.side = Side::Remote;
    });
    let reader = place.reader();
    let count = |most| {
        let visited = Visited {
            boot: "0123abcd",
            proto: Proto::Tcp,
            netns: NetnsId::new(1),
            port: 22,
            takes: &|_| true,
            since: 0,
            most,
        };
        let visits = reader.visits(&visited).unwrap();
        (visits.count, visits.more)
    };
    assert_eq!(count(MANY as usize), (MANY, false));
    assert_eq!(count(MANY as usize - 1), (MANY - 1, true));
    assert_eq!(count(5), (5, true));
}
