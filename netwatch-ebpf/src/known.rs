//! State that is kept per socket for its lifetime: in socket storage or, before 5.12, where tracing programs cannot use
//! that, in a map by the address of the socket. Addresses are reused, so there the entry is removed when the socket
//! closes: at the transition to CLOSE, and for UDP at release.

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_F_CLONE, BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type};
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;

use crate::budget::Budget;
use crate::mem::{knob, plain};

/// The state of a socket.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Known {
    /// Cookie of the listener. Its children inherit the value.
    pub(crate) listener: u64,
    pub(crate) began: u64,
    pub(crate) owner_start: u64,
    pub(crate) owner_tgid: u32,
    pub(crate) owner_tid: u32,
    pub(crate) flags: u32,
    /// The last transition that the first program handled, until the second program has checked it: see `state.rs`.
    pub(crate) seen: u32,
    /// Inode number of the network namespace, which does not change; 0 if not read yet.
    pub(crate) netns: u32,
    /// Zero.
    pub(crate) pad: u32,
    /// Number of UDP flows for which the map had a place so far.
    pub(crate) flows: u64,
    /// Number of calls in which the first datagram of a UDP flow was sent and that have not returned.
    pub(crate) pending: u64,
    /// Read and written by [`users`] and [`set_users`].
    pub(crate) users: Users,
}

/// The processes that use a socket, which programs change without its lock.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Users {
    /// Of `USE` records; see [`crate::using`].
    pub(crate) budget: Budget,
    /// The last users, the most recent first; 0 for none. See [`crate::using::who`].
    pub(crate) last: [u64; USERS],
}

/// No users.
pub(crate) const NOBODY: Users = Users { budget: Budget::WHOLE, last: [0; USERS] };

/// A bit of [`Known::flags`] in addition to [`netwatch_common::change_flags`]: the creation of the socket was observed.
/// Flags are not changed atomically: at transitions the kernel holds the lock of the socket, and this one is set before
/// anything else uses the socket.
pub(crate) const BORN: u32 = 1 << 16;

/// Number of users that are remembered; few processes share a connection.
pub(crate) const USERS: usize = 4;

/// `BPF_MAP_TYPE_SK_STORAGE` with `BPF_F_CLONE`, which aya's `SkStorage` cannot express.
#[repr(C)]
struct CloningSkStorage {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Known,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; (BPF_F_NO_PREALLOC | BPF_F_CLONE) as usize],
}

// SAFETY: a map definition is never accessed; its fields only encode types.
unsafe impl Sync for CloningSkStorage {}

#[btf_map]
static KNOWN: CloningSkStorage = CloningSkStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// Entries of the map by address. The agent sets it to one if the map is not used.
const SOCKETS_MAX: usize = 65536;

#[btf_map]
static KNOWN_BY_ADDRESS: HashMap<u64, Known, SOCKETS_MAX> = HashMap::new();

/// [`Users`] by address. An element of a map may be reused for another key while a program has a pointer to it
/// (kernel/bpf/hashtab.c, htab_map_delete_elem() with preallocated elements, v5.10). [`Known`] is changed under the lock
/// of the socket, which is held when its element is removed; users are not, so their elements are copied and replaced.
#[btf_map]
static USERS_BY_ADDRESS: HashMap<u64, Users, SOCKETS_MAX> = HashMap::new();

/// No state.
pub(crate) const NOTHING: Known = Known {
    listener: 0,
    began: 0,
    owner_start: 0,
    owner_tgid: 0,
    owner_tid: 0,
    flags: 0,
    seen: 0,
    netns: 0,
    pad: 0,
    flows: 0,
    pending: 0,
    users: NOBODY,
};

/// The state of a socket; created as zeros if `create`.
#[inline(always)]
pub(crate) fn storage(sk: *const c_void, create: bool) -> Option<*mut Known> {
    if knob!(socket_helpers) { on_socket(sk, create) } else { by_address(sk as u64, create) }
}

/// The same for the socket of a cgroup program, whose pointer the verifier does not allow as a map key.
#[inline(always)]
pub(crate) fn storage_in_cgroup(sk: *const c_void, create: bool) -> Option<*mut Known> {
    if knob!(socket_helpers) { on_socket(sk, create) } else { by_address(plain(sk) as u64, create) }
}

/// Removes the state of a socket that closes.
#[inline(always)]
pub(crate) fn forget(sk: *const c_void) {
    if !knob!(socket_helpers) {
        // Each fails if there is no entry.
        let _ = KNOWN_BY_ADDRESS.remove(sk as u64);
        let _ = USERS_BY_ADDRESS.remove(sk as u64);
    }
}

/// The users of a socket. `sk` is an address only.
///
/// # Safety
/// `known` is the state of the socket.
#[inline(always)]
pub(crate) unsafe fn users(sk: u64, known: *const Known) -> Users {
    // SAFETY: guaranteed by the caller; the entry is copied.
    unsafe {
        if knob!(socket_helpers) {
            return (*known).users;
        }
        USERS_BY_ADDRESS.get(sk).copied().unwrap_or(NOBODY)
    }
}

/// Replaces the users of a socket. `sk` is an address only.
///
/// # Safety
/// `known` is the state of the socket.
#[inline(always)]
pub(crate) unsafe fn set_users(sk: u64, known: *mut Known, users: &Users) {
    if knob!(socket_helpers) {
        // SAFETY: guaranteed by the caller.
        unsafe { (*known).users = *users };
        return;
    }
    // If the map is full, users are not known, and each use is one by a new user.
    let _ = USERS_BY_ADDRESS.insert(sk, users, 0);
}

#[inline(always)]
fn on_socket(sk: *const c_void, create: bool) -> Option<*mut Known> {
    let flags = if create { BPF_SK_STORAGE_GET_F_CREATE } else { 0 };
    let map = (&raw const KNOWN).cast_mut().cast();
    // SAFETY: the map, and a socket that the verifier knows.
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
    // If the map is full the lookup fails.
    let _ = KNOWN_BY_ADDRESS.insert(address, NOTHING, 0);
    KNOWN_BY_ADDRESS.get_ptr_mut(address)
}
