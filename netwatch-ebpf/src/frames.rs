//! Packet sockets (`AF_PACKET`), which no hook of IP sees. Each has one flow, which begins with the first call that sends or
//! receives frames. Frames that are received or sent through a ring in shared memory go by no call.

use core::ffi::c_void;

use aya_ebpf::macros::{fentry, fexit, kprobe};
use aya_ebpf::programs::{FEntryContext, FExitContext, ProbeContext};
use netwatch_common::{FlowKey, Offsets, Sock, flow_flags, sock_flags};

use crate::known::{forget, storage};
use crate::mem::{Memory as _, Untyped, offset};
use crate::{sock, udp, using};

pub(crate) const AF_PACKET: u16 = 17;

/// Counts what a call on a packet socket sent or received, and reports who called.
///
/// # Safety
/// `sk` is a typed `struct sock` of `AF_PACKET`.
#[inline(always)]
pub(crate) unsafe fn carried(sk: *const c_void, length: i32, received: u32) -> Option<()> {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let cookie = sock::cookie(sk);
        // Where no cookie can be generated the socket cannot be told from others.
        if cookie == 0 {
            return None;
        }
        let known = storage(sk, true)?;
        // A sender is reported after the flow that it began, a receiver before.
        if received != 0 {
            using::used(sk, known);
        }
        if length > 0 {
            let key = key(cookie);
            if let Some(begun) = udp::count(&key, (received, length as u64), received, || Some(known))
                && udp::report_flow(begun, 0, |out| fill(sk, cookie, out)).is_none()
            {
                udp::not_reported(&key);
            }
        }
        if received == 0 {
            using::used(sk, known);
        }
    }
    Some(())
}

#[inline(always)]
const fn key(cookie: u64) -> FlowKey {
    FlowKey { cookie, local: [0; 16], remote: [0; 16], port: 0, pad: [0; 6] }
}

/// # Safety
/// `sk` is a `struct sock` of `AF_PACKET`.
#[inline(always)]
pub(crate) unsafe fn fill(sk: *const c_void, cookie: u64, out: &mut Sock) {
    *out = sock::EMPTY;
    out.cookie = cookie;
    out.family = AF_PACKET;
    out.flags = sock_flags::PACKET;
    // SAFETY: guaranteed by the caller: a `struct packet_sock`.
    unsafe {
        out.inode = sock::inode(sk);
        out.netns = sock::netns(sk);
        if offset!(packet_ifindex) != Offsets::MISSING {
            out.device = Untyped::read(sk, offset!(packet_ifindex));
        }
    }
}

#[fentry(function = "packet_release")]
fn packet_release(ctx: FEntryContext) -> i32 {
    released(ctx.arg(0));
    0
}

#[kprobe(function = "packet_release")]
fn packet_release_kprobe(ctx: ProbeContext) -> u32 {
    if let Some(socket) = ctx.arg(0) {
        released(socket);
    }
    0
}

/// A packet socket is closed.
#[inline(always)]
fn released(socket: *const c_void) -> Option<()> {
    // SAFETY: a `struct socket`, whose socket is NULL if it was released already.
    unsafe {
        let sk: *const c_void = Untyped::read(socket, offset!(socket_sk));
        if sk.is_null() {
            return None;
        }
        forget(sk);
        let cookie: u64 = Untyped::read(sk, offset!(sk_cookie));
        if cookie == 0 || !udp::is_followed(&key(cookie)) {
            return None;
        }
        udp::report_release(|out| fill(sk, cookie, out))
    }
}

#[fexit(function = "packet_sendmsg")]
fn packet_sendmsg(ctx: FExitContext) -> i32 {
    // SAFETY: a typed argument of the function, whose return value follows three arguments.
    unsafe { carried(sock::of_socket(ctx.arg(0)), ctx.arg(3), 0) };
    0
}

#[fexit(function = "packet_recvmsg")]
fn packet_recvmsg(ctx: FExitContext) -> i32 {
    // SAFETY: likewise, after four arguments.
    unsafe { carried(sock::of_socket(ctx.arg(0)), ctx.arg(4), flow_flags::RECEIVED) };
    0
}
