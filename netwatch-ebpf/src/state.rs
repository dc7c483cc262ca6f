//! `tp_btf/inet_sock_set_state`: every TCP state transition (`net/ipv4/af_inet.c`, inet_sk_set_state
//! and inet_sk_state_store).
//!
//! Only CLOSE→SYN_SENT and CLOSE→LISTEN happen in the context of the process that wants them; at every
//! other transition the current task is anybody. So these two write down the owner, in storage that
//! lives as long as the socket and is copied from a listener to each child, and the others read it there.

use core::ffi::c_void;

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use netwatch_common::{Change, change_flags, kind, sock_flags};

use crate::known::{Known, NOTHING, USERS, forget, storage};
use crate::mem::{Memory as _, Typed, knob, offset};
use crate::{act, calls, emit, listen, sock, task, tcp, using};

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let Some(transition) = Transition::of(&ctx) else { return 0 };
    if transition.is_none() {
        transition.note();
        return 0;
    }
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
                if transition.is_none() {
                    // The next may be the same.
                    (*known).seen = 0;
                }
                return 0;
            }
        }
    }
    emit::caught(kind::CHANGE);
    if transition.is_none() {
        return 0;
    }
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&ctx, "a TCP transition inside another on this CPU");
    transition.tell().unwrap_or(0)
}

/// A socket of ours changes its state.
#[derive(Clone, Copy)]
struct Transition {
    sk: *const c_void,
    /// See [`sock::tcp`].
    tcp: *const c_void,
    old: i32,
    new: i32,
}

impl Transition {
    #[inline(always)]
    fn of(ctx: &BtfTracePointContext) -> Option<Self> {
        let (sk, old, new) = (ctx.arg(0), ctx.arg(1), ctx.arg(2));
        // SAFETY: the tracepoint's first argument is a `struct sock`.
        let ours = unsafe { sock::is_ours::<Typed>(sk) };
        ours.then(|| Self { sk, tcp: sock::tcp(sk), old, new })
    }

    /// The state stays what it was: MPTCP's sockets often come to one that they are in (`net/mptcp/protocol.c`), TCP's
    /// seldom. There is nothing to tell.
    #[inline(always)]
    fn is_none(self) -> bool {
        self.old == self.new
    }

    /// Notes that the first program ran, of what it does not tell.
    #[inline(always)]
    fn note(self) {
        // A socket that storage is kept with takes it along when it goes.
        if let Some(known) = storage(self.sk, knob!(socket_helpers)) {
            // SAFETY: this socket's storage.
            unsafe { (*known).seen = self.token() };
        }
    }

    /// Another one than that of the socket's transition before, which led to where this one begins; never 0.
    #[inline(always)]
    fn token(self) -> u32 {
        (self.old as u32) << 8 | self.new as u32
    }

    /// `sk_err`, an int; 0 but at a transition to CLOSE: it is stale when the socket is used again.
    #[inline(always)]
    fn error(self) -> u16 {
        if self.new != tcp::CLOSE {
            return 0;
        }
        // SAFETY: the tracepoint's typed argument.
        let sk_err: u32 = unsafe { Typed::read(self.sk, offset!(sk_err)) };
        sk_err as u16
    }

    /// # Safety
    /// Within the tracepoint.
    #[inline(always)]
    unsafe fn is_subflow(self) -> bool {
        // SAFETY: typed, as the verifier sees it.
        !self.tcp.is_null() && unsafe { sock::is_subflow::<Typed>(self.tcp) }
    }

    #[inline(always)]
    fn tell(self) -> Option<i32> {
        match (self.old, self.new) {
            (tcp::CLOSE, tcp::SYN_SENT | tcp::LISTEN) => begin(self),
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
fn begin(transition: Transition) -> Option<i32> {
    let sk = transition.sk;
    let listens = transition.new == tcp::LISTEN;
    // SAFETY: `sk` is the tracepoint's typed argument, of TCP or MPTCP.
    if unsafe { transition.is_subflow() } {
        if let Some(known) = storage(sk, true) {
            // SAFETY: this socket's storage, of which a subflow needs no more.
            unsafe { (*known).seen = transition.token() };
        }
        return if listens { None } else { subflow(transition) };
    }
    let kind = if listens { kind::LISTEN } else { kind::CONNECT };
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
        let (tgid, start) = (task::tgid(current), task::start(current));
        *known = Known {
            listener: if listens { cookie } else { 0 },
            began: header.ts,
            owner_start: start,
            owner_tgid: tgid,
            owner_tid: task::tid(current),
            flags: if listens { change_flags::LISTENER } else { change_flags::CONNECTED },
            told: 0,
            seen: transition.token(),
            netns: sock::netns(sk),
            users: [0; USERS],
        };
        (*known).users[0] = using::who(tgid, start);
    }
    if listens {
        listen::begun(sk, cookie);
    } else {
        calls::reached_syn_sent(cookie);
    }
    // SAFETY: `sk` is the tracepoint's typed argument, of which all is filled in.
    unsafe {
        act::tell(header, task::way(current), 0, |out| {
            out.cookie = cookie;
            sock::fill_but_netns::<Typed>(sk, false, out);
            out.netns = (*known).netns;
            if !transition.tcp.is_null() && sock::is_fastopen::<Typed>(transition.tcp) {
                out.flags |= sock_flags::FASTOPEN;
            }
            if sock::is_kernels::<Typed>(sk) {
                out.flags |= sock_flags::KERNEL;
            }
        })?;
    }
    Some(0)
}

/// Called in whatever context the kernel happens to be in.
#[inline(always)]
fn change(transition: Transition) -> Option<i32> {
    let Transition { sk, old, new, .. } = transition;
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
    let all = knob!(all_states);
    let simultaneous = old == tcp::SYN_SENT && new == tcp::SYN_RECV;
    // Without storage there is nowhere to keep who sent the first FIN: the transition itself is sent.
    let forgotten = known.is_none() && (new == tcp::FIN_WAIT1 || new == tcp::CLOSE_WAIT);
    if !(all || forgotten || simultaneous || new == tcp::ESTABLISHED || new == tcp::CLOSE) {
        return None;
    }
    // SAFETY: `sk` is the tracepoint's typed argument, of TCP or MPTCP. A child of an MPTCP listener whose
    // peer speaks plain TCP is no subflow any more by the time that it is established.
    if unsafe { transition.is_subflow() } {
        return match (old, new) {
            (tcp::SYN_RECV, tcp::ESTABLISHED) | (tcp::SYN_SENT, tcp::CLOSE) => subflow(transition),
            _ => None,
        };
    }
    let cookie = cookie(sk, kind::CHANGE)?;
    let gave_up = old == tcp::SYN_SENT && new == tcp::CLOSE && transition.error() == 0;
    if gave_up && calls::fails_in_call(cookie) {
        // connect() itself gave up (no free port): its exit knows the errno and tells.
        return None;
    }
    // SAFETY: `sk` is the tracepoint's typed argument, `known` its storage.
    unsafe {
        tell_change(transition, cookie, new == tcp::CLOSE, known, |record| {
            if old == tcp::SYN_RECV && new == tcp::ESTABLISHED && sock::has_data(transition.tcp) {
                record.sock.flags |= sock_flags::FASTOPEN;
            }
            if new == tcp::CLOSE && old != tcp::LISTEN {
                let (sent, received, how) = sock::ending(sk, transition.tcp);
                record.sent = sent;
                record.received = received;
                record.flags |= how;
            }
        })
    }
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

/// The network namespace of a socket, which is asked for once where something is kept with it.
///
/// # Safety
/// `sk` is a `struct sock`, `known` its storage.
#[inline(always)]
unsafe fn netns(sk: *const c_void, known: Option<*mut Known>) -> u32 {
    // SAFETY: the caller's.
    unsafe {
        let Some(known) = known else { return sock::netns(sk) };
        if (*known).netns == 0 {
            (*known).netns = sock::netns(sk);
        }
        (*known).netns
    }
}

/// Tells a transition with what is kept with the socket, zeros where nothing is; `amend` adds the rest.
///
/// # Safety
/// The transition's socket is the tracepoint's typed argument, `known` a socket's storage.
#[inline(always)]
unsafe fn tell_change(
    transition: Transition,
    cookie: u64,
    closing: bool,
    known: Option<*mut Known>,
    amend: impl FnOnce(&mut Change),
) -> Option<i32> {
    let mut entry = emit::reserve::<Change>(kind::CHANGE)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the ring's memory, sized for the record; every byte of it is written. The caller's for the rest.
    unsafe {
        (*record).header = emit::header(kind::CHANGE);
        (*record).sock.cookie = cookie;
        sock::fill_but_netns::<Typed>(transition.sk, closing, &mut (*record).sock);
        (*record).sock.netns = netns(transition.sk, known);
        (*record).sent = 0;
        (*record).received = 0;
        (*record).error = transition.error();
        (*record).old = transition.old as u8;
        (*record).new = transition.new as u8;
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
        amend(&mut *record);
    }
    emit::submit(entry);
    Some(0)
}

/// Tells what an MPTCP socket does not know by itself yet: see [`change_flags::SUBFLOW`].
#[inline(always)]
fn subflow(transition: Transition) -> Option<i32> {
    // SAFETY: a subflow.
    let cookie = unsafe { sock::owner_of_subflow(transition.sk) };
    if cookie == 0 {
        return None;
    }
    // SAFETY: the tracepoint's typed argument.
    unsafe {
        tell_change(transition, cookie, false, None, |record| {
            record.sock.flags |= sock_flags::MPTCP;
            record.flags = change_flags::SUBFLOW;
        })
    }
}
