//! What the kernel side keeps with a socket, for as long as that lives.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type};
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;

/// What is known of a socket, for as long as it lives.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Known {
    /// The listener's own cookie; its children inherit it and so know where they came from.
    pub(crate) listener: u64,
    pub(crate) began: u64,
    pub(crate) owner_start: u64,
    pub(crate) owner_tgid: u32,
    pub(crate) owner_tid: u32,
    pub(crate) flags: u32,
    /// Records of use that were sent; see [`crate::using`].
    pub(crate) told: u32,
    /// Who used it last, the last first: 0 for nobody.
    pub(crate) users: [u64; USERS],
}

/// Bits of [`Known::flags`] beside [`netwatch_common::change_flags`]: the socket was seen to be made, it had
/// UDP flows, and one of them began with a call that has not ended.
pub(crate) const BORN: u32 = 1 << 16;
pub(crate) const FLOWS: u32 = 1 << 17;
pub(crate) const PENDING: u32 = 1 << 18;

/// As many as usually share a connection: who handed it over, and who has it.
pub(crate) const USERS: usize = 4;

/// `BPF_MAP_TYPE_SK_STORAGE` with `BPF_F_CLONE`, which aya's `SkStorage` has no room for.
#[repr(C)]
struct CloningSkStorage {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Known,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: a map definition is never written; its fields are types in disguise.
unsafe impl Sync for CloningSkStorage {}

#[btf_map]
static KNOWN: CloningSkStorage = CloningSkStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// The socket's storage, made (all zero) where `create` says so.
#[inline(always)]
pub(crate) fn storage(sk: *const c_void, create: bool) -> Option<*mut Known> {
    let flags = if create { BPF_SK_STORAGE_GET_F_CREATE } else { 0 };
    let map = (&raw const KNOWN).cast_mut().cast();
    // SAFETY: the map's definition and the tracepoint's typed argument.
    let known = unsafe { bpf_sk_storage_get(map, sk.cast_mut(), core::ptr::null_mut(), flags.into()) };
    (!known.is_null()).then_some(known.cast())
}
