//! Processes that are disguised: by their names, their arguments, their programs and their pids.

mod paths;

use std::ffi::OsStr;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{
    Actor, Lines, PATIENCE, Running, Watch, assert_has, binary, endpoint, in_fresh_netns, stranger_s_copy,
    until,
};

use crate::actor;
use crate::expect::{CONN, used_by};

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A refused attempt, which is enough to get a process object.
fn attempt(client: &mut Actor, port: u16, watch: &mut Watch) -> Value {
    let connect = format!("connect 127.0.0.1:{port} 127.0.0.1:6000");
    assert_eq!(client.try_say(&connect), Err("ECONNREFUSED".to_owned()));
    let fail = watch.at("fail", endpoint(port, 6000));
    assert_has(&fail["origin"], json!({"side": "local", "basis": "connect", "process": fail["process"]}));
    fail["process"].clone()
}

#[test]
fn renamed_process_has_its_new_comm() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        let mut expected = client.object();
        for (port, name) in [(2000, "sshd"), (2001, "kworker/0:1"), (2002, "a name of 15 b.")] {
            client.say(&format!("rename {}", hex(name.as_bytes())));
            expected["comm"] = name.into();
            let process = attempt(&mut client, port, &mut watch);
            assert_has(&process, expected.clone());
            assert_eq!(process.get("thread"), None, "{process:#}");
        }
    });
}

/// Terminal escapes, newlines, and bytes that are not UTF-8.
#[test]
fn hostile_comm_stays_valid_json() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        let mut expected = client.object();
        for (port, name, shown) in [
            (2000, &b"\x1b[2J\x1b[31m"[..], "\u{1b}[2J\u{1b}[31m"),
            (2001, b"a\nb\r\tc", "a\nb\r\tc"),
            (2002, b"\xff\xfe\xc3\x28", "\\xff\\xfe\\xc3("),
            (2003, b"\",\"pid\":1,\"x", "\",\"pid\":1,\"x"),
            // Cut within a character: a name has 15 bytes.
            (2004, "aaaaaaaaaaaaaaé".as_bytes(), "aaaaaaaaaaaaaa\\xc3"),
        ] {
            client.say(&format!("rename {}", hex(name)));
            expected["comm"] = shown.into();
            assert_has(&attempt(&mut client, port, &mut watch), expected.clone());
        }
    });
}

#[test]
fn overwritten_arguments_are_those_of_exec() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let mut client = actor();
        client.say(&format!("argv {}", hex(b"/sbin/init\0splash")));
        let shown = std::fs::read(format!("/proc/{}/cmdline", client.pid())).unwrap();
        assert!(shown.starts_with(b"/sbin/init\0splash\0"));
        // As at exec, not as ps shows them.
        let process = attempt(&mut client, 2000, &mut watch);
        assert_has(&process, client.object());
        assert_eq!(process["args"], json!([Actor::program()]));
    });
}

#[test]
fn hostile_arguments_stay_valid_json() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let arguments: [(&[u8], &str); 5] = [
            (b"\x1b]0;title\x07", "\u{1b}]0;title\u{7}"),
            (b"two\nlines", "two\nlines"),
            (b"\xff\xc3\x28", "\\xff\\xc3("),
            (b"", ""),
            (b"\"}\\", "\"}\\"),
        ];
        let mut command = Command::new(Actor::program());
        command.args(arguments.map(|(bytes, _)| OsStr::from_bytes(bytes)));
        let mut client = Running::start(command.arg("connect 127.0.0.1:2000 127.0.0.1:6000"));
        let pid = client.pid();
        client.ended("the client ends");
        let process = watch.at("fail", endpoint(2000, 6000))["process"].clone();
        let mut expected = vec![Actor::program()];
        expected.extend(arguments.map(|(_, shown)| shown));
        expected.push("connect 127.0.0.1:2000 127.0.0.1:6000");
        assert_has(&process, json!({"pid": pid, "comm": "actor", "args": expected}));
    });
}

/// One line per event, and no control characters.
#[test]
fn hostile_bytes_in_text_are_escaped() {
    in_fresh_netns(|| {
        let mut command = Command::new(binary());
        command.args(["watch", "--no-seed", "--netns", "self", "--port", "6000"]);
        let mut running = Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()));
        let lines = Lines::of(running.stdout());
        assert!(lines.next(PATIENCE).unwrap().contains("ready"));
        let (_directory, path) =
            stranger_s_copy(Path::new(Actor::program()), OsStr::from_bytes(b"x\x1b[1m\n\xff\x9b31m"));
        let mut client = Actor::start(&path);
        client.say(&format!("rename {}", hex(b"\x1b[31m\r\n\xffy\x07")));
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6000").is_err());
        let line = lines.next(PATIENCE).unwrap();
        assert!(line.contains(r"\x1b[31m\x0d\x0a\xffy\x07"), "{line:?}");
        assert!(!line.contains(char::is_control), "{line:?}");
        running.signal(Signal::SIGINT);
        assert_eq!(lines.next(PATIENCE), None);
    });
}

/// A program without a file in a file system.
pub(super) fn memfd() -> File {
    let mut file = File::from(memfd_create(c"hidden", MFdFlags::MFD_CLOEXEC).unwrap());
    file.write_all(&std::fs::read(Actor::program()).unwrap()).unwrap();
    // While it is open for writing it cannot be run.
    File::open(format!("/proc/self/fd/{}", file.as_raw_fd())).unwrap()
}

#[test]
fn program_without_a_file_has_exe_state_memfd() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let file = memfd();
        let path = format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd());
        let mut client = Actor::start(&path);
        let mut expected = json!({
            "pid": client.pid(),
            "tid": client.pid(),
            "comm": file.as_raw_fd().to_string(),
            "exe": "/memfd:hidden",
            "exe_state": "memfd",
            "args": [path],
            "uid": 0,
            "user": "root",
            "kernel": false,
        });
        assert_has(&attempt(&mut client, 2000, &mut watch), expected.clone());
        // A process that exits before `/proc` can be read.
        let connect = "connect 127.0.0.1:2001 127.0.0.1:6000";
        let mut client = Running::start(Command::new(&path).arg(connect));
        expected["pid"] = client.pid().into();
        expected["tid"] = client.pid().into();
        expected["args"] = json!([path, connect]);
        client.ended("the client ends");
        assert_has(&watch.at("fail", endpoint(2001, 6000))["process"], expected);
    });
}

/// Attempts until the executable has `state`: the status of a file is cached.
fn attempts(client: &mut Actor, watch: &mut Watch, state: &str) -> Value {
    let mut process = Value::Null;
    let mut ports = 3000..;
    until(state, || {
        process = attempt(client, ports.next().unwrap(), watch);
        process["exe_state"] == state
    });
    process
}

/// The status of a file is cached for 20 ms from the event that asked for it.
fn status_is_forgotten() {
    let now = Instant::now();
    until("it is", || now.elapsed() > Duration::from_millis(50));
}

#[test]
fn program_with_a_deleted_file_has_exe_state_deleted() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (_directory, path) = stranger_s_copy(Path::new(Actor::program()), "gone");
        let mut client = Actor::start(&path);
        // The original path, and the present state.
        let mut expected = client.object();
        expected["comm"] = "gone".into();
        std::fs::remove_file(&path).unwrap();
        expected["exe_state"] = "deleted".into();
        assert_has(&attempt(&mut client, 2000, &mut watch), expected);
    });
}

#[test]
fn program_deleted_while_connected_has_exe_state_deleted() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (_directory, path) = stranger_s_copy(Path::new(Actor::program()), "going");
        let (mut client, mut server) = (Actor::start(&path), actor());
        let mut expected = client.object();
        expected["comm"] = "going".into();
        server.say("listen 127.0.0.1:6001 16");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6001");
        assert_has(&watch.at("open", endpoint(2000, 6001)), used_by(&expected, "connect"));
        std::fs::remove_file(&path).unwrap();
        expected["exe_state"] = "deleted".into();
        assert_has(&attempts(&mut client, &mut watch, "deleted"), expected.clone());
        status_is_forgotten();
        client.say("close");
        assert_has(&watch.at("close", endpoint(2000, 6001)), used_by(&expected, "connect"));
    });
}

/// It deletes its file, connects and exits: when the last event is printed, nothing of it can be read any more.
#[test]
fn program_that_deleted_itself_stays_deleted() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (_directory, path) = stranger_s_copy(Path::new(Actor::program()), "brief");
        let mut server = actor();
        CONN.listens(&mut server);
        let connect = format!("connect {} {}", CONN.client, CONN.server);
        let delete = format!("delete {}", path.display());
        let ended = Command::new(&path).args([&delete, &connect]).status().unwrap();
        assert!(ended.success() && !path.exists());
        for kind in ["open", "close"] {
            let event = watch.at(kind, CONN.client_endpoint());
            let said = json!({"comm": "brief", "exe": path.to_str().unwrap(), "exe_state": "deleted"});
            assert_has(&event["process"], said);
        }
    });
}

/// After the process has ended, nobody can tell a file that was renamed from one that was deleted.
#[test]
fn program_that_was_renamed_is_not_called_deleted() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (directory, path) = stranger_s_copy(Path::new(Actor::program()), "moved");
        let (mut client, mut server) = (Actor::start(&path), actor());
        CONN.listens(&mut server);
        let mut expected = client.object();
        expected["comm"] = "moved".into();
        CONN.connects(&mut client, "");
        assert_has(&watch.at("open", CONN.client_endpoint())["process"], expected.clone());
        std::fs::rename(&path, directory.path().join("elsewhere")).unwrap();
        status_is_forgotten();
        client.kill();
        expected["exe_state"] = "unknown".into();
        assert_has(&watch.at("close", CONN.client_endpoint())["process"], expected);
    });
}

/// Another file has the path now.
#[test]
fn program_with_a_replaced_file_has_exe_state_replaced() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (directory, path) = stranger_s_copy(Path::new(Actor::program()), "replaced");
        let mut client = Actor::start(&path);
        let mut expected = client.object();
        expected["comm"] = "replaced".into();
        assert_has(&attempt(&mut client, 2000, &mut watch), expected.clone());
        let other = directory.path().join("other");
        std::fs::copy("/bin/true", &other).unwrap();
        std::fs::rename(&other, &path).unwrap();
        expected["exe_state"] = "replaced".into();
        assert_has(&attempts(&mut client, &mut watch, "replaced"), expected);
    });
}

/// For such a process `/proc/PID` shows neither program nor arguments nor sockets.
#[test]
fn process_without_its_first_thread_is_named() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let (mut client, mut server) = (actor(), actor());
        CONN.listens(&mut server);
        let mut expected = client.object();
        expected["tid"] = client.say("leaderless survivor").parse::<u32>().unwrap().into();
        expected["thread"] = "survivor".into();
        assert_ne!(expected["tid"], expected["pid"]);
        let exe = format!("/proc/{}/exe", client.pid());
        until("the first thread is gone", || std::fs::read_link(&exe).is_err());
        CONN.connects(&mut client, "");
        let open = watch.at("open", CONN.client_endpoint());
        // The state of the file cannot be determined any more.
        let state = open["process"]["exe_state"].clone();
        assert!(["ok", "unknown"].iter().any(|known| state == *known), "{open:#}");
        expected["exe_state"] = state;
        assert_has(&open, CONN.at_client(&expected));
        assert_has(&open, used_by(&expected, "connect"));
        // A netwatch that starts later names the process as well.
        let mut late = Watch::start(&[]);
        let seed = late.at("seed", CONN.client_endpoint());
        assert_has(&seed["process"], json!({"pid": client.pid(), "comm": "actor", "kernel": false}));
        let exe = &seed["process"]["exe"];
        assert!(exe.is_null() || *exe == expected["exe"], "{seed:#}");
        assert_eq!(seed["process_basis"], "seed");
    });
}

/// The connector has exited and another process has its pid: they are not mixed up, even if the new one receives the
/// same socket.
#[test]
fn reused_pid_is_another_process() {
    in_fresh_netns(|| {
        let directory = tempfile::tempdir().unwrap();
        let mut watch = Watch::shared();
        let (_first_s, path) = stranger_s_copy(Path::new(Actor::program()), "first");
        let mut old = Actor::start(&path);
        let mut connector = old.object();
        connector["comm"] = "first".into();
        let mut server = actor();
        CONN.listens(&mut server);
        CONN.connects(&mut old, "");
        server.say("accept");
        let open = watch.at("open", CONN.client_endpoint());
        assert_has(&open, CONN.at_client(&connector));
        connector["key"] = open["process"]["key"].clone();
        // Its child has the socket, and the parent has exited.
        let pid = old.fork_and_leave();
        old.ended();
        assert_eq!(connector["pid"], pid);
        until("the pid is free", || !Path::new(&format!("/proc/{pid}")).exists());

        let (_second_s, path) = stranger_s_copy(Path::new(Actor::program()), "second");
        let mut new = Actor::start(&path);
        let mailbox = directory.path().join("mailbox");
        new.say(&format!("mailbox {}", mailbox.display()));
        let parent = new.fork_as(pid);
        assert_eq!(new.pid(), pid);
        let mut user = new.object();
        user["comm"] = "second".into();
        new.say(&format!("connect 127.0.0.1:2001 {}", CONN.server));
        let process = watch.at("open", endpoint(2001, 6000))["process"].clone();
        assert_has(&process, user.clone());
        assert_ne!(process["key"], connector["key"]);
        assert_has(&process, json!({"ppid": parent}));
        assert_has(&process["ancestors"][0], json!({"pid": parent, "comm": "second"}));
        user["key"] = process["key"].clone();

        old.say(&format!("give {}", mailbox.display()));
        new.say("take");
        new.say("send 10");
        server.say("recv 10");
        let handover = watch.at("handover", CONN.client_endpoint());
        assert_has(&handover, CONN.at_client(&connector));
        assert_has(&handover, used_by(&user, "handover"));
        new.say("close");
        let closed = CONN.closes(&mut watch, &mut old, &mut server);
        assert_has(&closed[0], CONN.at_client(&connector));
        assert_has(&closed[1], CONN.at_server(&connector));
        let log = watch.finish();
        CONN.kinds(&log, &["open", "handover", "close"], &["open", "accept", "close"]);
    });
}

/// The directory of another process is mounted over that of a process, so that tools that read /proc name the other
/// one.
#[test]
fn process_behind_a_mount_is_named() {
    in_fresh_netns(|| {
        let mut server = actor();
        server.say("listen 127.0.0.1:4444 8");
        let decoy = Running::start(Command::new("sleep").arg("600"));
        let (pid, decoy) = (server.pid(), decoy.pid());
        // In a temporary mount namespace.
        let behind = |command: &str| {
            let script = format!("mount --bind /proc/{decoy} /proc/{pid} && exec \"$0\" {command}");
            tests::output(Command::new("unshare").args(["--mount", "sh", "-c", &script]).arg(binary()))
        };
        let listed = behind("list --json -lt");
        let row: Value = serde_json::from_slice(&listed.stdout).unwrap();
        assert_has(&row["process"], json!({"pid": pid, "comm": "actor", "exe": Actor::program()}));
        let note = String::from_utf8(listed.stderr).unwrap();
        assert!(note.contains(&format!("something is mounted over /proc/{pid}")), "{note}");
        let audited = behind("audit --json --netns self");
        assert_eq!(audited.status.code(), Some(3));
        let text = String::from_utf8(audited.stdout).unwrap();
        let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        let finding = lines.iter().find(|line| line["code"] == "views-disagree").unwrap();
        let evidence = finding["evidence"].as_str().unwrap();
        assert!(evidence.starts_with(&format!("process {pid} ")), "{finding}");
        assert!(evidence.ends_with(&format!(": something is mounted over /proc/{pid}")), "{finding}");
    });
}
