//! `tp_btf/inet_sock_set_state`: every TCP state transition (net/ipv4/af_inet.c, inet_sk_set_state() and
//! inet_sk_state_store(), v6.12).
//!
//! Only CLOSE→SYN_SENT and CLOSE→LISTEN happen in the context of the process that connects or listens; at all other
//! transitions the current task is unrelated. So these two write the owner to the state of the socket, which lives as
//! long as the socket and is copied from a listener to its children, and the others read it.

use core::ffi::c_void;

use aya_ebpf::macros::btf_tracepoint;
use aya_ebpf::programs::BtfTracePointContext;
use netwatch_common::{Change, change_flags, kind, sock_flags};

use crate::known::{Known, NOBODY, NOTHING, forget, set_users, storage};
use crate::mem::{Memory as _, Typed, knob, offset};
use crate::{act, calls, emit, listen, netns, notes, sock, task, tcp, using};

#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state(ctx: BtfTracePointContext) -> i32 {
    let Some(transition) = Transition::of(&ctx) else { return 0 };
    if transition.is_none() {
        transition.note();
        return 0;
    }
    transition.report().unwrap_or(0)
}

/// The second program, which does the work if the kernel skipped a run of the first (see `twice.rs`). The first notes
/// in the state of the socket that it ran.
#[btf_tracepoint(function = "inet_sock_set_state")]
fn inet_sock_set_state_again(ctx: BtfTracePointContext) -> i32 {
    let Some(transition) = Transition::of(&ctx) else { return 0 };
    if let Some(known) = storage(transition.sk, false) {
        // SAFETY: the state of this socket.
        unsafe {
            if (*known).seen == transition.token() {
                if transition.is_none() {
                    // The next transition may be the same.
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
    transition.report().unwrap_or(0)
}

/// A state transition of a TCP or MPTCP socket.
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
        // SAFETY: the first argument of the tracepoint is a `struct sock`.
        let ours = unsafe { sock::is_ours::<Typed>(sk) };
        ours.then(|| Self { sk, tcp: sock::tcp(sk), old, new })
    }

    /// Whether the state does not change, so that nothing is sent. MPTCP sockets often set a state that they are in
    /// (`net/mptcp/protocol.c`), TCP sockets rarely.
    #[inline(always)]
    fn is_none(self) -> bool {
        self.old == self.new
    }

    /// Notes that the first program ran, for a transition that is not sent.
    #[inline(always)]
    fn note(self) {
        // Socket storage is freed with the socket, an entry in the map is not, so there none is created.
        if let Some(known) = storage(self.sk, knob!(socket_helpers)) {
            // SAFETY: the state of this socket.
            unsafe { (*known).seen = self.token() };
        }
    }

    /// An id that differs from that of the previous transition of the socket, which ended in `old`; never 0.
    #[inline(always)]
    fn token(self) -> u32 {
        (self.old as u32) << 8 | self.new as u32
    }

    /// `sk_err` at a transition to CLOSE; otherwise 0, since it is stale when a socket is reused.
    #[inline(always)]
    fn error(self) -> u16 {
        if self.new != tcp::CLOSE {
            return 0;
        }
        // SAFETY: the typed argument of the tracepoint.
        let sk_err: u32 = unsafe { Typed::read(self.sk, offset!(sk_err)) };
        sk_err as u16
    }

    /// # Safety
    /// Call it only during the tracepoint.
    #[inline(always)]
    unsafe fn is_subflow(self) -> bool {
        // SAFETY: the verifier knows the type.
        !self.tcp.is_null() && unsafe { sock::is_subflow::<Typed>(self.tcp) }
    }

    #[inline(always)]
    fn report(self) -> Option<i32> {
        match (self.old, self.new) {
            (tcp::CLOSE, tcp::SYN_SENT | tcp::LISTEN) => begin(self),
            _ => {
                let reported = change(self);
                if self.new == tcp::CLOSE {
                    forget(self.sk);
                    notes::forget(self.sk);
                }
                reported
            }
        }
    }
}

/// CLOSE→SYN_SENT and CLOSE→LISTEN. The current task connects or listens.
#[inline(always)]
fn begin(transition: Transition) -> Option<i32> {
    let sk = transition.sk;
    let listens = transition.new == tcp::LISTEN;
    // SAFETY: `sk` is the typed argument of the tracepoint, of TCP or MPTCP.
    if unsafe { transition.is_subflow() } {
        if let Some(known) = storage(sk, true) {
            // SAFETY: the state of this socket; a subflow needs nothing else.
            unsafe { (*known).seen = transition.token() };
        }
        return if listens { None } else { subflow(transition) };
    }
    let kind = if listens { kind::LISTEN } else { kind::CONNECT };
    let header = emit::header(kind);
    let cookie = cookie(sk, kind)?;
    let current = task::current();
    let Some(known) = storage(sk, true) else {
        // The owner cannot be stored, so later records will lack it.
        emit::lost(kind);
        return None;
    };
    // SAFETY: the typed argument of the tracepoint.
    let restored = !transition.tcp.is_null() && unsafe { sock::is_restored::<Typed>(transition.tcp) };
    // SAFETY: `known` is the state of this socket, `current` the current task.
    unsafe {
        let (tgid, start) = (task::tgid(current), task::start(current));
        *known = Known {
            listener: if listens { cookie } else { 0 },
            began: header.ts,
            owner_start: start,
            owner_tgid: tgid,
            owner_tid: task::tid(current),
            flags: match (listens, restored) {
                (true, _) => change_flags::LISTENER,
                (false, true) => change_flags::RESTORED,
                (false, false) => change_flags::CONNECTED,
            },
            seen: transition.token(),
            netns: sock::netns(sk),
            ..NOTHING
        };
        let mut users = NOBODY;
        users.last[0] = using::who(tgid, start);
        set_users(sk as u64, known, &users);
    }
    if listens {
        listen::begun(sk, cookie);
    } else {
        // SAFETY: the typed argument of the tracepoint.
        unsafe { netns::recognise(sk) };
        calls::reached_syn_sent(cookie);
        notes::connects(sk);
    }
    // SAFETY: `sk` is the typed argument of the tracepoint; every byte of the record is written.
    unsafe {
        act::report(header, task::way(current), 0, 0, |out| {
            out.cookie = cookie;
            sock::fill_but_netns::<Typed>(sk, false, out);
            out.netns = (*known).netns;
            if !transition.tcp.is_null() && sock::is_fastopen::<Typed>(transition.tcp) {
                out.flags |= sock_flags::FASTOPEN;
            }
            if sock::is_kernels::<Typed>(sk) {
                out.flags |= sock_flags::KERNEL;
            }
            if restored {
                out.flags |= sock_flags::REPAIR;
            }
        })?;
    }
    Some(0)
}

/// Any other transition. The current task is unrelated.
#[inline(always)]
fn change(transition: Transition) -> Option<i32> {
    let Transition { sk, old, new, .. } = transition;
    // An MPTCP child is created in SYN_RECV without a transition to it (net/mptcp/protocol.c, mptcp_sk_clone_init(),
    // v6.12), so it begins with the transition to ESTABLISHED.
    // SAFETY: `sk` is the typed argument of the tracepoint.
    let mptcp = unsafe { sock::protocol::<Typed>(sk) } == sock::IPPROTO_MPTCP;
    let born =
        old == tcp::LISTEN && new != tcp::CLOSE || mptcp && old == tcp::SYN_RECV && new == tcp::ESTABLISHED;
    // Creates the state for sockets older than netwatch, and for children of such listeners.
    let known = storage(sk, true);
    if let Some(known) = known {
        // SAFETY: the state of this socket.
        unsafe {
            if born {
                if !knob!(socket_helpers) {
                    // The map by address has no copy from the listener; an entry is that of a closed socket. Some
                    // kernels (5.10) leave the cookie of the listener on the child until this transition is over
                    // (net/ipv4/inet_connection_sock.c, inet_csk_clone_lock(), v5.10); on others it is 0 here.
                    *known = NOTHING;
                    (*known).listener = sock::cookie(sk);
                }
                (*known).flags = change_flags::CHILD;
                set_users(sk as u64, known, &NOBODY);
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
        // This is the creation of the child, which is not reported. The child has no cookie of its own yet, and on some
        // kernels (at least 5.10 to 6.12) a copy of its listener's until the transition is over
        // (net/ipv4/inet_connection_sock.c, inet_csk_clone_lock(), v6.12). On newer kernels (6.18) it keeps the cookie
        // generated here, so that an accept before the end of the handshake (TCP Fast Open) finds one.
        // SAFETY: `sk` is the typed argument of the tracepoint.
        unsafe { sock::cookie(sk) };
        return None;
    }
    let all = knob!(all_states);
    let simultaneous = old == tcp::SYN_SENT && new == tcp::SYN_RECV;
    // Without state there is no place to keep which side sent the first FIN, so the transition itself is sent.
    let forgotten = known.is_none() && (new == tcp::FIN_WAIT1 || new == tcp::CLOSE_WAIT);
    if !(all || forgotten || simultaneous || new == tcp::ESTABLISHED || new == tcp::CLOSE) {
        return None;
    }
    // SAFETY: `sk` is the typed argument of the tracepoint, of TCP or MPTCP. A child of an MPTCP listener whose peer
    // uses plain TCP is no subflow any more when it is established.
    if unsafe { transition.is_subflow() } {
        return match (old, new) {
            (tcp::SYN_RECV, tcp::ESTABLISHED) | (tcp::SYN_SENT, tcp::CLOSE) => subflow(transition),
            _ => None,
        };
    }
    let cookie = cookie(sk, kind::CHANGE)?;
    let gave_up = old == tcp::SYN_SENT && new == tcp::CLOSE && transition.error() == 0;
    if gave_up && calls::fails_in_call(cookie) {
        // connect() failed (no free port). Its exit has the errno and sends the record.
        return None;
    }
    // SAFETY: `sk` is the typed argument of the tracepoint, `known` its state.
    unsafe {
        send_change(transition, cookie, new == tcp::CLOSE, known, |record| {
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

/// The cookie of the socket. Without one it cannot be identified: the record counts as lost, and the snapshot that
/// follows generates a cookie.
#[inline(always)]
fn cookie(sk: *const c_void, kind: u16) -> Option<u64> {
    // SAFETY: the typed argument of the tracepoint.
    let cookie = unsafe { sock::cookie(sk) };
    if cookie == 0 {
        emit::lost(kind);
        return None;
    }
    Some(cookie)
}

/// The network namespace of a socket, cached in its state.
///
/// # Safety
/// `sk` is a `struct sock`, `known` its state.
#[inline(always)]
unsafe fn netns(sk: *const c_void, known: Option<*mut Known>) -> u32 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let Some(known) = known else { return sock::netns(sk) };
        if (*known).netns == 0 {
            (*known).netns = sock::netns(sk);
        }
        (*known).netns
    }
}

/// Sends a transition with the state of the socket, or zeros without one; `amend` adds the rest.
///
/// # Safety
/// The socket of the transition is the typed argument of the tracepoint, `known` the state of a socket.
#[inline(always)]
unsafe fn send_change(
    transition: Transition,
    cookie: u64,
    closing: bool,
    known: Option<*mut Known>,
    amend: impl FnOnce(&mut Change),
) -> Option<i32> {
    let mut entry = emit::reserve::<Change>(kind::CHANGE)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring with the size of the record, every byte of which is written; the caller guarantees the
    // rest.
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
            if closing && (*record).error == 0 && transition.old == tcp::SYN_SENT {
                (*record).error = calls::soft_error(cookie, (*known).began);
            }
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

/// Sends what the MPTCP socket of this subflow does not know yet: see [`change_flags::SUBFLOW`].
#[inline(always)]
fn subflow(transition: Transition) -> Option<i32> {
    // SAFETY: a subflow.
    let cookie = unsafe { sock::owner_of_subflow(transition.sk) };
    if cookie == 0 {
        return None;
    }
    // SAFETY: the typed argument of the tracepoint.
    unsafe {
        send_change(transition, cookie, false, None, |record| {
            record.sock.flags |= sock_flags::MPTCP;
            record.flags = change_flags::SUBFLOW;
        })
    }
}
