//! Pairs of programs on one hook. The kernel skips a run of a program on a CPU that is already running it, because a
//! softirq interrupted the first run or its task was preempted. It does so for typed tracepoints
//! (kernel/trace/bpf_trace.c, __bpf_trace_run(), since 6.2) and for entry and exit of functions
//! (kernel/bpf/trampoline.c, __bpf_prog_enter_recur(), since 5.12). The second program runs right after the first, and
//! does its work if the first was skipped. If two threads share a slot (below) the work may be done twice, so this is
//! only for records that may be sent twice. State transitions may not: see `state.rs`.
//!
//! Cgroup hooks are never skipped. Kprobes and system call tracepoints run with preemption disabled, so they do not
//! nest; but all of them are skipped, and counted, on a CPU where a task was preempted within bpf(2)
//! (include/linux/bpf.h, bpf_disable_instrumentation(); kernel/trace/bpf_trace.c, trace_call_bpf(), v6.12). A second
//! program would be skipped as well.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_map;

use crate::emit;

/// The pairs of programs. A thread is in at most one run of each pair: functions that call each other
/// (`tcp_v6_connect` calls `tcp_v4_connect`) have different pairs.
#[derive(Clone, Copy)]
pub(crate) enum Pair {
    Send,
    Receive,
    Fork,
    Exec,
    Exit,
    Accept,
    Enter4,
    Enter6,
    Leave4,
    Leave6,
}

/// Entries of a slot: two cache lines, so that slots share none.
const PAIRS: usize = 16;

/// Number of slots. A thread has a slot by its id, not by its CPU: between the two programs another thread may run
/// there, or this one may migrate. If two threads share a slot and one is preempted between its two programs, a record
/// may be sent twice.
const SLOTS: usize = 1024;

/// The value for which the first program of each pair ran last.
#[btf_map]
static CALLED: Array<[u64; PAIRS], SLOTS> = Array::new();

/// Notes that the first program of a pair runs for `what`. `what` should not occur twice in a thread, like the cookie
/// of a new socket: if the second program is skipped, the value stays, and would hide a skipped run of the first for
/// the same value, which then counts as lost.
#[inline(always)]
pub(crate) fn first(pair: Pair, what: u64) {
    if let Some(called) = called(pair) {
        // SAFETY: within the slot; volatile, because another run may read it in between.
        unsafe { called.write_volatile(what) };
    }
}

/// Whether the first program was skipped for `what`. Then the second has to do its work, and the run counts as caught.
#[inline(always)]
pub(crate) fn was_left_out(pair: Pair, what: u64, kind: u16) -> bool {
    let Some(called) = called(pair) else { return false };
    // SAFETY: as above.
    unsafe {
        if called.read_volatile() == what {
            called.write_volatile(0);
            return false;
        }
    }
    emit::caught(kind);
    true
}

/// The entry of a pair in the slot of the current thread.
#[inline(always)]
fn called(pair: Pair) -> Option<*mut u64> {
    let tid = bpf_get_current_pid_tgid() as u32;
    let slot = CALLED.get_ptr_mut(tid % SLOTS as u32)?;
    // SAFETY: a slot has an entry for every pair.
    Some(unsafe { slot.cast::<u64>().add(pair as usize) })
}
