//! Reads kernel memory at offsets that the agent resolved from BTF.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use netwatch_common::{Knobs, Offsets};

/// The agent overrides it before loading and freezes it, so that the verifier sees constants.
#[unsafe(no_mangle)]
static OFFSETS_V6: Offsets = Offsets::ZERO;

/// The offset of a member of [`Offsets`].
macro_rules! offset {
    ($name:ident) => {
        $crate::mem::read_only(|offsets| &raw const (*offsets).$name)
    };
}
pub(crate) use offset;

/// Reads an offset. Volatile, so that the compiler does not use the zeros of the object file.
#[inline(always)]
pub(crate) fn read_only(member: impl FnOnce(*const Offsets) -> *const u32) -> u32 {
    let member = member(&raw const OFFSETS_V6);
    // SAFETY: a member of a static.
    unsafe { member.read_volatile() }
}

/// The agent overrides it as well.
#[unsafe(no_mangle)]
static KNOBS_V6: Knobs = Knobs::ZERO;

/// Whether a switch of [`Knobs`] is on.
macro_rules! knob {
    ($name:ident) => {
        $crate::mem::is_on(core::mem::offset_of!(netwatch_common::Knobs, $name))
    };
}
pub(crate) use knob;

/// Reads a switch, as [`read_only`].
#[inline(always)]
pub(crate) fn is_on(offset: usize) -> bool {
    number(offset) != 0
}

/// Reads a value of [`Knobs`], as [`read_only`].
#[inline(always)]
pub(crate) fn number(offset: usize) -> u32 {
    let knobs = &raw const KNOBS_V6;
    // SAFETY: a member of a static; all have this type.
    unsafe { knobs.byte_add(offset).cast::<u32>().read_volatile() }
}

/// The same pointer as a plain number to the verifier, so that a socket that it only accepts for some helpers can be
/// read by [`Untyped`]. It goes through the stack; the memory of a map would be shared with runs that preempt this one.
/// NULL if the read fails.
#[inline(always)]
pub(crate) fn plain(pointer: *const c_void) -> *const c_void {
    let mut slot = MaybeUninit::<*const c_void>::uninit();
    // SAFETY: the stack of this program. Volatile, so that the value is stored there.
    unsafe {
        slot.as_mut_ptr().write_volatile(pointer);
        Untyped::read(slot.as_ptr().cast(), 0)
    }
}

/// How a program may read through a pointer.
pub(crate) trait Memory {
    /// Reads a `T` at `base + offset`; zero if the address is invalid.
    ///
    /// # Safety
    /// `offset` is the offset of a member of type `T` in the structure at `base`.
    unsafe fn read<T: Copy>(base: *const c_void, offset: u32) -> T;
}

/// The verifier knows the type of the pointer (BTF): a plain load, which gives zero on a fault. Only for values: for
/// each load of a pointer the verifier searches all type names of the kernel four times (kernel/bpf/btf.c,
/// btf_nested_type_is_trusted(), v6.12), which triples the time of a start.
pub(crate) struct Typed;

impl Memory for Typed {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
        // SAFETY: guaranteed by the caller; the verifier checks the access against the kernel's BTF.
        unsafe { base.byte_add(offset as usize).cast::<T>().read_volatile() }
    }
}

/// For the current task: typed if the kernel supports it.
pub(crate) struct Current;

impl Memory for Current {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
        if knob!(typed_current) {
            // SAFETY: guaranteed by the caller.
            unsafe { Typed::read(base, offset) }
        } else {
            // SAFETY: guaranteed by the caller.
            unsafe { Untyped::read(base, offset) }
        }
    }
}

/// A pointer whose type the verifier does not know: read by a helper.
pub(crate) struct Untyped;

impl Untyped {
    /// Reads a `T` at `base + offset` directly to `out`; zeros if the address is invalid.
    ///
    /// # Safety
    /// As [`Memory::read`]; every bit pattern is a valid `T`.
    #[inline(always)]
    pub(crate) unsafe fn read_to<T>(out: &mut T, base: *const c_void, offset: u32) {
        let out = core::ptr::from_mut(out).cast();
        // SAFETY: the helper writes exactly the size of a `T`.
        unsafe { bpf_probe_read_kernel(out, size_of::<T>() as u32, base.byte_add(offset as usize)) };
    }
}

impl Memory for Untyped {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the helper writes the size of `value`; zeros on a fault (kernel/trace/bpf_trace.c,
        // bpf_probe_read_kernel_common(), v6.12).
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.byte_add(offset as usize),
            )
        };
        // SAFETY: zeroed above; every `T` in use is an integer, a pointer or a byte array.
        unsafe { value.assume_init() }
    }
}
