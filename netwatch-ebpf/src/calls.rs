//! Calls of connect() in progress, by thread. The probes on entry and exit are in `connect.rs`; most calls are reported
//! by state transitions (`state.rs`).
//!
//! Runs of kprobes and tracepoints may be skipped (`twice.rs`), mostly at calls for which nothing is reported. So
//! skipped runs are not counted as losses, but failed attempts without an entry, and calls without an exit. A call that
//! only a cgroup hook saw may be io_uring's: such calls count as lost at most as often as the entry of connect(2) was
//! skipped.

use core::ffi::c_void;

use aya_ebpf::btf_maps::{HashMap, LruHashMap};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_boot_ns};
use aya_ebpf::macros::btf_map;
use netwatch_common::{Sock, kind};

use crate::mem::{Memory as _, Untyped, offset};
use crate::{act, emit, sock, task};

/// Maximum number of threads in connect() at once; others are counted as lost.
pub(crate) const MAX_CALLS: usize = 16384;

const EINPROGRESS: i64 = 115;

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) sock: Sock,
    /// Address of the `struct sock`; 0 if not known.
    pub(crate) sk: u64,
    /// The socket went to SYN_SENT, so state transitions report the rest.
    pub(crate) syn_sent: u32,
    /// It went back to CLOSE without an error on the socket.
    pub(crate) gave_up: u32,
    /// Created by a cgroup hook, because the entry of the call was not seen.
    pub(crate) unbegun: u32,
}

impl Call {
    /// Whether state transitions report the result.
    #[inline(always)]
    fn is_in_transitions(&self) -> bool {
        self.syn_sent != 0 && self.gave_up == 0
    }

    /// Whether the function of this family was called by the function of this call: `tcp_v6_connect` passes a mapped
    /// address on to `tcp_v4_connect`.
    #[inline(always)]
    pub(crate) fn has_called(&self, family: u16) -> bool {
        family == sock::AF_INET && self.sock.family == sock::AF_INET6
    }

    /// Counts the loss of a failed attempt that nothing else reports.
    #[inline(always)]
    pub(crate) fn lost(&self) {
        // Without a cookie no hook ran: not TCP, or rejected before the protocol was called.
        if self.sock.cookie == 0 || self.is_in_transitions() {
            return;
        }
        if self.unbegun != 0 {
            emit::unbegun(kind::FAIL);
        } else {
            emit::lost(kind::FAIL);
        }
    }
}

/// A call of which only the entry is known.
pub(crate) const NOTHING_YET: Call = Call { sock: sock::EMPTY, sk: 0, syn_sent: 0, gave_up: 0, unbegun: 0 };

#[btf_map]
static CALLS: HashMap<u64, Call, MAX_CALLS> = HashMap::new();

/// Returns whether there was room.
#[inline(always)]
pub(crate) fn insert(call: Call) -> bool {
    let inserted = CALLS.insert(thread(), call, 0).is_ok();
    if !inserted {
        emit::lost(kind::FAIL);
    }
    inserted
}

/// Called when the current thread cannot be in connect(). If it has an entry, the exit of its last call was skipped,
/// and a failed attempt is lost; any other is reported by state transitions.
#[inline(always)]
pub(crate) fn settle() {
    if let Some(call) = take() {
        call.lost();
    }
}

#[inline(always)]
fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}

/// The entry of the current thread. Only this thread uses it.
#[inline(always)]
pub(crate) fn under_way() -> Option<*mut Call> {
    CALLS.get_ptr_mut(thread())
}

/// The same, if the call is on this socket.
#[inline(always)]
pub(crate) fn call_of(cookie: u64) -> Option<*mut Call> {
    let call = under_way()?;
    // SAFETY: only this thread uses its entry.
    (unsafe { (*call).sock.cookie } == cookie).then_some(call)
}

/// The connect() of the current thread reached SYN_SENT.
#[inline(always)]
pub(crate) fn reached_syn_sent(cookie: u64) {
    if let Some(call) = call_of(cookie) {
        // SAFETY: only this thread uses its entry.
        unsafe { (*call).syn_sent = 1 };
    }
}

/// Whether the current thread is in connect() on this socket. Then a transition from SYN_SENT to CLOSE is the failure
/// of that call, which its exit reports.
#[inline(always)]
pub(crate) fn fails_in_call(cookie: u64) -> bool {
    let Some(call) = call_of(cookie) else { return false };
    // SAFETY: only this thread uses its entry.
    unsafe {
        if (*call).unbegun != 0 {
            // The exit of this call may not be seen.
            return false;
        }
        (*call).gave_up = 1;
    }
    true
}

/// Removes the entry of the current thread.
#[inline(always)]
pub(crate) fn take() -> Option<Call> {
    // SAFETY: the entry is copied before it is removed.
    let call = unsafe { *under_way()? };
    // Fails only if the entry is gone.
    let _ = CALLS.remove(thread());
    Some(call)
}

/// The same when the function of a family returns; `None` if it was called by that of the other.
#[inline(always)]
pub(crate) fn call_that_ends(family: u16) -> Option<Call> {
    let call = under_way()?;
    // SAFETY: only this thread uses its entry.
    if unsafe { (*call).has_called(family) } { None } else { take() }
}

#[inline(always)]
pub(crate) fn is_failure(result: i64) -> bool {
    result < 0 && result != -EINPROGRESS
}

/// An ICMP error that arrived during a connect(), and when the call returned.
#[repr(C)]
#[derive(Clone, Copy)]
struct SoftError {
    at: u64,
    error: u64,
}

/// By cookie. Such errors are rare; the oldest make room.
#[btf_map]
static SOFT_ERRORS: LruHashMap<u64, SoftError, 1024> = LruHashMap::new();

/// Keeps an ICMP error that arrived while connect() held the socket: the kernel does not close the socket then, and
/// SO_ERROR returns the error and clears it (net/ipv4/tcp_ipv4.c, tcp_v4_err(); net/core/sock.c, sk_getsockopt(),
/// v6.12).
#[inline(always)]
fn note_soft_error(call: &Call) {
    if call.sk == 0 {
        return;
    }
    let sk = call.sk as *const c_void;
    // SAFETY: the address was that of the socket; if that is gone, its cookie is not there any more.
    let (cookie, error): (u64, u32) =
        unsafe { (Untyped::read(sk, offset!(sk_cookie)), Untyped::read(sk, offset!(sk_err_soft))) };
    if error == 0 || cookie != call.sock.cookie {
        return;
    }
    // SAFETY: a helper without arguments.
    let at = unsafe { bpf_ktime_get_boot_ns() };
    let _ = SOFT_ERRORS.insert(cookie, SoftError { at, error: error.into() }, 0);
}

/// The ICMP error that arrived during the connect() of an attempt that began then; 0 if none.
#[inline(always)]
pub(crate) fn soft_error(cookie: u64, began: u64) -> u16 {
    // SAFETY: the entry is copied.
    match unsafe { SOFT_ERRORS.get(cookie).copied() } {
        Some(SoftError { at, error }) if at >= began => error as u16,
        _ => 0,
    }
}

/// Handles the exit of a call.
#[inline(always)]
pub(crate) fn ended(call: Call, result: i64) -> Option<()> {
    if result == 0 || result == -EINPROGRESS {
        note_soft_error(&call);
        return None;
    }
    if !is_failure(result) || call.sock.cookie == 0 || call.is_in_transitions() {
        return None;
    }
    if call.unbegun != 0 {
        // The entry may be that of an earlier call.
        call.lost();
        return None;
    }
    let way = task::way(task::current());
    // SAFETY: every byte of the socket is written.
    unsafe { act::report(emit::header(kind::FAIL), way, result as i32, 0, |out| *out = call.sock) }
}
