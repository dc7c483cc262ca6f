//! Keys of processes: exact ones, those of `/proc`, and those of stores that have no others.

use super::*;
use crate::forensics::Past as _;
use crate::model::{BootTime, ProcessKey};
use crate::tracker::ProcessBasis;

fn exact(nanoseconds: u64) -> ProcessKey {
    ProcessKey::new(77, ns(40_000_000 + nanoseconds))
}

/// A store with an endpoint of each process, with cookies from 1.
fn store_of(keys: &[ProcessKey]) -> Place {
    let place = Place::new();
    let mut writer = place.writer(settings());
    for (cookie, key) in (1..).zip(keys) {
        let mut events = story(cookie, 40_000);
        for event in &mut events {
            let mut process = Process::clone(&crate::process::tests::process(77, None));
            process.key = *key;
            event.endpoint.process = Some(Actor::leader(process.into()));
            event.endpoint.process_basis = Some(ProcessBasis::Accept);
        }
        write(&mut writer, &events.into_iter().map(item).collect::<Vec<_>>());
    }
    place
}

/// Cookies of the endpoints of a process, by both ways of asking, and the keys of its values.
fn ask(place: &Place, key: ProcessKey) -> (Vec<u64>, Vec<ProcessKey>) {
    let query = Query { process: Some(key), ..Query::default() };
    let found = place.reader().connections(&query).unwrap();
    let cookies: Vec<_> = found.iter().map(|end| end.events[0].endpoint.id.cookie).collect();
    let mut walked: Vec<_> = History::new(place.reader())
        .unwrap()
        .of_process(&"0123abcd".into(), key, BootTime::from_nanos(1 << 40))
        .unwrap()
        .iter()
        .map(|life| life.id().cookie)
        .collect();
    walked.sort_unstable();
    assert_eq!(walked, cookies);
    let mut keys = place.reader().processes("0123abcd", key).unwrap();
    keys.reverse();
    (cookies, keys.iter().map(|actor| actor.process.key).collect())
}

#[test]
fn pid_that_is_reused_within_a_tick_is_another_process() {
    let (first, second) = (exact(1), exact(9_999_999));
    let place = store_of(&[first, second]);
    assert_eq!(ask(&place, first), (vec![1], vec![first]));
    assert_eq!(ask(&place, second), (vec![2], vec![second]));
    assert_eq!(ask(&place, exact(2)), (vec![], vec![]));
}

#[test]
fn rows_of_one_process_are_joined() {
    // Version 0.1 wrote all starts in ticks.
    let coarse = exact(5).coarse();
    let place = store_of(&[exact(5), coarse, exact(10_000_000), exact(10_000_001)]);
    assert_eq!(ask(&place, exact(5)), (vec![1, 2], vec![exact(5), coarse]));
    assert_eq!(ask(&place, coarse), (vec![1, 2], vec![exact(5), coarse]));
    // The start of the third is a multiple of a tick by chance.
    assert_eq!(ask(&place, exact(10_000_001)).0, [3, 4]);
    assert_eq!(ask(&place, exact(10_000_000)).0, [3]);
}

#[test]
fn view_spells_keys_as_events_do() {
    let keys = [exact(5), exact(5).coarse()];
    let place = store_of(&keys);
    let db = Connection::open(place.path()).unwrap();
    let mut select = db.prepare("SELECT key FROM processes ORDER BY id").unwrap();
    let spelled: Vec<String> = select.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect();
    assert_eq!(spelled, keys.map(|key| key.to_string()));
}
