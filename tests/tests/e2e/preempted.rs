//! Threads that preempt each other anywhere (PREEMPT_LAZY), also within netwatch's programs, whose run the kernel then
//! skips for the other thread (`netwatch-ebpf/src/twice.rs`). Nothing may be missed, and no loss be reported.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Output};
use std::sync::atomic::{AtomicUsize, Ordering};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{AddressFamily, Backlog, SockaddrIn, bind, listen};
use nix::unistd::Pid;
use serde_json::json;
use tests::{
    Presence, Recorder, Store, Watch, assert_has, in_fresh_netns, is_emulated, kind, mptcp_socket, output,
    skip,
};

/// Does `work` in two threads that share one CPU. With a third, from another test for instance, two programs would not
/// be enough: a thread may be preempted in either.
fn two_in_turn(work: impl Fn() + Sync) {
    let mut first = CpuSet::new();
    first.set(0).unwrap();
    let pinned = || {
        sched_setaffinity(Pid::from_raw(0), &first).unwrap();
        work();
    };
    std::thread::scope(|scope| {
        scope.spawn(pinned);
        scope.spawn(pinned);
    });
}

/// The attempts of both threads, `tries` each.
fn attempts(tries: usize) {
    two_in_turn(|| {
        for _ in 0..tries {
            let error = TcpStream::connect("192.0.2.1:80").unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::ENETUNREACH as i32));
        }
    });
}

#[test]
fn no_attempt_is_missed() {
    const TRIES: usize = 1000;
    in_fresh_netns(|| {
        let mut watch = Watch::alone(&[]);
        attempts(TRIES);
        watch.expect_times("every attempt", 2 * TRIES, |event| kind(event) == "fail");
        let log = watch.finish();
        assert_eq!(log.events.iter().filter(|event| kind(event) == "fail").count(), 2 * TRIES);
    });
}

/// Sets full preemption on a kernel that has the choice, until this is dropped.
struct Full {
    before: String,
}

impl Full {
    const MODES: &str = "/sys/kernel/debug/sched/preempt";

    /// `None` if there is no choice.
    fn choose() -> Option<Self> {
        let modes = with_debugfs(&format!("cat {}", Self::MODES));
        let modes = String::from_utf8(modes.stdout).unwrap();
        let before = modes.split_once('(')?.1.split_once(')')?.0.to_owned();
        Self::set("full");
        Some(Self { before })
    }

    fn set(mode: &str) {
        let set = with_debugfs(&format!("echo {mode} > {}", Self::MODES));
        assert!(set.status.success(), "{set:?}");
    }
}

impl Drop for Full {
    fn drop(&mut self) {
        Self::set(&self.before);
    }
}

fn with_debugfs(command: &str) -> Output {
    let script = format!("mount -t debugfs none /sys/kernel/debug && {command}");
    output(Command::new("unshare").args(["--mount", "sh", "-c", &script]))
}

/// Without preemption no second program is attached; here there must be one.
#[test]
fn no_attempt_is_missed_with_full_preemption() {
    const TRIES: usize = 300;
    let test = "preempted::no_attempt_is_missed_with_full_preemption";
    if !is_emulated() {
        return skip(test, "it changes the preemption mode, which is done in guests only");
    }
    // A netwatch that started before would lack the second programs.
    let _presence = Presence::alone();
    in_fresh_netns(|| {
        let Some(_full) = Full::choose() else {
            return skip(test, "this kernel has no choice of preemption modes");
        };
        let store = Store::new();
        let recorder = Recorder::start(&store.path(), &[]);
        attempts(TRIES);
        recorder.finish();
        assert_eq!(store.log(&["--event", "fail"]).len(), 2 * TRIES);
    });
}

/// Opens and closes a listener; returns whether there is MPTCP. Its sockets are set to states that they already have:
/// no event, and nothing to miss.
fn listens_by_mptcp() -> bool {
    let socket = match mptcp_socket(AddressFamily::Inet) {
        Err(Errno::EPROTONOSUPPORT) => return false,
        made => made.unwrap(),
    };
    bind(socket.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    listen(&socket, Backlog::new(1).unwrap()).unwrap();
    true
}

#[test]
fn no_connection_is_missed() {
    const TIMES: usize = 300;
    /// With fifty no preemption hit the right place, with these 36 to 351 did (7.3, before such states were noted).
    const LISTENERS: usize = 600;
    in_fresh_netns(|| {
        let mut watch = Watch::alone(&[]);
        let by_mptcp = AtomicUsize::new(0);
        two_in_turn(|| {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            for _ in 0..TIMES {
                let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
                let (mut accepted, _) = server.accept().unwrap();
                client.write_all(b"a").unwrap();
                accepted.read_exact(&mut [0]).unwrap();
            }
            let listened = (0..LISTENERS).filter(|_| listens_by_mptcp()).count();
            by_mptcp.fetch_add(listened, Ordering::Relaxed);
        });
        watch.expect_times("the last of each", 4 * TIMES, |event| kind(event) == "close");
        // Including each thread's own listener.
        let listeners = 2 + by_mptcp.load(Ordering::Relaxed);
        watch.expect_times("and of each listener", listeners, |event| kind(event) == "unlisten");
        let log = watch.finish();
        let of = |wanted: &str| log.events.iter().filter(|event| kind(event) == wanted).collect::<Vec<_>>();
        assert_eq!((of("open").len(), of("accept").len()), (4 * TIMES, 2 * TIMES));
        let own = json!({"pid": std::process::id()});
        for event in of("close") {
            assert_has(event, json!({"process": own, "origin": {"process": own}}));
        }
    });
}
