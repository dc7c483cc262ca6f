//! Each detection with what raises it and a harmless twin, and the limits of what they remember.

use std::sync::{Arc, Mutex};

use super::*;
use crate::limits;
use crate::loss::{Loss, LossReason};
use crate::model::tests::ns;
use crate::model::{Cookie, ExeState, Image, Payload, SockAddr, Stream, StreamKind};
use crate::origin::{Side, Verdict};
use crate::process::{Actor, Birth, Cause};
use crate::relays::Relayed;
use crate::rules::{Evaluator, Setup};
use crate::stream::{Context, Item};
use crate::tracker::tests::event;
use crate::tracker::{EndpointId, EventKind, Outcome, ProcessBasis};

const SECOND: u64 = 1_000_000_000;

fn program(pid: u32, exe: &str, args: &str, parent: Option<&Arc<Process>>) -> Process {
    let mut process = Process::clone(&crate::process::tests::process(pid, parent));
    let args = crate::model::Arguments::of(args.replace(' ', "\0").as_bytes());
    process.image = Arc::new(Image { exe: Some(exe.into()), args, ..Image::clone(&Image::unknown()) });
    process.comm = exe.rsplit('/').next().unwrap().into();
    process
}

fn connection(kind: EventKind, cookie: u64, ends: [&str; 2], verdict: Verdict) -> ConnectionEvent {
    let mut event = event(kind, ends[0], Some(ends[1]));
    event.endpoint.id = EndpointId { cookie, began: ns(cookie) };
    event.endpoint.cookie = Cookie::new(cookie);
    event.endpoint.verdict = verdict;
    event
}

fn of(mut event: ConnectionEvent, process: &Arc<Process>, state: ExeState) -> ConnectionEvent {
    event.endpoint.process = Some(Actor::leader(process.clone()));
    event.facts.exe.process = Some(ExeStatus { state, world_writable: false });
    event
}

fn context() -> Context {
    Context::of_run("0123abcd").unwrap()
}

/// What some detections find in these items and then in two seconds of silence: codes and details.
fn found_with(setup: Setup, items: &[Item]) -> Vec<(String, Alert)> {
    let mut evaluator = Evaluator::new(setup);
    let (context, mut out) = (context(), Vec::new());
    for item in items {
        evaluator.take(item, &context, &mut out);
    }
    evaluator.tick(ns(1000 * SECOND), &context, &mut out);
    out.into_iter().map(|alert| (alert.rule.id.to_string(), alert)).collect()
}

fn found(detect: &str, items: &[Item]) -> Vec<String> {
    let setup = Setup { detect: detect.parse().unwrap(), ..Setup::default() };
    found_with(setup, items).into_iter().map(|(code, alert)| format!("{code}: {}", alert.detail)).collect()
}

const ENDS: [&str; 2] = ["10.0.0.1:40000", "192.0.2.1:443"];
const INBOUND: [&str; 2] = ["10.0.0.1:80", "192.0.2.9:50000"];

#[test]
fn names_are_unique_and_sets_are_what_they_say() {
    let mut names = CODES();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), TABLE.len());
    let all: Detect = "all".parse().unwrap();
    assert!(all.needs_baseline() && !all.is_by_name() && all.has(Code::ListenerUnexplained));
    assert!(!all.clone().without_baseline().needs_baseline());
    let usual: Detect = "default".parse().unwrap();
    assert!(usual.has(Code::PortScan) && !usual.has(Code::ForwardedForRemote) && !usual.needs_baseline());
    assert!("none".parse::<Detect>().unwrap().is_empty());
    let error = "port-scan,x".parse::<Detect>().unwrap_err();
    assert!(error.contains("`x`: one of all, default, none, shell-on-socket"), "{error}");
}

#[test]
fn shell_on_a_socket_and_a_server_on_one() {
    let start = |exe: &str| {
        let mut process = program(5, exe, "x", None);
        process.stdio = [Cookie::new(7), Cookie::new(7), None];
        process
    };
    let status = ExeStatus { state: ExeState::Ok, world_writable: false };
    let shell = Arc::new(start("/usr/bin/dash"));
    let open = connection(EventKind::Open, 7, ENDS, Verdict::CONNECT);
    let items = [
        Item::Event(open.clone()),
        Item::Process(shell.clone(), status),
        Item::Process(shell.clone(), status),
    ];
    let setup = || Setup { detect: "all".parse().unwrap(), ..Setup::default() };
    let alerts = found_with(setup(), &items);
    assert_eq!(alerts.len(), 1, "once: {alerts:?}");
    let (code, alert) = &alerts[0];
    assert_eq!((&**code, &*alert.detail), ("shell-on-socket", "its stdin and stdout are a network socket"));
    assert_eq!(alert.about.as_ref().map(|about| about.id.cookie), Some(7), "its connection");
    // By an event of the shell.
    let own = of(open.clone(), &shell, ExeState::Ok);
    assert_eq!(found("shell-on-socket", &[Item::Event(own)]).len(), 1);
    let server = Arc::new(start("/usr/sbin/in.ftpd"));
    assert_eq!(found("all", &[Item::Event(open), Item::Process(server, status)]), [""; 0]);
}

/// Says that process 20 steers each shell.
struct Steers(Arc<Mutex<u32>>);

impl Host for Steers {
    fn relayed(&mut self, shells: &[u32], holds: &dyn Fn(u32) -> bool) -> Vec<Relayed> {
        *self.0.lock().unwrap() += 1;
        let of =
            |shell: &u32| Relayed { shell: *shell, holder: 20, between: Vec::new(), kind: StreamKind::Pipe };
        shells.iter().filter(|_| holds(20)).map(of).collect()
    }

    fn judge(&mut self, _: &crate::tracker::Endpoint) -> bool {
        true
    }

    fn unexplained(&mut self) -> Vec<(EndpointId, Vec<String>)> {
        vec![(EndpointId { cookie: 30, began: ns(30) }, vec!["nobody knows".into()])]
    }
}

fn steered(shell: &str, holder: &str, is_connected: bool) -> Vec<String> {
    let mut shell = program(21, "/usr/bin/bash", shell, None);
    shell.streams = [Some(Stream { kind: StreamKind::Pipe, id: 1, at_parent: true }), None, None];
    let holder = Arc::new(program(20, holder, "x", None));
    let mut items = vec![Item::Exec(ns(999 * SECOND), Arc::new(shell))];
    if is_connected {
        let open = connection(EventKind::Open, 7, ENDS, Verdict::CONNECT);
        items.push(Item::Event(of(open, &holder, ExeState::Ok)));
    }
    let host: Box<dyn Host> = Box::new(Steers(Arc::default()));
    let setup = Setup { detect: "shell-relayed".parse().unwrap(), host: Some(host), ..Setup::default() };
    found_with(setup, &items).into_iter().map(|(_, alert)| alert.detail.to_string()).collect()
}

#[test]
fn shell_that_is_steered_and_shells_that_are_not() {
    let expected = "it reads its commands over pipes from ncat[20], which is connected to 192.0.2.1:443";
    assert_eq!(steered("bash -i", "/usr/bin/ncat", true), [expected]);
    assert_eq!(steered("bash script.sh", "/usr/bin/ncat", true), [""; 0], "it has a script");
    assert_eq!(steered("bash -i", "/usr/bin/ncat", false), [""; 0], "nobody is connected");
    assert_eq!(steered("bash -i", "/usr/sbin/sshd", true), [""; 0], "a login");
    assert_eq!(steered("bash -i", "/tmp/sshd", true).len(), 1, "something with that name");
}

/// A shell that was forked because of a connection.
fn executed(shell: &str, parent: &str, verdict: Verdict) -> Vec<String> {
    let parent = Arc::new(program(4, parent, "x", None));
    let mut process = program(5, shell, "x -c id", Some(&parent));
    process.birth = Some(Birth { at: ns(5), cause: Cause::of_socket(Cookie::new(7)) });
    let accept = connection(EventKind::Accept, 7, INBOUND, verdict);
    found("accept-then-shell", &[Item::Event(accept), Item::Exec(ns(9), Arc::new(process))])
}

#[test]
fn shell_because_of_an_accepted_connection_and_other_programs() {
    let expected =
        "accept-then-shell: executed by httpd[4] after it read from the connection of 192.0.2.9:50000";
    assert_eq!(executed("/bin/sh", "/usr/sbin/httpd", Verdict::ACCEPT), [expected]);
    assert_eq!(executed("/usr/bin/convert", "/usr/sbin/httpd", Verdict::ACCEPT), [""; 0], "no shell");
    assert_eq!(executed("/bin/sh", "/usr/sbin/httpd", Verdict::CONNECT), [""; 0], "a connection of its own");
    assert_eq!(executed("/bin/bash", "/usr/sbin/sshd", Verdict::ACCEPT), [""; 0], "a login");
}

#[test]
fn programs_without_a_file_and_replaced_ones() {
    let process = Arc::new(program(5, "/tmp/x", "x", None));
    let open = |state| of(connection(EventKind::Open, 7, ENDS, Verdict::CONNECT), &process, state);
    let codes = |item: ConnectionEvent| {
        let found = found("exe-deleted,exe-memfd", &[Item::Event(item)]);
        found.into_iter().map(|found| found.split(':').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(codes(open(ExeState::Deleted)), ["exe-deleted"]);
    assert_eq!(codes(open(ExeState::Memfd)), ["exe-memfd"]);
    let listen = of(event(EventKind::Listen, "0.0.0.0:4444", None), &process, ExeState::Memfd);
    assert_eq!(codes(listen), ["exe-memfd"]);
    for harmless in [ExeState::Ok, ExeState::Replaced, ExeState::Unknown] {
        assert_eq!(codes(open(harmless)), [""; 0], "{harmless:?}");
    }
    let mut close = open(ExeState::Deleted);
    close.kind = EventKind::Close;
    assert_eq!(codes(close), [""; 0], "it was told of when it began");
}

fn probe(nth: u64, from: &str, port: u16, received: u64) -> Item {
    let local = format!("10.0.0.1:{port}");
    let mut close = connection(EventKind::Close, 100 + nth, [&local, from], Verdict::handshake(Side::Remote));
    close.at = ns(nth * SECOND / 10);
    close.endpoint.process_basis = Some(ProcessBasis::Accept);
    close.outcome = Outcome { bytes: Some(Payload { sent: 5, received }), ..Outcome::default() };
    Item::Event(close)
}

#[test]
fn scan_of_ports_and_clients_of_them() {
    let items: Vec<_> = (0..5).map(|n| probe(n, "192.0.2.9:50000", 20 + n as u16, 0)).collect();
    assert_eq!(
        found("port-scan", &items),
        [
            "port-scan: 192.0.2.9 made 5 connections without a byte to 5 ports within a minute: 20, 21, 22, 23, 24"
        ]
    );
    let talks: Vec<_> = (0..50).map(|n| probe(n, "192.0.2.9:50000", 20 + n as u16, 1)).collect();
    assert_eq!(found("port-scan", &talks), [""; 0], "a client that talks");
    let checks: Vec<_> = (0..99).map(|n| probe(n, "192.0.2.9:50000", 20, 0)).collect();
    assert_eq!(found("port-scan", &checks), [""; 0], "health checks of one port");
    let many: Vec<_> = (0..50).map(|n| probe(n, &format!("192.0.2.{n}:1"), 20 + n as u16, 0)).collect();
    assert_eq!(found("port-scan", &many), [""; 0], "each from somebody else");
    let slow: Vec<_> = (0..50).map(|n| probe(n * 600, "192.0.2.9:50000", 20 + n as u16, 0)).collect();
    assert_eq!(found("port-scan", &slow), [""; 0], "one a minute");
    let refused = |n: u16| {
        let remote = format!("127.0.0.1:{}", 20 + n);
        let mut fail = connection(EventKind::Fail, n.into(), ["127.0.0.1:40000", &remote], Verdict::CONNECT);
        fail.at = ns(n.into());
        Item::Event(fail)
    };
    assert_eq!(found("port-scan", &(1..6).map(refused).collect::<Vec<_>>()).len(), 1, "from this host");
}

fn forwarded(client: &str, to: &str) -> Vec<String> {
    let accept = connection(EventKind::Accept, 7, ["10.0.0.1:1080", client], Verdict::ACCEPT);
    let mut open = connection(EventKind::Open, 8, ["10.0.0.1:40000", to], Verdict::CONNECT);
    open.endpoint.cause = Cause::of_socket(Cookie::new(7));
    found("forwarded-for-remote", &[Item::Event(accept), Item::Event(open)])
}

#[test]
fn connection_for_a_remote_client_and_for_one_of_this_host() {
    let expected =
        "forwarded-for-remote: it connects to 198.51.100.1:22 after it read from its client 192.0.2.9:5";
    assert_eq!(forwarded("192.0.2.9:5", "198.51.100.1:22"), [expected]);
    assert_eq!(forwarded("127.0.0.1:5", "198.51.100.1:22"), [""; 0], "a client of this host");
    assert_eq!(forwarded("192.0.2.9:5", "127.0.0.1:22"), [""; 0], "a server of this host");
}

#[test]
fn listener_that_is_judged_to_be_unexplained() {
    let mut listen = event(EventKind::Listen, "0.0.0.0:4444", None);
    listen.endpoint.id = EndpointId { cookie: 30, began: ns(30) };
    let setup = |host: Box<dyn Host>| Setup {
        detect: "listener-unexplained".parse().unwrap(),
        host: Some(host),
        ..Setup::default()
    };
    let items = [Item::Event(listen)];
    let alerts = found_with(setup(Box::new(Steers(Arc::default()))), &items);
    assert_eq!(alerts.iter().map(|(_, alert)| &*alert.detail).collect::<Vec<_>>(), ["nobody knows"]);
    assert_eq!(found_with(setup(Box::new(crate::rules::NoHost)), &items).len(), 0);
}

#[test]
fn first_times_are_told_of_after_learning() {
    let folder = tempfile::tempdir().unwrap();
    let run = |learn: u64, exe: &str, to: &str| {
        let mut process = program(5, exe, "x", None);
        process.cgroup = "/system.slice/web.service".into();
        let process = Arc::new(process);
        let connect = of(
            connection(EventKind::Open, 7, ["10.0.0.1:40000", to], Verdict::CONNECT),
            &process,
            ExeState::Ok,
        );
        let listen = of(event(EventKind::Listen, "0.0.0.0:80", None), &process, ExeState::Ok);
        let learn = std::time::Duration::from_secs(learn);
        let baseline = Baseline::open(&folder.path().join("b"), learn, jiff::Timestamp::now()).unwrap();
        let setup = Setup { detect: "all".parse().unwrap(), baseline: Some(baseline), ..Setup::default() };
        let found = found_with(setup, &[Item::Event(connect), Item::Event(listen)]);
        found.into_iter().map(|(code, _)| code).collect::<Vec<_>>()
    };
    assert_eq!(run(86_400, "/usr/bin/web", "192.0.2.1:443"), [""; 0], "it learns");
    assert_eq!(run(0, "/usr/bin/web", "192.0.2.77:443"), [""; 0], "the same network");
    assert_eq!(run(0, "/usr/bin/web", "198.51.100.1:443"), ["new-destination"]);
    assert_eq!(run(0, "/usr/bin/web", "198.51.100.1:443"), [""; 0], "once");
    assert_eq!(run(0, "/tmp/x", "192.0.2.1:443"), ["first-connect", "first-listen"]);
    assert_eq!(run(0, "/usr/bin/web", "192.0.2.1:22"), ["new-destination"], "another port");
}

#[test]
fn state_is_limited() {
    let rule =
        Arc::new(Rule { id: "x".into(), title: "x".into(), level: Level::Low, tags: Vec::new(), code: None });
    let mut scans = scans::Scans::default();
    for n in 0..limits::RULE_REMOTES as u64 + 2 {
        let from = SockAddr { ip: std::net::Ipv4Addr::from_bits(n as u32).into(), port: 1 };
        let Item::Event(event) = probe(1, &from.to_string(), 1, 0) else { panic!() };
        scans.event(&rule, &event);
        assert!(scans.remotes() <= limits::RULE_REMOTES);
    }
    let mut relayed = relayed::Relayed::default();
    let mut shells = shells::Shells::default();
    for pid in 1..limits::RULE_PROCESSES as u32 + 3 {
        let mut shell = program(pid, "/bin/sh", "sh", None);
        shell.streams = [Some(Stream { kind: StreamKind::Pipe, id: 1, at_parent: true }), None, None];
        shell.stdio = [Cookie::new(1); 3];
        let shell = Arc::new(shell);
        if pid < limits::RULE_SHELLS as u32 + 3 {
            relayed.exec(&shell, ns(1));
        }
        let status = shell.exe_status();
        assert!(shells.of_process(&rule, &shell, status, ns(1), &Memory::default()).is_some());
    }
    assert_eq!((relayed.shells(), shells.told()), (limits::RULE_SHELLS, limits::RULE_PROCESSES));
}

/// What the detections of `record` cost. Run it with
/// `cargo test --release -p netwatch --lib cost_of -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement"]
fn cost_of_the_usual_detections() {
    const CONNECTIONS: u64 = 100_000;
    let setup = Setup { detect: "default".parse().unwrap(), traces: true, ..Setup::default() };
    let mut evaluator = Evaluator::new(setup);
    let process = Arc::new(program(5, "/usr/bin/curl", "curl x", None));
    let (context, mut out) = (context(), Vec::new());
    let items: Vec<_> = (0..1000)
        .flat_map(|n| {
            let open = of(connection(EventKind::Open, 7 + n, ENDS, Verdict::CONNECT), &process, ExeState::Ok);
            let close = ConnectionEvent { kind: EventKind::Close, ..open.clone() };
            [Item::Event(open), Item::Event(close)]
        })
        .collect();
    let began = std::time::Instant::now();
    for _ in 0..CONNECTIONS / 1000 {
        items.iter().for_each(|item| evaluator.take(item, &context, &mut out));
    }
    let events = u32::try_from(CONNECTIONS * 2).unwrap();
    println!("{:?} an event, {} alerts", began.elapsed() / events, out.len());
}

#[test]
fn walks_are_limited() {
    let setup = Setup {
        detect: "exe-memfd".parse().unwrap(),
        suppress: vec!["0".parse().unwrap()],
        traces: true,
        ..Setup::default()
    };
    let process = Arc::new(program(5, "/tmp/x", "x", None));
    let lost = Item::Loss(jiff::Timestamp::UNIX_EPOCH, Loss::new(LossReason::Ring, [("open", 1)].into()));
    let mut items = vec![lost; limits::RULE_GAPS + 2];
    items.extend((0..u64::from(limits::RULE_WALKS) + 2).map(|n| {
        let open = connection(EventKind::Open, 7 + n, ENDS, Verdict::CONNECT);
        Item::Event(of(open, &process, ExeState::Memfd))
    }));
    let alerts = found_with(setup, &items);
    let walked = alerts.iter().filter(|(_, alert)| alert.trace.is_some()).count();
    assert_eq!((alerts.len(), walked), (limits::RULE_WALKS as usize + 2, limits::RULE_WALKS as usize));
    let trace = alerts[0].1.trace.as_ref().unwrap().get();
    assert!(trace.contains("\"chain\"") && trace.contains("\"origin\""), "{trace}");
}
