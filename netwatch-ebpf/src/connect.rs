//! Attempts that fail inside connect(): no route, no free port. They never reach SYN_SENT, or leave it
//! within the call without an error on the socket, so the call's own result is the only witness.
//!
//! A map keyed by thread joins the beginning of a call with its end. Best are entry and exit of `tcp_v4_connect`
//! and `tcp_v6_connect` (fentry and fexit, else kprobe and kretprobe), which io_uring passes as well and which
//! have the kernel's own copy of the address. Where functions cannot be probed, the exit of connect(2) has the
//! errno, and `cgroup/connect4` and `connect6` the socket and the kernel's copy of the address
//! (`net/ipv4/tcp_ipv4.c`, tcp_v4_pre_connect); there it is the entry of connect(2) that makes an item in the
//! map, so that io_uring, which runs the hooks and not the exit, leaves none behind. Without any of these such
//! attempts are not seen.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use aya_ebpf::macros::{btf_map, cgroup_sock_addr, fentry, fexit, kprobe, kretprobe, tracepoint};
use aya_ebpf::programs::{
    FEntryContext, FExitContext, ProbeContext, RetProbeContext, SockAddrContext, TracePointContext,
};
use netwatch_common::{Sock, kind};

use crate::mem::{Memory as _, Typed, Untyped, offset};
use crate::twice::{self, Pair};
use crate::{act, emit, sock, task};

/// Threads that can be inside connect() at once. One more is not followed, and counted.
const MAX_CALLS: usize = 16384;

const EINPROGRESS: i64 = 115;

#[repr(C)]
#[derive(Clone, Copy)]
struct Call {
    sock: Sock,
    /// The socket went to SYN_SENT: the state transitions tell the rest.
    syn_sent: u32,
    /// And from there back to CLOSE, without an error on the socket.
    gave_up: u32,
}

#[btf_map]
static CALLS: HashMap<u64, Call, MAX_CALLS> = HashMap::new();

#[fentry(function = "tcp_v4_connect")]
fn tcp_v4_connect_enter(ctx: FEntryContext) -> i32 {
    let cookie = cookie(ctx.arg(0));
    twice::first(Pair::Enter4, cookie);
    entered(&ctx, sock::AF_INET, cookie)
}

#[fentry(function = "tcp_v4_connect")]
fn tcp_v4_connect_enter_again(ctx: FEntryContext) -> i32 {
    let cookie = cookie(ctx.arg(0));
    if was_left_out(Pair::Enter4, cookie) { entered(&ctx, sock::AF_INET, cookie) } else { 0 }
}

#[fentry(function = "tcp_v6_connect")]
fn tcp_v6_connect_enter(ctx: FEntryContext) -> i32 {
    let cookie = cookie(ctx.arg(0));
    twice::first(Pair::Enter6, cookie);
    entered(&ctx, sock::AF_INET6, cookie)
}

#[fentry(function = "tcp_v6_connect")]
fn tcp_v6_connect_enter_again(ctx: FEntryContext) -> i32 {
    let cookie = cookie(ctx.arg(0));
    if was_left_out(Pair::Enter6, cookie) { entered(&ctx, sock::AF_INET6, cookie) } else { 0 }
}

#[fexit(function = "tcp_v4_connect")]
fn tcp_v4_connect_leave(ctx: FExitContext) -> i32 {
    twice::first(Pair::Leave4, cookie(ctx.arg(0)));
    left(&ctx)
}

#[fexit(function = "tcp_v4_connect")]
fn tcp_v4_connect_leave_again(ctx: FExitContext) -> i32 {
    if was_left_out(Pair::Leave4, cookie(ctx.arg(0))) { left(&ctx) } else { 0 }
}

#[fexit(function = "tcp_v6_connect")]
fn tcp_v6_connect_leave(ctx: FExitContext) -> i32 {
    twice::first(Pair::Leave6, cookie(ctx.arg(0)));
    left(&ctx)
}

#[fexit(function = "tcp_v6_connect")]
fn tcp_v6_connect_leave_again(ctx: FExitContext) -> i32 {
    if was_left_out(Pair::Leave6, cookie(ctx.arg(0))) { left(&ctx) } else { 0 }
}

/// The call's item is made anew, or is gone already, where this is done once more.
#[inline(always)]
fn was_left_out(pair: Pair, cookie: u64) -> bool {
    twice::was_left_out(pair, cookie, kind::REFUSED)
}

/// `sk` is typed.
#[inline(always)]
fn cookie(sk: *const c_void) -> u64 {
    // SAFETY: the functions' first argument.
    unsafe { sock::cookie(sk) }
}

#[inline(always)]
fn entered(ctx: &FEntryContext, family: u16, cookie: u64) -> i32 {
    let _ = begun(ctx.arg(0), ctx.arg(1), family, cookie);
    0
}

/// Behind the three arguments of each lies what it returns.
const CONNECT_RESULT: usize = 3;

#[inline(always)]
fn left(ctx: &FExitContext) -> i32 {
    let _ = ended(ctx.arg::<i32>(CONNECT_RESULT).into());
    0
}

#[kprobe(function = "tcp_v4_connect")]
fn tcp_v4_connect_entry(ctx: ProbeContext) -> u32 {
    let _ = probed(&ctx, sock::AF_INET);
    0
}

#[kprobe(function = "tcp_v6_connect")]
fn tcp_v6_connect_entry(ctx: ProbeContext) -> u32 {
    let _ = probed(&ctx, sock::AF_INET6);
    0
}

#[kretprobe(function = "tcp_v4_connect")]
fn tcp_v4_connect_return(ctx: RetProbeContext) -> u32 {
    let _ = ended(ctx.ret::<i32>().into());
    0
}

#[kretprobe(function = "tcp_v6_connect")]
fn tcp_v6_connect_return(ctx: RetProbeContext) -> u32 {
    let _ = ended(ctx.ret::<i32>().into());
    0
}

#[inline(always)]
fn probed(ctx: &ProbeContext, family: u16) -> Option<()> {
    let sk: *const c_void = ctx.arg(0)?;
    // This type of program may not ask for a cookie: the socket has one since it was made (`cookie.rs`).
    // SAFETY: a `struct sock`.
    let cookie = unsafe { Untyped::read(sk, offset!(sk_cookie)) };
    begun(sk, ctx.arg(1)?, family, cookie)
}

/// Where port and address lie in a `sockaddr_in` and a `sockaddr_in6` (`include/uapi/linux/in.h`, `in6.h`).
const PORT: u32 = 2;
const SIN_ADDR: u32 = 4;
const SIN6_ADDR: u32 = 8;

/// `address` is the kernel's own copy.
#[inline(always)]
fn begun(sk: *const c_void, address: *const c_void, family: u16, cookie: u64) -> Option<()> {
    // SAFETY: a `struct sock` of TCP; the helper reads. A subflow of MPTCP is connected by the kernel.
    if cookie == 0 || unsafe { sock::is_subflow::<Untyped>(sk) } {
        return None;
    }
    // SAFETY: as above, and an address of at least the family's length where the family is right.
    let sock = unsafe {
        if Untyped::read::<u16>(address, 0) != family {
            return None;
        }
        Sock {
            cookie,
            family,
            protocol: sock::IPPROTO_TCP as u8,
            remote: if family == sock::AF_INET {
                sock::widen(Untyped::read(address, SIN_ADDR))
            } else {
                Untyped::read(address, SIN6_ADDR)
            },
            remote_port: u16::from_be(Untyped::read(address, PORT)),
            local_port: Untyped::read(sk, offset!(sk_num)),
            netns: sock::netns(sk),
            ..sock::EMPTY
        }
    };
    // tcp_v6_connect hands a mapped address on to tcp_v4_connect: one call.
    if let Some(call) = call_of(cookie)
        && family == sock::AF_INET
        // SAFETY: only this thread uses its own entry.
        && is_mapped(unsafe { &(*call).sock }, &sock)
    {
        return None;
    }
    let call = Call { sock, syn_sent: 0, gave_up: 0 };
    if CALLS.insert(thread(), call, 0).is_err() {
        emit::lost(kind::REFUSED);
    }
    Some(())
}

/// Whether the IPv6 socket's remote end is the IPv4 one's.
#[inline(always)]
fn is_mapped(v6: &Sock, v4: &Sock) -> bool {
    let ([_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d], [e, f, g, h, ..]) = (v6.remote, v4.remote);
    v6.family == sock::AF_INET6
        && v6.remote_port == v4.remote_port
        && u32::from_ne_bytes([a, b, c, d]) == u32::from_ne_bytes([e, f, g, h])
}

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the hook's context; the kernel wrote it.
    let address = unsafe { &*ctx.sock_addr };
    enter(&ctx, address, sock::AF_INET, sock::widen(address.user_ip4.to_ne_bytes()));
    1
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the hook's context; the kernel wrote it.
    let address = unsafe { &*ctx.sock_addr };
    let [a, b, c, d] = address.user_ip6;
    let mut remote = [0_u8; 16];
    remote[0..4].copy_from_slice(&a.to_ne_bytes());
    remote[4..8].copy_from_slice(&b.to_ne_bytes());
    remote[8..12].copy_from_slice(&c.to_ne_bytes());
    remote[12..16].copy_from_slice(&d.to_ne_bytes());
    enter(&ctx, address, sock::AF_INET6, remote);
    1
}

#[inline(always)]
fn enter(ctx: &SockAddrContext, address: &bpf_sock_addr, family: u16, remote: [u8; 16]) -> Option<()> {
    if address.protocol != u32::from(sock::IPPROTO_TCP) {
        return None;
    }
    // SAFETY: helpers that take the hook's context, and its socket.
    let (cookie, tcp) = unsafe {
        let sk = address.__bindgen_anon_1.sk;
        if sk.is_null() {
            return None;
        }
        (bpf_get_socket_cookie(ctx.sock_addr.cast()), bpf_skc_to_tcp_sock(sk.cast()))
    };
    // SAFETY: a `struct tcp_sock`. A subflow of MPTCP is connected by the kernel.
    if tcp.is_null() || unsafe { sock::is_subflow::<Typed>(tcp.cast()) } {
        return None;
    }
    let call = CALLS.get_ptr_mut(thread())?;
    // SAFETY: only this thread uses its own entry; a `struct tcp_sock` of which the verifier knows the
    // type, and a socket comes first in it.
    unsafe {
        let sk = tcp.cast();
        (*call).sock = Sock {
            cookie,
            family,
            protocol: sock::IPPROTO_TCP as u8,
            remote,
            remote_port: u16::from_be(address.user_port as u16),
            local_port: Typed::read(sk, offset!(sk_num)),
            netns: sock::netns(sk),
            ..sock::EMPTY
        };
    }
    None
}

#[tracepoint(category = "syscalls", name = "sys_enter_connect")]
#[cfg_attr(not(feature = "log"), expect(unused_variables, reason = "only a line needs the context"))]
fn sys_enter_connect(ctx: TracePointContext) -> u32 {
    if CALLS.insert(thread(), Call { sock: sock::EMPTY, syn_sent: 0, gave_up: 0 }, 0).is_err() {
        emit::lost(kind::REFUSED);
        #[cfg(feature = "log")]
        aya_log_ebpf::warn!(&ctx, "{} calls of connect() are under way, one more is not followed", MAX_CALLS);
    }
    0
}

#[inline(always)]
fn thread() -> u64 {
    bpf_get_current_pid_tgid()
}

#[inline(always)]
fn call_of(cookie: u64) -> Option<*mut Call> {
    let call = CALLS.get_ptr_mut(thread())?;
    // SAFETY: only this thread uses its own entry.
    (unsafe { (*call).sock.cookie } == cookie).then_some(call)
}

/// The current thread's connect() made a SYN.
#[inline(always)]
pub(crate) fn reached_syn_sent(cookie: u64) {
    if let Some(call) = call_of(cookie) {
        // SAFETY: only this thread uses its own entry.
        unsafe { (*call).syn_sent = 1 };
    }
}

/// Whether the current thread is inside connect() on this socket, whose way from SYN_SENT back to CLOSE
/// is then that call's failure; its exit will tell.
#[inline(always)]
pub(crate) fn fails_in_call(cookie: u64) -> bool {
    let Some(call) = call_of(cookie) else { return false };
    // SAFETY: only this thread uses its own entry.
    unsafe { (*call).gave_up = 1 };
    true
}

#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
fn sys_exit_connect(ctx: TracePointContext) -> u32 {
    // SAFETY: within the tracepoint's record.
    if let Ok(result) = unsafe { ctx.read_at(SYSCALL_RESULT) } {
        let _ = ended(result);
    }
    0
}

/// Where the result lies in a system call's exit (`kernel/trace/trace.h`, struct syscall_trace_exit).
pub(crate) const SYSCALL_RESULT: usize = 16;

/// The current thread's call is over.
#[inline(always)]
fn ended(result: i64) -> Option<()> {
    // SAFETY: copies the entry out before it goes.
    let call = unsafe { *CALLS.get_ptr(thread())? };
    // An entry that cannot be removed is one that is gone.
    let _ = CALLS.remove(thread());
    // Without a cookie no hook ran: not TCP, or refused before the socket was asked.
    if call.sock.cookie == 0
        || result >= 0
        || result == -EINPROGRESS
        || (call.syn_sent != 0 && call.gave_up == 0)
    {
        return None;
    }
    let way = task::way(task::current());
    // SAFETY: the socket is filled in whole.
    unsafe { act::tell(emit::header(kind::REFUSED), way, result as i32, |out| *out = call.sock) }
}
