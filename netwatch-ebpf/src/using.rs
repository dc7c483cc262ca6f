//! Processes that use a connection. `tp_btf/sock_send_length` and `sock_recv_length` (since 6.3), or the exits of
//! `inet_sendmsg` and its siblings (`net/ipv4/af_inet.c`), run in the context of the reader or writer, including
//! io_uring workers. A lookup in the state of the socket shows whether the process is new: it inherited the socket,
//! received it over a UNIX socket, accepted it by a way that no other probe sees, or sends the first datagram of a UDP
//! flow. Without these probes such a process is not reported. `splice(2)` from a socket is not seen.

use core::ffi::c_void;

use aya_ebpf::macros::{btf_tracepoint, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FExitContext};
use netwatch_common::{begin_flags, flow_flags, kind};

use crate::known::{Known, set_users, storage, users};
use crate::mem::{Current, Memory as _, Typed, Untyped, knob, offset};
use crate::twice::{self, Pair};
use crate::{act, cause, emit, frames, notes, sock, task, tcp, udp};

/// Number of records that a socket has in advance, for more alternating processes than [`crate::known::USERS`], and how
/// many it gets back a second. Uses beyond that are counted.
const MOST_REPORTED: u32 = 64;
const REFILL: u32 = 16;

#[btf_tracepoint(function = "sock_send_length")]
fn sock_send_length(ctx: BtfTracePointContext) -> i32 {
    sends(ctx.arg(0), ctx.arg(1))
}

#[btf_tracepoint(function = "sock_send_length")]
fn sock_send_length_again(ctx: BtfTracePointContext) -> i32 {
    sends_again(ctx.arg(0))
}

#[btf_tracepoint(function = "sock_recv_length")]
fn sock_recv_length(ctx: BtfTracePointContext) -> i32 {
    receives(ctx.arg(0), ctx.arg(1))
}

#[btf_tracepoint(function = "sock_recv_length")]
fn sock_recv_length_again(ctx: BtfTracePointContext) -> i32 {
    receives_again(ctx.arg(0), ctx.arg(1))
}

#[inline(always)]
fn sends(sk: *const c_void, length: i32) -> i32 {
    sent(sk, length);
    // Afterwards, when the socket has its cookie.
    twice::first(Pair::Send, what(sk));
    0
}

/// The second program. A user that is known already is not reported again. It counts no frames, since it may do
/// its work twice (`twice.rs`).
#[inline(always)]
fn sends_again(sk: *const c_void) -> i32 {
    if twice::was_left_out(Pair::Send, what(sk), kind::USE) { sent(sk, 0) } else { 0 }
}

/// An id of the socket: its cookie, or its address, which may be reused, if it has none.
#[inline(always)]
fn what(sk: *const c_void) -> u64 {
    // SAFETY: a typed `struct sock` of the probe.
    match unsafe { Typed::read::<u64>(sk, offset!(sk_cookie)) } {
        0 => sk as u64,
        cookie => cookie,
    }
}

#[inline(always)]
fn receives(sk: *const c_void, length: i32) -> i32 {
    received(sk, length, length);
    twice::first(Pair::Receive, what(sk));
    0
}

#[inline(always)]
fn receives_again(sk: *const c_void, length: i32) -> i32 {
    if twice::was_left_out(Pair::Receive, what(sk), kind::USE) { received(sk, length, 0) } else { 0 }
}

#[inline(always)]
fn sent(sk: *const c_void, length: i32) -> i32 {
    // SAFETY: a typed `struct sock` of the probe.
    unsafe {
        let family: u16 = Typed::read(sk, offset!(sk_family));
        if family == frames::AF_PACKET {
            frames::carried(sk, length, 0);
        } else if is_followed(sk)
            && let Some(known) = state_of(sk)
        {
            used(sk, known);
            notes::asks(sk, known);
        }
    }
    0
}

/// Makes this socket, or what caused the question to which this is the answer, the cause of what the thread does next.
/// End of data (0) and errors are no cause.
#[inline(always)]
fn received(sk: *const c_void, length: i32, frames: i32) -> i32 {
    // SAFETY: a typed `struct sock` of the probe.
    unsafe {
        let family: u16 = Typed::read(sk, offset!(sk_family));
        if family == frames::AF_PACKET {
            frames::carried(sk, frames, flow_flags::RECEIVED);
        } else if is_followed(sk) {
            let known = state_of(sk);
            if let Some(known) = known {
                used(sk, known);
            }
            if length > 0 {
                notes::answered(sk, known);
            }
        }
    }
    0
}

/// The state of a socket that is used.
///
/// # Safety
/// `sk` is a typed `struct sock` that is followed.
#[inline(always)]
unsafe fn state_of(sk: *const c_void) -> Option<*mut Known> {
    // SAFETY: guaranteed by the caller.
    unsafe {
        // In the map by address no entry may be created for a closed connection.
        let create = knob!(socket_helpers)
            || sock::has_flows(sock::protocol::<Typed>(sk))
            || sock::state::<Typed>(sk) != tcp::CLOSE;
        storage(sk, create)
    }
}

/// Whether connections or flows of a socket are followed.
///
/// # Safety
/// `sk` is a typed `struct sock`.
#[inline(always)]
unsafe fn is_followed(sk: *const c_void) -> bool {
    // SAFETY: guaranteed by the caller.
    unsafe {
        sock::is_inet::<Typed>(sk) && {
            let protocol = sock::protocol::<Typed>(sk);
            matches!(protocol, sock::IPPROTO_TCP | sock::IPPROTO_MPTCP) || sock::has_flows(protocol)
        }
    }
}

/// Index of the return value, after the four arguments of the receiving functions.
const RECEIVED: usize = 4;

#[fexit(function = "inet_sendmsg")]
fn inet_sendmsg(ctx: FExitContext) -> i32 {
    sends(socket_of(&ctx), 0)
}

#[fexit(function = "inet_sendmsg")]
fn inet_sendmsg_again(ctx: FExitContext) -> i32 {
    sends_again(socket_of(&ctx))
}

#[fexit(function = "inet_recvmsg")]
fn inet_recvmsg(ctx: FExitContext) -> i32 {
    receives(socket_of(&ctx), ctx.arg(RECEIVED))
}

#[fexit(function = "inet_recvmsg")]
fn inet_recvmsg_again(ctx: FExitContext) -> i32 {
    receives_again(socket_of(&ctx), ctx.arg(RECEIVED))
}

#[fexit(function = "inet6_sendmsg")]
fn inet6_sendmsg(ctx: FExitContext) -> i32 {
    sends(socket_of(&ctx), 0)
}

#[fexit(function = "inet6_sendmsg")]
fn inet6_sendmsg_again(ctx: FExitContext) -> i32 {
    sends_again(socket_of(&ctx))
}

#[fexit(function = "inet6_recvmsg")]
fn inet6_recvmsg(ctx: FExitContext) -> i32 {
    receives(socket_of(&ctx), ctx.arg(RECEIVED))
}

#[fexit(function = "inet6_recvmsg")]
fn inet6_recvmsg_again(ctx: FExitContext) -> i32 {
    receives_again(socket_of(&ctx), ctx.arg(RECEIVED))
}

/// sendfile() and splice() into a socket, before 6.5.
#[fexit(function = "inet_sendpage")]
fn inet_sendpage(ctx: FExitContext) -> i32 {
    sends(socket_of(&ctx), 0)
}

#[fexit(function = "inet_sendpage")]
fn inet_sendpage_again(ctx: FExitContext) -> i32 {
    sends_again(socket_of(&ctx))
}

/// The `struct sock` of the first argument, a `struct socket`.
#[inline(always)]
fn socket_of(ctx: &FExitContext) -> *const c_void {
    // SAFETY: a typed argument of the probed function.
    unsafe { sock::of_socket(ctx.arg(0)) }
}

/// An id of a process: thread group id, and start time in units of about a millisecond.
#[inline(always)]
pub(crate) const fn who(tgid: u32, start: u64) -> u64 {
    (tgid as u64) << 32 | start >> 20 & 0xffff_ffff
}

/// Reports the current process if it is a new user.
///
/// # Safety
/// `sk` is a typed `struct sock` that is followed, `known` its state.
#[inline(always)]
pub(crate) unsafe fn used(sk: *const c_void, known: *mut Known) -> Option<()> {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let current = task::current();
        // A hot path: the typed pointer of the leader is worth the longer verification.
        let leader: *const c_void = Current::read(current, offset!(task_leader));
        let who = who(task::tgid(current), Current::read(leader, offset!(task_start)));
        let mut users = users(sk as u64, known);
        let [first, second, third, fourth] = users.last;
        let is_known = who == first || who == second || who == third || who == fourth;
        if is_known && (*known).pending == 0 {
            return None;
        }
        let cookie = sock::cookie(sk);
        let has_sent = udp::has_sent(task::tid(current), cookie, known);
        if is_known && !has_sent {
            return None;
        }
        if !is_known {
            // The kernel uses subflows on behalf of the MPTCP socket.
            if sock::is_subflow::<Untyped>(sk) {
                return None;
            }
            // No limit hides who sends the first datagram of a flow; the number of flows has a limit of its own.
            if !has_sent && !users.budget.take(MOST_REPORTED, REFILL) {
                emit::not_followed(kind::USE);
                return None;
            }
            users.last = [who, first, second, third];
            set_users(sk as u64, known, &users);
            // The acceptor was reported at accept(), unless that went by socketcall(2) or io_uring and was not seen.
            if cause::has_accepted(current, cookie) {
                return None;
            }
        }
        let flags = if has_sent { begin_flags::FIRST_DATAGRAM } else { 0 };
        act::report(emit::header(kind::USE), task::way(current), 0, flags, |out| {
            if Typed::read::<u16>(sk, offset!(sk_family)) == frames::AF_PACKET {
                frames::fill(sk, cookie, out);
            } else {
                out.cookie = cookie;
                sock::fill::<Typed>(sk, true, out);
            }
        })
    }
}
