//! Applies what the kernel keeps for each thread to every thread: a handler runs in each, as glibc does for setuid(2)
//! (nptl(7)).

use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::atomic::{AtomicI32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::process::getpid;
use rustix::thread::{gettid, set_no_new_privs};

use super::capabilities::{Set, keep_only};

/// A real-time signal that nothing else uses here.
fn signal() -> i32 {
    libc::SIGRTMAX() - 2
}

/// A thread that waits for a file system, or for the memory map of a process, cannot run a handler before that answers.
const WAIT: Duration = Duration::from_secs(1);

/// How long each thread is waited for once that is over: a handler takes microseconds.
const LEAST_WAIT: Duration = Duration::from_millis(20);

/// What the handler applies, and the id of the thread that did so last, negative if it failed: a handler has no arguments.
static KEEP: AtomicU64 = AtomicU64::new(0);
static RULESET: AtomicI32 = AtomicI32::new(-1);
static DONE: AtomicI32 = AtomicI32::new(0);

/// Keeps only these capabilities, sets `no_new_privs` and enforces the ruleset, in all threads. The calling thread comes
/// last, since it reads `/proc`.
pub(super) fn everywhere(keep: Set, ruleset: Option<&OwnedFd>) -> Result<(), String> {
    let fd = ruleset.map_or(-1, |ruleset| ruleset.as_raw_fd());
    KEEP.store(keep.bits(), Ordering::SeqCst);
    RULESET.store(fd, Ordering::SeqCst);
    let others = others(gettid().as_raw_nonzero().get());
    let own = apply(keep, fd).map_err(|error| format!("capabilities: {error}"));
    others.and(own)
}

fn others(own: i32) -> Result<(), String> {
    let handler: extern "C" fn(i32) = handle;
    // SAFETY: zero is a valid value of all members.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_RESTART;
    // SAFETY: the handler only makes system calls and stores atomics, and keeps errno.
    unsafe { libc::sigaction(signal(), &raw const action, std::ptr::null_mut()) };
    let mut done = vec![own];
    let mut failure = Ok(());
    let deadline = Instant::now() + WAIT;
    // A thread that was not asked yet may start others.
    while let Some(next) = tasks().into_iter().find(|task| !done.contains(task)) {
        DONE.store(0, Ordering::SeqCst);
        // SAFETY: sends a signal to a thread of this process; if that has ended, to none.
        if unsafe { libc::syscall(libc::SYS_tgkill, getpid().as_raw_nonzero().get(), next, signal()) } != 0 {
            done.push(next);
            continue;
        }
        let until = deadline.max(Instant::now() + LEAST_WAIT);
        while DONE.load(Ordering::SeqCst).abs() != next && tasks().contains(&next) {
            if Instant::now() > until {
                failure = Err("capabilities of a thread that waits for the host");
                break;
            }
            std::thread::yield_now();
        }
        if DONE.load(Ordering::SeqCst) == -next {
            failure = Err("capabilities of a thread");
        }
        done.push(next);
    }
    failure.map_err(Into::into)
}

fn tasks() -> Vec<i32> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    tasks.filter_map(|task| task.file_name().to_str()?.parse().ok()).collect()
}

extern "C" fn handle(_signal: i32) {
    // SAFETY: the address of the thread's errno.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: valid as long as the thread.
    let before = unsafe { *errno };
    let keep = Set::from_bits_retain(KEEP.load(Ordering::SeqCst));
    let applied = apply(keep, RULESET.load(Ordering::SeqCst));
    let own = gettid().as_raw_nonzero().get();
    DONE.store(if applied.is_ok() { own } else { -own }, Ordering::SeqCst);
    // SAFETY: as above.
    unsafe { *errno = before };
}

/// To the calling thread. Async-signal-safe: system calls only.
fn apply(keep: Set, ruleset: i32) -> rustix::io::Result<()> {
    set_no_new_privs(true)?;
    // SAFETY: takes a descriptor and flags.
    let is_enforced =
        ruleset < 0 || unsafe { libc::syscall(libc::SYS_landlock_restrict_self, ruleset, 0) } == 0;
    // Also in a thread that runs the handler so late that the ruleset is closed.
    keep_only(keep)?;
    if is_enforced { Ok(()) } else { Err(rustix::io::Errno::PERM) }
}
