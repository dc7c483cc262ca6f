//! `tp_btf/inet_sock_set_state`: every TCP state transition (`net/ipv4/af_inet.c`, inet_sk_set_state
//! and inet_sk_state_store).
//!
//! Only CLOSE→SYN_SENT and CLOSE→LISTEN happen in the context of the process that wants them; at every
//! other transition the current task is anybody. So these two write down the owner, in storage that
//! lives as long as the socket and is copied from a listener to each child, and the others read it there.

use core::ffi::c_void;

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use netwatch_common::{Begin, Change, change_flags, kind, sock_flags};

use crate::known::{Known, NOTHING, USERS, forget, storage};
use crate::mem::{Memory as _, Typed, knob, offset};
use crate::{connect, emit, listen, sock, task, using};

/// `include/net/tcp_states.h`
mod tcp {
    pub(crate) const ESTABLISHED: i32 = 1;
    pub(crate) const SYN_SENT: i32 = 2;
    pub(crate) const SYN_RECV: i32 = 3;
    pub(crate) const FIN_WAIT1: i32 = 4;
    pub(crate) const CLOSE: i32 = 7;
    pub(crate) const CLOSE_WAIT: i32 = 8;
    pub(crate) const LISTEN: i32 = 10;
}

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let Some(transition) = Transition::of(&ctx) else { return 0 };
    transition.tell().unwrap_or(0)
}

/// The kernel leaves a program out on a CPU where it is in the middle of a run already
/// (`kernel/trace/bpf_trace.c`, __bpf_trace_run, since 6.2): a softirq that interrupts it, or a task that preempts
/// it. Then this one, which is called after it, takes its place; that it ran stands in the socket's storage.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state_again(ctx: BtfTracePointContext) -> i32 {
    let Some(transition) = Transition::of(&ctx) else { return 0 };
    if let Some(known) = storage(transition.sk, false) {
        // SAFETY: this socket's storage.
        unsafe {
            if (*known).seen == transition.token() {
                (*known).seen = 0;
                return 0;
            }
        }
    }
    emit::caught(kind::CHANGE);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&ctx, "a TCP transition inside another on this CPU");
    let told = transition.tell();
    if let Some(known) = storage(transition.sk, false) {
        // SAFETY: this socket's storage.
        unsafe { (*known).seen = 0 };
    }
    told.unwrap_or(0)
}

/// A socket of ours changes its state.
#[derive(Clone, Copy)]
struct Transition {
    sk: *const c_void,
    old: i32,
    new: i32,
}

impl Transition {
    #[inline(always)]
    fn of(ctx: &BtfTracePointContext) -> Option<Self> {
        let transition = Self { sk: ctx.arg(0), old: ctx.arg(1), new: ctx.arg(2) };
        // SAFETY: the tracepoint's first argument is a `struct sock`.
        let ours = transition.old != transition.new && unsafe { sock::is_ours::<Typed>(transition.sk) };
        ours.then_some(transition)
    }

    /// One of its own among those of its socket, never 0.
    #[inline(always)]
    fn token(self) -> u32 {
        (self.old as u32) << 8 | self.new as u32
    }

    #[inline(always)]
    fn tell(self) -> Option<i32> {
        match (self.old, self.new) {
            (tcp::CLOSE, tcp::SYN_SENT) => begin(self, kind::CONNECT, change_flags::CONNECTED),
            (tcp::CLOSE, tcp::LISTEN) => begin(self, kind::LISTEN, change_flags::LISTENER),
            _ => {
                let told = change(self);
                if self.new == tcp::CLOSE {
                    forget(self.sk);
                }
                told
            }
        }
    }
}

/// Called in the context of the process that connects or listens.
#[inline(always)]
fn begin(transition: Transition, kind: u16, flags: u32) -> Option<i32> {
    let sk = transition.sk;
    // SAFETY: `sk` is the tracepoint's typed argument, of TCP or MPTCP.
    if unsafe { sock::is_subflow(sk) } {
        if let Some(known) = storage(sk, true) {
            // SAFETY: this socket's storage, of which a subflow needs no more.
            unsafe { (*known).seen = transition.token() };
        }
        return if kind == kind::CONNECT { subflow(sk, tcp::CLOSE, tcp::SYN_SENT) } else { None };
    }
    let header = emit::header(kind);
    let cookie = cookie(sk, kind)?;
    let current = task::current();
    let Some(known) = storage(sk, true) else {
        // The owner could not be kept: later records will not know it.
        emit::lost(kind);
        return None;
    };
    // SAFETY: `known` is this socket's storage, `current` the current task.
    unsafe {
        *known = Known {
            listener: if flags == change_flags::LISTENER { cookie } else { 0 },
            began: header.ts,
            owner_start: task::start(current),
            owner_tgid: task::tgid(current),
            owner_tid: task::tid(current),
            flags,
            told: 0,
            seen: transition.token(),
            pad: 0,
            users: [0; USERS],
        };
        (*known).users[0] = using::who(current);
    }
    if kind == kind::CONNECT {
        connect::reached_syn_sent(cookie);
    }
    if kind == kind::LISTEN {
        listen::begun(sk, cookie);
    }
    let mut entry = emit::reserve::<Begin>(kind)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the ring's memory, sized for the record; every byte of it is written.
    unsafe {
        (*record).header = header;
        (*record).sock.cookie = cookie;
        sock::fill::<Typed>(sk, false, &mut (*record).sock);
        if sock::is_fastopen(sk) {
            (*record).sock.flags |= sock_flags::FASTOPEN;
        }
        if sock::is_kernels(sk) {
            (*record).sock.flags |= sock_flags::KERNEL;
        }
        task::fill(current, &mut (*record).task);
        (*record).task.flags |= task::way(current);
        (*record).result = 0;
        (*record).pad = 0;
    }
    entry.submit(0);
    Some(0)
}

/// Called in whatever context the kernel happens to be in.
#[inline(always)]
fn change(transition: Transition) -> Option<i32> {
    let Transition { sk, old, new } = transition;
    // An MPTCP child is born and established in one transition, from a state that no transition led to
    // (`net/mptcp/protocol.c`, mptcp_sk_clone_init).
    // SAFETY: `sk` is the tracepoint's typed argument.
    let mptcp = unsafe { sock::protocol::<Typed>(sk) } == sock::IPPROTO_MPTCP;
    let born =
        old == tcp::LISTEN && new != tcp::CLOSE || mptcp && old == tcp::SYN_RECV && new == tcp::ESTABLISHED;
    // What was there before netwatch, and a child of a listener that was, gets it here.
    let known = storage(sk, true);
    if let Some(known) = known {
        // SAFETY: this socket's storage.
        unsafe {
            if born {
                if !knob!(socket_helpers) {
                    // Nothing came along from the listener, and what is there is of a socket that is gone.
                    // Some kernels (5.10) leave the listener's cookie on the copy until this transition is over
                    // (`net/ipv4/inet_connection_sock.c`, inet_csk_clone_lock); with others it is 0 here.
                    *known = NOTHING;
                    (*known).listener = sock::cookie(sk);
                }
                (*known).flags = change_flags::CHILD;
                (*known).told = 0;
                (*known).users = [0; USERS];
            }
            (*known).seen = transition.token();
            const EITHER: u32 = change_flags::FIN_LOCAL | change_flags::FIN_REMOTE;
            if new == tcp::FIN_WAIT1 && (*known).flags & EITHER == 0 {
                (*known).flags |= change_flags::FIN_LOCAL;
            }
            if new == tcp::CLOSE_WAIT && (*known).flags & EITHER == 0 {
                (*known).flags |= change_flags::FIN_REMOTE;
            }
        }
    }
    let all = knob!(all_states);
    let simultaneous = old == tcp::SYN_SENT && new == tcp::SYN_RECV;
    // Without storage there is nowhere to keep who sent the first FIN: the transition itself is sent.
    let forgotten = known.is_none() && (new == tcp::FIN_WAIT1 || new == tcp::CLOSE_WAIT);
    if old == tcp::LISTEN && new == tcp::SYN_RECV {
        // The child has no cookie of its own yet, and on some kernels (5.10 to 6.12 at least) a copy of its
        // listener's until the transition is over (`net/ipv4/inet_connection_sock.c`, inet_csk_clone_lock). It
        // is how the child begins, and no transition of its own.
        // Where the child keeps what it gets here (6.18), an accept before the handshake's end (fast open)
        // finds it.
        // SAFETY: `sk` is the tracepoint's typed argument.
        unsafe { sock::cookie(sk) };
        return None;
    }
    if !(all || forgotten || simultaneous || new == tcp::ESTABLISHED || new == tcp::CLOSE) {
        return None;
    }
    // SAFETY: `sk` is the tracepoint's typed argument, of TCP or MPTCP. A child of an MPTCP listener whose
    // peer speaks plain TCP is no subflow any more by the time that it is established.
    if unsafe { sock::is_subflow(sk) } {
        return match (old, new) {
            (tcp::SYN_RECV, tcp::ESTABLISHED) | (tcp::SYN_SENT, tcp::CLOSE) => subflow(sk, old, new),
            _ => None,
        };
    }
    let cookie = cookie(sk, kind::CHANGE)?;
    let mut error = 0_u16;
    if new == tcp::CLOSE {
        // SAFETY: `sk_err` is an int. Read here only: it is stale when the socket is used again.
        let sk_err: u32 = unsafe { Typed::read(sk, offset!(sk_err)) };
        error = sk_err as u16;
        if old == tcp::SYN_SENT && error == 0 && connect::fails_in_call(cookie) {
            // connect() itself gave up (no free port): its exit knows the errno and tells.
            return None;
        }
    }
    let mut entry = emit::reserve::<Change>(kind::CHANGE)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the ring's memory, sized for the record; every byte of it is written.
    unsafe {
        (*record).header = emit::header(kind::CHANGE);
        (*record).sock.cookie = cookie;
        sock::fill::<Typed>(sk, new == tcp::CLOSE, &mut (*record).sock);
        if old == tcp::SYN_RECV && new == tcp::ESTABLISHED && sock::has_data(sk) {
            (*record).sock.flags |= sock_flags::FASTOPEN;
        }
        (*record).error = error;
        (*record).old = old as u8;
        (*record).new = new as u8;
        let (sent, received, how) =
            if new == tcp::CLOSE && old != tcp::LISTEN { sock::ending(sk) } else { (0, 0, 0) };
        (*record).sent = sent;
        (*record).received = received;
        tell_known(record, known);
        (*record).flags |= how;
    }
    entry.submit(0);
    Some(0)
}

/// The socket's cookie. Without one there is no telling it from others: where nobody made one yet the record
/// counts as lost, and the look that follows gives it one.
#[inline(always)]
fn cookie(sk: *const c_void, kind: u16) -> Option<u64> {
    // SAFETY: the tracepoint's typed argument.
    let cookie = unsafe { sock::cookie(sk) };
    if cookie == 0 {
        emit::lost(kind);
        return None;
    }
    Some(cookie)
}

/// Fills in what is kept with a socket; zeros where nothing is.
///
/// # Safety
/// `record` is the ring's memory, `known` a socket's storage.
#[inline(always)]
unsafe fn tell_known(record: *mut Change, known: Option<*mut Known>) {
    // SAFETY: the caller's.
    unsafe {
        if let Some(known) = known {
            (*record).listener = (*known).listener;
            (*record).began = (*known).began;
            (*record).owner_start = (*known).owner_start;
            (*record).owner_tgid = (*known).owner_tgid;
            (*record).owner_tid = (*known).owner_tid;
            (*record).flags = (*known).flags;
        } else {
            (*record).listener = 0;
            (*record).began = 0;
            (*record).owner_start = 0;
            (*record).owner_tgid = 0;
            (*record).owner_tid = 0;
            (*record).flags = 0;
        }
    }
}

/// Tells what an MPTCP socket does not know by itself yet: see [`change_flags::SUBFLOW`].
#[inline(always)]
fn subflow(sk: *const c_void, old: i32, new: i32) -> Option<i32> {
    // SAFETY: a subflow.
    let cookie = unsafe { sock::owner_of_subflow(sk) };
    if cookie == 0 {
        return None;
    }
    let mut entry = emit::reserve::<Change>(kind::CHANGE)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the ring's memory, sized for the record; every byte of it is written.
    unsafe {
        (*record).header = emit::header(kind::CHANGE);
        (*record).sock.cookie = cookie;
        sock::fill::<Typed>(sk, false, &mut (*record).sock);
        (*record).sock.flags |= sock_flags::MPTCP;
        tell_known(record, None);
        (*record).sent = 0;
        (*record).received = 0;
        let sk_err: u32 = if new == tcp::CLOSE { Typed::read(sk, offset!(sk_err)) } else { 0 };
        (*record).error = sk_err as u16;
        (*record).old = old as u8;
        (*record).new = new as u8;
        (*record).flags = change_flags::SUBFLOW;
    }
    entry.submit(0);
    Some(0)
}
