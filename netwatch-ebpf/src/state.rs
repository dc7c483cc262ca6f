//! `tp_btf/inet_sock_set_state`: every TCP state transition (`net/ipv4/af_inet.c`, inet_sk_set_state
//! and inet_sk_state_store).
//!
//! Only CLOSE→SYN_SENT and CLOSE→LISTEN happen in the context of the process that wants them; at every
//! other transition the current task is anybody. So these two write down the owner, in storage that
//! lives as long as the socket and is copied from a listener to each child, and the others read it there.

use core::ffi::c_void;

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::macros::{btf_map, btf_tracepoint};
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

/// Whether [`inet_sock_set_state`] is running on this CPU: bits of what follows.
#[btf_map]
static RUNNING: PerCpuArray<u32, 1> = PerCpuArray::new();

/// It is running.
const OUTER: u32 = 1;
/// And ran inside itself, for the transition that [`inet_sock_set_state_nested`] is called for next.
const INNER_DONE: u32 = 2;

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let Some(running) = RUNNING.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own slot; volatile, because an interrupt reads it.
    let before = unsafe { running.read_volatile() };
    // SAFETY: as above.
    unsafe { running.write_volatile(OUTER) };
    let result = try_state(&ctx).unwrap_or(0);
    // SAFETY: as above.
    unsafe { running.write_volatile(if before & OUTER != 0 { OUTER | INNER_DONE } else { 0 }) };
    result
}

/// The same for a transition in a softirq that interrupts the program above: the kernel does not run a
/// program inside itself (`kernel/trace/bpf_trace.c`, __bpf_trace_run, since 6.2), so this one takes its
/// place. It is attached, and so called, after that.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state_nested(ctx: BtfTracePointContext) -> i32 {
    let Some(running) = RUNNING.get_ptr_mut(0) else { return 0 };
    // SAFETY: this CPU's own slot.
    match unsafe { running.read_volatile() } {
        OUTER => {}
        0 => return 0,
        _ => {
            // SAFETY: as above.
            unsafe { running.write_volatile(OUTER) };
            return 0;
        }
    }
    emit::caught(kind::CHANGE);
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&ctx, "a TCP transition inside another on this CPU");
    try_state(&ctx).unwrap_or(0)
}

#[inline(always)]
fn try_state(ctx: &BtfTracePointContext) -> Option<i32> {
    let sk: *const c_void = ctx.arg(0);
    let old: i32 = ctx.arg(1);
    let new: i32 = ctx.arg(2);
    // SAFETY: the tracepoint's first argument is a `struct sock`.
    if old == new || !unsafe { sock::is_ours::<Typed>(sk) } {
        return None;
    }
    match (old, new) {
        (tcp::CLOSE, tcp::SYN_SENT) => begin(sk, kind::CONNECT, change_flags::CONNECTED),
        (tcp::CLOSE, tcp::LISTEN) => begin(sk, kind::LISTEN, change_flags::LISTENER),
        _ => {
            let told = change(sk, old, new);
            if new == tcp::CLOSE {
                forget(sk);
            }
            told
        }
    }
}

/// Called in the context of the process that connects or listens.
#[inline(always)]
fn begin(sk: *const c_void, kind: u16, flags: u32) -> Option<i32> {
    // SAFETY: `sk` is the tracepoint's typed argument, of TCP or MPTCP.
    if unsafe { sock::is_subflow(sk) } {
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
fn change(sk: *const c_void, old: i32, new: i32) -> Option<i32> {
    // An MPTCP child is born and established in one transition, from a state that no transition led to
    // (`net/mptcp/protocol.c`, mptcp_sk_clone_init).
    // SAFETY: `sk` is the tracepoint's typed argument.
    let mptcp = unsafe { sock::protocol::<Typed>(sk) } == sock::IPPROTO_MPTCP;
    let born =
        old == tcp::LISTEN && new != tcp::CLOSE || mptcp && old == tcp::SYN_RECV && new == tcp::ESTABLISHED;
    // What was there before netwatch has no storage: a child of an old listener gets it here.
    let known = storage(sk, born);
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
