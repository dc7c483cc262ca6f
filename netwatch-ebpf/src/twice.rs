//! Programs that are there twice, because the kernel leaves one out on a CPU where it is in the middle of a run
//! already: a softirq interrupted it, or a task preempted it (PREEMPT_LAZY is how distributions build kernels by now).
//! It does so at typed tracepoints (`kernel/trace/bpf_trace.c`, __bpf_trace_run, since 6.2) and at the entry and exit of
//! functions (`kernel/bpf/trampoline.c`, __bpf_prog_enter_recur, since 5.12). The second is called right after the
//! first, and does the same where the first was not called for this. It may still do it once more, where two threads
//! share a slot (below): so this is for what may be told twice. A transition may not, see `state.rs`.
//!
//! Hooks of the cgroup tree have no such guard. Kprobes and the tracepoints of system calls are called with preemption
//! off, so that none stops another; but all of them are left out, and counted, on a CPU where a task was preempted
//! within bpf(2) (`include/linux/bpf.h`, bpf_disable_instrumentation; `kernel/trace/bpf_trace.c`, trace_call_bpf). A
//! second would be left out as well.

use aya_ebpf::btf_maps::Array;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::btf_map;

use crate::emit;

/// The pairs of programs. A thread is in the middle of one of each at most: what is called from within another's
/// function, as `tcp_v4_connect` is from `tcp_v6_connect`, has a pair of its own.
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

/// Room for all pairs in two cache lines, which no other slot's threads write to.
const PAIRS: usize = 16;

/// A thread is told from others by its slot, not by its CPU: between the two programs another may run there, or the
/// thread go on elsewhere. Those of two threads in one slot are done once more where they are interleaved, which takes
/// numbers this far apart and one of them stopped between its two programs.
const SLOTS: usize = 1024;

/// What the first program of each pair was called for last.
#[btf_map]
static CALLED: Array<[u64; PAIRS], SLOTS> = Array::new();

/// Notes that the first program of a pair is called for `what`. The best is what this thread never comes to again, as
/// the cookie of a new socket: where the second program is left out, what stands here stands here still when the first
/// is left out the next time, and that run then counts as lost.
#[inline(always)]
pub(crate) fn first(pair: Pair, what: u64) {
    if let Some(called) = called(pair) {
        // SAFETY: within the slot; volatile, because whoever comes in between reads it.
        unsafe { called.write_volatile(what) };
    }
}

/// Whether it was left out for `what`: then the second takes its place, and it counts as caught.
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

/// What stands in the current thread's slot for a pair.
#[inline(always)]
fn called(pair: Pair) -> Option<*mut u64> {
    let tid = bpf_get_current_pid_tgid() as u32;
    let slot = CALLED.get_ptr_mut(tid % SLOTS as u32)?;
    // SAFETY: there is room for every pair.
    Some(unsafe { slot.cast::<u64>().add(pair as usize) })
}
