//! Recognises network namespaces. The kernel gives the inode number of one that is gone to the next one
//! (fs/proc/generic.c, proc_alloc_inum(), v6.12), so what was noted under a number may be about another namespace.

use core::ffi::c_void;

use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::macros::btf_map;
use netwatch_common::{NETNS_MAX, Netns, kind};

use crate::emit;
use crate::mem::{Memory as _, Untyped, knob, offset};

/// By inode number, the random number that each has from its creation on (`net.hash_mix`: net/core/net_namespace.c,
/// preinit_net(), v6.12).
#[btf_map]
static NETNS: LruHashMap<u32, u32, NETNS_MAX> = LruHashMap::new();

/// Sends a [`Netns`] if the namespace of a socket is not the one that was seen last with its number.
///
/// # Safety
/// `sk` is a `struct sock`.
#[inline(always)]
pub(crate) unsafe fn recognise(sk: *const c_void) {
    if !knob!(names) {
        return;
    }
    // SAFETY: guaranteed by the caller; every socket has a namespace. The number is copied.
    unsafe {
        let net: *const c_void = Untyped::read(sk, offset!(sk_net));
        let inum: u32 = Untyped::read(net, offset!(net_inum));
        let mix: u32 = Untyped::read(net, offset!(net_hash_mix));
        if NETNS.get(inum).copied() == Some(mix) {
            return;
        }
        // Without a record it is sent with the next one.
        let Some(mut entry) = emit::reserve::<Netns>(kind::NETNS) else { return };
        *entry.as_mut_ptr() = Netns { header: emit::header(kind::NETNS), inum, pad: 0 };
        emit::submit(entry);
        let _ = NETNS.insert(inum, mix, 0);
    }
}
