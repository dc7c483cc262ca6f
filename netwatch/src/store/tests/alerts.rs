//! Alerts are recorded, hashed and read back.

use super::*;
use crate::alert::{Alert, Level, Rule};
use crate::stream::Item;
use crate::tracker::tests::event;

/// One about a connection of a process, one about a listener, and one about a process alone.
fn alerts() -> Vec<Alert> {
    let rule = |level, code: Option<&str>| {
        let code = code.map(Into::into);
        Arc::new(Rule { id: "x'\"".into(), title: "T\n".into(), level, tags: vec!["attack.t1".into()], code })
    };
    let mut open = event(EventKind::Open, "10.0.0.1:40000", Some("[2001:db8::1]:443"));
    open.at = ns(7);
    open.endpoint.process = Some(Actor::leader(crate::process::tests::process(4, None)));
    let status = ExeStatus { state: ExeState::Memfd, world_writable: true };
    open.facts.exe.process = Some(status);
    let mut first = Alert::of_event(&rule(Level::High, Some("exe-memfd")), &open, "it\u{202e}");
    first.suppressed = 5;
    first.trace = serde_json::value::to_raw_value(&serde_json::json!({"chain": []})).ok().map(Arc::from);
    let listen = event(EventKind::Listen, "0.0.0.0:22", None);
    let second = Alert::of_event(&rule(Level::Low, None), &listen, "");
    let process = Actor::leader(crate::process::tests::process(9, None));
    let third = Alert::of_process(&rule(Level::Critical, None), ns(8), Some((process, status)), "x");
    vec![first, second, third]
}

/// What is compared.
fn words(alert: &Alert) -> String {
    let process = alert.process.as_ref().map(|(actor, status)| (actor.process.key, *status));
    let about = alert.about.as_ref().map(|about| {
        (
            about.id,
            about.socket.proto,
            about.socket.local,
            about.socket.remote,
            about.socket.netns,
            about.verdict,
        )
    });
    let trace = alert.trace.as_ref().map(|trace| trace.get());
    let Alert { at, rule, detail, suppressed, .. } = alert;
    format!("{at:?} {rule:?} {detail} {about:?} {process:?} {suppressed} {trace:?}")
}

fn read(place: &Place, narrow: Narrow) -> (Vec<String>, usize) {
    let reader = place.reader();
    let mut events = reader.events(narrow, None, None, false).unwrap();
    let (mut found, mut others) = (Vec::new(), 0);
    while let Some(batch) = events.next_batch().unwrap() {
        for item in batch.items {
            match item {
                Item::Alert(alert) => found.push(words(&alert)),
                _ => others += 1,
            }
        }
    }
    (found, others)
}

#[test]
fn alerts_are_read_back_and_hashed() {
    let place = Place::new();
    let mut writer = place.writer(settings());
    let mut items = vec![Entry::Event(event(EventKind::Open, "10.0.0.1:1", Some("10.0.0.2:2")))];
    items.extend(alerts().into_iter().map(|alert| Entry::Alert(Box::new(alert))));
    write(&mut writer, &items);
    write(&mut writer, &[items[1].clone()]);
    writer.close();
    let mut expected: Vec<_> = alerts().iter().map(words).collect();
    expected.push(expected[0].clone());
    expected.sort();
    let sorted = |narrow| {
        let (mut found, others) = read(&place, narrow);
        found.sort();
        (found, others)
    };
    assert_eq!(sorted(Narrow::All), (expected.clone(), 1));
    assert_eq!(sorted(Narrow::Nothing), (expected, 0));
    assert!(place.verified().broken.is_none());
    place.sql("UPDATE alert SET suppressed = 0 WHERE id = 1");
    assert!(place.verified().broken.is_some());
}
