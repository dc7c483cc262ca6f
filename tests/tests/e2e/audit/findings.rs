use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};

use nix::libc;
use nix::sys::socket::{AddressFamily, SockFlag, SockProtocol, SockType, socket};
use tests::{Actor, Far, Netns, Running, Store, Watch, in_fresh_netns, skip, stranger_s_copy, until};

use super::{Audit, reasons};
use crate::{actor, port_of};

/// A program that has inherited `fd`, and waits for its stdin, which stays open as long as this.
pub(super) fn holding(program: &str, arguments: &[&str], fd: impl Into<OwnedFd>) -> Running {
    let fd: OwnedFd = fd.into();
    // Without close-on-exec, but set after the fork: no program of another test inherits it.
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
    let number = fd.as_raw_fd();
    let keep = move || {
        // SAFETY: integers only.
        nix::errno::Errno::result(unsafe { libc::fcntl(number, libc::F_SETFD, 0) })?;
        Ok(())
    };
    // SAFETY: fcntl() may be called between fork() and exec().
    unsafe { std::os::unix::process::CommandExt::pre_exec(&mut command, keep) };
    let running = Running::start(&mut command);
    let name = program.rsplit('/').next().unwrap().to_owned();
    until("it is past its exec", || {
        std::fs::read_to_string(format!("/proc/{}/cmdline", running.pid())).is_ok_and(|line| {
            line.contains(&name) || line.contains(arguments.first().copied().unwrap_or("-"))
        })
    });
    running
}

#[test]
fn shell_that_listens_is_a_finding() {
    in_fresh_netns(|| {
        let listener = TcpListener::bind("127.0.0.1:4444").unwrap();
        let shell = holding("/bin/sh", &["-c", "read x"], listener);
        let audit = Audit::take(&[]);
        let finding = audit.finding("shell-listens");
        assert_eq!((&finding["severity"], &finding["process"]["pid"]), (&"high".into(), &shell.pid().into()));
        assert_eq!(finding["local"], crate::address("127.0.0.1:4444"));
        assert_eq!(audit.port("127.0.0.1:4444")["explained"], false);
        assert_eq!(audit.status, Some(3));
    });
}

/// An interpreter that runs a script of a package.
#[test]
fn packaged_script_that_listens_is_no_shell() {
    const SCRIPT: &str = "/usr/bin/shasum";
    if !std::path::Path::new(SCRIPT).exists() || !std::path::Path::new("/var/lib/dpkg/status").exists() {
        return skip(
            "audit::findings::packaged_script_that_listens_is_no_shell",
            "no script of a package's that reads its stdin is here",
        );
    }
    in_fresh_netns(|| {
        let listener = TcpListener::bind("127.0.0.1:4444").unwrap();
        let _script = holding("/usr/bin/perl", &[SCRIPT], listener);
        let audit = Audit::take(&[]);
        audit.has_no("shell-listens");
        assert_eq!(audit.port("127.0.0.1:4444")["package"]["manager"], "dpkg");
    });
}

/// A connection on loopback, both endpoints.
fn pair(at: &str) -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind(at).unwrap();
    let client = TcpStream::connect(at).unwrap();
    (client, listener.accept().unwrap().0)
}

fn with_stdin(program: &str, arguments: &[&str], fd: impl Into<OwnedFd>) -> Running {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::from(fd.into())).stdout(Stdio::null()).stderr(Stdio::null());
    let running = Running::start(&mut command);
    until("it is past its exec", || {
        std::fs::read(format!("/proc/{}/cmdline", running.pid()))
            .is_ok_and(|line| line.starts_with(program.as_bytes()))
    });
    running
}

#[test]
fn shell_with_a_connection_on_stdin_is_a_finding() {
    in_fresh_netns(|| {
        let (_client, server) = pair("127.0.0.1:4444");
        let shell = with_stdin("/bin/sh", &["-c", "read x"], server);
        let audit = Audit::take(&[]);
        let finding = audit.finding("stdio-on-socket");
        assert_eq!(
            (&finding["severity"], &finding["process"]["pid"]),
            (&"critical".into(), &shell.pid().into())
        );
        let evidence = finding["evidence"].as_str().unwrap();
        assert!(evidence.starts_with("stdin of ") && evidence.contains("127.0.0.1:4444"), "{evidence}");
        assert_eq!(audit.status, Some(3));
    });
}

/// As in every systemd service.
#[test]
fn unix_socket_on_stdin_is_no_finding() {
    in_fresh_netns(|| {
        let (_ours, its) = UnixStream::pair().unwrap();
        let shell = with_stdin("/bin/sh", &["-c", "read x"], its);
        let audit = Audit::of_netns("all", &[]);
        let pid = serde_json::Value::from(shell.pid());
        assert!(audit.findings("stdio-on-socket").iter().all(|finding| finding["process"]["pid"] != pid));
    });
}

#[test]
fn packet_socket_on_stdin_is_a_finding() {
    in_fresh_netns(|| {
        let packet = packet();
        let sleep = with_stdin("/bin/sleep", &["600"], packet);
        let audit = Audit::take(&[]);
        assert_eq!(audit.finding("stdio-on-socket")["process"]["pid"], sleep.pid());
        assert!(audit.finding("stdio-on-socket")["evidence"].as_str().unwrap().contains("packet socket"));
    });
}

#[test]
fn other_program_on_a_service_port_is_a_finding() {
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:22 8");
        // A port of no service.
        server.say("listen 127.0.0.1:2222 8");
        let audit = Audit::take(&[]);
        let finding = audit.finding("wrong-program");
        assert_eq!((&finding["severity"], &finding["local"]["port"]), (&"high".into(), &22.into()));
        let port = audit.port("127.0.0.1:22");
        assert_eq!((&port["service"], &port["explained"]), (&"ssh".into(), &false.into()));
        assert!(reasons(port).contains("the port is for ssh"), "{}", reasons(port));
    });
}

#[test]
fn two_programs_on_one_port_are_a_finding() {
    in_fresh_netns(|| {
        let mut first = actor();
        first.say("listen 127.0.0.1:5000 8 reuseport");
        let (_folder, copy) = stranger_s_copy(Actor::program().as_ref(), "thief");
        let mut second = Actor::start(&copy);
        second.say("listen 127.0.0.1:5000 8 reuseport");
        let audit = Audit::take(&[]);
        let finding = audit.finding("shared-port");
        assert_eq!(
            (&finding["severity"], &finding["process"]["pid"]),
            (&"high".into(), &second.pid().into())
        );
    });
}

#[test]
fn two_workers_on_one_port_are_no_finding() {
    in_fresh_netns(|| {
        let (mut first, mut second) = (actor(), actor());
        first.say("listen 127.0.0.1:5000 8 reuseport");
        second.say("listen 127.0.0.1:5000 8 reuseport");
        // A similar case without a finding: on another address.
        let (_folder, copy) = stranger_s_copy(Actor::program().as_ref(), "other");
        let mut other = Actor::start(&copy);
        other.say("listen 127.0.0.2:5000 8 reuseport");
        Audit::take(&[]).has_no("shared-port");
    });
}

#[test]
fn listener_on_an_ephemeral_port_is_a_finding() {
    in_fresh_netns(|| {
        let mut server = actor();
        let given = server.say("listen 127.0.0.1:0 8");
        server.say("listen 127.0.0.1:5000 8");
        // A client's socket is not a listener, although it has such a port.
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect("127.0.0.1:53").unwrap();
        let audit = Audit::take(&[]);
        let finding = audit.finding("ephemeral-listener");
        assert_eq!((&finding["severity"], &finding["local"]), (&"medium".into(), &crate::address(&given)));
    });
}

fn packet() -> OwnedFd {
    let every = SockProtocol::EthAll;
    socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, every).unwrap()
}

#[test]
fn raw_and_packet_sockets_are_findings() {
    in_fresh_netns(|| {
        let raw =
            socket(AddressFamily::Inet, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::Icmp).unwrap();
        let packet = packet();
        let audit = Audit::take(&[]);
        for (code, part) in [("raw-socket", "IP protocol 1"), ("packet-socket", "every frame")] {
            let finding = audit.finding(code);
            assert_eq!(
                (&finding["severity"], &finding["process"]["pid"]),
                (&"high".into(), &std::process::id().into())
            );
            assert!(finding["evidence"].as_str().unwrap().contains(part), "{finding}");
        }
        drop((raw, packet));
        // The socket that ping uses if it may: not a raw one.
        tests::sysctl("net/ipv4/ping_group_range", "0 0");
        // SAFETY: integers only; what is returned is a descriptor of ours, or an error.
        let ping =
            unsafe { libc::socket(libc::AF_INET, libc::SOCK_DGRAM | libc::SOCK_CLOEXEC, libc::IPPROTO_ICMP) };
        assert!(ping >= 0);
        // SAFETY: nothing else refers to it.
        let _ping = unsafe { OwnedFd::from_raw_fd(ping) };
        let audit = Audit::take(&[]);
        audit.has_no("raw-socket");
        audit.has_no("packet-socket");
    });
}

#[test]
fn connection_without_a_known_originator_is_a_finding() {
    in_fresh_netns(|| {
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:20000 8");
        client.say("connect 127.0.0.1:20001 127.0.0.1:20000");
        server.say("accept");
        // The listener shows the originator.
        Audit::take(&[]).has_no("unknown-originator");
        server.say("unlisten");
        let audit = Audit::take(&[]);
        let found = audit.findings("unknown-originator");
        assert_eq!(found.len(), 2, "{found:#?}");
        assert!(found.iter().all(|finding| finding["severity"] == "low"));
        // It is below the default of `--fail-on`, and no port is listened on.
        assert_eq!(audit.status, Some(0));
        assert_eq!(Audit::take(&["--fail-on", "low"]).status, Some(3));
    });
}

/// The store has what a snapshot cannot show.
#[test]
fn recorded_connection_has_a_known_originator() {
    in_fresh_netns(|| {
        let store = Store::new();
        let mut watch = Watch::recording(&store.path(), &[]);
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:20000 8");
        client.say("connect 127.0.0.1:20001 127.0.0.1:20000");
        server.say("accept");
        watch.expect("accept", |event| event["event"] == "accept");
        server.say("unlisten");
        watch.finish();
        Audit::take(&["--store", store.path().to_str().unwrap()]).has_no("unknown-originator");
    });
}

#[test]
fn wildcard_listener_with_only_local_peers_is_a_finding() {
    in_fresh_netns(|| {
        let (store, far) = (Store::new(), Far::away());
        let mut watch = Watch::recording(&store.path(), &[]);
        let mut server = actor();
        let (local, open) = (server.say("listen 0.0.0.0:5000 8"), server.say("listen 0.0.0.0:5001 8"));
        let mut client = actor();
        client.say("connect - 127.0.0.1:5000");
        client.say("connect - 127.0.0.1:5001");
        let visitor = far.connect(port_of(&open));
        for port in [5000, 5001, 5001] {
            watch.expect("open", |event| event["event"] == "open" && event["local"]["port"] == port);
        }
        watch.finish();
        let audit = Audit::take(&["--store", store.path().to_str().unwrap()]);
        let finding = audit.finding("only-local-peers");
        assert_eq!((&finding["severity"], &finding["local"]), (&"info".into(), &crate::address(&local)));
        let port = audit.port(&open);
        assert_eq!(port["connections"]["count"], 2);
        let from = port["connections"]["from"].as_array().unwrap();
        assert!(from.iter().any(|from| from["ip"] == far.ip.as_str() && from["count"] == 1), "{port:#}");
        assert!(port["since"].is_string() && port["started_by"]["pid"] == server.pid(), "{port:#}");
        drop(visitor);
    });
}

/// For datagrams there are flows, but no time when the socket was bound.
#[test]
fn flows_to_a_datagram_socket_are_counted() {
    in_fresh_netns(|| {
        let store = Store::new();
        let mut watch = Watch::recording(&store.path(), &[]);
        let (mut server, mut client) = (actor(), actor());
        server.say("udp bind 127.0.0.1:5005");
        client.say("udp bind 127.0.0.1:5006");
        client.say("udp send sendto 10 127.0.0.1:5005");
        server.say("udp recv recvfrom");
        for port in [5005, 5006] {
            watch.expect("open", |event| event["event"] == "open" && event["local"]["port"] == port);
        }
        watch.finish();
        let audit = Audit::take(&["--store", store.path().to_str().unwrap()]);
        let port = audit.port("127.0.0.1:5005");
        assert_eq!((&port["connections"]["count"], &port["since"]), (&1.into(), &serde_json::Value::Null));
        assert_eq!(audit.port("127.0.0.1:5006")["connections"], serde_json::Value::Null);
    });
}

/// Each namespace's sockets are its own.
#[test]
fn other_namespaces_are_audited_too() {
    in_fresh_netns(|| {
        let elsewhere = Netns::fresh();
        let mut server = elsewhere.inside(actor);
        server.say("listen 127.0.0.1:4321 8");
        assert_eq!(Audit::take(&[]).kind("port").count(), 0);
        let audit = Audit::of_netns(&elsewhere.inum().to_string(), &[]);
        let port = audit.port("127.0.0.1:4321");
        assert_eq!(
            (&port["netns"], &port["process"]["pid"]),
            (&elsewhere.inum().into(), &server.pid().into())
        );
    });
}
