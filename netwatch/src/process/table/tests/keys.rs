//! Keys that are exact, and those of `/proc`.

use super::*;

#[test]
fn pid_that_is_reused_within_a_tick_is_another_process() {
    let mut table = ProcessTable::default();
    let (old, new) = (at_tick(10, 100), at_tick(10, 900_000));
    let of = |key, comm| Task { ppid: 1, ..Task::example(key, comm) };
    let fork = |key, comm| ProcessEvent::Fork(ForkEvent { task: of(key, comm), parent: key_of_init() });
    table.apply(ns(1), &fork(old, "old"));
    table.apply(ns(2), &ProcessEvent::Exit(old));
    table.apply(ns(3), &fork(new, "new"));
    let comm = |table: &ProcessTable, key| table.find(key).map(|process| process.comm.to_string());
    assert_eq!(comm(&table, old).as_deref(), Some("old"));
    assert_eq!(comm(&table, new).as_deref(), Some("new"));
    assert_eq!(comm(&table, at_tick(10, 901_000)), None);
    assert!(table.needs_proc(at_tick(10, 901_000)) && !table.gone.has(new));
    // /proc shows the one that runs.
    assert_eq!(comm(&table, new.coarse()).as_deref(), Some("new"));
    table.learn_one(&ProcessRow {
        facts: ProcessFacts { key: new.coarse(), ..row(10, 1, "new").facts },
        ..row(10, 1, "")
    });
    assert_eq!(table.present(10).unwrap().key, new);
    // What the records of the old one say does not change the new one.
    table.acting(&of(old, "renamed"));
    table.apply(ns(4), &ProcessEvent::Exit(old));
    assert_eq!((comm(&table, old).as_deref(), comm(&table, new).as_deref()), (Some("renamed"), Some("new")));
    table.apply(ns(5), &ProcessEvent::Exit(new));
    assert_eq!((comm(&table, old).as_deref(), comm(&table, new).as_deref()), (Some("renamed"), Some("new")));
    // A third one, of which only /proc was read, is none of the two that ended.
    table.live.insert(
        10,
        Live { process: Arc::new(Process::bare(new.coarse(), "third".into())), epoch: 0, changed: None },
    );
    assert_eq!(comm(&table, new).as_deref(), Some("new"));
    assert_eq!(comm(&table, at_tick(10, 5_000_000)).as_deref(), Some("third"));
    table.apply(ns(6), &ProcessEvent::Exit(new));
    assert_eq!(table.present(10).map(|process| &*process.comm), Some("third"));
    let rows = [ProcessRow {
        facts: ProcessFacts { key: at_tick(10, 7), ..row(10, 1, "x").facts },
        ..row(10, 1, "")
    }];
    table.acting(&of(at_tick(10, 5_000_000), "third"));
    table.keep_only(&rows, ns(u64::MAX));
    assert_eq!(table.present(10), None, "another one has its pid");
}

fn key_of_init() -> ProcessKey {
    ProcessKey::new(1, ns(7))
}

#[test]
fn exact_start_replaces_that_of_proc() {
    let table = || ProcessTable::of(&[row(2, 1, "sh"), row(1, 0, "init")]);
    let is_exact =
        |table: &ProcessTable, pid| table.find(key(pid)).is_some_and(|process| process.key == key(pid));
    assert!(!is_exact(&table(), 2));
    // In whatever record it comes first.
    let moved = CgroupEvent { hierarchy: 0, id: None, path: "/moved".into(), moved: Some(key(2)) };
    for event in
        [fork(1, 2), exec(2, "sh"), fork(2, 3), ProcessEvent::Exit(key(2)), ProcessEvent::Cgroup(moved)]
    {
        let mut table = table();
        table.apply(ns(1), &event);
        assert!(is_exact(&table, 2), "{event:?}");
        // /proc does not take it back.
        table.learn_one(&row(2, 1, "sh"));
        assert!(is_exact(&table, 2), "{event:?}");
    }
    let mut acting = table();
    let mut as_known = Task { uid: 0, auid: None, ppid: 1, cgroup: None, ..task(2, "sh") };
    assert_eq!(acting.acting(&as_known).process.key, key(2));
    assert!(is_exact(&acting, 2));
    as_known.key = as_known.key.coarse();
    assert_eq!(acting.acting(&as_known).process.key, key(2));
    let owner = Owner { key: key(2), tid: 2, at: ns(1) };
    assert_eq!(table().owner(&owner).unwrap().process.key, key(2));
    // A task iterator.
    let mut exact = row(2, 1, "sh");
    exact.key = key(2);
    let mut learnt = table();
    learnt.learn(&[exact], ns(5));
    assert!(is_exact(&learnt, 2));
    // The parent of a child in the same tick.
    let mut table = ProcessTable::default();
    table.apply(ns(1), &fork(1, 5));
    let mut child = row(6, 5, "child");
    child.key = ProcessKey::new(6, key(5).start).coarse();
    table.learn_one(&child);
    assert_eq!(table.present(6).unwrap().parent.as_ref().map(|parent| parent.key), Some(key(5)));
}
