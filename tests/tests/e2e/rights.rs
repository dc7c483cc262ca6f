//! What each command gives up, as `/proc/PID/status` shows it while the command is stuck in its output.

use std::os::fd::OwnedFd;
use std::process::{Command, Stdio};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe;
use serde_json::Value;
use tests::{Recorder, Running, Store, Watch, binary, forced, in_fresh_netns, output, until};

use crate::actor;

mod unit;

/// Bits of capabilities(7).
const DAC_READ_SEARCH: u64 = 1 << 2;
const SYS_PTRACE: u64 = 1 << 19;
const SYS_ADMIN: u64 = 1 << 21;
const BPF: u64 = 1 << 39;

const NET_ADMIN: u64 = 1 << 12;

/// What a run with probes keeps.
const LIVE: u64 = BPF | NET_ADMIN | SYS_ADMIN | SYS_PTRACE | DAC_READ_SEARCH;

/// The rights of a thread.
#[derive(Debug, PartialEq, Eq)]
struct Rights {
    effective: u64,
    permitted: u64,
    no_new_privs: u64,
    seccomp: u64,
}

impl Rights {
    fn only(kept: u64) -> Self {
        Self { effective: kept, permitted: kept, no_new_privs: 1, seccomp: 2 }
    }

    /// `None`: it has ended.
    fn of(path: &str) -> Option<Self> {
        let status = std::fs::read_to_string(format!("{path}/status")).ok()?;
        let value = |key: &str| {
            let value = status.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t"));
            u64::from_str_radix(value.unwrap(), 16).unwrap()
        };
        Some(Self {
            effective: value("CapEff"),
            permitted: value("CapPrm"),
            no_new_privs: value("NoNewPrivs"),
            seccomp: value("Seccomp"),
        })
    }

    fn of_threads(pid: u32) -> Vec<Self> {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
        tasks.filter_map(|task| Self::of(task.path().to_str().unwrap())).collect()
    }
}

/// Waits until all threads of netwatch have only these capabilities, and its helper only those.
#[track_caller]
fn keeps(pid: u32, kept: u64, of_helper: u64) {
    let mut rights = Vec::new();
    let deadline = std::time::Instant::now() + tests::PATIENCE;
    while rights.is_empty() || rights.iter().any(|rights| *rights != Rights::only(kept)) {
        assert!(std::time::Instant::now() < deadline, "in vain: only {kept:x}; it has {rights:x?}");
        rights = Rights::of_threads(pid);
    }
    let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    let helper: u32 = children.split_whitespace().next().expect("a helper").parse().unwrap();
    until("the helper gives up", || {
        Rights::of_threads(helper).iter().all(|rights| *rights == Rights::only(of_helper))
    });
}

/// A pipe without room, and the end to read from.
fn full_pipe() -> (OwnedFd, OwnedFd) {
    let (reader, writer) = pipe().unwrap();
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    while nix::unistd::write(&writer, &[b'\n'; 4096]).is_ok() {}
    while nix::unistd::write(&writer, b"\n").is_ok() {}
    fcntl(&writer, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
    (reader, writer)
}

/// Runs a command that gets stuck in its output, and checks that it has no right any more by then.
#[track_caller]
fn gives_up_all(command: &mut Command, of_helper: u64) {
    let (_reader, writer) = full_pipe();
    let running = Running::start(command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::null()));
    keeps(running.pid(), 0, of_helper);
}

fn a_store() -> Store {
    let store = Store::new();
    let made = store.run("generate", &["--connections", "10"]);
    assert!(made.status.success(), "{made:?}");
    store
}

#[test]
fn readers_of_a_store_keep_nothing() {
    let store = a_store();
    let on = |command: &str| {
        let mut run = Command::new(binary());
        run.arg(command).arg("--store").arg(store.path());
        run
    };
    gives_up_all(&mut on("log"), 0);
    gives_up_all(on("log").args(["--json", "--scan"]), 0);
    gives_up_all(&mut on("verify"), 0);
    gives_up_all(on("verify").arg("--anchor"), 0);
    gives_up_all(on("trace").arg("pid:1"), SYS_PTRACE | DAC_READ_SEARCH);
}

#[test]
fn commands_that_print_once_keep_nothing_while_they_print() {
    in_fresh_netns(|| {
        let (mut server, mut client) = (actor(), actor());
        server.say("listen 127.0.0.1:6000 8");
        client.say("connect 127.0.0.1:2000 127.0.0.1:6000");
        let helper = SYS_PTRACE | DAC_READ_SEARCH;
        for arguments in [
            &["list"][..],
            &["list", "-n"],
            &["list", "--json"],
            &["audit", "--netns", "self"],
            &["audit", "--json", "--netns", "self"],
            &["trace", ":6000"],
        ] {
            gives_up_all(Command::new(binary()).args(arguments), helper);
        }
        gives_up_all(Command::new(binary()).arg("doctor").args(forced()), helper);
    });
}

#[test]
fn runs_with_probes_keep_what_repairs_take() {
    in_fresh_netns(|| {
        let helper = SYS_PTRACE | DAC_READ_SEARCH;
        let watch = Watch::start(&[]);
        keeps(watch.pid(), LIVE, helper);
        watch.finish();

        let store = Store::new();
        let recorder = Recorder::start(&store.path(), &[]);
        keeps(recorder.pid(), LIVE, helper);
        recorder.finish();

        let mut audit = Command::new(binary());
        audit.args(["audit", "--watch", "--json", "--netns", "self"]).args(forced());
        let audit = Running::start(audit.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()));
        keeps(audit.pid(), LIVE, helper);
    });
}

/// A command with probes that lacks some capabilities, by setpriv(1).
fn without(capabilities: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("setpriv");
    command.arg(format!("--bounding-set={capabilities}")).arg(format!("--inh-caps={capabilities}"));
    command.arg(binary()).args(arguments);
    command
}

#[test]
fn missing_capability_is_named_with_the_command() {
    in_fresh_netns(|| {
        for (arguments, name) in [(&["watch"][..], "watch"), (&["doctor"], "doctor"), (&["record"], "record")]
        {
            let store = Store::new();
            let mut command = without("-net_admin", arguments);
            if name == "record" {
                command.arg("--store").arg(store.path());
            }
            let output = output(&mut command);
            let stderr = String::from_utf8(output.stderr).unwrap();
            assert_eq!((output.status.code(), stderr.lines().count()), (Some(1), 1), "{stderr}");
            assert!(stderr.starts_with(&format!("netwatch: {name} lacks CAP_NET_ADMIN (")), "{stderr}");
        }
        let output = output(&mut without("-sys_ptrace", &["watch", "--duration", "0s"]));
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.starts_with("netwatch: watch lacks CAP_SYS_PTRACE ("), "{stderr}");
        assert_eq!(output.status.code(), Some(0), "{stderr}");
    });
}

#[test]
fn doctor_shows_what_is_given_up() {
    in_fresh_netns(|| {
        let doctor: Value = serde_json::from_slice(&tests::doctor(&["--json"]).stdout).unwrap();
        let stages = doctor["rights"]["stages"].as_array().unwrap();
        let of = |what: &str| {
            let stage = stages.iter().find(|stage| stage["what"].as_str().unwrap().starts_with(what));
            stage.unwrap()["keeps"].as_array().unwrap().clone()
        };
        assert_eq!(
            of("watch, top, record"),
            ["CAP_BPF", "CAP_NET_ADMIN", "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]
        );
        assert_eq!(of("log, verify"), [""; 0]);
        let text = String::from_utf8(tests::doctor(&[]).stdout).unwrap();
        for stage in stages {
            assert!(text.contains(stage["what"].as_str().unwrap()), "{text}");
        }
        for lacks in doctor["rights"]["lacks"].as_array().unwrap() {
            assert!(text.contains(lacks.as_str().unwrap()), "{text}");
        }
        // No kernel that the tests run on has no seccomp.
        assert!(!text.contains("seccomp"), "{text}");
    });
}
