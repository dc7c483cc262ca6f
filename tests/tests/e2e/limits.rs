//! Limits on what is read from the host: of a very large process a part is reported, at little cost.

mod full;
mod paths;

use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};

use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use serde_json::Value;
use tests::{Actor, Running, Watch, binary, endpoint, in_fresh_netns, until};

use super::actor;

/// By how much `list` may exceed its memory without such a process, in KiB. It is 1 GiB if 16 MiB of arguments are read
/// whole.
const MOST_MORE: u64 = 16 << 10;

/// Limits on the arguments of a process, in bytes and in number, as in `netwatch/src/limits.rs`.
const MOST_BYTES: usize = 64 << 10;
const MOST_ARGUMENTS: usize = 4096;

/// The objects of `list --json`, and its peak memory in KiB.
fn list() -> (Vec<Value>, u64) {
    let place = tempfile::tempdir().unwrap();
    let output = place.path().join("rows");
    let (binary, output) = (binary(), output.to_str().unwrap());
    let line = format!("peak {output} {} list --json -lt", binary.to_str().unwrap());
    // A new actor, which is small and has had no other children.
    let peak = actor().say(&line).parse().unwrap();
    let rows = std::fs::read_to_string(output).unwrap();
    (rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect(), peak)
}

/// The process of the only listener, listed within the limit on memory; `before`: the peak of `list` without it.
fn listed(before: u64, pid: u32) -> Value {
    let (rows, peak) = list();
    println!("list: {before} KiB without the process, {peak} KiB with it");
    assert!(peak < before + MOST_MORE, "{before} KiB before, {peak} KiB now");
    let [row] = &rows[..] else { panic!("{rows:?}") };
    let process = &row["process"];
    assert_eq!(process["pid"], pid);
    process.clone()
}

fn arguments(process: &Value) -> Vec<&str> {
    let arguments: Vec<_> =
        process["args"].as_array().unwrap().iter().map(|it| it.as_str().unwrap()).collect();
    assert!(arguments.len() <= MOST_ARGUMENTS, "{}", arguments.len());
    let bytes: usize = arguments.iter().map(|argument| argument.len() + 1).sum();
    assert!(bytes <= MOST_BYTES + 2, "{bytes}");
    arguments
}

#[test]
fn long_arguments_are_truncated() {
    in_fresh_netns(|| {
        let before = list().1;
        let mut process = actor();
        process.say("listen 127.0.0.1:6000 8");
        process.say("swell 64 the-first the-last");
        let listed = listed(before, process.pid());
        assert_eq!((&listed["args_truncated"], &listed["args_bytes"]), (&true.into(), &(64 << 20).into()));
        let kept = arguments(&listed);
        assert_eq!((kept.first(), kept.last()), (Some(&"the-first"), Some(&"the-last")));
    });
}

#[test]
fn many_arguments_are_truncated() {
    const MANY: usize = 600_000;
    in_fresh_netns(|| {
        let before = list().1;
        let mut shell = Command::new("sh");
        // With one argument the shell would exec the program that it runs.
        shell
            .args(["-c", "kill -STOP $$; exit", "the-first"])
            .args(std::iter::repeat_n("", MANY))
            .arg("the-last");
        let listener = std::net::TcpListener::bind("127.0.0.1:6000").unwrap();
        shell.stdin(Stdio::from(std::os::fd::OwnedFd::from(listener)));
        // A quarter of the stack is for arguments and the pointers to them, and no more than 6 MiB.
        let hard = getrlimit(Resource::RLIMIT_STACK).unwrap().1;
        assert!(hard == RLIM_INFINITY || hard >= 24 << 20, "the limit on stacks is {hard}");
        // SAFETY: a system call, which allocates nothing.
        unsafe { shell.pre_exec(move || Ok(setrlimit(Resource::RLIMIT_STACK, hard.min(64 << 20), hard)?)) };
        let running = Running::start(&mut shell);
        // The command holds the listener as well.
        drop(shell);
        let shell = running;
        let length = || std::fs::read(format!("/proc/{}/cmdline", shell.pid())).unwrap().len();
        until("the shell has its arguments", || length() > MANY);
        let length = length();
        let listed = listed(before, shell.pid());
        assert_eq!((&listed["args_truncated"], &listed["args_bytes"]), (&true.into(), &length.into()));
        let kept = arguments(&listed);
        assert_eq!(kept[..4], ["sh", "-c", "kill -STOP $$; exit", "the-first"]);
        assert_eq!(kept.last(), Some(&"the-last"));
    });
}

/// The record of an exec has the first 4 KiB of them; the rest is read from the process while it lives.
#[test]
fn long_arguments_of_an_exec_are_completed() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let long = "x".repeat(10_000);
        let connect = "connect 127.0.0.1:2000 127.0.0.1:6000";
        let (input, keep) = std::io::pipe().unwrap();
        let mut command = Command::new(Actor::program());
        command.args(["first", &long, connect, "wait", "the-last"]).stdin(Stdio::from(input));
        let mut client = Running::start(&mut command);
        let process = watch.at("fail", endpoint(2000, 6000))["process"].clone();
        assert_eq!((process.get("args_truncated"), process.get("args_bytes")), (None, None));
        assert_eq!(arguments(&process), [Actor::program(), "first", &long, connect, "wait", "the-last"]);
        drop(keep);
        client.ended("the client ends");
    });
}

/// The record of an exec has the first 4 KiB of them, and is marked as truncated.
#[test]
fn long_arguments_of_an_exec_are_truncated() {
    in_fresh_netns(|| {
        let mut watch = Watch::shared();
        let long = "x".repeat(10_000);
        let mut client = Running::start(Command::new(Actor::program()).args([
            "first",
            &long,
            "connect 127.0.0.1:2000 127.0.0.1:6000",
        ]));
        client.ended("the client ends");
        let process = watch.at("fail", endpoint(2000, 6000))["process"].clone();
        assert_eq!(process["args_truncated"], true);
        let [program, first, cut] = arguments(&process)[..] else { panic!("{process}") };
        assert_eq!((program, first), (Actor::program(), "first"));
        assert!(long.starts_with(cut) && cut.len() > 1000, "{}", cut.len());
    });
}
