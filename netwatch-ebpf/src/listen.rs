//! listen() without bind(): the kernel chooses the port after the transition to LISTEN
//! (net/ipv4/inet_connection_sock.c, inet_csk_listen_start(), v6.12), so the record of the transition has none. The
//! exit of listen(2) sends another one. Without this probe such a listener is reported with port 0.

use core::ffi::c_void;

use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{btf_map, tracepoint};
use aya_ebpf::programs::TracePointContext;
use netwatch_common::kind;

use crate::mem::{Memory as _, Typed, Untyped, offset};
use crate::{act, emit, sock};

/// Maximum number of threads in such a call at once.
const MAX_CALLS: usize = 1024;

#[repr(C)]
#[derive(Clone, Copy)]
struct Call {
    sk: u64,
    cookie: u64,
}

#[btf_map]
static UNBOUND: HashMap<u64, Call, MAX_CALLS> = HashMap::new();

/// Called when the current thread makes `sk` a listener.
#[inline(always)]
pub(crate) fn begun(sk: *const c_void, cookie: u64) {
    // SAFETY: the typed argument of the tracepoint.
    let port: u16 = unsafe { Typed::read(sk, offset!(sk_num)) };
    if port == 0 && UNBOUND.insert(bpf_get_current_pid_tgid(), Call { sk: sk as u64, cookie }, 0).is_err() {
        emit::lost(kind::LISTEN);
    }
}

#[tracepoint(category = "syscalls", name = "sys_exit_listen")]
fn sys_exit_listen(_ctx: TracePointContext) -> u32 {
    let _ = ended();
    0
}

#[inline(always)]
fn ended() -> Option<()> {
    let thread = bpf_get_current_pid_tgid();
    // SAFETY: the entry is copied before it is removed.
    let call = unsafe { *UNBOUND.get_ptr(thread)? };
    // Fails only if the entry is gone.
    let _ = UNBOUND.remove(thread);
    let sk = call.sk as *const c_void;
    // SAFETY: another thread may have closed the socket; the helper can read any address, and the cookie shows whether
    // it is still the same socket.
    unsafe {
        if Untyped::read::<u64>(sk, offset!(sk_cookie)) != call.cookie
            || Untyped::read::<u16>(sk, offset!(sk_num)) == 0
        {
            return None;
        }
        act::report(emit::header(kind::LISTEN), 0, 0, 0, |out| {
            out.cookie = call.cookie;
            sock::fill::<Untyped>(sk, false, out);
        })
    }
}
