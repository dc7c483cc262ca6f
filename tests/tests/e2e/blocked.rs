//! File systems that do not answer, and a stderr that is not read: neither holds up the event stream.

mod held;

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::{
    Actor, Hanging, Lines, PATIENCE, Recorder, Running, Store, Watch, assert_has, binary, endpoint,
    in_fresh_netns, kind, netwatch, port, until,
};

use crate::actor;

/// Connections of another process meanwhile.
const OTHERS: usize = 200;

/// `None`, with the reason printed, if there is no FUSE.
fn hanging(test: &str) -> Option<Hanging> {
    match Hanging::with(Path::new(Actor::program())) {
        Ok(hanging) => Some(hanging),
        Err(error) => {
            tests::skip(test, &format!("no FUSE file system can be mounted here: {error}"));
            None
        }
    }
}

/// The process object of the process on the hanging file system.
fn of(client: &Actor) -> Value {
    let mut expected = client.object();
    expected["exe_state"] = "unknown".into();
    expected
}

/// So many connections of this process to port 6000. Returns the ports that they came from.
fn connect(times: usize) -> Vec<u16> {
    let server = TcpListener::bind("127.0.0.1:6000").unwrap();
    let to = server.local_addr().unwrap();
    let connection = |_| {
        let client = TcpStream::connect(to).unwrap();
        let _accepted = server.accept().unwrap();
        client.local_addr().unwrap().port()
    };
    (0..times).map(connection).collect()
}

fn opened(events: &[Value]) -> Vec<u16> {
    let is_one = |event: &&Value| kind(event) == "open" && port(event, "remote") == 6000;
    events.iter().filter(is_one).map(|event| port(event, "local")).collect()
}

/// The helper of a netwatch.
fn helper(netwatch: u32) -> u32 {
    let children = format!("/proc/{netwatch}/task/{netwatch}/children");
    let is_one = |pid: &u32| {
        std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "netwatch-host\n")
    };
    let text = std::fs::read_to_string(children).unwrap();
    text.split_whitespace().map(|pid| pid.parse().unwrap()).find(is_one).expect("it has a helper")
}

/// Whether all of its threads have ended. It may not be reaped.
fn has_ended(pid: u32) -> bool {
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    let mut stats = tasks.flatten().filter_map(|task| std::fs::read_to_string(task.path().join("stat")).ok());
    stats.all(|stat| stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with(['Z', 'X'])))
}

#[test]
fn hanging_file_system_holds_up_nothing() {
    in_fresh_netns(|| {
        let Some(hanging) = hanging("blocked::hanging_file_system_holds_up_nothing") else { return };
        let store = Store::new();
        let mut watch = Watch::start(&[]);
        let recorder = Recorder::start(&store.path(), &[]);
        let mut server = actor();
        server.say("listen 127.0.0.1:6001 16");
        let mut client = Actor::start(hanging.program());
        let expected = of(&client);
        hanging.stops_answering();
        client.say("connect 127.0.0.1:2000 127.0.0.1:6001");
        let open = watch.at("open", endpoint(2000, 6001));
        assert_has(&open["process"], expected.clone());
        assert_has(&open["origin"], json!({"side": "local", "basis": "connect", "process": open["process"]}));
        assert!(hanging.unanswered() > 0, "no request came");

        let mut ports = connect(OTHERS);
        client.say("close");
        let close = watch.at("close", endpoint(2000, 6001));
        assert_has(&close["process"], expected);
        let mut shown = opened(watch.events());
        // Both end on the signal that `finish` sends, with complete output.
        let log = watch.finish();
        assert_eq!(log.stderr, "");
        recorder.finish();
        let mut kept = opened(&store.log(&["--netns", &tests::netns().to_string()]));
        for found in [&mut ports, &mut shown, &mut kept] {
            found.sort_unstable();
        }
        assert_eq!(shown, ports);
        assert_eq!(kept, ports);
    });
}

/// The thread that cannot be killed is in the helper.
#[test]
fn helper_ends_when_the_file_system_answers() {
    in_fresh_netns(|| {
        let Some(hanging) = hanging("blocked::helper_ends_when_the_file_system_answers") else { return };
        let mut command = Command::new(binary());
        command.args(["watch", "--json", "--no-seed", "--netns", "self"]).stdin(Stdio::null());
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let lines = Lines::of(running.stdout());
        let next = |what: &str| -> Value {
            let line = lines.next(PATIENCE).unwrap_or_else(|| panic!("in vain: {what}"));
            serde_json::from_str(&line).unwrap()
        };
        assert_eq!(kind(&next("ready")), "ready");
        let helper = helper(running.pid());
        let mut client = Actor::start(hanging.program());
        hanging.stops_answering();
        assert!(client.try_say("connect 127.0.0.1:2000 127.0.0.1:6001").is_err());
        assert_eq!(next("an attempt")["process"]["exe_state"], "unknown");
        running.signal(Signal::SIGTERM);
        assert_eq!(running.ended("netwatch ends").code(), Some(0));
        // The helper does not have the pipe open.
        assert_eq!(lines.next(PATIENCE), None);
        assert!(!has_ended(helper), "the helper still waits for the file system");
        hanging.answers_again();
        until("the helper ends", || has_ended(helper));
    });
}

/// The state is known again when it answers.
#[test]
fn state_is_known_when_the_file_system_answers_again() {
    in_fresh_netns(|| {
        let Some(hanging) = hanging("blocked::state_is_known_when_the_file_system_answers_again") else {
            return;
        };
        let mut watch = Watch::start(&[]);
        let mut client = Actor::start(hanging.program());
        let mut ports = 2000..;
        let mut state = |watch: &mut Watch| {
            let port = ports.next().unwrap();
            assert!(client.try_say(&format!("connect 127.0.0.1:{port} 127.0.0.1:6001")).is_err());
            watch.at("fail", endpoint(port, 6001))["process"]["exe_state"].clone()
        };
        assert_eq!(state(&mut watch), "ok");
        hanging.stops_answering();
        until("it is not known", || state(&mut watch) == "unknown");
        hanging.answers_again();
        until("it is known again", || state(&mut watch) == "ok");
        watch.finish();
    });
}

#[test]
fn commands_end_on_a_hanging_file_system() {
    in_fresh_netns(|| {
        let Some(hanging) = hanging("blocked::commands_end_on_a_hanging_file_system") else { return };
        let (mut client, mut server) = (Actor::start(hanging.program()), actor());
        let expected = of(&client);
        server.say("listen 127.0.0.1:6001 16");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6001");
        client.say("listen 127.0.0.1:6002 16");
        hanging.stops_answering();
        let printed = |arguments: &[&str]| {
            let output = netwatch(arguments);
            let (text, stderr) = (String::from_utf8(output.stdout).unwrap(), output.stderr);
            assert!(!text.is_empty(), "{arguments:?}: {}", String::from_utf8_lossy(&stderr));
            text
        };
        let listed = printed(&["list", "--json"]);
        let rows = listed.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let row = rows.into_iter().find(|row| port(row, "local") == 2000).expect("its socket");
        assert_has(&row["process"], json!({"pid": expected["pid"], "comm": "actor", "exe": expected["exe"]}));
        assert_eq!(row["process"]["exe_state"], "unknown");
        assert!(printed(&["list"]).contains("/actor"));

        let store = Store::new();
        let traced = printed(&["trace", "--format", "json", ":2000"]);
        assert!(traced.contains("\"exe_state\":\"unknown\""), "{traced}");
        assert!(traced.contains(&format!("\"pid\":{}", client.pid())), "{traced}");
        let audited = printed(&["audit", "--json", "--netns", "self"]);
        let port = audited.lines().find(|line| line.contains("6002")).expect("its port");
        assert!(port.contains("\"exe_state\":\"unknown\""), "{port}");
        assert!(printed(&["doctor"]).contains("self-test"));
        drop(store);

        // A netwatch that starts now names it as well.
        let mut late = Watch::start(&[]);
        assert_has(&late.at("seed", endpoint(2000, 6001))["process"], expected);
        late.finish();
    });
}

/// A pipe that is full.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let mut file = std::fs::File::from(writer.try_clone().unwrap());
    while file.write(&[b'x'; 4096]).is_ok() {}
    while file.write(b"x").is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

#[test]
fn blocked_stderr_holds_up_nothing() {
    in_fresh_netns(|| {
        let (_reader, writer) = full_pipe();
        let mut command = Command::new(binary());
        command.args(["watch", "--json", "--no-seed", "--netns", "self"]).env("RUST_LOG", "debug");
        let mut running =
            Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::from(writer)));
        drop(command);
        let lines = Lines::of(running.stdout());
        assert!(lines.next(PATIENCE).expect("it begins").contains("ready"));
        assert!(actor().try_say("connect 127.0.0.1:2000 127.0.0.1:6001").is_err());
        assert!(lines.next(PATIENCE).expect("it goes on").contains("ECONNREFUSED"));
        running.signal(Signal::SIGTERM);
        assert_eq!(running.ended("netwatch ends").code(), Some(0));
    });
}

/// The error is printed before the process exits.
#[test]
fn error_at_the_end_is_printed() {
    let output = netwatch(&["log", "--store", "/no/such/store"]);
    let text = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(text.starts_with("netwatch: ") && text.contains("/no/such/store"), "{text:?}");
}
