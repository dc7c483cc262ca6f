//! Attempts that fail inside connect(): no route, no free port. They never reach SYN_SENT, or leave it during the call
//! without an error on the socket, so only the return value of the call shows them.
//!
//! A map by thread (`calls.rs`) joins the entry of a call with its exit. Preferred are entry and exit of
//! `tcp_v4_connect` and `tcp_v6_connect` (fentry and fexit, or kprobe and kretprobe): io_uring calls them too, and they
//! have the kernel's copy of the address. If functions cannot be probed, the exit of connect(2) has the errno, and
//! `cgroup/connect4` and `connect6` have the socket and the kernel's copy of the address (net/ipv4/tcp_ipv4.c,
//! tcp_v4_pre_connect(), v6.12). There the entry of connect(2) creates the entry in the map, since the hooks also run
//! for io_uring, whose calls do not end in connect(2). Without any of these probes such attempts are not seen.

use core::ffi::c_void;

use aya_ebpf::bindings::bpf_sock_addr;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use aya_ebpf::macros::{cgroup_sock_addr, fentry, fexit, kprobe, kretprobe, tracepoint};
use aya_ebpf::programs::{
    FEntryContext, FExitContext, ProbeContext, RetProbeContext, SockAddrContext, TracePointContext,
};
use netwatch_common::{Sock, kind};

#[cfg(feature = "log")]
use crate::calls::MAX_CALLS;
use crate::calls::{
    Call, NOTHING_YET, call_of, call_that_ends, ended, insert, is_failure, settle, take, under_way,
};
use crate::mem::{Memory as _, Typed, Untyped, offset, plain};
use crate::twice::{self, Pair};
use crate::{emit, sock};

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
    left(&ctx, sock::AF_INET)
}

#[fexit(function = "tcp_v4_connect")]
fn tcp_v4_connect_leave_again(ctx: FExitContext) -> i32 {
    if was_left_out(Pair::Leave4, cookie(ctx.arg(0))) { left(&ctx, sock::AF_INET) } else { 0 }
}

#[fexit(function = "tcp_v6_connect")]
fn tcp_v6_connect_leave(ctx: FExitContext) -> i32 {
    twice::first(Pair::Leave6, cookie(ctx.arg(0)));
    left(&ctx, sock::AF_INET6)
}

#[fexit(function = "tcp_v6_connect")]
fn tcp_v6_connect_leave_again(ctx: FExitContext) -> i32 {
    if was_left_out(Pair::Leave6, cookie(ctx.arg(0))) { left(&ctx, sock::AF_INET6) } else { 0 }
}

/// Doing the work twice is harmless: it replaces the entry of the call, or finds it removed.
#[inline(always)]
fn was_left_out(pair: Pair, cookie: u64) -> bool {
    twice::was_left_out(pair, cookie, kind::FAIL)
}

/// `sk` must be typed.
#[inline(always)]
fn cookie(sk: *const c_void) -> u64 {
    // SAFETY: the first argument of the functions is a `struct sock`.
    unsafe { sock::cookie(sk) }
}

#[inline(always)]
fn entered(ctx: &FEntryContext, family: u16, cookie: u64) -> i32 {
    let _ = begun(ctx.arg(0), ctx.arg(1), family, cookie);
    0
}

/// Index of the return value, after the three arguments.
const CONNECT_RESULT: usize = 3;

#[inline(always)]
fn left(ctx: &FExitContext, family: u16) -> i32 {
    if let Some(call) = call_that_ends(family) {
        let _ = ended(call, ctx.arg::<i32>(CONNECT_RESULT).into());
    }
    0
}

/// Whether all probes are attached: set by the one that is attached last.
static mut COMPLETE: bool = false;

#[kprobe(function = "tcp_v4_connect")]
fn tcp_v4_connect_entry(ctx: ProbeContext) -> u32 {
    // SAFETY: one byte, written by a single access.
    unsafe { (&raw mut COMPLETE).write_volatile(true) };
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
    returned(&ctx, sock::AF_INET)
}

#[kretprobe(function = "tcp_v6_connect")]
fn tcp_v6_connect_return(ctx: RetProbeContext) -> u32 {
    returned(&ctx, sock::AF_INET6)
}

#[inline(always)]
fn probed(ctx: &ProbeContext, family: u16) -> Option<()> {
    let sk: *const c_void = ctx.arg(0)?;
    // This type of program cannot generate a cookie; the socket has one since it was created (`cookie.rs`).
    // SAFETY: a `struct sock`.
    let cookie = unsafe { Untyped::read(sk, offset!(sk_cookie)) };
    // SAFETY: only this thread uses its entry.
    if !call_of(cookie).is_some_and(|call| unsafe { (*call).has_called(family) }) {
        settle();
    }
    begun(sk, ctx.arg(1)?, family, cookie).or_else(|| {
        // Nothing to report, but the exit has to find that the call has begun.
        insert(NOTHING_YET);
        None
    })
}

#[inline(always)]
fn returned(ctx: &RetProbeContext, family: u16) -> u32 {
    let result = i64::from(ctx.ret::<i32>());
    // SAFETY: one byte, read by a single access.
    let complete = unsafe { (&raw const COMPLETE).read_volatile() };
    if complete && under_way().is_none() && is_failure(result) {
        emit::lost(kind::FAIL);
    }
    if let Some(call) = call_that_ends(family) {
        let _ = ended(call, result);
    }
    0
}

/// Offsets of port and address in `sockaddr_in` and `sockaddr_in6` (`include/uapi/linux/in.h`, `in6.h`).
const PORT: u32 = 2;
const SIN_ADDR: u32 = 4;
const SIN6_ADDR: u32 = 8;

/// `address` is the kernel's copy of the address.
#[inline(always)]
fn begun(sk: *const c_void, address: *const c_void, family: u16, cookie: u64) -> Option<()> {
    // SAFETY: a `struct sock` of TCP. Subflows are left out, since the kernel connects them.
    if cookie == 0 || unsafe { sock::is_subflow::<Untyped>(sk) } {
        return None;
    }
    // SAFETY: as above; if the family matches, the address has at least its length.
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
            device: Untyped::read(sk, offset!(sk_bound_dev_if)),
            netns: sock::netns(sk),
            ..sock::EMPTY
        }
    };
    // tcp_v6_connect passes a mapped address on to tcp_v4_connect: the same call.
    if let Some(call) = call_of(cookie)
        // SAFETY: only this thread uses its entry.
        && unsafe { (*call).has_called(family) && is_mapped(&(*call).sock, &sock) }
    {
        return Some(());
    }
    insert(Call { sock, sk: sk as u64, ..NOTHING_YET });
    Some(())
}

/// Whether the remote addresses of an IPv6 and an IPv4 socket are the same.
#[inline(always)]
fn is_mapped(v6: &Sock, v4: &Sock) -> bool {
    let ([_, _, _, _, _, _, _, _, _, _, _, _, a, b, c, d], [e, f, g, h, ..]) = (v6.remote, v4.remote);
    v6.remote_port == v4.remote_port && u32::from_ne_bytes([a, b, c, d]) == u32::from_ne_bytes([e, f, g, h])
}

#[cgroup_sock_addr(connect4)]
fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context of the hook, which the kernel wrote.
    let address = unsafe { &*ctx.sock_addr };
    enter(&ctx, address, sock::AF_INET, sock::widen(address.user_ip4.to_ne_bytes()));
    1
}

#[cgroup_sock_addr(connect6)]
fn connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context of the hook, which the kernel wrote.
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
    // SAFETY: helpers that take the context of the hook, and its socket.
    let (cookie, tcp) = unsafe {
        let sk = address.__bindgen_anon_1.sk;
        if sk.is_null() {
            return None;
        }
        (bpf_get_socket_cookie(ctx.sock_addr.cast()), bpf_skc_to_tcp_sock(sk.cast()))
    };
    // SAFETY: a `struct tcp_sock`. Subflows are left out, since the kernel connects them.
    if tcp.is_null() || unsafe { sock::is_subflow::<Typed>(tcp.cast()) } {
        return None;
    }
    if under_way().is_none() {
        insert(Call { unbegun: 1, ..NOTHING_YET });
    }
    let call = under_way()?;
    // SAFETY: only this thread uses its entry; a typed `struct tcp_sock`, which begins with a `struct sock`.
    unsafe {
        if (*call).unbegun != 0 {
            // The entry may be that of an earlier call whose exit was not seen.
            (*call).lost();
            ((*call).syn_sent, (*call).gave_up) = (0, 0);
        }
        let sk = tcp.cast();
        (*call).sk = plain(sk) as u64;
        (*call).sock = Sock {
            cookie,
            family,
            protocol: sock::IPPROTO_TCP as u8,
            remote,
            remote_port: u16::from_be(address.user_port as u16),
            local_port: Typed::read(sk, offset!(sk_num)),
            device: Typed::read(sk, offset!(sk_bound_dev_if)),
            netns: sock::netns(sk),
            ..sock::EMPTY
        };
    }
    None
}

#[tracepoint(category = "syscalls", name = "sys_enter_connect")]
#[cfg_attr(not(feature = "log"), expect(unused_variables, reason = "only the log needs the context"))]
fn sys_enter_connect(ctx: TracePointContext) -> u32 {
    settle();
    let followed = insert(NOTHING_YET);
    #[cfg(feature = "log")]
    if !followed {
        aya_log_ebpf::warn!(&ctx, "{} calls of connect() are under way, one more is not followed", MAX_CALLS);
    }
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_connect")]
fn sys_exit_connect(ctx: TracePointContext) -> u32 {
    // SAFETY: within the record of the tracepoint.
    if let Ok(result) = unsafe { ctx.read_at(SYSCALL_RESULT) }
        && let Some(call) = take()
    {
        let _ = ended(call, result);
    }
    0
}

/// Offset of the return value in the record of a system call exit (`kernel/trace/trace.h`, struct syscall_trace_exit).
pub(crate) const SYSCALL_RESULT: usize = 16;
