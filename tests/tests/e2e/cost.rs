//! What a connection costs the kernel side, in records, bytes and runs of programs: counts, which do not depend on the
//! speed of the machine. Other activity of the host is counted as well and can only add to them: so one round below the
//! limits proves that they hold, and one above them proves nothing.

use std::collections::BTreeMap;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use serde_json::Value;
use tests::{Lines, PATIENCE, Presence, Running, binary, forced, in_fresh_netns, kind};

/// Enough that the start and other activity hardly count.
const CONNECTIONS: u64 = 1000;

/// Two opens, an accept, two closes.
const EVENTS: u64 = 5;

/// If all of them are above the limits, other activity of the host is worth examining.
const ROUNDS: u32 = 5;

/// Of a connection with both endpoints on this host.
#[derive(Clone, Copy, Debug)]
struct Cost {
    records: f64,
    bytes: f64,
    /// Of BPF programs.
    runs: f64,
}

/// connect(), accept(), and for each endpoint one transition that opens and one that closes it: the first use by the
/// acceptor causes no record. The start of netwatch adds 20 in total.
const RECORDS: f64 = 6.4;

/// Two records that name a task (168 bytes), and four that do not (136).
const BYTES: f64 = 930.0;

/// 77, of which 19 are for UDP and 16 for names of hosts: each packet passes a cgroup hook at both endpoints. Three look
/// whether the socket of a call is a UNIX socket. A separate acknowledgement, on a slow machine, makes four more.
const RUNS: f64 = 81.5;

/// The rungs for which runs are limited, as counted. Other rungs have other programs.
const WAYS: [(&str, &str); 6] = [
    ("unix", "tp_btf/sock_{send,recv}_length for UNIX sockets"),
    ("state", "tp_btf/inet_sock_set_state"),
    ("accept", "tracepoint/sys_exit_accept{,4}"),
    ("use", "tp_btf/sock_{send,recv}_length"),
    ("connect", "cgroup/connect{4,6} + tracepoint/sys_{enter,exit}_connect"),
    ("udp", "cgroup_skb + cgroup/sock_{create,release}"),
];

/// As long as this exists the kernel counts runs of programs.
struct Counting(String);

const STATS: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl Counting {
    fn begin() -> Self {
        let before = fs::read_to_string(STATS).unwrap();
        fs::write(STATS, "1").unwrap();
        Self(before)
    }
}

impl Drop for Counting {
    fn drop(&mut self) {
        let _ = fs::write(STATS, &self.0);
    }
}

/// Runs so far of the programs of a process; each program counts once, however many descriptors refer to it.
fn runs(pid: u32) -> u64 {
    let mut programs = BTreeMap::new();
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap_or_default();
        let value =
            |key: &str| text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse::<u64>().ok());
        programs.extend(value("prog_id:").zip(value("run_cnt:")));
    }
    programs.values().sum()
}

fn connection(server: &TcpListener) {
    let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
    let (mut accepted, _) = server.accept().unwrap();
    client.write_all(b"a").unwrap();
    accepted.read_exact(&mut [0]).unwrap();
    drop(client);
    assert_eq!(accepted.read(&mut [0]).unwrap(), 0);
}

/// With a separate netwatch, which logs its number of records when it exits.
fn round() -> (Value, Cost) {
    let mut command = Command::new(binary());
    command.args(["watch", "--json", "--netns", "self", "--event", "open,accept,close"]).args(forced());
    command.env("RUST_LOG", "netwatch::agent=debug").stdin(Stdio::null());
    let mut netwatch = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (lines, complaints) = (Lines::of(netwatch.stdout()), Lines::of(netwatch.stderr()));
    let next = || serde_json::from_str(&lines.next(PATIENCE).expect("netwatch is running")).unwrap();
    let ready: Value = next();
    assert_eq!(kind(&ready), "ready");
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let before = runs(netwatch.pid());
    (0..CONNECTIONS).for_each(|_| connection(&server));
    let mut emitted = 0;
    while emitted < EVENTS * CONNECTIONS {
        let event: Value = next();
        assert_ne!(kind(&event), "loss", "{event}");
        emitted += 1;
    }
    let runs = runs(netwatch.pid()) - before;
    netwatch.signal(Signal::SIGINT);
    let (mut records, mut bytes) = (0, 0);
    while let Some(line) = complaints.next(PATIENCE) {
        // `[… DEBUG netwatch::agent] 12 records, 3456 bytes`
        let words: Vec<_> = line.split_whitespace().collect();
        if let [.., count, "records,", size, "bytes"] = words[..] {
            (records, bytes) = (count.parse().unwrap(), size.parse().unwrap());
        }
    }
    assert!(records > 0, "netwatch does not log its records");
    assert!(netwatch.ended("netwatch ends").success());
    let each = |count: u64| count as f64 / CONNECTIONS as f64;
    (ready, Cost { records: each(records), bytes: each(bytes), runs: each(runs) })
}

#[test]
fn connection_costs_no_more_than_the_limits() {
    in_fresh_netns(|| {
        let _alone = Presence::alone();
        let _counting = Counting::begin();
        let mut seen = Vec::new();
        for _ in 0..ROUNDS {
            let (ready, cost) = round();
            let probes = &ready["coverage"]["probes"];
            let runs_are_known = WAYS.iter().all(|(job, probe)| probes[*job] == *probe);
            if cost.records <= RECORDS && cost.bytes <= BYTES && (cost.runs <= RUNS || !runs_are_known) {
                return;
            }
            seen.push(cost);
        }
        panic!("more than {RECORDS} records, {BYTES} bytes or {RUNS} runs in every round: {seen:#?}");
    });
}
