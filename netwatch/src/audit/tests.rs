//! The judgement from facts, without a host.

use std::sync::Arc;

use proptest::prelude::*;

use super::baseline::{self, Baseline, Listed};
use super::facts::{Facts, Owner, Ownership, Program, Raw, Script, Server, Stdio};
use super::{By, Code, Report, Severity, judge};
use crate::model::tests::at;
use crate::model::{ExeState, Image, NetnsId, Proto, RawKind};
use crate::process::{Actor, ExeStatus, Process};

const SOUND: ExeStatus = ExeStatus { state: ExeState::Ok, world_writable: false };

/// A program of a package, which no process holds.
fn program(pid: u32, exe: &str) -> Program {
    let mut process = Process::clone(&crate::process::tests::process(pid, None));
    let image = Image { exe: Some(exe.into()), ..Image::clone(&Image::unknown()) };
    process.image = Arc::new(image);
    let owner = Owner { name: "pack".into(), version: Some("1".into()), manager: "dpkg" };
    Program {
        actor: Actor::leader(process.into()),
        exe_status: SOUND,
        owned: Ownership::Package(owner),
        script: None,
        user: Some("root".into()),
        unit: None,
        within: None,
        container: None,
    }
}

fn stray(pid: u32, exe: &str) -> Program {
    Program { owned: Ownership::Nobody, ..program(pid, exe) }
}

pub(super) fn server(local: &str, service: Option<&str>, program: Option<Program>) -> Server {
    Server {
        proto: Proto::Tcp,
        local: at(local),
        v6only: false,
        netns: NetnsId::new(1),
        inode: 5,
        uid: 0,
        holders: program.into_iter().map(Arc::new).collect(),
        service: service.map(Into::into),
        rpc: Vec::new(),
        is_ephemeral: false,
        history: None,
        holders_seen: true,
        device: 0,
        device_name: None,
        on_loopback: false,
        kernel: None,
        reuseport: None,
        owner: None,
        client: None,
    }
}

fn facts(servers: impl IntoIterator<Item = Server>) -> Facts {
    Facts { servers: servers.into_iter().map(Arc::new).collect(), ..Facts::default() }
}

fn report(servers: impl IntoIterator<Item = Server>) -> Report {
    judge(&facts(servers), None)
}

fn by(server: Server) -> Vec<By> {
    report([server]).ports.remove(0).by
}

fn codes(report: &Report) -> Vec<(Code, Severity)> {
    report.findings.iter().map(|finding| (finding.code, finding.severity)).collect()
}

#[test]
fn a_package_explains_with_its_unit_or_container() {
    let sshd = || program(7, "/usr/sbin/sshd");
    assert_eq!(by(server("0.0.0.0:2222", None, Some(sshd()))), []);
    let unit = Program { unit: Some("ssh.service".into()), ..sshd() };
    assert_eq!(by(server("0.0.0.0:2222", None, Some(unit.clone()))), [By::Package, By::Unit]);
    let container = Program { container: Some("abc".into()), ..sshd() };
    assert_eq!(by(server("0.0.0.0:2222", None, Some(container))), [By::Package, By::Container]);
    // The running program is not the packaged one.
    for exe_state in [ExeState::Deleted, ExeState::Memfd, ExeState::Unknown] {
        let gone = Program { exe_status: ExeStatus { state: exe_state, ..SOUND }, ..unit.clone() };
        assert_eq!(by(server("0.0.0.0:2222", None, Some(gone))), [], "{exe_state:?}");
    }
    let stray = Program { unit: Some("ssh.service".into()), ..stray(7, "/usr/sbin/sshd") };
    assert_eq!(by(server("0.0.0.0:2222", None, Some(stray))), []);
}

#[test]
fn a_service_explains_its_own_programs_only() {
    assert_eq!(by(server("0.0.0.0:22", Some("ssh"), Some(program(7, "/usr/sbin/sshd")))), [By::Service]);
    assert_eq!(by(server("0.0.0.0:22", Some("ssh"), Some(program(7, "/usr/bin/socat")))), []);
    // The name of a process is no evidence.
    assert_eq!(by(server("0.0.0.0:22", Some("ssh"), Some(stray(7, "/tmp/sshd")))), []);
    let report = report([
        server("0.0.0.0:22", Some("ssh"), Some(program(7, "/usr/bin/socat"))),
        server("0.0.0.0:23", Some("telnet"), Some(stray(8, "/tmp/x"))),
        server("0.0.0.0:24", Some("of-no-known-program"), Some(stray(9, "/tmp/x"))),
    ]);
    let wrong = [(Code::WrongProgram, Severity::High), (Code::WrongProgram, Severity::Medium)];
    assert_eq!(codes(&report), wrong);
}

#[test]
fn portmapper_explains_only_matching_programs() {
    let registered = |number, program: Option<Program>| Server {
        rpc: vec![(number, None)],
        is_ephemeral: true,
        ..server("0.0.0.0:40000", None, program)
    };
    let (nfs, mountd) = (100_003, 100_005);
    assert_eq!(by(registered(nfs, None)), [By::Portmapper]);
    assert_eq!(by(registered(mountd, Some(program(7, "/usr/sbin/rpc.mountd")))), [By::Portmapper]);
    // The kernel gives it such a port, and it registers it: so the port is intended.
    assert_eq!(codes(&report([registered(nfs, None)])), []);
    // Any program may register anything.
    assert_eq!(by(registered(mountd, Some(stray(7, "/tmp/rpc.mountd")))), []);
    assert_eq!(by(registered(mountd, Some(program(7, "/usr/bin/nc.openbsd")))), []);
    assert_eq!(by(registered(nfs, Some(program(7, "/usr/bin/nc.openbsd")))), []);
    assert_eq!(by(registered(mountd, None)), []);
    // The holders of the socket could not be read.
    assert_eq!(by(Server { holders_seen: false, ..registered(nfs, None) }), []);
    assert_eq!(by(Server { uid: 1000, ..registered(nfs, None) }), []);
    let strange = registered(mountd, Some(stray(7, "/tmp/rpc.mountd")));
    assert!(codes(&report([strange])).contains(&(Code::EphemeralListener, Severity::Medium)));
}

#[test]
fn a_package_has_to_answer_for_everybody_who_has_it_open() {
    let shared = |second: Program| Server {
        holders: [program(7, "/usr/sbin/sshd"), second].map(Arc::new).to_vec(),
        ..server("0.0.0.0:22", Some("ssh"), None)
    };
    assert_eq!(by(shared(program(8, "/usr/sbin/sshd"))), [By::Service]);
    assert_eq!(by(shared(stray(8, "/tmp/x"))), []);
}

#[test]
fn who_listens_for_others_is_neither_right_nor_wrong() {
    let report = report([server("0.0.0.0:5432", Some("postgresql"), Some(program(7, "/usr/bin/stunnel4")))]);
    assert_eq!((report.ports[0].is_explained(), codes(&report)), (false, vec![]));
}

#[test]
fn a_script_has_its_own_name() {
    let owner = Owner { name: "munin-node".into(), version: None, manager: "dpkg" };
    let script = Script::File("/usr/sbin/munin-node".into(), Ownership::Package(owner));
    let munin = Program { script: Some(script), ..program(7, "/usr/bin/perl") };
    let report = report([server("0.0.0.0:4949", Some("munin"), Some(munin))]);
    assert_eq!((report.ports[0].by.as_slice(), codes(&report)), (&[By::Service][..], vec![]));
}

#[test]
fn an_interpreter_is_its_script() {
    let python = |script| Program { script: Some(script), ..program(7, "/usr/bin/python3.11") };
    let severity = |script| {
        let program = Program { unit: Some("x.service".into()), ..python(script) };
        let report = report([server("0.0.0.0:8000", None, Some(program))]);
        (report.ports[0].is_explained(), codes(&report))
    };
    let owner = Owner { name: "pack".into(), version: None, manager: "dpkg" };
    let owned = Script::File("/usr/share/x.py".into(), Ownership::Package(owner));
    assert_eq!(severity(owned), (true, vec![]));
    let own = Script::File("/srv/x.py".into(), Ownership::Nobody);
    assert_eq!(severity(own), (false, vec![(Code::ShellListens, Severity::Medium)]));
    let module = Script::Module("http.server".into());
    assert_eq!(severity(module), (false, vec![(Code::ShellListens, Severity::Medium)]));
    assert_eq!(severity(Script::Text), (false, vec![(Code::ShellListens, Severity::High)]));
}

#[test]
fn a_socket_on_stdin_is_as_bad_as_what_reads_it() {
    let found = |program: Program| {
        let stdio = Stdio {
            program: Arc::new(program),
            fds: vec![0, 1],
            what: "a network socket".into(),
            relay: None,
            proto: None,
            local: None,
            netns: None,
        };
        let report = judge(&Facts { stdio: vec![stdio], ..Facts::default() }, None);
        report.findings[0].severity
    };
    let shell = Program { script: Some(Script::Text), ..program(7, "/bin/sh") };
    assert_eq!(found(shell), Severity::Critical);
    assert_eq!(found(stray(7, "/tmp/x")), Severity::High);
    assert_eq!(found(program(7, "/usr/sbin/in.ftpd")), Severity::Medium);
    let unit = Program { unit: Some("ssh@.service".into()), ..program(7, "/usr/sbin/sshd") };
    assert_eq!(found(unit), Severity::Low);
}

#[test]
fn what_overlaps_is_shared() {
    let shared = |first: &str, second: &str| {
        let second = Server { uid: 1000, ..server(second, None, Some(program(8, "/usr/bin/x"))) };
        let report = report([server(first, None, Some(program(7, "/usr/bin/x"))), second]);
        report.findings.iter().filter(|finding| finding.code == Code::SharedPort).count()
    };
    assert_eq!(shared("127.0.0.1:80", "127.0.0.1:80"), 1);
    assert_eq!(shared("0.0.0.0:80", "127.0.0.1:80"), 1);
    assert_eq!(shared("[::]:80", "127.0.0.1:80"), 1);
    assert_eq!(shared("127.0.0.1:80", "127.0.0.2:80"), 0);
    assert_eq!(shared("127.0.0.1:80", "127.0.0.1:81"), 0);
    // Each on its own interface.
    let bound = |device, program| Server { device, ..server("0.0.0.0:67", None, Some(program)) };
    let report = report([bound(0, program(7, "/usr/sbin/dhcpd")), bound(3, program(8, "/usr/sbin/dnsmasq"))]);
    assert_eq!(codes(&report), []);
}

#[test]
fn only_local_peers_where_others_could_come() {
    let reported = |local: &str, connections, rpc: &[u32], more| {
        let history = super::facts::History { connections, only_local: true, more, ..Default::default() };
        let rpc = rpc.iter().map(|program| (*program, None)).collect();
        let report = report([Server { history: Some(history), rpc, ..server(local, None, None) }]);
        report.findings.into_iter().map(|finding| finding.evidence).collect::<Vec<_>>().join("; ")
    };
    assert!(reported("0.0.0.0:80", 1, &[], false).contains("its only recorded connection"));
    assert!(reported("[::]:2049", 3, &[100_003], false).contains("all of its 3 recorded connections"));
    assert_eq!(reported("0.0.0.0:80", 0, &[], false), "");
    assert_eq!(reported("127.0.0.1:80", 3, &[], false), "");
    // Without a count there is no finding.
    assert_eq!(reported("0.0.0.0:80", 3, &[], true), "");
    // netwatch itself queries it.
    assert_eq!(reported("0.0.0.0:111", 3, &[100_000], false), "");
}

#[test]
fn worst_finding_comes_first_and_decides_the_status() {
    let raw = Raw {
        kind: RawKind::Packet(3),
        netns: NetnsId::new(1),
        inode: 5,
        holders_seen: true,
        holders: vec![Arc::new(stray(7, "/tmp/x"))],
    };
    let unknown =
        Server { is_ephemeral: true, ..server("0.0.0.0:40000", None, Some(program(8, "/usr/bin/x"))) };
    let facts = Facts { raw: vec![raw], ..facts([unknown]) };
    let report = judge(&facts, None);
    let expected = [(Code::PacketSocket, Severity::High), (Code::EphemeralListener, Severity::Low)];
    assert_eq!(codes(&report), expected);
    // The port is not explained: bad at any severity.
    assert!(report.is_bad(Severity::Critical));
    let of_findings = Report { ports: Vec::new(), ..report };
    assert!(of_findings.is_bad(Severity::High) && !of_findings.is_bad(Severity::Critical));
}

#[test]
fn a_baseline_takes_what_it_was_made_of() {
    let servers = || {
        [
            server("0.0.0.0:22", Some("ssh"), Some(stray(7, "/opt/a \"quoted\"\npath"))),
            server("[::1]:5432", None, None),
            Server { is_ephemeral: true, ..server("127.0.0.1:40000", None, Some(stray(9, "/opt/y"))) },
        ]
    };
    let text = baseline::write(&report(servers()), "host\nname", "now");
    let baseline = Baseline::read(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let listed = judge(&facts(servers()), Some(&baseline));
    assert!(listed.ports.iter().all(|port| port.listed == Some(Listed::Listed)), "{text}");
    assert!(!listed.is_bad(Severity::Info), "{text}");
    assert_eq!(listed.notes, Vec::<String>::new());
    // On another ephemeral port.
    let [_, _, changing] = servers();
    let moved = Server { local: at("127.0.0.1:40001"), ..changing };
    assert_eq!(judge(&facts([moved]), Some(&baseline)).ports[0].listed, Some(Listed::Listed));
}

#[test]
fn entries_go_by_what_they_say() {
    let listed = |entry: &str, program: Program| {
        let baseline = Baseline::read(&format!("[[port]]\n{entry}")).unwrap();
        let server = server("10.0.0.1:8000", None, Some(program));
        judge(&facts([server]), Some(&baseline)).ports[0].listed
    };
    let any = "proto = 'tcp'\naddress = 'any'\nport = 'any'";
    assert_eq!(listed(any, stray(7, "/opt/x")), Some(Listed::Listed));
    assert_eq!(listed(&format!("{any}\nexe = '/opt/x'"), stray(7, "/opt/x")), Some(Listed::Listed));
    assert_eq!(listed(&format!("{any}\nexe = '/opt/y'"), stray(7, "/opt/x")), Some(Listed::Changed));
    assert_eq!(listed(&format!("{any}\nuser = 'root'"), stray(7, "/opt/x")), Some(Listed::Listed));
    assert_eq!(listed(&format!("{any}\nuser = 'me'"), stray(7, "/opt/x")), Some(Listed::Changed));
    let unit = Program { unit: Some("x.service".into()), ..stray(7, "/opt/x") };
    assert_eq!(listed(&format!("{any}\nunit = 'x.service'"), unit), Some(Listed::Listed));
    assert_eq!(listed(&format!("{any}\nunit = 'x.service'"), stray(7, "/opt/x")), Some(Listed::Changed));
    let elsewhere = "proto = 'tcp'\naddress = '10.0.0.2'\nport = 8000";
    assert_eq!(listed(elsewhere, stray(7, "/opt/x")), Some(Listed::New));
    assert_eq!(listed("proto = 'udp'\naddress = 'any'\nport = 8000", stray(7, "/opt/x")), Some(Listed::New));
}

/// A written baseline is not wider than the report.
#[test]
fn a_written_baseline_hides_nothing_else() {
    let found = |pid, local: &str| {
        let shell = Program { script: Some(Script::Text), ..program(pid, "/usr/bin/dash") };
        let stdio = Stdio {
            program: Arc::new(shell.clone()),
            fds: vec![0],
            what: "the tcp connection".into(),
            relay: None,
            proto: Some(Proto::Tcp),
            local: Some(at(local)),
            netns: Some(NetnsId::new(1)),
        };
        let listener = server(local, None, Some(shell));
        judge(&Facts { stdio: vec![stdio], ..facts([listener]) }, None)
    };
    let text = baseline::write(&found(7, "10.0.0.1:22"), "host", "now");
    let baseline = Baseline::read(&text).unwrap();
    let listed = |mut report: Report| {
        baseline.apply(&mut report.ports, &mut report.findings);
        report.findings.iter().all(|finding| finding.is_listed)
    };
    assert!(listed(found(8, "10.0.0.1:22")), "{text}");
    assert!(!listed(found(8, "10.0.0.1:4444")), "{text}");
    assert!(!listed(found(8, "10.0.0.2:22")), "{text}");

    // Without a known program: that says nothing about later programs.
    let nobody = baseline::write(&report([server("0.0.0.0:51820", None, None)]), "host", "now");
    let nobody = Baseline::read(&nobody).unwrap();
    let of = |program| judge(&facts([server("0.0.0.0:51820", None, program)]), Some(&nobody)).ports[0].listed;
    assert_eq!((of(None), of(Some(stray(7, "/tmp/x")))), (Some(Listed::Listed), Some(Listed::Changed)));

    // The most severe finding is never written.
    let what = super::views::What::Process { pid: 7 };
    let (shown_by, hidden_by) = (vec![super::views::View::Iterators], vec![super::views::View::Processes]);
    let disagreement = super::views::Disagreement { what, shown_by, hidden_by, program: None };
    let report = judge(&Facts { disagreements: vec![disagreement], ..Facts::default() }, None);
    assert_eq!(Baseline::read(&baseline::write(&report, "host", "now")).unwrap().findings(), 0);
}

proptest! {
    #[test]
    fn no_baseline_panics(text in r#"((\[\[(port|finding)\]\]|proto|address|port|code|exe) ?=? ?('[a-z0-9./]{0,5}'|[0-9]{1,6})?\n){0,8}"#) {
        if let Err(error) = Baseline::read(&text) {
            prop_assert!(!error.contains('\n'));
        }
    }

    /// Whatever the name of a process is, the written baseline can be read.
    #[test]
    fn any_name_is_written_and_read(exe in any::<String>()) {
        let report = report([server("0.0.0.0:22", None, Some(stray(7, &exe)))]);
        let baseline = Baseline::read(&baseline::write(&report, &exe, "now")).unwrap();
        let again = judge(&facts([server("0.0.0.0:22", None, Some(stray(7, &exe)))]), Some(&baseline));
        prop_assert_eq!(again.ports[0].listed, Some(Listed::Listed));
    }
}
