//! What the kernel side keeps with a socket, for as long as that lives: in storage on the socket itself, or,
//! where programs may not have that (before 5.12), in a table by the socket's address. An address is given
//! anew once its socket is gone, so there each way out of life takes its item along: the transition to
//! CLOSE, and for UDP the release.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type};
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;

use crate::mem::{knob, plain};

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
    /// The transition that was told last, until the second program at the tracepoint has seen that: see `state.rs`.
    pub(crate) seen: u32,
    /// Inode number of the socket's network namespace, which no socket leaves; 0 before it was asked for.
    pub(crate) netns: u32,
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

/// Sockets that the table by address has room for. The agent makes it of one where it is not used.
const SOCKETS_MAX: usize = 65536;

#[btf_map]
static KNOWN_BY_ADDRESS: HashMap<u64, Known, SOCKETS_MAX> = HashMap::new();

/// Nothing is known.
pub(crate) const NOTHING: Known = Known {
    listener: 0,
    began: 0,
    owner_start: 0,
    owner_tgid: 0,
    owner_tid: 0,
    flags: 0,
    told: 0,
    seen: 0,
    netns: 0,
    users: [0; USERS],
};

/// What is kept with a socket, made (all zero) where `create` says so.
#[inline(always)]
pub(crate) fn storage(sk: *const c_void, create: bool) -> Option<*mut Known> {
    if knob!(socket_helpers) { on_socket(sk, create) } else { by_address(sk as u64, create) }
}

/// The same for the socket of a cgroup program, whose address the verifier has to be kept from.
#[inline(always)]
pub(crate) fn storage_in_cgroup(sk: *const c_void, create: bool) -> Option<*mut Known> {
    if knob!(socket_helpers) { on_socket(sk, create) } else { by_address(plain(sk) as u64, create) }
}

/// The socket's life is over.
#[inline(always)]
pub(crate) fn forget(sk: *const c_void) {
    if !knob!(socket_helpers) {
        // What is not there need not go.
        let _ = KNOWN_BY_ADDRESS.remove(sk as u64);
    }
}

#[inline(always)]
fn on_socket(sk: *const c_void, create: bool) -> Option<*mut Known> {
    let flags = if create { BPF_SK_STORAGE_GET_F_CREATE } else { 0 };
    let map = (&raw const KNOWN).cast_mut().cast();
    // SAFETY: the map's definition and the tracepoint's typed argument.
    let known = unsafe { bpf_sk_storage_get(map, sk.cast_mut(), core::ptr::null_mut(), flags.into()) };
    (!known.is_null()).then_some(known.cast())
}

#[inline(always)]
fn by_address(address: u64, create: bool) -> Option<*mut Known> {
    if let Some(known) = KNOWN_BY_ADDRESS.get_ptr_mut(address) {
        return Some(known);
    }
    if !create {
        return None;
    }
    // Full: then there is none to be had either.
    let _ = KNOWN_BY_ADDRESS.insert(address, NOTHING, 0);
    KNOWN_BY_ADDRESS.get_ptr_mut(address)
}
