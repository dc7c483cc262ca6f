//! What a process cannot do once it gave up its rights. Each case runs in a process of its own, which is this program
//! with the name of a case in the environment.

#![cfg(test)]

use std::ffi::CString;
use std::io::{Error, Read as _, Result, Write as _};
use std::net::{Ipv4Addr, TcpListener};
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;

use netwatch::rights::{self, HELPER, LIVE, PRINTING, READING, RESOLVING, Stage};

const CASE: &str = "NETWATCH_TEST_RIGHTS";

/// Runs the test `name` again in a process of its own, where `within` is called instead.
fn alone(name: &str, within: impl FnOnce()) {
    if std::env::var_os(CASE).is_some_and(|case| case == name) {
        return within();
    }
    let own = std::env::current_exe().unwrap();
    let output = Command::new(own).args(["--exact", name, "--nocapture"]).env(CASE, name).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// Mask of capabilities in a line of `/proc/PID/status`.
fn status(task: &str, key: &str) -> u64 {
    let text = std::fs::read_to_string(format!("{task}/status")).unwrap();
    let value = text.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(":\t")).unwrap();
    u64::from_str_radix(value, 16).unwrap()
}

fn call(number: i64, arguments: [i64; 3]) -> Result<()> {
    let [first, second, third] = arguments;
    // SAFETY: the calls below take numbers, and null where they take a pointer.
    if unsafe { libc::syscall(number, first, second, third) } < 0 {
        Err(Error::last_os_error())
    } else {
        Ok(())
    }
}

/// A process of another user, which ends when its stdin is closed. `None`: not as root.
fn stranger() -> Option<Child> {
    let mut command = Command::new("cat");
    let mut child = is_root().then(|| {
        command
            .uid(65534)
            .gid(65534)
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap()
    })?;
    // An echo proves that its exec is complete.
    child.stdin.as_mut().unwrap().write_all(b"x").unwrap();
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    Some(child)
}

fn execute() -> Error {
    let program = CString::new("/bin/true").unwrap();
    nix::unistd::execv(&program, &[&program]).unwrap_err().into()
}

#[track_caller]
fn refused(result: Result<impl Sized>) {
    let error = result.map(drop).unwrap_err().raw_os_error();
    assert!([Some(libc::EPERM), Some(libc::EACCES)].contains(&error), "{error:?}");
}

fn given_up(stage: &Stage, readable: &[PathBuf]) {
    let given = rights::give_up(stage, readable, None);
    assert!(given.no_new_privs && given.calls, "{given:?}");
}

#[test]
fn reading_a_store_leaves_open_files_and_those_on_the_list() {
    alone("reading_a_store_leaves_open_files_and_those_on_the_list", || {
        let folder = tempfile::tempdir().unwrap();
        let (listed, other) = (folder.path().join("listed"), folder.path().join("other"));
        std::fs::write(&listed, "listed").unwrap();
        std::fs::write(&other, "other").unwrap();
        let has_landlock = !rights::not_offered().iter().any(|lacks| lacks.contains("files"));
        given_up(&READING, std::slice::from_ref(&listed));
        assert_eq!(std::fs::read_to_string(&listed).unwrap(), "listed");
        if has_landlock {
            refused(std::fs::read(&other));
            refused(std::fs::write(&listed, "altered"));
            refused(std::fs::write(folder.path().join("new"), "new"));
        }
        refused(std::fs::remove_file(&other));
        refused(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)));
        refused(Err::<(), _>(execute()));
        for number in
            [libc::SYS_ptrace, libc::SYS_mount, libc::SYS_bpf, libc::SYS_init_module, libc::SYS_setns]
        {
            refused(call(number, [0; 3]));
        }
        // Threads can be started still.
        std::thread::spawn(|| ()).join().unwrap();
        // Else the guard panics.
        std::mem::forget(folder);
    });
}

#[test]
fn threads_that_run_already_give_up_the_same() {
    alone("threads_that_run_already_give_up_the_same", || {
        let (begin, begun) = channel::<()>();
        let (tell, told) = channel();
        let other = std::thread::spawn(move || {
            let _ = begun.recv();
            tell.send((std::fs::read("/etc/hostname").map(drop), execute())).unwrap();
        });
        let stage = Stage { closes_files: true, ..PRINTING };
        let has_landlock = !rights::not_offered().iter().any(|lacks| lacks.contains("files"));
        // Opened before, since files are closed afterwards.
        let tasks: Vec<_> =
            std::fs::read_dir("/proc/self/task").unwrap().map(|task| task.unwrap().path()).collect();
        given_up(&stage, &["/proc/self".into()]);
        for task in tasks {
            let task = task.to_str().unwrap();
            for key in ["CapEff", "CapPrm", "CapInh", "CapAmb"] {
                assert_eq!(status(task, key), 0, "{key} of {task}");
            }
            assert_eq!((status(task, "NoNewPrivs"), status(task, "Seccomp")), (1, 2), "{task}");
        }
        drop(begin);
        let (read, executed) = told.recv().unwrap();
        if has_landlock {
            refused(read);
        }
        refused(Err::<(), _>(executed));
        other.join().unwrap();
    });
}

#[test]
fn live_run_keeps_what_snapshots_take() {
    alone("live_run_keeps_what_snapshots_take", || {
        let before = status("/proc/self", "CapPrm");
        let stranger = stranger();
        given_up(&LIVE, &[]);
        let kept = 1 << 39 | 1 << 21 | 1 << 19 | 1 << 12 | 1 << 2;
        assert_eq!(status("/proc/self", "CapPrm"), before & kept);
        assert_eq!(status("/proc/self", "CapEff"), before & kept);
        if is_root() {
            std::fs::read_link(format!("/proc/{}/exe", stranger.as_ref().unwrap().id())).unwrap();
            let own = std::fs::File::open("/proc/self/ns/net").unwrap();
            nix::sched::setns(own, nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        }
        drop(stranger);
        refused(Err::<(), _>(execute()));
        for number in [libc::SYS_ptrace, libc::SYS_mount, libc::SYS_init_module, libc::SYS_perf_event_open] {
            refused(call(number, [0; 3]));
        }
        assert_eq!(call(libc::SYS_io_uring_setup, [0; 3]).unwrap_err().raw_os_error(), Some(libc::ENOSYS));
        // Bad attributes, but not forbidden.
        assert_eq!(call(libc::SYS_bpf, [-1, 0, 0]).unwrap_err().raw_os_error(), Some(libc::EINVAL));
    });
}

#[test]
fn helper_reads_files_of_others_only() {
    alone("helper_reads_files_of_others_only", || {
        let before = status("/proc/self", "CapPrm");
        let stranger = stranger();
        given_up(&HELPER, &[]);
        assert_eq!(status("/proc/self", "CapPrm"), before & (1 << 19 | 1 << 2));
        if is_root() {
            std::fs::read_dir(format!("/proc/{}/root/", stranger.as_ref().unwrap().id())).unwrap();
        }
        for number in [libc::SYS_bpf, libc::SYS_setns, libc::SYS_ptrace] {
            refused(call(number, [0; 3]));
        }
        refused(Err::<(), _>(execute()));
    });
}

#[test]
fn names_of_hosts_can_be_resolved() {
    alone("names_of_hosts_can_be_resolved", || {
        given_up(&RESOLVING, &[]);
        std::net::UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        std::fs::read("/etc/passwd").unwrap();
        refused(Err::<(), _>(execute()));
        refused(call(libc::SYS_bpf, [0; 3]));
    });
}
