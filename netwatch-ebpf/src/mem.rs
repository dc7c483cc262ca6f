//! Reading kernel memory at offsets that the agent resolved from the kernel's BTF.

use core::ffi::c_void;
use core::mem::MaybeUninit;

use aya_ebpf::helpers::generated::bpf_probe_read_kernel;
use netwatch_common::{Knobs, Offsets};

/// Overridden by the agent before the programs are loaded, then frozen: the verifier sees constants.
#[unsafe(no_mangle)]
static OFFSETS_V1: Offsets = Offsets::ZERO;

/// The offset of a member of [`Offsets`].
macro_rules! offset {
    ($name:ident) => {
        $crate::mem::read_only(|offsets| &raw const (*offsets).$name)
    };
}
pub(crate) use offset;

/// Reads one value of the frozen table. Volatile: the compiler must not fold the zeros that stand in
/// the object file.
#[inline(always)]
pub(crate) fn read_only(member: impl FnOnce(*const Offsets) -> *const u32) -> u32 {
    let member = member(&raw const OFFSETS_V1);
    // SAFETY: a member of a static.
    unsafe { member.read_volatile() }
}

/// Likewise.
#[unsafe(no_mangle)]
static KNOBS_V1: Knobs = Knobs::ZERO;

/// Whether one of [`Knobs`] is on.
macro_rules! knob {
    ($name:ident) => {
        $crate::mem::is_on(core::mem::offset_of!(netwatch_common::Knobs, $name))
    };
}
pub(crate) use knob;

/// Reads one of the frozen switches, as [`read_only`] does.
#[inline(always)]
pub(crate) fn is_on(offset: usize) -> bool {
    number(offset) != 0
}

/// Reads one of the frozen values, likewise.
#[inline(always)]
pub(crate) fn number(offset: usize) -> u32 {
    let knobs = &raw const KNOBS_V1;
    // SAFETY: a member of a static; all are of this type.
    unsafe { knobs.byte_add(offset).cast::<u32>().read_volatile() }
}

/// The same address without what the verifier knows of it: a socket that it allows to be handed to some
/// helpers only may then be read by [`Untyped`]. The helper reads it from the stack, where it is nobody else's: a
/// map's memory would be shared with whoever preempts this program. NULL where that is not to be had.
#[inline(always)]
pub(crate) fn plain(pointer: *const c_void) -> *const c_void {
    let mut slot = MaybeUninit::<*const c_void>::uninit();
    // SAFETY: this program's stack. Volatile: it has to lie there.
    unsafe {
        slot.as_mut_ptr().write_volatile(pointer);
        Untyped::read(slot.as_ptr().cast(), 0)
    }
}

/// How a program may read what a pointer points to.
pub(crate) trait Memory {
    /// Reads a `T` at `base + offset`; zero where the kernel cannot.
    ///
    /// # Safety
    /// `offset` is that of a member of type `T` in the structure at `base`.
    unsafe fn read<T: Copy>(base: *const c_void, offset: u32) -> T;
}

/// The verifier knows the pointer's type (BTF): a plain load, which yields zero on a fault. For values: where the
/// member is itself a pointer, the verifier looks for the names of types through all of the kernel's, four times a load
/// (`kernel/bpf/btf.c`, btf_nested_type_is_trusted), and a start takes thrice as long.
pub(crate) struct Typed;

impl Memory for Typed {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
        // SAFETY: the caller's; the verifier checks the access against the kernel's BTF.
        unsafe { base.byte_add(offset as usize).cast::<T>().read_volatile() }
    }
}

/// The current task: typed where the kernel has it so.
pub(crate) struct Current;

impl Memory for Current {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
        if knob!(typed_current) {
            // SAFETY: the caller's.
            unsafe { Typed::read(base, offset) }
        } else {
            // SAFETY: the caller's.
            unsafe { Untyped::read(base, offset) }
        }
    }
}

/// A pointer of which the verifier knows nothing: the helper copies.
pub(crate) struct Untyped;

impl Untyped {
    /// Reads a `T` at `base + offset` to where it belongs, without a copy on the way: zeros where the kernel cannot.
    ///
    /// # Safety
    /// As [`Memory::read`]; every pattern of bits is a `T`.
    #[inline(always)]
    pub(crate) unsafe fn read_to<T>(out: &mut T, base: *const c_void, offset: u32) {
        let out = core::ptr::from_mut(out).cast();
        // SAFETY: the helper writes the size of a `T`.
        unsafe { bpf_probe_read_kernel(out, size_of::<T>() as u32, base.byte_add(offset as usize)) };
    }
}

impl Memory for Untyped {
    #[inline(always)]
    unsafe fn read<T: Copy>(base: *const c_void, offset: u32) -> T {
        let mut value = MaybeUninit::<T>::zeroed();
        // SAFETY: the helper writes at most the size of `value`, zeros on a fault
        // (`mm/maccess.c`, copy_from_kernel_nofault, with kernel/trace/bpf_trace.c's memset).
        unsafe {
            bpf_probe_read_kernel(
                value.as_mut_ptr().cast(),
                size_of::<T>() as u32,
                base.byte_add(offset as usize),
            )
        };
        // SAFETY: zeroed above; every `T` used here is an integer, a pointer or an array of bytes.
        unsafe { value.assume_init() }
    }
}
