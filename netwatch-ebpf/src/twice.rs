//! Programs that are there twice, because the kernel leaves one out on a CPU where it is in the middle of a run
//! already (`kernel/trace/bpf_trace.c`, __bpf_trace_run, since 6.2): a softirq interrupted it, or a task preempted it
//! (PREEMPT_LAZY is how distributions build kernels by now). The second is called after the first, and does the same
//! where the first was not called for this. Where somebody came in between, it may do it once more: so this is for
//! what may be told twice. A transition may not, see `state.rs`.

use core::ffi::c_void;

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::btf_map;

use crate::emit;

/// The pairs of programs.
#[derive(Clone, Copy)]
pub(crate) enum Pair {
    Send,
    Receive,
    Fork,
    Exec,
    Exit,
}

const PAIRS: usize = 5;

/// What each first program was called for last on this CPU.
#[btf_map]
static CALLED: PerCpuArray<u64, PAIRS> = PerCpuArray::new();

/// Notes that the first program of a pair is called for `what`.
#[inline(always)]
pub(crate) fn first(pair: Pair, what: *const c_void) {
    if let Some(called) = CALLED.get_ptr_mut(pair as u32) {
        // SAFETY: this CPU's own slot; volatile, because whoever comes in between reads it.
        unsafe { called.write_volatile(what as u64) };
    }
}

/// Whether it was left out for `what`: then the second takes its place, and it counts as caught.
#[inline(always)]
pub(crate) fn was_left_out(pair: Pair, what: *const c_void, kind: u16) -> bool {
    let Some(called) = CALLED.get_ptr_mut(pair as u32) else { return false };
    // SAFETY: this CPU's own slot.
    unsafe {
        if called.read_volatile() == what as u64 {
            called.write_volatile(0);
            return false;
        }
    }
    emit::caught(kind);
    true
}
