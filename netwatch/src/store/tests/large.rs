//! Sizes that others choose: each of these would take minutes if a step were quadratic.

use super::*;

const MANY: usize = 100_000;

/// Rows, by SQL, with the numbers from 1 to [`MANY`] as `n`.
fn fill(place: &Place, sql: &str) {
    let numbers = format!(
        "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < {MANY}) {sql}"
    );
    Connection::open(place.path()).unwrap().execute_batch(&numbers).unwrap();
}

#[test]
fn losses_and_runs_of_many_segments_are_read() {
    let place = Place::new();
    drop(place.writer(settings()));
    let columns = "n, n, '0123abcd', n, 0, 0, '', '', '', NULL, NULL, NULL, NULL, NULL, NULL, NULL";
    fill(&place, &format!("INSERT INTO segment SELECT {columns} FROM numbers"));
    fill(&place, "INSERT INTO loss SELECT n, n, n, 'ring', 'change', 1 FROM numbers");
    fill(&place, "INSERT INTO stopped SELECT n, n, n FROM numbers WHERE n % 2");
    let reader = place.reader();
    let losses = reader.losses(0, i64::MAX).unwrap();
    assert_eq!((losses.len(), reader.losses(5, 7).unwrap().len()), (MANY, 3));
    let runs = reader.runs().unwrap();
    assert_eq!(runs.iter().filter(|run| run.stopped).count(), MANY / 2);
}

#[test]
fn endpoints_that_share_a_cookie_are_read() {
    const CHILDREN: u64 = 20_000;
    let place = Place::new();
    let mut writer = place.writer(settings());
    let child = |n: u64| {
        let mut events = story(7, 40_000);
        events.iter_mut().for_each(|event| event.endpoint.id.began = ns(n));
        events.into_iter().map(item)
    };
    write(&mut writer, &(1..=CHILDREN).flat_map(child).collect::<Vec<_>>());
    let reader = place.reader();
    reader.stand_still().unwrap();
    let found = reader.connections(&Query { cookie: Some(7), ..Query::default() }).unwrap();
    assert_eq!(found.len() as u64, CHILDREN);
    assert!(found.iter().all(|end| end.events.len() == 2));
}

#[test]
fn endpoint_with_many_events_in_a_batch_is_written_and_read() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    let open = story(7, 40_000).remove(0);
    let mut state = open.clone();
    state.kind = EventKind::State;
    let events = std::iter::once(open).chain(std::iter::repeat_n(state, MANY));
    write(&mut writer, &events.map(item).collect::<Vec<_>>());
    let reader = place.reader();
    let id = EndpointId { cookie: 7, began: ns(7000) };
    assert_eq!(reader.end("0123abcd", id).unwrap().unwrap().events.len(), MANY + 1);
}
