//! Calls of connect() that are under way, by thread. The probes that see one begin and end are in `connect.rs`, the state
//! transitions that tell what becomes of most in `state.rs`.
//!
//! Kprobes and tracepoints may be left out (`twice.rs`), most often at a call of which there is nothing to tell. So what
//! counts is not a run that was left out, but an attempt that failed and has no beginning, or that never comes to its
//! end. Of one that only a hook saw nobody knows whether it was io_uring's: these are lost as far as the entry of
//! connect(2) was left out.

use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_map;
use netwatch_common::{Sock, kind};

use crate::{act, emit, sock, task};

/// Threads that can be inside connect() at once. One more is not followed, and counted.
pub(crate) const MAX_CALLS: usize = 16384;

const EINPROGRESS: i64 = 115;

#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Call {
    pub(crate) sock: Sock,
    /// The socket went to SYN_SENT: the state transitions tell the rest.
    pub(crate) syn_sent: u32,
    /// And from there back to CLOSE, without an error on the socket.
    pub(crate) gave_up: u32,
    /// It was made by a hook, because nothing saw the call begin.
    pub(crate) unbegun: u32,
}

impl Call {
    /// The state transitions of its socket tell what became of it.
    #[inline(always)]
    fn is_in_transitions(&self) -> bool {
        self.syn_sent != 0 && self.gave_up == 0
    }

    /// Whether the function of a family was called by this call's own: `tcp_v6_connect` hands a mapped address on to
    /// `tcp_v4_connect`.
    #[inline(always)]
    pub(crate) fn has_called(&self, family: u16) -> bool {
        family == sock::AF_INET && self.sock.family == sock::AF_INET6
    }

    /// An attempt that failed, and is told by nothing.
    #[inline(always)]
    pub(crate) fn lost(&self) {
        // Without a cookie no hook ran: not TCP, or refused before the socket was asked.
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

/// A call of which no more is known than that it has begun.
pub(crate) const NOTHING_YET: Call = Call { sock: sock::EMPTY, syn_sent: 0, gave_up: 0, unbegun: 0 };

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

/// The current thread is in no call any more. The end of its last one was left out if that still stands there: an
/// attempt that failed is lost with it, any other told by its state transitions.
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

/// The current thread's; only this thread uses it.
#[inline(always)]
pub(crate) fn under_way() -> Option<*mut Call> {
    CALLS.get_ptr_mut(thread())
}

/// The same, if it is on this socket.
#[inline(always)]
pub(crate) fn call_of(cookie: u64) -> Option<*mut Call> {
    let call = under_way()?;
    // SAFETY: only this thread uses its own entry.
    (unsafe { (*call).sock.cookie } == cookie).then_some(call)
}

/// The current thread's connect() made a SYN.
#[inline(always)]
pub(crate) fn reached_syn_sent(cookie: u64) {
    if let Some(call) = call_of(cookie) {
        // SAFETY: only this thread uses its own entry.
        unsafe { (*call).syn_sent = 1 };
    }
}

/// Whether the current thread is inside connect() on this socket, whose way from SYN_SENT back to CLOSE
/// is then that call's failure; its exit will tell.
#[inline(always)]
pub(crate) fn fails_in_call(cookie: u64) -> bool {
    let Some(call) = call_of(cookie) else { return false };
    // SAFETY: only this thread uses its own entry.
    unsafe {
        if (*call).unbegun != 0 {
            // Nobody knows whether that call ends.
            return false;
        }
        (*call).gave_up = 1;
    }
    true
}

/// The current thread's call, which has to be over.
#[inline(always)]
pub(crate) fn take() -> Option<Call> {
    // SAFETY: copies the entry out before it goes.
    let call = unsafe { *under_way()? };
    // An entry that cannot be removed is one that is gone.
    let _ = CALLS.remove(thread());
    Some(call)
}

/// The same where the function of a family returns; `None` where that was called by the other's.
#[inline(always)]
pub(crate) fn call_that_ends(family: u16) -> Option<Call> {
    let call = under_way()?;
    // SAFETY: only this thread uses its own entry.
    if unsafe { (*call).has_called(family) } { None } else { take() }
}

#[inline(always)]
pub(crate) fn is_failure(result: i64) -> bool {
    result < 0 && result != -EINPROGRESS
}

/// The current thread's call is over.
#[inline(always)]
pub(crate) fn ended(call: Call, result: i64) -> Option<()> {
    if !is_failure(result) || call.sock.cookie == 0 || call.is_in_transitions() {
        return None;
    }
    if call.unbegun != 0 {
        // It may be an older call's.
        call.lost();
        return None;
    }
    let way = task::way(task::current());
    // SAFETY: the socket is filled in whole.
    unsafe { act::tell(emit::header(kind::FAIL), way, result as i32, |out| *out = call.sock) }
}
