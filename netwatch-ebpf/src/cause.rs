//! What a thread is about: the socket from which it received last, or which it accepted, for as long as it has
//! not gone to sleep since. What it does then, a fork or a connect(), it does because of what came that way. Once
//! it has slept it may have been woken by anything else, a timer for instance, and nothing is said. Threads that it
//! makes meanwhile are about the same.

use core::ffi::c_void;

use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::macros::btf_map;

use crate::mem::{Current, Memory as _, offset};
use crate::task;

#[repr(C)]
#[derive(Clone, Copy)]
struct About {
    cookie: u64,
    /// Start of the thread: numbers are given anew.
    start: u64,
    /// How often it had gone to sleep by then (`task_struct.nvcsw`: the voluntary switches).
    slept: u64,
    /// It accepted that socket itself, which was told: 1, else 0.
    accepted: u64,
}

/// By thread. One that is forgotten is about nothing, as far as anybody knows.
#[btf_map]
static ABOUT: LruHashMap<u32, About, 16384> = LruHashMap::new();

/// The current thread has just got something from a socket.
#[inline(always)]
pub(crate) fn got(cookie: u64) {
    if cookie != 0 {
        note(task::current(), cookie, 0);
    }
}

/// The current thread has just accepted a socket, and that is being told.
#[inline(always)]
pub(crate) fn accepted(cookie: u64) {
    if cookie != 0 {
        note(task::current(), cookie, 1);
    }
}

/// Whether the last that a thread got is a socket that it accepted: not one that was accepted by whoever made it.
#[inline(always)]
pub(crate) fn has_accepted(thread: *const c_void, cookie: u64) -> bool {
    // SAFETY: a task of a tracepoint's, or the current one; a copy of the item.
    unsafe {
        match ABOUT.get(task::tid(thread)) {
            Some(about) => about.accepted != 0 && about.cookie == cookie && about.start == start(thread),
            None => false,
        }
    }
}

/// A thread that is about something has made another.
#[inline(always)]
pub(crate) fn inherit(cause: u64, child: *const c_void) {
    if cause != 0 {
        note(child, cause, 0);
    }
}

#[inline(always)]
fn note(thread: *const c_void, cookie: u64, accepted: u64) {
    // SAFETY: a task of a tracepoint's, or the current one.
    let (tid, start, slept) = unsafe { (task::tid(thread), start(thread), slept(thread)) };
    if let Some(about) = ABOUT.get_ptr_mut(tid) {
        // SAFETY: only this thread's own programs write it; one that is preempted here is of another thread.
        unsafe { *about = About { cookie, start, slept, accepted } };
        return;
    }
    // Without it nothing is known of the thread.
    let _ = ABOUT.insert(tid, About { cookie, start, slept, accepted }, 0);
}

/// What a thread is about: a cookie, or 0.
#[inline(always)]
pub(crate) fn of(thread: *const c_void) -> u64 {
    // SAFETY: as above; a copy of the item.
    unsafe {
        match ABOUT.get(task::tid(thread)) {
            Some(about) if about.start == start(thread) && about.slept == slept(thread) => about.cookie,
            _ => 0,
        }
    }
}

#[inline(always)]
unsafe fn start(thread: *const c_void) -> u64 {
    // SAFETY: the caller's.
    unsafe { Current::read(thread, offset!(task_start)) }
}

#[inline(always)]
unsafe fn slept(thread: *const c_void) -> u64 {
    // SAFETY: the caller's.
    unsafe { Current::read(thread, offset!(task_slept)) }
}
