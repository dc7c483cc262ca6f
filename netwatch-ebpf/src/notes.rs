//! What was sent and with which cause, noted with the socket or pipe for whoever receives it:
//!
//! - On the socket of a connection that this host began: what it sent last. The answer restores the cause of the thread
//!   that asked. If others ask with another cause before the answer comes, the answer has no cause.
//! - On a UNIX socket or a pipe: what its other end wrote last (`unix.rs`, `pipe.rs`). It becomes the cause of the reader.
//!
//! Where functions can be probed a note is written before the message is sent, and read after it was received, so a reader
//! never finds an older one; `unix.rs` says what holds elsewhere.
//! Notes are in socket storage or, where that is not available, in a map by address that forgets the oldest. An address
//! may be reused: the next writer then finds what another one has sent, and the note becomes [`state::MIXED`].

use core::ffi::c_void;

use aya_ebpf::bindings::{BPF_F_NO_PREALLOC, BPF_SK_STORAGE_GET_F_CREATE, bpf_map_type};
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::generated::bpf_sk_storage_get;
use aya_ebpf::macros::btf_map;
use netwatch_common::change_flags;

use crate::cause::{self, Cause};
use crate::known::Known;
use crate::mem::{Memory as _, Typed, knob, offset};
use crate::{sock, task};

/// What was sent.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Note {
    /// One of [`state`].
    pub(crate) state: u64,
    /// For a UNIX socket: 1 if this end has sent something for which it had a cause.
    pub(crate) asked: u64,
    /// The cause of what was sent.
    pub(crate) cause: Cause,
}

/// Values of [`Note::state`].
pub(crate) mod state {
    /// Nothing is known about what was sent, or it was received.
    pub(crate) const EMPTY: u64 = 0;
    /// Something was sent with this cause, and was not received or answered yet.
    pub(crate) const SENT: u64 = 1;
    /// It was answered, perhaps in part.
    pub(crate) const ANSWERED: u64 = 2;
    /// Things with different causes were sent before the first was received or answered.
    pub(crate) const MIXED: u64 = 3;
}

pub(crate) static NO_NOTE: Note = Note { state: state::EMPTY, asked: 0, cause: cause::NONE };

/// `BPF_MAP_TYPE_SK_STORAGE`
#[repr(C)]
struct NoteStorage {
    r#type: *const [i32; bpf_map_type::BPF_MAP_TYPE_SK_STORAGE as usize],
    key: *const i32,
    value: *const Note,
    max_entries: *const [i32; 0],
    map_flags: *const [i32; BPF_F_NO_PREALLOC as usize],
}

// SAFETY: a map definition is never accessed; its fields only encode types.
unsafe impl Sync for NoteStorage {}

#[btf_map]
static NOTES: NoteStorage = NoteStorage {
    r#type: core::ptr::null(),
    key: core::ptr::null(),
    value: core::ptr::null(),
    max_entries: core::ptr::null(),
    map_flags: core::ptr::null(),
};

/// By the address of the socket. The agent sets it to one entry if it is not used.
#[btf_map]
static NOTES_BY_ADDRESS: LruHashMap<u64, Note, 16384> = LruHashMap::new();

/// The note on a socket.
#[inline(always)]
pub(crate) fn on(sk: *const c_void, create: bool) -> Option<*mut Note> {
    if !knob!(socket_helpers) {
        return by_address(sk as u64, create);
    }
    let flags = if create { BPF_SK_STORAGE_GET_F_CREATE } else { 0 };
    let map = (&raw const NOTES).cast_mut().cast();
    // SAFETY: the map, and a socket that the verifier knows.
    let note = unsafe { bpf_sk_storage_get(map, sk.cast_mut(), core::ptr::null_mut(), flags.into()) };
    (!note.is_null()).then_some(note.cast())
}

/// The note on a socket of which the verifier does not know that it is one.
#[inline(always)]
pub(crate) fn by_address(address: u64, create: bool) -> Option<*mut Note> {
    if let Some(note) = NOTES_BY_ADDRESS.get_ptr_mut(address) {
        return Some(note);
    }
    if !create {
        return None;
    }
    // On failure there is no note.
    let _ = NOTES_BY_ADDRESS.insert(address, &NO_NOTE, 0);
    NOTES_BY_ADDRESS.get_ptr_mut(address)
}

/// Notes that something is sent with this cause.
///
/// # Safety
/// Both are memory of a map.
#[inline(always)]
pub(crate) unsafe fn sent(note: *mut Note, cause: *const Cause) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mixed = match (*note).state {
            state::SENT => !cause::same(&raw const (*note).cause, cause),
            state::MIXED => true,
            _ => {
                cause::copy(cause, &raw mut (*note).cause);
                false
            }
        };
        (*note).state = if mixed { state::MIXED } else { state::SENT };
    }
}

/// Notes that something is sent without a cause.
///
/// # Safety
/// The note is memory of a map.
#[inline(always)]
pub(crate) unsafe fn sent_without(note: *mut Note) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        (*note).state = match (*note).state {
            state::SENT | state::MIXED => state::MIXED,
            _ => state::EMPTY,
        };
    }
}

/// The current thread connects a socket: what was noted on it is about an earlier connection.
#[inline(always)]
pub(crate) fn connects(sk: *const c_void) {
    let cause = cause::of(task::current());
    let Some(note) = on(sk, cause.is_some()) else { return };
    // SAFETY: both are memory of maps.
    unsafe {
        (*note).state = state::EMPTY;
        if let Some(cause) = cause {
            sent(note, cause);
        }
    }
}

/// The current thread sends to a socket.
///
/// # Safety
/// `sk` is a typed `struct sock` that is followed, `known` its state.
#[inline(always)]
pub(crate) unsafe fn asks(sk: *const c_void, known: *const Known) {
    // SAFETY: guaranteed by the caller; notes and causes are memory of maps.
    unsafe {
        if !is_asker(sk, known) {
            return;
        }
        let cookie = sock::cookie(sk);
        match cause::of(task::current()).filter(|cause| (**cause).cookie != cookie) {
            Some(cause) => {
                if let Some(note) = on(sk, true) {
                    sent(note, cause);
                }
            }
            None => {
                if let Some(note) = on(sk, false) {
                    sent_without(note);
                }
            }
        }
    }
}

/// The current thread has received from a socket: what it does next is caused by that, or by what caused the question to
/// which this is the answer.
///
/// # Safety
/// `sk` is a typed `struct sock` that is followed, `known` its state.
#[inline(always)]
pub(crate) unsafe fn answered(sk: *const c_void, known: Option<*mut Known>) {
    // SAFETY: guaranteed by the caller; notes and causes are memory of maps.
    unsafe {
        if let Some(known) = known
            && is_asker(sk, known)
            && let Some(note) = on(sk, false)
        {
            match (*note).state {
                state::SENT | state::ANSWERED => {
                    (*note).state = state::ANSWERED;
                    return cause::adopt(&raw const (*note).cause);
                }
                state::MIXED => return cause::got_something(),
                _ => {}
            }
        }
        cause::got(sock::cookie(sk));
    }
}

/// Whether this host began the connection, so that what it receives are answers. For datagrams: whether the socket is connected.
///
/// # Safety
/// `sk` is a typed `struct sock` that is followed, `known` its state.
#[inline(always)]
unsafe fn is_asker(sk: *const c_void, known: *const Known) -> bool {
    // SAFETY: guaranteed by the caller.
    unsafe {
        if sock::has_flows(sock::protocol::<Typed>(sk)) {
            return Typed::read::<u16>(sk, offset!(sk_dport)) != 0;
        }
        (*known).flags & change_flags::CONNECTED != 0
    }
}

/// Removes the note on a socket that closes.
#[inline(always)]
pub(crate) fn forget(sk: *const c_void) {
    if !knob!(socket_helpers) {
        // Fails if there is none.
        let _ = NOTES_BY_ADDRESS.remove(sk as u64);
    }
}
