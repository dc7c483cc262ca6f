//! Lines of JSON.

use super::*;
use crate::model::{CgroupId, tests::ns};
use crate::tracker::{EventKind, tests::event};

#[test]
fn a_process_is_printed_once_though_what_is_not_printed_changes() {
    let printed = |change: fn(&mut Process)| {
        let process = Process::bare(ProcessKey::new(5, ns(0)), "p".into());
        let mut changed = process.clone();
        change(&mut changed);
        let mut json = Json::new(ProcessForm::Once);
        let context = Context::of_run("").unwrap();
        let (mut seq, mut out) = (0, Vec::new());
        for process in [&process, &changed, &process, &changed] {
            let mut event = event(EventKind::Open, "10.0.0.1:1", Some("10.0.0.2:2"));
            event.endpoint.process = Some(Actor::leader(process.clone().into()));
            json.render(&mut seq, &Item::Event(event), &context, &mut out).unwrap();
        }
        String::from_utf8(out).unwrap().matches(r#""event":"process""#).count()
    };
    assert_eq!(printed(|_| {}), 1);
    assert_eq!(printed(|process| process.cgroup_id = CgroupId::new(7)), 1);
    assert_eq!(printed(|process| process.facts.uid = 7), 4);
}

#[test]
fn an_id_is_spelled_as_it_is_printed_elsewhere() {
    let mut json = Json::new(ProcessForm::Full);
    json.turn_to(&Context { boot: "a\"\n\"".into(), ..Context::of_run("").unwrap() });
    for id in [(0, 0), (1, 15), (16, u64::MAX), (0x00ab_cdef_0123, 1 << 60)] {
        let id = EndpointId { cookie: id.0, began: ns(id.1) };
        let mut out = Vec::new();
        json.id(id, &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), format!("a\\\"\\n\\\"-{id}"));
    }
}

#[test]
fn processes_are_printed_again_after_the_limit() {
    let mut json = Json::new(ProcessForm::Once);
    let context = Context::of_run("").unwrap();
    let mut seq = 0;
    let mut print = |json: &mut Json, pid: u32| {
        let mut event = event(EventKind::Open, "10.0.0.1:1", Some("10.0.0.2:2"));
        let process = Process::bare(ProcessKey::new(pid, ns(0)), "p".into());
        event.endpoint.process = Some(Actor::leader(process.into()));
        let mut out = Vec::new();
        json.render(&mut seq, &Item::Event(event), &context, &mut out).unwrap();
        String::from_utf8(out).unwrap().contains(r#""event":"process""#)
    };
    assert!(print(&mut json, 0));
    assert!(!print(&mut json, 0));
    let Printed { process, status, object } = json.printed.values().next().unwrap();
    let again = |n| {
        let printed = Printed { process: process.clone(), status: *status, object: object.clone() };
        (ProcessKey::new(n, ns(1)), printed)
    };
    let others: Vec<_> = (1..limits::MOST_PRINTED).map(|n| again(n.try_into().unwrap())).collect();
    json.printed.extend(others);
    assert!(!print(&mut json, 0));
    assert!(print(&mut json, 1));
    assert!(print(&mut json, 0));
}
