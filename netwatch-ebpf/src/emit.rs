//! The way out: one ring buffer, and a count of what did not fit.

use core::ffi::c_void;
use core::mem::offset_of;

use aya_ebpf::bindings::{BPF_F_MMAPABLE, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP};
use aya_ebpf::btf_maps::{Array, RingBuf};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::{bpf_get_smp_processor_id, bpf_ringbuf_output};
use aya_ebpf::macros::btf_map;
use aya_ebpf::maps::ring_buf::RingBufEntry;
use netwatch_common::{Header, Knobs, kind};

use crate::mem;

/// Size in the object file; the agent sets its own before it loads.
const RING_BYTES: usize = 1 << 24;

#[btf_map]
static RECORDS: RingBuf<u8, RING_BYTES> = RingBuf::new();

/// By kind.
type Counts = [u64; kind::COUNT as usize];

/// By CPU: the agent makes room for all there may be. It has the memory mapped, because each look-up by a call of its own
/// has a moment in which kprobes and tracepoints of system calls are left out on that CPU (`include/linux/bpf.h`,
/// bpf_disable_instrumentation), everybody's, and a long one where it is preempted.
type ByCpu = Array<Counts, 1, { BPF_F_MMAPABLE as usize }>;

/// What is lost where a program was left out so often.
#[btf_map]
static UNBEGUN: ByCpu = Array::new();

/// Records that did not fit.
#[btf_map]
static LOST: ByCpu = Array::new();

/// Runs that the kernel left out of one program and another took in its place.
#[btf_map]
static CAUGHT: ByCpu = Array::new();

/// When a record was lost last, nanoseconds since boot; each record carries its lower half. A time and
/// not a count, because BPF code built for any kernel has no atomic addition: of two CPUs that store at
/// once either is a new value to the reader.
static mut LAST_LOSS: u64 = 0;

/// A header for a record of this kind, now.
#[inline(always)]
pub(crate) fn header(kind: u16) -> Header {
    // SAFETY: a helper without arguments.
    let ts = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: one aligned word, read as it is.
    let loss = unsafe { (&raw const LAST_LOSS).read_volatile() };
    Header { kind, pad: [0; 2], loss: loss as u32, ts }
}

/// Room for one `T` in the ring; where there is none the loss is counted under `kind`.
#[inline(always)]
pub(crate) fn reserve<T: 'static>(kind: u16) -> Option<RingBufEntry<T>> {
    let entry = RECORDS.reserve_untyped::<T>(0);
    if entry.is_none() {
        lost(kind);
    }
    entry
}

/// When the reader was woken last, nanoseconds since boot. Two CPUs that store at once wake it twice.
static mut LAST_WAKE: u64 = 0;

/// Hands a record over that begins with its header.
#[inline(always)]
pub(crate) fn submit<T: 'static>(mut entry: RingBufEntry<T>) {
    // SAFETY: every record begins with a header, which is written by now.
    let ts = unsafe { (*entry.as_mut_ptr().cast::<Header>()).ts };
    entry.submit(wake(ts));
}

/// Whether the reader is woken for a record of this time. A wake-up costs more than all the rest (an interrupt to
/// oneself: `kernel/bpf/ringbuf.c`, bpf_ringbuf_commit), and a flood would have one for each record. It has to be
/// forced: left to the kernel, which wakes who has read all, the first after some that woke nobody would not do so.
#[inline(always)]
fn wake(ts: u64) -> u64 {
    let pause = u64::from(mem::number(offset_of!(Knobs, wake_ns)));
    if pause == 0 {
        return 0;
    }
    // SAFETY: one aligned word, read and written as it is.
    unsafe {
        let last = (&raw const LAST_WAKE).read_volatile();
        if ts.wrapping_sub(last) < pause {
            return BPF_RB_NO_WAKEUP.into();
        }
        (&raw mut LAST_WAKE).write_volatile(ts);
    }
    BPF_RB_FORCE_WAKEUP.into()
}

/// Copies `len` bytes at `record` into the ring, or counts the loss under `kind`.
///
/// # Safety
/// `record` points to at least `len` bytes, as far as the verifier can see.
#[inline(always)]
pub(crate) unsafe fn output(kind: u16, record: *const c_void, len: usize) {
    // SAFETY: every record begins with a header.
    let flags = wake(unsafe { (*record.cast::<Header>()).ts });
    // SAFETY: the caller's.
    let result = unsafe {
        bpf_ringbuf_output((&raw const RECORDS).cast_mut().cast(), record.cast_mut(), len as u64, flags)
    };
    if result != 0 {
        lost(kind);
    }
}

/// Counts a run that the kernel counts as missed, and that was not.
#[inline(always)]
pub(crate) fn caught(kind: u16) {
    count(&CAUGHT, kind);
}

/// Counts what is lost if it was for want of a run that the kernel counts as missed.
#[inline(always)]
pub(crate) fn unbegun(kind: u16) {
    count(&UNBEGUN, kind);
}

#[inline(always)]
fn count(counts: &ByCpu, of: u16) {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(counts) = counts.get_ptr_mut(cpu) else { return };
    if u32::from(of) < kind::COUNT {
        // SAFETY: this CPU's own entry of the map, within which the kind is.
        unsafe { *counts.cast::<u64>().add(usize::from(of)) += 1 };
    }
}

/// Counts one lost record.
#[inline(always)]
pub(crate) fn lost(kind: u16) {
    // SAFETY: a helper without arguments, and one aligned word.
    unsafe { (&raw mut LAST_LOSS).write_volatile(bpf_ktime_get_boot_ns()) };
    count(&LOST, kind);
}
