//! Who took a connection off its listener.
//!
//! The exit of `inet_accept` (`net/ipv4/af_inet.c`) has the new socket with its file's inode, whatever the way
//! in: system call, io_uring, 32-bit socketcall, the kernel's own servers. Where functions cannot be probed at
//! their exit, `security_sock_graft`, which it calls at its end, has both as well; a kretprobe has not, and
//! loses calls when as many threads as it has slots are blocked in accept(). Beside either stand the exits of
//! accept(2) and accept4(2), which see calls that were blocked before netwatch started. There the descriptor
//! that the call returns leads to the socket; the address in the caller's buffer is never looked at, it may be
//! NULL or rewritten. Where these alone can be had, an accept by io_uring or socketcall(2) is told by the
//! first use of the connection.

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

/// What a thread accepted last, so that the exit of its system call does not tell it again. A thread that is
/// forgotten has it told twice, which the agent sees to.
#[btf_map]
static ACCEPTED: LruHashMap<u64, u64, 4096> = LruHashMap::new();

#[fexit(function = "inet_accept")]
fn inet_accept(ctx: FExitContext) -> i32 {
    let taken = Taken::by(&ctx);
    twice::first(Pair::Accept, taken.cookie);
    taken.tell()
}

#[fexit(function = "inet_accept")]
fn inet_accept_again(ctx: FExitContext) -> i32 {
    let taken = Taken::by(&ctx);
    if twice::was_left_out(Pair::Accept, taken.cookie, kind::ACCEPT) { taken.tell() } else { 0 }
}

/// What `inet_accept` took.
#[derive(Clone, Copy)]
struct Taken {
    sk: *const c_void,
    /// [`Taken::NOTHING`] where it is no socket of ours.
    cookie: u64,
}

impl Taken {
    /// No cookie.
    const NOTHING: u64 = u64::MAX;

    #[inline(always)]
    fn by(ctx: &FExitContext) -> Self {
        // Whatever the number of arguments (3 since 6.10, 4 before), the second is the new socket.
        let socket: *const c_void = ctx.arg(1);
        // SAFETY: a `struct socket`; it has no `struct sock`, and reads give zeros, where the call failed.
        let sk: *const c_void = unsafe { Typed::read(socket, offset!(socket_sk)) };
        // SAFETY: as above.
        let is_ours = unsafe { sock::is_ours::<Typed>(sk) && !sock::is_subflow::<Untyped>(sk) };
        // SAFETY: a `struct sock`.
        let cookie = if is_ours { unsafe { sock::cookie(sk) } } else { Self::NOTHING };
        Self { sk, cookie }
    }

    #[inline(always)]
    fn tell(self) -> i32 {
        if self.cookie != Self::NOTHING {
            note(self.cookie);
            tell::<Typed>(self.sk, task::way_of_accept(task::current()));
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
                tell::<Untyped>(sk, task::way_of_accept(task::current()));
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
    // Without it the accept is told twice.
    let _ = ACCEPTED.insert(bpf_get_current_pid_tgid(), cookie, 0);
}

#[inline(always)]
fn returned(ctx: &TracePointContext) -> Option<()> {
    // SAFETY: within the tracepoint's record.
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
    // SAFETY: a copy of the item.
    if cookie != 0 && unsafe { ACCEPTED.get(bpf_get_current_pid_tgid()) } == Some(&cookie) {
        return None;
    }
    tell::<Untyped>(sk, 0);
    None
}

#[inline(always)]
fn tell<M: Memory>(sk: *const c_void, way: u32) -> Option<()> {
    // SAFETY: `sk` is a `struct sock`, of which all is filled in.
    unsafe {
        // Not every type of program may ask for the cookie; it is there if anyone ever did.
        let cookie = Untyped::read(sk, offset!(sk_cookie));
        cause::accepted(cookie);
        let told = act::tell(emit::header(kind::ACCEPT), way, 0, |out| {
            out.cookie = cookie;
            // The socket may be closed already: its number then stands in `inet_sport` only.
            sock::fill::<M>(sk, true, out);
            // Taken before the handshake's end.
            if sock::state::<Untyped>(sk) == tcp::SYN_RECV {
                out.flags |= sock_flags::FASTOPEN;
            }
        });
        if told.is_none() {
            // The first use will tell it.
            cause::got(cookie);
        }
        told
    }
}
