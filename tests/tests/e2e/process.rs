//! Processes that are hard to name, and which process forked them.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};
use tests::{Actor, Running, Watch, assert_has, endpoint, in_fresh_netns, stranger_s_copy, sysctl, until};

use crate::actor;

fn own_comm() -> String {
    std::fs::read_to_string("/proc/self/comm").unwrap().trim_end().to_owned()
}

#[test]
fn process_has_every_key() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
        let process = watch.at("fail", endpoint(2000, 6000))["process"].clone();
        assert_has(&process, client.object());
        let own = std::process::id();
        let exe = std::env::current_exe().unwrap();
        assert_has(&process, json!({"ppid": own}));
        assert_has(
            &process["ancestors"][0],
            json!({"pid": own, "comm": own_comm(), "exe": exe.to_str().unwrap()}),
        );
        // From the parent to the first process.
        let ancestors = process["ancestors"].as_array().unwrap();
        assert_eq!(ancestors.last().unwrap()["pid"], 1, "{process:#}");

        let pid = client.pid();
        let proc = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).unwrap();
        let start = proc("stat").rsplit_once(')').unwrap().1.split(' ').nth(20).unwrap().to_owned();
        let (of, nanoseconds) = process["key"].as_str().unwrap().split_once('@').unwrap();
        assert_eq!(of, pid.to_string());
        // /proc counts in hundredths of a second (USER_HZ), the kernel and the key in nanoseconds.
        assert_eq!(nanoseconds.parse::<u64>().unwrap() / 10_000_000, start.parse::<u64>().unwrap());
        let start: jiff::Timestamp = process["start"].as_str().unwrap().parse().unwrap();
        assert!(start.duration_until(jiff::Timestamp::now()).as_secs() < 60, "{process:#}");

        let nobody = u32::MAX.to_string();
        let auid = Some(proc("loginuid").trim().to_owned()).filter(|auid| *auid != nobody);
        let auid = auid.map_or(Value::Null, |auid| auid.parse::<u32>().unwrap().into());
        assert_eq!(process["auid"], auid);
        // One of its hierarchies: which one is the most useful depends on the host.
        let cgroups = proc("cgroup");
        let mut paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
        assert!(paths.any(|path| process["cgroup"] == path), "{cgroups}{process:#}");
        for key in ["container", "unit"] {
            assert!(process.get(key).is_some(), "no {key}: {process:#}");
        }
    });
}

#[test]
fn thread_is_named_besides_its_process() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let netns = std::fs::File::open("/proc/thread-self/ns/net").unwrap();
        let connector = std::thread::Builder::new().name("a worker".to_owned()).spawn(move || {
            nix::sched::setns(netns, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            let server = std::net::TcpListener::bind("127.0.0.1:6000").unwrap();
            let client = std::net::TcpStream::connect("127.0.0.1:6000").unwrap();
            (nix::unistd::gettid().as_raw(), client.local_addr().unwrap().port(), server)
        });
        let (tid, port, _server) = connector.unwrap().join().unwrap();
        let open = watch.at("open", endpoint(port, 6000));
        for process in [&open["process"], &open["origin"]["process"]] {
            assert_has(
                process,
                json!({"pid": std::process::id(), "tid": tid, "comm": own_comm(), "thread": "a worker"}),
            );
        }
    });
}

#[test]
fn short_lived_client_is_fully_named() {
    in_fresh_netns(|| {
        // No process accepts, so the server sends no FIN. If the answer to the client's FIN comes during its close(),
        // the kernel keeps the socket for this long (`net/ipv4/tcp_input.c`, tcp_rcv_state_process).
        sysctl("net/ipv4/tcp_fin_timeout", "1");
        let mut watch = Watch::shared();
        let mut server = actor();
        server.say("listen 127.0.0.1:6000 16");
        for port in 2000..2010 {
            let connect = format!("connect 127.0.0.1:{port} 127.0.0.1:6000");
            let mut client = Running::start(Command::new(Actor::program()).arg(&connect));
            let pid = client.pid();
            assert!(client.ended("the client ends").success());
            let open = watch.at("open", endpoint(port, 6000));
            let expected = json!({
                "pid": pid,
                "comm": "actor",
                "exe": std::fs::canonicalize(Actor::program()).unwrap().to_str().unwrap(),
                "args": [Actor::program(), connect],
                "uid": 0,
                "user": "root",
                "kernel": false,
            });
            for event in [&open, &watch.at("close", endpoint(port, 6000))] {
                assert_has(&event["process"], expected.clone());
                assert_has(&event["origin"]["process"], expected.clone());
                assert_has(
                    &event["process"]["ancestors"][0],
                    json!({"pid": std::process::id(), "comm": own_comm()}),
                );
            }
            let accepted_endpoint = watch.at("open", endpoint(6000, port));
            assert_has(&accepted_endpoint["origin"]["process"], expected.clone());
            assert_has(&open["origin"], json!({"side": "local", "basis": "connect"}));
        }
    });
}

#[test]
fn ancestors_are_the_processes_that_forked() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        // As a daemon does: its parents exit before it does anything.
        let grandparent = client.fork_and_leave();
        let parent = client.fork_and_leave();
        client.ended();
        let pid = client.pid();
        let present_parent = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            stat.rsplit_once(')').unwrap().1.split(' ').nth(2).unwrap().parse::<u32>().unwrap()
        };
        until("the parent is gone", || present_parent() != parent);
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
        let process = watch.at("fail", endpoint(2000, 6000))["process"].clone();
        assert_has(&process, client.object());
        assert_eq!(process["ppid"], present_parent());
        let pids: Vec<_> = (0..3).map(|nth| process["ancestors"][nth]["pid"].clone()).collect();
        assert_eq!(pids, [parent, grandparent, std::process::id()], "{process:#}");
        for nth in 0..2 {
            let exe = client.object()["exe"].clone();
            assert_has(&process["ancestors"][nth], json!({"comm": "actor", "exe": exe}));
        }
    });
}

#[test]
fn exited_shell_is_an_ancestor() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        // A background job gets /dev/null as its stdin unless it is redirected.
        let mut shell = Command::new("sh");
        shell.args(["-c", r#"exec 3<&0; "$0" <&3 &"#, Actor::program()]);
        let mut client = Actor::start_as(Path::new(Actor::program()), &mut shell);
        client.ended();
        assert_ne!(client.started(), client.pid());
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
        let process = watch.at("fail", endpoint(2000, 6000))["process"].clone();
        assert_has(&process, client.object());
        let sh = std::fs::canonicalize("/bin/sh").unwrap();
        assert_has(
            &process["ancestors"][0],
            json!({"pid": client.started(), "comm": "sh", "exe": sh.to_str().unwrap()}),
        );
        assert_eq!(process["ancestors"][1]["pid"], std::process::id());
    });
}

/// The name of a file, and so of a process, may have any bytes.
#[test]
fn a_name_with_control_characters_stays_valid_json() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let name = OsStr::from_bytes(b"a\"\\\n\x1b[31m\xff");
        let (_directory, path) = stranger_s_copy(Path::new(Actor::program()), name);
        let mut client = Actor::start(&path);
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
        let process = watch.at("fail", endpoint(2000, 6000))["process"].clone();
        assert_eq!(process["comm"], "a\"\\\n\u{1b}[31m\\xff");
        assert!(process["exe"].as_str().unwrap().ends_with("/a\"\\\n\u{1b}[31m\\xff"), "{process:#}");
    });
}
