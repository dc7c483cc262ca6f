//! Events of every kind, with processes whose names are hostile.

use std::num::NonZeroU64;
use std::sync::Arc;

use super::*;
use crate::alert::{Alert, Level, Rule};
use crate::clock::BootClock;
use crate::hash::Map;
use crate::loss::{Loss, LossReason};
use crate::model::tests::{at, ns};
use crate::model::{Arguments, Image, Nat, Payload, State, Translation};
use crate::names::{HostName, NameBasis, Names};
use crate::origin::Verdict;
use crate::stream::Ready;
use crate::tracker::{ClosedBy, ConnectionEvent, EventKind, Outcome, Party, ProcessBasis, tests::event};

/// Of the boot at 2026-01-01T00:00:00Z. Its id is hostile, as a store may have it.
pub(in crate::output) fn context() -> Context {
    let clock = BootClock::of_boot(1_767_225_600_000_000_000);
    let mut users = Map::default();
    users.insert(0, Some("root".into()));
    Context { boot: "b\"\t1".into(), clock, run_clock: clock, users: Arc::new(users) }
}

fn process(pid: u32, texts: [&str; 3], parent: Option<&Arc<Process>>) -> Arc<Process> {
    let mut process = Process::clone(&crate::process::tests::process(pid, parent));
    let [comm, exe, args] = texts;
    process.comm = comm.into();
    process.image = Arc::new(Image {
        exe: Some(exe.into()),
        args: Arguments::of(args.as_bytes()),
        ..Image::clone(&Image::unknown())
    });
    process.cgroup = format!("/docker/{}", "a1".repeat(32)).into();
    process.into()
}

fn curl() -> Actor {
    let parent = process(8, ["bash", "/bin/bash", "-bash\0"], None);
    let texts = ["cu\t\"rl\\x09\n", "/usr/bin/\u{202e}lruc\\xff", "curl\0-H\0X: \"1\"\n\0http://h/\0"];
    Actor::new(process(16, texts, Some(&parent)), 17, Some("-".into()))
}

fn nginx() -> Actor {
    Actor::leader(process(9, ["(empty)", "-", ""], None))
}

fn at_second(mut event: ConnectionEvent, second: u64) -> ConnectionEvent {
    event.at = ns(second * 1_000_000_000 + 123_456_789);
    event
}

/// Connections from 10.0.0.1 to another host.
fn outgoing(kind: EventKind, outcome: Outcome) -> Item {
    let mut event = event(kind, "10.0.0.1:40000", Some("192.0.2.1:443"));
    event.endpoint.verdict = Verdict::CONNECT;
    event.endpoint.process = Some(curl());
    event.endpoint.originator = Some(curl());
    event.endpoint.process_basis = Some(ProcessBasis::Connect);
    event.endpoint.handshake = NonZeroU64::new(1_500_000);
    let asked = HostName {
        name: "www.example.org".into(),
        basis: NameBasis::DnsAnswer,
        at: ns(0),
        asked_by: Some(curl().process),
        candidates: 2,
    };
    event.endpoint.nat = Nat::Translated(Arc::new(Translation {
        local: at("203.0.113.9:61000"),
        remote: at("192.0.2.1:443"),
    }));
    event.endpoint.names = Names::new(Some(Arc::new(asked)), None);
    event.facts.service = Some("https");
    event.outcome = outcome;
    Item::Event(at_second(event, 60))
}

/// A connection between two processes of this host, at the endpoint that accepted it.
fn incoming(kind: EventKind, outcome: Outcome) -> Item {
    let mut event = event(kind, "[2001:db8::1]:443", Some("[2001:db8::1]:50000"));
    event.endpoint.family = Family::Ipv6;
    event.endpoint.verdict = Verdict::ACCEPT;
    event.endpoint.process = Some(nginx());
    event.endpoint.process_basis = Some(ProcessBasis::Accept);
    let id = EndpointId { cookie: 9, began: ns(2) };
    event.endpoint.listener = Some(Arc::new(Party { id, process: Some(nginx()) }));
    event.endpoint.peer = Some(Party { id, process: Some(curl()) });
    event.endpoint.originator = Some(curl());
    event.outcome = outcome;
    Item::Event(at_second(event, 61))
}

fn listener(kind: EventKind) -> Item {
    let mut event = event(kind, "0.0.0.0:443", None);
    event.endpoint.state = State::Listen;
    event.endpoint.process = Some(nginx());
    event.endpoint.process_basis = Some(ProcessBasis::Listener);
    Item::Event(at_second(event, 59))
}

/// An event without a process.
fn bare(kind: EventKind, proto: Proto, verdict: Verdict, outcome: Outcome) -> Item {
    let mut event = event(kind, "10.0.0.1:53", Some("10.0.0.2:40000"));
    event.endpoint.proto = proto;
    event.endpoint.verdict = verdict;
    event.outcome = outcome;
    event.repaired = kind == EventKind::Open;
    Item::Event(at_second(event, 62))
}

/// An alert about the connection of an event, and one about a process alone.
fn alerts() -> [Item; 2] {
    let Item::Event(open) = outgoing(EventKind::Open, Outcome::default()) else { panic!() };
    let rule = |level, code: Option<&str>| {
        Arc::new(Rule {
            id: "a\"b".into(),
            title: "Title\t\u{202e}of \"it\"\n".into(),
            level,
            tags: vec!["attack.execution".into(), "attack.t1059.004".into(), "attack.tx".into()],
            code: code.map(Into::into),
        })
    };
    let mut first = Alert::of_event(&rule(Level::High, Some("shell-on-socket")), &open, "what\x1b\n");
    (first.suppressed, first.trace) =
        (3, serde_json::value::to_raw_value(&json!({"chain": []})).ok().map(Arc::from));
    let status = crate::process::ExeStatus { state: crate::model::ExeState::Memfd, world_writable: false };
    let second = Alert::of_process(&rule(Level::Informational, None), open.at, Some((nginx(), status)), "");
    [first, second].map(|alert| Item::Alert(Box::new(alert)))
}

pub(in crate::output) fn scene() -> Vec<Item> {
    use EventKind as K;
    let ready = Ready {
        probes: vec![("accept", Some("fexit")), ("udp", None)],
        unseen: vec!["datagrams"],
        seeded: 2,
    };
    let failed = |errno: nix::errno::Errno| Outcome { errno: Some(errno as i32), ..Outcome::default() };
    let closed = |by, sent, received| Outcome {
        duration: Some(2_500_000_000),
        bytes: Some(Payload { sent, received }),
        closed_by: Some(by),
        errno: None,
    };
    let none = Outcome::default;
    let loss = Loss::new(LossReason::Ring, [("open", 3), ("close", 4)].into());
    let time = context().clock.time(ns(63_000_000_000)).unwrap();
    let [first, second] = alerts();
    vec![
        Item::Ready(ready),
        listener(K::Seed),
        listener(K::Listen),
        bare(
            K::Seed,
            Proto::Tcp,
            Verdict::LISTENER,
            Outcome { bytes: Some(Payload { sent: 1, received: 2 }), ..none() },
        ),
        outgoing(K::Attempt, none()),
        outgoing(K::State, none()),
        outgoing(K::Open, none()),
        incoming(K::Open, none()),
        incoming(K::Accept, none()),
        incoming(K::Handover, none()),
        bare(K::Open, Proto::Udp, Verdict::IDLE, none()),
        bare(K::Open, Proto::Tcp, Verdict::handshake(Side::Remote), none()),
        Item::Loss(time, loss),
        first,
        second,
        outgoing(K::Fail, failed(nix::errno::Errno::ECONNREFUSED)),
        outgoing(K::Fail, failed(nix::errno::Errno::ETIMEDOUT)),
        outgoing(K::Fail, failed(nix::errno::Errno::ENETUNREACH)),
        outgoing(K::Close, closed(ClosedBy::Local, 10, 20)),
        outgoing(K::Close, closed(ClosedBy::ResetRemote, 10, 20)),
        incoming(K::Close, closed(ClosedBy::ResetRemote, 20, 10)),
        bare(K::Close, Proto::Udp, Verdict::CONNECT, closed(ClosedBy::Unknown, 10, 0)),
        bare(K::Close, Proto::Tcp, Verdict::port_range(Side::Remote), closed(ClosedBy::Local, 1, 2)),
        listener(K::Unlisten),
    ]
}

/// The event with this text wherever text from outside is.
pub(super) fn hostile(mut event: ConnectionEvent, texts: &[String; 4]) -> ConnectionEvent {
    let [comm, exe, args, thread] = texts;
    if event.endpoint.process.is_some() {
        let args = args.replace(' ', "\0");
        let parent = process(4, [exe, comm, &args], None);
        let process = process(5, [comm, exe, &args], Some(&parent));
        event.endpoint.process = Some(Actor::new(process, 6, Some(thread.as_str().into())));
    }
    event
}
