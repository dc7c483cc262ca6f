//! The cause of what a thread does: the socket from which it last received or which it accepted, as long as it has not
//! slept since. A fork or a connect() before the next sleep is attributed to that socket. After a sleep it may have
//! been woken by something else, such as a timer, and there is no cause. A new thread inherits the cause.

use core::ffi::c_void;

use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::macros::btf_map;

use crate::mem::{Current, Memory as _, offset};
use crate::task;

#[repr(C)]
#[derive(Clone, Copy)]
struct About {
    cookie: u64,
    /// Start of the thread, since thread ids are reused.
    start: u64,
    /// Number of its sleeps at that time (`task_struct.nvcsw`, voluntary context switches).
    slept: u64,
    /// 1 if it accepted the socket itself and a record was sent, otherwise 0.
    accepted: u64,
}

/// By thread id. A thread whose entry was evicted has no cause.
#[btf_map]
static ABOUT: LruHashMap<u32, About, 16384> = LruHashMap::new();

/// The current thread has received from a socket.
#[inline(always)]
pub(crate) fn got(cookie: u64) {
    if cookie != 0 {
        note(task::current(), cookie, 0);
    }
}

/// The current thread has accepted a socket, and a record about that is sent.
#[inline(always)]
pub(crate) fn accepted(cookie: u64) {
    if cookie != 0 {
        note(task::current(), cookie, 1);
    }
}

/// Whether the last thing that a thread did was to accept this socket. False for an inherited cause.
#[inline(always)]
pub(crate) fn has_accepted(thread: *const c_void, cookie: u64) -> bool {
    // SAFETY: a task of a tracepoint, or the current one; the entry is copied.
    unsafe {
        match ABOUT.get(task::tid(thread)) {
            Some(about) => about.accepted != 0 && about.cookie == cookie && about.start == start(thread),
            None => false,
        }
    }
}

/// A thread with a cause has created another thread.
#[inline(always)]
pub(crate) fn inherit(cause: u64, child: *const c_void) {
    if cause != 0 {
        note(child, cause, 0);
    }
}

#[inline(always)]
fn note(thread: *const c_void, cookie: u64, accepted: u64) {
    // SAFETY: a task of a tracepoint, or the current one.
    let (tid, start, slept) = unsafe { (task::tid(thread), start(thread), slept(thread)) };
    if let Some(about) = ABOUT.get_ptr_mut(tid) {
        // SAFETY: only programs in the context of this thread write the entry.
        unsafe { *about = About { cookie, start, slept, accepted } };
        return;
    }
    // On failure the thread has no cause.
    let _ = ABOUT.insert(tid, About { cookie, start, slept, accepted }, 0);
}

/// The cause of a thread: a socket cookie, or 0.
#[inline(always)]
pub(crate) fn of(thread: *const c_void) -> u64 {
    // SAFETY: as above; the entry is copied.
    unsafe {
        match ABOUT.get(task::tid(thread)) {
            Some(about) if about.start == start(thread) && about.slept == slept(thread) => about.cookie,
            _ => 0,
        }
    }
}

#[inline(always)]
unsafe fn start(thread: *const c_void) -> u64 {
    // SAFETY: guaranteed by the caller.
    unsafe { Current::read(thread, offset!(task_start)) }
}

#[inline(always)]
unsafe fn slept(thread: *const c_void) -> u64 {
    // SAFETY: guaranteed by the caller.
    unsafe { Current::read(thread, offset!(task_slept)) }
}
