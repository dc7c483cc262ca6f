//! The table, by sequences of records and snapshots.

mod keys;

use super::*;
use crate::decode::CgroupEvent;
use crate::limits;
use crate::model::tests::ns;
use crate::model::{Arguments, CgroupId, Cookie, ExeState, StreamKind};
use crate::process::Cause;

/// The exact key, as in records.
fn key(pid: u32) -> ProcessKey {
    at_tick(pid, 1)
}

/// The same, that many nanoseconds into its tick.
fn at_tick(pid: u32, nanoseconds: u64) -> ProcessKey {
    ProcessKey::new(pid, ns(u64::from(pid) * 10_000_000 + nanoseconds))
}

fn task(pid: u32, comm: &str) -> Task {
    Task { cgroup: CgroupId::new(7), ..Task::example(key(pid), comm) }
}

fn row(pid: u32, ppid: u32, exe: &str) -> ProcessRow {
    let bare = Process::bare(key(pid).coarse(), exe.into()).facts;
    let facts = ProcessFacts { ppid, image: image(exe), cgroup: "/row".into(), ..bare };
    ProcessRow { facts, argv0: Box::default() }
}

fn image(exe: &str) -> Arc<Image> {
    Arc::new(Image {
        exe: Some(exe.into()),
        exe_state: ExeState::Ok,
        file: (1, 1),
        mntns: 0,
        args: Arguments::default(),
    })
}

fn fork(parent: u32, child: u32) -> ProcessEvent {
    ProcessEvent::Fork(ForkEvent { task: task(child, "x"), parent: key(parent) })
}

fn exec(pid: u32, exe: &str) -> ProcessEvent {
    ProcessEvent::Exec(ExecEvent {
        task: task(pid, exe),
        image: image(exe),
        stdio: [None; 3],
        streams: [None; 3],
    })
}

fn lineage(table: &ProcessTable, pid: u32) -> Vec<String> {
    let ancestors = table.find(key(pid)).unwrap().ancestors();
    ancestors.map(|p| format!("{}:{}", p.key.pid, p.image.exe.as_deref().unwrap_or("-"))).collect()
}

#[test]
fn a_double_fork_keeps_the_true_lineage() {
    let mut table = ProcessTable::of(&[row(2, 1, "sh"), row(1, 0, "init")]);
    assert_eq!(lineage(&table, 2), ["1:init"]);
    for event in [fork(2, 10), exec(10, "launcher"), fork(10, 11), ProcessEvent::Exit(key(10))] {
        table.apply(ns(1), &event);
    }
    table.apply(ns(1), &exec(11, "daemon"));
    assert_eq!(lineage(&table, 11), ["10:launcher", "2:sh", "1:init"]);
    // The process that adopted it is in ppid only.
    let actor = table.acting(&task(11, "daemon"));
    assert_eq!((actor.process.ppid, actor.process.image.exe.as_deref()), (1, Some("daemon")));
    // A later exec of the shell does not change its child's lineage.
    table.apply(ns(1), &exec(2, "other"));
    assert_eq!(lineage(&table, 11)[1], "2:sh");
}

#[test]
fn a_process_keeps_how_it_was_forked_and_what_it_was_started_on() {
    let mut table = ProcessTable::of(&[row(2, 1, "httpd")]);
    let on_77 = [77, 77, 0].map(Cookie::new);
    let forked = Task { cause: Cookie::new(77), ..task(10, "httpd") };
    table.apply(ns(5), &ProcessEvent::Fork(ForkEvent { task: forked, parent: key(2) }));
    let ProcessEvent::Exec(mut sh) = exec(10, "sh") else { panic!() };
    sh.stdio = on_77;
    sh.streams[2] = Some(Stream { kind: StreamKind::Pipe, id: 5, at_parent: true });
    table.apply(ns(6), &ProcessEvent::Exec(sh));
    table.apply(ns(7), &fork(10, 11));
    let sh = table.find(key(10)).unwrap();
    let because = |cause, at| Some(Birth { at: ns(at), cause: Cause::of_socket(Cookie::new(cause)) });
    assert_eq!((&sh.birth, sh.stdio), (&because(77, 5), on_77));
    let child = table.find(key(11)).unwrap();
    assert_eq!((&child.birth, child.stdio), (&because(0, 7), on_77));
    // The shell's parent has the other end, not the shell.
    assert_eq!(child.streams[2], Some(Stream { kind: StreamKind::Pipe, id: 5, at_parent: false }));
    assert_eq!(
        child.ancestors().map(|p| p.birth.as_ref().map(|birth| birth.at)).collect::<Vec<_>>(),
        [Some(ns(5)), None]
    );
}

#[test]
fn a_reused_pid_is_another_process() {
    let mut table = ProcessTable::default();
    table.apply(ns(1), &fork(1, 10));
    table.apply(ns(1), &exec(10, "old"));
    let before = table.acting(&task(10, "old"));
    table.apply(ns(1), &ProcessEvent::Exit(key(10)));
    let mut again = task(10, "new");
    again.key.start = again.key.start.saturating_add(10_000_000);
    table.apply(ns(1), &ProcessEvent::Fork(ForkEvent { task: again.clone(), parent: key(1) }));
    assert_eq!(table.find(key(10)).unwrap().image.exe.as_deref(), Some("old"));
    assert_eq!(table.find(again.key).unwrap().image.exe, None);
    assert_eq!(table.acting(&again).process.key, again.key);
    assert_eq!(before.process.image.exe.as_deref(), Some("old"));
    // A late exit of the old process does not remove the new one.
    table.apply(ns(1), &ProcessEvent::Exit(key(10)));
    assert_eq!(table.present(10).unwrap().key, again.key);
}

#[test]
fn process_known_only_from_a_record_needs_proc() {
    let mut table = ProcessTable::default();
    assert!(table.needs_proc(key(5)));
    let actor = table.acting(&task(5, "five"));
    assert_eq!((&*actor.process.comm, actor.process.image.exe.as_deref()), ("five", None));
    assert!(table.needs_proc(key(5)));
    table.learn_one(&row(5, 1, "/five"));
    assert!(!table.needs_proc(key(5)));
    table.doubt();
    assert!(table.needs_proc(key(5)));
    // The image of a child is doubtful if its parent's is.
    table.apply(ns(1), &fork(5, 6));
    assert!(table.needs_proc(key(6)));
    table.learn_one(&row(5, 1, "/five"));
    table.apply(ns(1), &fork(5, 7));
    assert!(!table.needs_proc(key(7)));
    table.apply(ns(1), &ProcessEvent::Exit(key(5)));
    assert!(!table.needs_proc(key(5)));
}

#[test]
fn snapshot_does_not_undo_later_records() {
    let mut table = ProcessTable::of(&[row(3, 1, "/old")]);
    table.apply(ns(100), &exec(3, "/new"));
    table.learn(&[row(3, 1, "/old")], ns(50));
    assert_eq!(table.find(key(3)).unwrap().image.exe.as_deref(), Some("/new"));
    // A later snapshot is newer than the record: the file is another one.
    let mut later = row(3, 1, "/newer");
    later.image = Arc::new(Image { file: (1, 2), ..Image::clone(&later.image) });
    table.learn(&[later], ns(150));
    assert_eq!(table.find(key(3)).unwrap().image.exe.as_deref(), Some("/newer"));
}

#[test]
fn renamed_process_may_have_another_image() {
    let mut table = ProcessTable::default();
    table.learn_named(&row(3, 1, "later"), "sooner");
    let process = table.find(key(3)).unwrap();
    assert_eq!((&*process.comm, process.image.exe.as_deref()), ("sooner", None));
    table.learn_named(&row(4, 1, "same"), "same");
    assert_eq!(table.find(key(4)).unwrap().image.exe.as_deref(), Some("same"));
}

#[test]
fn a_new_name_makes_another_value() {
    let mut table = ProcessTable::of(&[row(3, 1, "a")]);
    let first = table.acting(&task(3, "a"));
    let second = table.acting(&task(3, "renamed"));
    assert_eq!((&*first.process.comm, &*second.process.comm), ("a", "renamed"));
    assert!(Arc::ptr_eq(&second.process, &table.acting(&task(3, "renamed")).process));
}

#[test]
fn cgroups_are_inherited_and_moved() {
    let mut table = ProcessTable::of(&[row(2, 1, "sh")]);
    table.apply(ns(1), &fork(2, 10));
    assert_eq!(&*table.find(key(10)).unwrap().cgroup, "/row");
    let moved = |pid, path: &str, hierarchy| {
        let moved = (pid != 0).then(|| key(pid));
        ProcessEvent::Cgroup(CgroupEvent { id: CgroupId::new(99), hierarchy, path: path.into(), moved })
    };
    table.apply(ns(1), &moved(0, "/made", 0));
    table.apply(ns(1), &moved(10, "/made", 0));
    assert_eq!(&*table.find(key(10)).unwrap().cgroup, "/made");
    // A v1 hierarchy changes nothing.
    table.apply(ns(1), &moved(10, "/v1", 3));
    assert_eq!(&*table.find(key(10)).unwrap().cgroup, "/made");
    // Forked into a cgroup whose creation was observed.
    let mut born = task(11, "x");
    born.cgroup = CgroupId::new(99);
    let parent = table.acting(&task(2, "sh")).process.key;
    table.apply(ns(1), &ProcessEvent::Fork(ForkEvent { task: born, parent }));
    assert_eq!(&*table.find(key(11)).unwrap().cgroup, "/made");
}

#[test]
fn child_may_be_created_in_another_cgroup() {
    let mut table = ProcessTable::of(&[row(2, 1, "systemd")]);
    let parent = key(2);
    let mut child = |pid, cgroup| {
        let task = Task { cgroup: CgroupId::new(cgroup), ..task(pid, "x") };
        table.apply(ns(1), &ProcessEvent::Fork(ForkEvent { task, parent }));
        (table.knows_cgroup(CgroupId::new(cgroup).unwrap()), table.find(key(pid)).unwrap().cgroup.to_string())
    };
    // The parent was read from /proc, so the id of its cgroup is not known.
    assert_eq!(child(10, 7), (false, "/row".to_owned()));
    let mut table = ProcessTable::of(&[row(2, 1, "systemd")]);
    table.learn_cgroup(CgroupId::new(7).unwrap(), Some("/system.slice/a.service".into()));
    table.learn_cgroup(CgroupId::new(8).unwrap(), None);
    table.learn_cgroup(CgroupId::new(1).unwrap(), Some("/".into()));
    let mut child = |pid, cgroup| {
        let task = Task { cgroup: CgroupId::new(cgroup), ..task(pid, "x") };
        table.apply(ns(1), &ProcessEvent::Fork(ForkEvent { task, parent }));
        table.find(key(pid)).unwrap().cgroup.to_string()
    };
    assert_eq!(child(11, 7), "/system.slice/a.service");
    // Removed, or the root of a hierarchy that is not used.
    assert_eq!((child(12, 8), child(13, 1)), ("/row".to_owned(), "/row".to_owned()));
}

#[test]
fn number_of_cgroups_is_bounded() {
    let mut table = ProcessTable::default();
    for id in 1..=limits::MOST_CGROUPS as u64 + 1 {
        table.learn_cgroup(CgroupId::new(id).unwrap(), Some("/x".into()));
        assert!(table.cgroups.len() <= limits::MOST_CGROUPS);
    }
    assert!(table.knows_cgroup(CgroupId::new(limits::MOST_CGROUPS as u64 + 1).unwrap()));
}

#[test]
fn snapshot_removes_processes_whose_exit_was_lost() {
    let mut table = ProcessTable::of(&[row(2, 1, "a"), row(3, 1, "b")]);
    table.apply(ns(1), &fork(2, 50));
    table.keep_only(&[row(2, 1, "a")], key(40).start);
    assert!(table.present(2).is_some() && table.present(3).is_none() && table.present(50).is_some());
    assert!(table.find(key(3)).is_some());
}

#[test]
fn number_of_exited_processes_is_bounded() {
    let mut table = ProcessTable::default();
    for pid in 1..20_000 {
        table.apply(ns(1), &fork(0, pid));
        table.apply(ns(1), &ProcessEvent::Exit(key(pid)));
    }
    assert_eq!(table.gone.len(), limits::MOST_ENDED_PROCESSES);
    assert!(table.find(key(19_999)).is_some() && table.find(key(1)).is_none());
}

/// At the start the records come after the snapshot, and some are older than it; and a fork may be reported twice.
#[test]
fn late_or_repeated_fork_does_not_reset_a_child() {
    let mut table = ProcessTable::of(&[row(2, 1, "sh"), row(10, 1, "daemon")]);
    table.apply(ns(1), &fork(2, 10));
    let child = table.find(key(10)).unwrap();
    assert_eq!(
        (child.image.exe.as_deref(), &*child.comm, &*child.cgroup),
        (Some("daemon"), "daemon", "/row")
    );
    assert_eq!(child.birth.as_ref().map(|birth| birth.at), Some(ns(1)));
    assert_eq!(lineage(&table, 10), ["2:sh"]);

    for event in [fork(2, 11), exec(11, "worker"), fork(2, 11)] {
        table.apply(ns(2), &event);
    }
    assert_eq!(table.find(key(11)).unwrap().image.exe.as_deref(), Some("worker"));
}

#[test]
fn executable_that_lost_its_last_link_is_deleted() {
    let mut table = ProcessTable::of(&[row(2, 1, "sh")]);
    let state = |table: &ProcessTable, pid| table.find(key(pid)).unwrap().image.exe_state;
    let unlinked = |pid, comm| Task { exe_unlinked: true, ..task(pid, comm) };
    table.acting(&task(2, "sh"));
    assert_eq!(state(&table, 2), ExeState::Ok);
    let child = ForkEvent { task: unlinked(3, "sh"), parent: key(2) };
    table.apply(ns(1), &ProcessEvent::Fork(child));
    assert_eq!((state(&table, 2), state(&table, 3)), (ExeState::Ok, ExeState::Deleted));
    let actor = table.acting(&unlinked(2, "sh"));
    assert_eq!(actor.process.image.exe_state, ExeState::Deleted);
    // /proc of a moment before does not take it back.
    table.learn_one(&row(2, 1, "sh"));
    assert_eq!(state(&table, 2), ExeState::Deleted);
    table.apply(ns(2), &exec(2, "other"));
    assert_eq!(state(&table, 2), ExeState::Ok);
    // A memfd has no link, and is none that was deleted.
    let mut memfd = row(4, 1, "memfd");
    Arc::make_mut(&mut memfd.image).exe_state = ExeState::Memfd;
    table.learn_one(&memfd);
    table.acting(&unlinked(4, "memfd"));
    assert_eq!(state(&table, 4), ExeState::Memfd);
}

#[test]
fn messages_are_found_by_time_and_thread() {
    use crate::decode::{self, Messages, PairEvent};
    use crate::model::Way;
    let mut table = ProcessTable::default();
    for pid in [9, 10] {
        table.apply(ns(1), &fork(1, pid));
    }
    let path: Arc<str> = "/run/php.sock".into();
    table.apply(
        ns(2),
        &ProcessEvent::Pair(PairEvent { writer: key(9), reader: key(10), path: Some(path.clone()) }),
    );
    let wrote = decode::Message { writer: key(9), at: ns(3), way: Way::Unix, inode: 4 };
    table.apply(ns(5), &ProcessEvent::Messages(Messages { tid: 11, messages: vec![wrote] }));
    let child = Task { cause: Cookie::new(77), by_message: true, ..task(11, "php") };
    table.apply(ns(5), &ProcessEvent::Fork(ForkEvent { task: child.clone(), parent: key(10) }));
    let birth = table.find(key(11)).unwrap().birth.clone().unwrap();
    let [message] = birth.cause.messages() else { panic!("{birth:?}") };
    assert_eq!((message.writer.key, message.at, &message.path), (key(9), ns(3), &Some(path)));
    assert_eq!((birth.cause.socket, birth.cause.direct()), (Cookie::new(77), None));

    // Without the record of the messages it is not known who had read from the socket.
    let lost = Task { key: key(12), tid: 12, ..child };
    table.apply(ns(6), &ProcessEvent::Fork(ForkEvent { task: lost, parent: key(10) }));
    assert!(table.find(key(12)).unwrap().birth.as_ref().unwrap().cause.is_none());
}

/// Two daemons that start each other for every message hold no endless chain of each other's former states.
#[test]
fn chains_over_messages_are_bounded() {
    use crate::model::Way;
    use crate::process::Message;
    let mut last = crate::process::tests::process(1, None);
    for pid in 2..2000 {
        let message = Message { writer: last.clone(), at: ns(1), way: Way::Unix, inode: 0, path: None };
        let mut next = Process::clone(&crate::process::tests::process(pid, None));
        next.birth = Some(Birth { at: ns(1), cause: Cause::new(None, vec![message]) });
        let mut table = ProcessTable::default();
        last = table.put(next, 0, None);
    }
    let mut depth = 0;
    let mut at = last;
    while let Some(message) = at.birth.clone().and_then(|birth| birth.cause.messages().first().cloned()) {
        (at, depth) = (message.writer, depth + 1);
    }
    assert!(depth > 1 && depth < 2 * limits::MOST_ANCESTORS, "{depth}");
}
