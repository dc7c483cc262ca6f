//! Threads that stop each other in the middle of anything, wherever the kernel can be stopped (PREEMPT_LAZY): of
//! netwatch's programs, too, which the kernel then leaves out for the other thread (`netwatch-ebpf/src/twice.rs`).
//! Nothing may be missing, and nothing be told as lost.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};

use nix::errno::Errno;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;
use tests::{Watch, assert_has, in_fresh_netns, kind};

/// Does `work` in two threads that have one CPU between them. With a third, one of other tests for instance, two
/// programs would not be enough: the kernel may stop one thread in either.
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

#[test]
fn no_attempt_is_missed() {
    const TRIES: usize = 1000;
    in_fresh_netns(|| {
        let mut watch = Watch::alone(&[]);
        two_in_turn(|| {
            for _ in 0..TRIES {
                let error = TcpStream::connect("192.0.2.1:80").unwrap_err();
                assert_eq!(error.raw_os_error(), Some(Errno::ENETUNREACH as i32));
            }
        });
        watch.expect_times("every attempt", 2 * TRIES, |event| kind(event) == "fail");
        let log = watch.finish();
        assert_eq!(log.events.iter().filter(|event| kind(event) == "fail").count(), 2 * TRIES);
    });
}

#[test]
fn no_connection_is_missed() {
    const TIMES: usize = 300;
    in_fresh_netns(|| {
        let mut watch = Watch::alone(&[]);
        two_in_turn(|| {
            let server = TcpListener::bind("127.0.0.1:0").unwrap();
            for _ in 0..TIMES {
                let mut client = TcpStream::connect(server.local_addr().unwrap()).unwrap();
                let (mut accepted, _) = server.accept().unwrap();
                client.write_all(b"a").unwrap();
                accepted.read_exact(&mut [0]).unwrap();
            }
        });
        watch.expect_times("the last of each", 4 * TIMES, |event| kind(event) == "close");
        let log = watch.finish();
        let of = |wanted: &str| log.events.iter().filter(|event| kind(event) == wanted).collect::<Vec<_>>();
        assert_eq!((of("open").len(), of("accept").len()), (4 * TIMES, 2 * TIMES));
        let own = json!({"pid": std::process::id()});
        for event in of("close") {
            assert_has(event, json!({"process": own, "origin": {"process": own}}));
        }
    });
}
