//! The walk, over tables of connections and processes that are made here.

use std::sync::Arc;

use super::*;
use crate::clock::BootClock;
use crate::model::Cookie;
use crate::model::tests::ns;
use crate::origin::Verdict;
use crate::process::Birth;
use crate::tracker::tests::event;
use crate::tracker::{ConnectionEvent, EventKind as Event, Party, ProcessBasis};

mod passed_on;

const HERE: &str = "10.0.0.1:80";
const FAR: &str = "192.0.2.9:5555";
const AWAY: &str = "198.51.100.7:443";

/// A process that was forked at `at`.
fn process(pid: u32, parent: Option<&Arc<Process>>, at: u64, cause: Option<u64>) -> Arc<Process> {
    changed(&crate::process::tests::process(pid, parent), |process| {
        process.birth = Some(Birth { at: ns(at), cause: Cause::of_socket(cause.and_then(Cookie::new)) });
    })
}

fn changed(process: &Arc<Process>, change: impl FnOnce(&mut Process)) -> Arc<Process> {
    let mut process = Process::clone(process);
    change(&mut process);
    Arc::new(process)
}

/// The first process, and a service below it that is older than the recording.
fn daemon() -> Arc<Process> {
    let init = crate::process::tests::process(1, None);
    changed(&crate::process::tests::process(10, Some(&init)), |daemon| {
        daemon.cgroup = "/system.slice/web.service".into();
    })
}

fn inside(pid: u32, parent: &Arc<Process>, at: u64, cause: Option<u64>) -> Arc<Process> {
    changed(&process(pid, Some(parent), at, cause), |process| process.cgroup = parent.cgroup.clone())
}

struct Story(LiveHistory);

impl Story {
    fn new() -> Self {
        Self(LiveHistory::default())
    }

    fn life(&mut self, events: Vec<ConnectionEvent>) -> Life {
        let life = Life::new("b".into(), BootClock::now().unwrap(), events).unwrap();
        self.0.lives.push(life.clone());
        life
    }

    /// An inbound connection that `by` accepted at `at`, and that the others used later.
    fn inbound(
        &mut self,
        cookie: u64,
        from: &str,
        at: u64,
        ended: Option<u64>,
        by: &[&Arc<Process>],
    ) -> Life {
        let mut accept = event(Event::Accept, HERE, Some(from));
        accept.at = ns(at);
        accept.endpoint.cookie = Cookie::new(cookie);
        accept.endpoint.id = EndpointId { cookie, began: ns(at) };
        accept.endpoint.verdict = Verdict::ACCEPT;
        accept.endpoint.process = Some(Actor::leader(by[0].clone()));
        accept.endpoint.process_basis = Some(ProcessBasis::Accept);
        let mut events = vec![accept];
        for (nth, user) in by.iter().enumerate().skip(1) {
            let mut used = events[0].clone();
            used.kind = Event::Handover;
            used.at = ns(at + nth as u64);
            used.endpoint.process = Some(Actor::leader((*user).clone()));
            used.endpoint.process_basis = Some(ProcessBasis::Handover);
            events.push(used);
        }
        if let Some(ended) = ended {
            events.push(ConnectionEvent {
                at: ns(ended),
                kind: Event::Close,
                ..events.last().unwrap().clone()
            });
        }
        self.life(events)
    }

    fn outbound(&mut self, cookie: u64, to: &str, at: u64, by: &Arc<Process>, cause: Option<u64>) -> Life {
        let mut open = event(Event::Open, "10.0.0.1:40000", Some(to));
        open.at = ns(at);
        open.endpoint.cookie = Cookie::new(cookie);
        open.endpoint.id = EndpointId { cookie, began: ns(at) };
        open.endpoint.verdict = Verdict::CONNECT;
        open.endpoint.originator = Some(Actor::leader(by.clone()));
        open.endpoint.process = open.endpoint.originator.clone();
        open.endpoint.process_basis = Some(ProcessBasis::Connect);
        open.endpoint.cause = Cause::of_socket(cause.and_then(Cookie::new));
        self.life(vec![open])
    }

    fn trace(&self, life: &Life) -> Trace {
        trace(&self.0, life.clone()).unwrap()
    }
}

fn pids(trace: &Trace) -> Vec<u32> {
    let pid = |step: &Step| match &step.what {
        What::Process(actor) | What::Message { writer: actor, .. } | What::Stream { holder: actor, .. } => {
            Some(actor.process.key.pid)
        }
        What::Connection(_) => None,
    };
    trace.chain.iter().filter_map(pid).collect()
}

fn from(trace: &Trace) -> (OriginKind, Option<String>, Confidence) {
    let endpoint = trace.origin.endpoint.map(|(ip, port)| format!("{ip}:{port}"));
    (trace.origin.kind, endpoint, trace.origin.confidence)
}

fn remote(confidence: Confidence) -> (OriginKind, Option<String>, Confidence) {
    (OriginKind::Remote, Some(FAR.into()), confidence)
}

#[test]
fn inbound_connection_was_caused_by_its_peer() {
    let mut story = Story::new();
    let life = story.inbound(5, FAR, 100, None, &[&daemon()]);
    let trace = story.trace(&life);
    assert_eq!(from(&trace), remote(Confidence::Observed));
    assert!(trace.chain.is_empty());
}

#[test]
fn daemon_s_child_belongs_to_the_connection_it_read_from() {
    let mut story = Story::new();
    let daemon = daemon();
    story.inbound(4, "192.0.2.1:1", 90, None, &[&daemon]);
    story.inbound(5, FAR, 100, Some(130), &[&daemon]);
    let middle = inside(11, &daemon, 120, Some(5));
    let worker = inside(12, &middle, 121, None);
    let out = story.outbound(7, AWAY, 900, &worker, None);
    let trace = story.trace(&out);
    assert_eq!(from(&trace), remote(Confidence::Inferred));
    assert_eq!(pids(&trace), [12, 11, 10]);
    assert!(trace.origin.possible.is_empty());
}

#[test]
fn other_open_connections_are_no_cause() {
    let mut story = Story::new();
    let daemon = daemon();
    let open = story.inbound(5, FAR, 100, None, &[&daemon]);
    let job = inside(11, &daemon, 120, None);
    let out = story.outbound(7, AWAY, 130, &job, None);
    let trace = story.trace(&out);
    assert_eq!(from(&trace).0, OriginKind::Service);
    assert_eq!(trace.origin.process.as_ref().unwrap().process.key.pid, 10);
    assert_eq!(trace.origin.possible.iter().map(Life::id).collect::<Vec<_>>(), [open.id()]);
}

#[test]
fn child_forked_for_a_connection_used_it() {
    let mut story = Story::new();
    let daemon = daemon();
    let child = inside(11, &daemon, 101, None);
    story.inbound(4, "192.0.2.1:1", 90, None, &[&daemon]);
    story.inbound(5, FAR, 100, Some(500), &[&daemon, &child]);
    let shell = inside(12, &child, 300, None);
    let out = story.outbound(7, AWAY, 900, &shell, None);
    assert_eq!(from(&story.trace(&out)), remote(Confidence::Observed));
}

#[test]
fn a_program_was_started_on_it() {
    let mut story = Story::new();
    let daemon = daemon();
    let shell = changed(&inside(11, &daemon, 101, None), |shell| shell.stdio = [5, 5, 0].map(Cookie::new));
    story.inbound(5, FAR, 100, None, &[&daemon]);
    let out = story.outbound(7, AWAY, 900, &inside(12, &shell, 300, None), None);
    let trace = story.trace(&out);
    assert_eq!(from(&trace), remote(Confidence::Observed));
    assert!(trace.chain.last().unwrap().why.contains("stdin of p11[11]"));
}

/// A connection from a reverse shell is followed to the client that started it.
#[test]
fn a_reverse_shell() {
    let mut story = Story::new();
    let daemon = daemon();
    story.inbound(5, FAR, 100, Some(150), &[&daemon]);
    let python = inside(11, &daemon, 120, Some(5));
    let back = story.outbound(6, "203.0.113.1:4444", 200, &python, None);
    let shell = changed(&inside(12, &python, 210, None), |shell| shell.stdio = [6; 3].map(Cookie::new));
    let out = story.outbound(7, AWAY, 900, &shell, None);
    for life in [out, back] {
        let trace = story.trace(&life);
        assert_eq!(from(&trace), remote(Confidence::Observed));
        assert_eq!(pids(&trace).last(), Some(&10));
    }
}

#[test]
fn over_two_hops_on_this_host() {
    let mut story = Story::new();
    let (first, second) = (daemon(), inside(20, &daemon(), 2, None));
    story.inbound(5, FAR, 100, None, &[&first]);
    let hop = story.outbound(6, HERE, 110, &first, Some(5));
    let mut inner = story.inbound(7, "10.0.0.1:40000", 111, None, &[&second]);
    let mut event = inner.last().clone();
    event.endpoint.peer = Some(Party { id: hop.id(), process: None });
    event.endpoint.originator = hop.end().originator.clone();
    story.0.lives.pop();
    inner = story.life(vec![event]);
    let out = story.outbound(8, AWAY, 120, &second, Some(7));
    let trace = story.trace(&out);
    assert_eq!(from(&trace), remote(Confidence::Observed));
    assert_eq!(pids(&trace), [20, 10]);
    // A trace from a connection in the middle has the same origin.
    assert_eq!(from(&story.trace(&inner)), remote(Confidence::Observed));
}

#[test]
fn where_it_ends_without_a_connection() {
    let mut story = Story::new();
    let init = crate::process::tests::process(1, None);
    let in_group = |pid, cgroup: &str| {
        changed(&process(pid, Some(&init), 5, None), |process| process.cgroup = cgroup.into())
    };
    let container = in_group(30, &format!("/system.slice/docker-{}.scope", "ab".repeat(32)));
    let getty = changed(&in_group(31, "/system.slice/getty.service"), |process| process.auid = Some(1000));
    let shell = changed(&inside(32, &getty, 6, None), |shell| {
        shell.auid = Some(1000);
        shell.cgroup = "/user.slice/user-1000.slice/session-2.scope".into();
    });
    let cron = in_group(33, "/system.slice/cron.service");
    let job = changed(&inside(34, &cron, 7, None), |job| job.auid = Some(1000));
    let kernel = changed(&process(35, None, 1, None), |thread| thread.kernel = true);
    let old = crate::process::tests::process(36, Some(&init));
    let lost = process(37, None, 50, None);
    for (nth, (by, kind, at)) in [
        (&inside(40, &container, 9, None), OriginKind::Container, Some(30)),
        (&inside(41, &shell, 9, None), OriginKind::Login, Some(31)),
        (&inside(42, &job, 9, None), OriginKind::Service, Some(33)),
        (&kernel, OriginKind::Kernel, Some(35)),
        (&process(43, Some(&init), 9, None), OriginKind::Boot, Some(1)),
        (&process(44, Some(&old), 9, None), OriginKind::Unknown, Some(36)),
        (&lost, OriginKind::Unknown, Some(37)),
    ]
    .into_iter()
    .enumerate()
    {
        let out = story.outbound(100 + nth as u64, AWAY, 60, by, None);
        let trace = story.trace(&out);
        let process = trace.origin.process.as_ref().map(|actor| actor.process.key.pid);
        assert_eq!((trace.origin.kind, process), (kind, at), "{:?}", trace.origin);
        assert_eq!(kind == OriginKind::Unknown, trace.origin.confidence == Confidence::Unknown);
        assert_eq!(kind == OriginKind::Unknown, !trace.origin.missing.is_empty());
    }
    story.0.gaps.push(Gap { from: ns(1), to: ns(40), records: 9 });
    let trace = story.trace(&story.0.lives.last().unwrap().clone());
    assert!(trace.origin.missing[1].starts_with("9 records"), "{:?}", trace.origin.missing);
}

#[test]
fn where_a_user_logged_in_the_only_connection_is_the_way_in() {
    let mut story = Story::new();
    let daemon = daemon();
    let session = changed(&inside(11, &daemon, 101, None), |session| session.auid = Some(1000));
    story.inbound(5, FAR, 102, None, &[&session]);
    let shell = changed(&inside(12, &session, 103, None), |shell| shell.auid = Some(1000));
    let out = story.outbound(7, AWAY, 900, &shell, None);
    assert_eq!(from(&story.trace(&out)), remote(Confidence::Inferred));
}

#[test]
fn a_circle_ends() {
    let mut story = Story::new();
    let daemon = daemon();
    let mut event = story.inbound(5, FAR, 100, None, &[&daemon]).last().clone();
    event.endpoint.peer = Some(Party { id: EndpointId { cookie: 6, began: ns(101) }, process: None });
    story.0.lives.clear();
    story.life(vec![event]);
    let out = story.outbound(6, HERE, 101, &daemon, Some(5));
    let trace = story.trace(&out);
    assert_eq!(trace.origin.kind, OriginKind::Unknown);
}

#[test]
fn an_endless_chain_ends() {
    let mut story = Story::new();
    let traced = |story: &mut Story, hops: u32| {
        let mut before: Option<Life> = None;
        for hop in 0..hops {
            let (by, at) = (inside(20 + hop, &daemon(), 2, None), 100 + 10 * u64::from(hop));
            let cookie = 2 * u64::from(hop) + 5;
            let mut event = story.inbound(cookie, FAR, at, None, &[&by]).last().clone();
            story.0.lives.pop();
            event.endpoint.peer = before.map(|before| Party { id: before.id(), process: None });
            story.life(vec![event]);
            before = Some(story.outbound(cookie + 1, HERE, at + 5, &by, Some(cookie)));
        }
        story.trace(&before.unwrap())
    };
    let most: u32 = limits::MOST_STEPS.try_into().unwrap();
    // Three steps each.
    assert_eq!(from(&traced(&mut story, most / 3)), remote(Confidence::Observed));
    let trace = traced(&mut Story::new(), most / 3 + 2);
    assert_eq!(trace.origin.kind, OriginKind::Unknown);
    assert!(trace.chain.len() < limits::MOST_STEPS + 3, "{}", trace.chain.len());
}
