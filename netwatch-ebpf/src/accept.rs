//! The acceptor of a connection.
//!
//! The exit of `inet_accept` (`net/ipv4/af_inet.c`) has the new socket with the inode of its file, for system calls,
//! io_uring, 32-bit socketcall and servers in the kernel. If fexit is not available, `security_sock_graft`, which it
//! calls at its end, has both as well; a kretprobe does not, and misses calls if more threads than it has slots block
//! in accept(). In addition the exits of accept(2) and accept4(2) see calls that blocked before netwatch started. There
//! the socket is found by the returned descriptor; the address in the caller's buffer is not used, since it may be NULL
//! or overwritten. If only these are available, an accept by io_uring or socketcall(2) is reported at the first use of
//! the connection.

use core::ffi::c_void;

use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::bpf_get_current_pid_tgid;
use aya_ebpf::macros::{btf_map, fexit, kprobe, tracepoint};
use aya_ebpf::programs::{FExitContext, ProbeContext, TracePointContext};
use netwatch_common::{kind, sock_flags};

use crate::connect::SYSCALL_RESULT;
use crate::files::socket_of;
use crate::mem::{Memory, Typed, Untyped, offset};
use crate::twice::{self, Pair};
use crate::{act, cause, emit, sock, task, tcp};

/// The last socket that a thread accepted, so that the exit of its system call does not send a second record. If the
/// entry was evicted it does, and the agent ignores the second.
#[btf_map]
static ACCEPTED: LruHashMap<u64, u64, 4096> = LruHashMap::new();

#[fexit(function = "inet_accept")]
fn inet_accept(ctx: FExitContext) -> i32 {
    let taken = Taken::by(&ctx);
    twice::first(Pair::Accept, taken.cookie);
    taken.report()
}

#[fexit(function = "inet_accept")]
fn inet_accept_again(ctx: FExitContext) -> i32 {
    let taken = Taken::by(&ctx);
    if twice::was_left_out(Pair::Accept, taken.cookie, kind::ACCEPT) { taken.report() } else { 0 }
}

/// The socket that `inet_accept` accepted.
#[derive(Clone, Copy)]
struct Taken {
    sk: *const c_void,
    /// [`Taken::NOTHING`] if it is not TCP or MPTCP, or is a subflow.
    cookie: u64,
}

impl Taken {
    /// No cookie.
    const NOTHING: u64 = u64::MAX;

    #[inline(always)]
    fn by(ctx: &FExitContext) -> Self {
        // The second argument is the new socket (of 3 arguments since 6.10, of 4 before).
        let socket: *const c_void = ctx.arg(1);
        // SAFETY: a `struct socket`; if the call failed it has no `struct sock`, and reads give zeros.
        let sk = unsafe { sock::of_socket(socket) };
        // SAFETY: as above.
        let is_ours = unsafe { sock::is_ours::<Typed>(sk) && !sock::is_subflow::<Untyped>(sk) };
        // SAFETY: a `struct sock`.
        let cookie = if is_ours { unsafe { sock::cookie(sk) } } else { Self::NOTHING };
        Self { sk, cookie }
    }

    #[inline(always)]
    fn report(self) -> i32 {
        if self.cookie != Self::NOTHING {
            note(self.cookie);
            report::<Typed>(self.sk, task::way_of_accept(task::current()));
        }
        0
    }
}

#[kprobe(function = "security_sock_graft")]
fn security_sock_graft(ctx: ProbeContext) -> u32 {
    if let Some(sk) = ctx.arg::<*const c_void>(0) {
        // SAFETY: a `struct sock` of any family.
        unsafe {
            if sock::is_inet::<Untyped>(sk)
                && sock::is_ours::<Untyped>(sk)
                && !sock::is_subflow::<Untyped>(sk)
            {
                note(Untyped::read(sk, offset!(sk_cookie)));
                report::<Untyped>(sk, task::way_of_accept(task::current()));
            }
        }
    }
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_accept")]
fn sys_exit_accept(ctx: TracePointContext) -> u32 {
    let _ = returned(&ctx);
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_accept4")]
fn sys_exit_accept4(ctx: TracePointContext) -> u32 {
    let _ = returned(&ctx);
    0
}

#[inline(always)]
fn note(cookie: u64) {
    // On failure the accept is reported twice.
    let _ = ACCEPTED.insert(bpf_get_current_pid_tgid(), cookie, 0);
}

#[inline(always)]
fn returned(ctx: &TracePointContext) -> Option<()> {
    // SAFETY: within the record of the tracepoint.
    let fd: i64 = unsafe { ctx.read_at(SYSCALL_RESULT) }.ok()?;
    if fd < 0 {
        return None;
    }
    let sk = socket_of(task::current(), fd as u32)?;
    // SAFETY: `socket_of` found a `struct sock`.
    if !unsafe { sock::is_ours::<Untyped>(sk) } {
        return None;
    }
    // SAFETY: as above.
    let cookie: u64 = unsafe { Untyped::read(sk, offset!(sk_cookie)) };
    // SAFETY: the entry is copied.
    if cookie != 0 && unsafe { ACCEPTED.get(bpf_get_current_pid_tgid()) } == Some(&cookie) {
        return None;
    }
    report::<Untyped>(sk, 0);
    None
}

#[inline(always)]
fn report<M: Memory>(sk: *const c_void, way: u32) -> Option<()> {
    // SAFETY: `sk` is a `struct sock`; every byte of the record is written.
    unsafe {
        // Not every type of program can generate a cookie, so an existing one is read.
        let cookie = Untyped::read(sk, offset!(sk_cookie));
        cause::accepted(cookie);
        let reported = act::report(emit::header(kind::ACCEPT), way, 0, 0, |out| {
            out.cookie = cookie;
            // If the socket is closed already, only `inet_sport` has its port.
            sock::fill::<M>(sk, true, out);
            // Accepted before the end of the handshake.
            if sock::state::<Untyped>(sk) == tcp::SYN_RECV {
                out.flags |= sock_flags::FASTOPEN;
            }
        });
        if reported.is_none() {
            // The record was lost, so the first use has to be reported.
            cause::got(cookie);
        }
        reported
    }
}
