//! Writes records to the ring buffer, and counts those that do not fit.

use core::arch::asm;
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

/// Size in the object file; the agent overrides it.
const RING_BYTES: usize = 1 << 24;

#[btf_map]
static RECORDS: RingBuf<u8, RING_BYTES> = RingBuf::new();

/// Counts by kind of record.
type Counts = [u64; kind::COUNT as usize];

/// Counts by CPU; the agent sets the number of entries. It maps the memory instead of calling bpf(2) for lookups,
/// during which the kernel skips all kprobes and system call tracepoints on that CPU (include/linux/bpf.h,
/// bpf_disable_instrumentation(), v6.12), for long if the caller is preempted.
type ByCpu = Array<Counts, 1, { BPF_F_MMAPABLE as usize }>;

/// Records that are lost if as many runs of the entry program were skipped.
#[btf_map]
static UNBEGUN: ByCpu = Array::new();

/// Records that did not fit.
#[btf_map]
static LOST: ByCpu = Array::new();

/// Skipped runs of a program that its second program made up for.
#[btf_map]
static CAUGHT: ByCpu = Array::new();

/// What a limit keeps from being followed.
#[btf_map]
static NOT_FOLLOWED: ByCpu = Array::new();

/// Times of the last losses, in nanoseconds since boot: of the kinds `is_tcp_or_process`, and of the kinds
/// `is_udp`. Each record carries a part of both. The reader only needs the values to change, and a time changes
/// with a plain store even if two CPUs store at once.
static mut LAST_LOSS: u64 = 0;
static mut LAST_UDP_LOSS: u64 = 0;

/// A header for a record of this kind, with the current time.
#[inline(always)]
pub(crate) fn header(kind: u16) -> Header {
    // SAFETY: a helper without arguments.
    let ts = unsafe { bpf_ktime_get_boot_ns() };
    // SAFETY: aligned words, each read by a single access.
    let (loss, udp_loss) =
        unsafe { ((&raw const LAST_LOSS).read_volatile(), (&raw const LAST_UDP_LOSS).read_volatile()) };
    // Two losses of UDP within 16 microseconds may be one change.
    Header { kind, udp_loss: (udp_loss >> 14) as u16, loss: loss as u32, ts }
}

/// Reserves space for one `T` in the ring; if it is full the loss is counted under `kind`.
#[inline(always)]
pub(crate) fn reserve<T: 'static>(kind: u16) -> Option<RingBufEntry<T>> {
    let entry = RECORDS.reserve_untyped::<T>(0);
    if entry.is_none() {
        lost(kind);
    }
    entry
}

/// Time of the last wake-up of the reader, in nanoseconds since boot. Two CPUs that store at once wake it twice.
static mut LAST_WAKE: u64 = 0;

/// Submits a record, which begins with its header.
#[inline(always)]
pub(crate) fn submit<T: 'static>(mut entry: RingBufEntry<T>) {
    // SAFETY: every record begins with a header, which the caller has written.
    let ts = unsafe { (*entry.as_mut_ptr().cast::<Header>()).ts };
    entry.submit(wake(ts));
}

/// The flags that decide whether the record of this time wakes the reader. A wake-up (an irq_work:
/// kernel/bpf/ringbuf.c, bpf_ringbuf_commit(), v6.12) costs more than the rest, so they are rate limited. A wake-up has
/// to be forced: by itself the kernel only wakes a reader that has read everything before this record.
#[inline(always)]
fn wake(ts: u64) -> u64 {
    let pause = u64::from(mem::number(offset_of!(Knobs, wake_ns)));
    if pause == 0 {
        return 0;
    }
    // SAFETY: an aligned word, read and written by single accesses.
    unsafe {
        let last = (&raw const LAST_WAKE).read_volatile();
        if ts.wrapping_sub(last) < pause {
            return BPF_RB_NO_WAKEUP.into();
        }
        (&raw mut LAST_WAKE).write_volatile(ts);
    }
    BPF_RB_FORCE_WAKEUP.into()
}

/// Copies `len` bytes at `record` to the ring, or counts the loss under `kind`.
///
/// # Safety
/// `record` points to at least `len` bytes, which the verifier can prove.
#[inline(always)]
pub(crate) unsafe fn output(kind: u16, record: *const c_void, len: usize) {
    // SAFETY: every record begins with a header.
    let flags = wake(unsafe { (*record.cast::<Header>()).ts });
    // SAFETY: guaranteed by the caller.
    let result = unsafe {
        bpf_ringbuf_output((&raw const RECORDS).cast_mut().cast(), record.cast_mut(), len as u64, flags)
    };
    if result != 0 {
        lost(kind);
    }
}

/// Counts a run that the kernel skipped and that the second program made up for.
#[inline(always)]
pub(crate) fn caught(kind: u16) {
    count(&CAUGHT, kind);
}

/// Counts a record that is lost if a run of the entry program was skipped.
#[inline(always)]
pub(crate) fn unbegun(kind: u16) {
    count(&UNBEGUN, kind);
}

/// Counts what a limit keeps from being followed.
#[inline(always)]
pub(crate) fn not_followed(kind: u16) {
    count(&NOT_FOLLOWED, kind);
}

/// Adds to a counter that a program which interrupts this one, or another CPU, may add to as well: `BPF_XADD`, which
/// every kernel has, unlike atomic operations that return the old value (5.12).
///
/// # Safety
/// `counter` points to an aligned word that lives as long as the program.
#[inline(always)]
pub(crate) unsafe fn add(counter: *mut u64, value: u64) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        asm!("lock *(u64 *)({counter} + 0) += {value}", counter = in(reg) counter, value = in(reg) value);
    }
}

#[inline(always)]
fn count(counts: &ByCpu, of: u16) {
    // SAFETY: a helper without arguments.
    let cpu = unsafe { bpf_get_smp_processor_id() };
    let Some(counts) = counts.get_ptr_mut(cpu) else { return };
    if u32::from(of) < kind::COUNT {
        // SAFETY: the entry of this CPU in the map; `of` is within its bounds.
        unsafe { add(counts.cast::<u64>().add(usize::from(of)), 1) };
    }
}

/// Counts one lost record.
#[inline(always)]
pub(crate) fn lost(kind: u16) {
    // SAFETY: a helper without arguments, and aligned words.
    unsafe {
        let now = bpf_ktime_get_boot_ns();
        if kind::is_udp(kind) {
            (&raw mut LAST_UDP_LOSS).write_volatile(now);
        } else if kind::is_tcp_or_process(kind) {
            (&raw mut LAST_LOSS).write_volatile(now);
        }
    }
    count(&LOST, kind);
}
