//! UDP has no states: a flow begins with the first datagram between two addresses on a socket, and its sender is
//! the originator. The same holds for UDP-Lite, raw and ping sockets. `cgroup_skb` at the root of the cgroup tree sees each packet with the cookie of its socket;
//! `cgroup/sock_create` and `sock_release` (5.9) see who creates a socket and when it is closed; `using` reports the
//! processes that send and receive. Without these probes none of it is seen.
//!
//! After the first datagram a flow costs one map lookup per packet. Anyone may send datagrams to any number of
//! addresses, so a flow is reported only once it has a place in the map, each socket has a limited number of places, and
//! flows without a place are counted.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, BPF_F_NO_PREALLOC, BPF_NOEXIST, bpf_sock};
use aya_ebpf::btf_maps::{HashMap, LruHashMap};
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::{btf_map, cgroup_skb, cgroup_sock};
use aya_ebpf::programs::{SkBuffContext, SockContext};
use netwatch_common::{
    FLOWS_MAX, Flow, FlowCount, FlowKey, NOT_FOLLOWED_MAX, Release, SOCKET_FLOWS_MAX, Sock, flow_flags, kind,
    sock_flags,
};

use crate::known::{BORN, Known, forget, storage_in_cgroup, users};
use crate::mem::{Memory as _, Untyped, offset, plain};
use crate::packet::Ends;
use crate::{act, emit, netns, notes, packet, sock, task};

/// Allocated per flow, not in advance.
#[btf_map]
static FLOWS: HashMap<FlowKey, FlowCount, FLOWS_MAX, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Number of flows of a socket that the agent has removed from [`FLOWS`], by cookie. Only the agent writes it.
#[btf_map]
static REMOVED_FLOWS: HashMap<u64, u64, FLOWS_MAX, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

/// Number of datagrams of flows that have no place, by the cookie of their socket. The agent reads and removes them.
#[btf_map]
static NOT_FOLLOWED_BY: LruHashMap<u64, u64, NOT_FOLLOWED_MAX> = LruHashMap::new();

/// The socket on which a thread sent the first datagram of a flow, by thread id, until its call returns.
#[btf_map]
static SENDING: LruHashMap<u32, u64, 16384> = LruHashMap::new();

#[cgroup_skb(egress)]
fn udp_egress(ctx: SkBuffContext) -> i32 {
    let _ = datagram(ctx.skb.skb, 0);
    PASS
}

#[cgroup_skb(ingress)]
fn udp_ingress(ctx: SkBuffContext) -> i32 {
    let _ = datagram(ctx.skb.skb, flow_flags::RECEIVED);
    PASS
}

const PASS: i32 = 1;

#[inline(always)]
fn datagram(skb: *mut __sk_buff, received: u32) -> Option<()> {
    let (sk, protocol) = packet::socket(skb)?;
    // Most packets are TCP.
    if !sock::has_flows(protocol) {
        return None;
    }
    // The kernel has raw sockets of its own, from which it answers.
    // SAFETY: the socket of the context.
    if sock::is_raw(protocol) && unsafe { sock::is_kernels::<Untyped>(plain(sk.cast())) } {
        return None;
    }
    let mut ends = Ends::NONE;
    if packet::ends(skb, protocol, &mut ends) == 0 {
        return None;
    }
    let ends = &ends;
    let (local, remote) = if received == 0 {
        ((ends.source, ends.source_port), (ends.destination, ends.destination_port))
    } else {
        ((ends.destination, ends.destination_port), (ends.source, ends.source_port))
    };
    // SAFETY: a helper that takes the context of the hook.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    let key = FlowKey { cookie, local: local.0, remote: remote.0, port: remote.1, pad: [0; 6] };
    let answers = if ends.answers { flow_flags::ANSWER } else { 0 };
    let state = || storage_in_cgroup(sk.cast(), true);
    let begun = count(&key, (received, ends.payload.into()), received | answers, state)?;
    if report(sk.cast(), (cookie, protocol), ends, local, remote, begun).is_none() {
        not_reported(&key);
    }
    None
}

/// What the record of a flow says of its first datagram: [`flow_flags`], and the thread group and thread that sent it.
pub(crate) type Begun = (u32, (u32, u32));

/// Counts a datagram of a flow. Returns what is to be reported if that was not done yet. `received`:
/// [`flow_flags::RECEIVED`] or 0, with the payload; `first`: flags if it is the first one.
#[inline(always)]
pub(crate) fn count(
    key: &FlowKey,
    (received, payload): (u32, u64),
    first: u32,
    state: impl FnOnce() -> Option<*mut Known>,
) -> Option<Begun> {
    let cookie = key.cookie;
    // SAFETY: a helper without arguments.
    let now = unsafe { bpf_ktime_get_boot_ns() };
    if let Some(count) = FLOWS.get_ptr_mut(key) {
        // SAFETY: memory of the map.
        unsafe {
            (*count).last = now;
            let bytes = if received == 0 { &raw mut (*count).sent } else { &raw mut (*count).received };
            emit::add(bytes, payload);
            if (*count).reported == 0 {
                // The ring was full at the first datagram: send its record now.
                (*count).reported = 1;
                return Some(((*count).flags, (0, 0)));
            }
        }
        return None;
    }
    let Some(known) = state() else {
        not_followed(cookie);
        return None;
    };
    let mut flags = first;
    // SAFETY: the state of this socket.
    unsafe {
        if !has_place(cookie, known) {
            not_followed(cookie);
            return None;
        }
        if (*known).flags & BORN == 0 {
            flags |= flow_flags::OLD;
        }
    }
    let (sent, received) = if received == 0 { (payload, 0) } else { (0, payload) };
    let count = FlowCount { sent, received, last: now, flags, reported: 1 };
    if FLOWS.insert(key, &count, BPF_NOEXIST.into()).is_err() {
        // Full, unless another CPU has just inserted the same flow, which is then reported already.
        if let Some(count) = FLOWS.get_ptr_mut(key) {
            // SAFETY: memory of the map.
            unsafe {
                emit::add(&raw mut (*count).sent, sent);
                emit::add(&raw mut (*count).received, received);
            }
        } else {
            not_followed(cookie);
        }
        return None;
    }
    // SAFETY: the state of this socket.
    unsafe { emit::add(&raw mut (*known).flows, 1) };
    let sender = if flags & flow_flags::RECEIVED == 0 { sending(cookie, known) } else { (0, 0) };
    Some((flags, sender))
}

/// The ring was full: the next datagram reports the flow.
#[inline(always)]
pub(crate) fn not_reported(key: &FlowKey) {
    if let Some(count) = FLOWS.get_ptr_mut(key) {
        // SAFETY: memory of the map.
        unsafe { (*count).reported = 0 };
    }
}

/// Whether a flow is in the map.
#[inline(always)]
pub(crate) fn is_followed(key: &FlowKey) -> bool {
    FLOWS.get_ptr_mut(key).is_some()
}

/// Whether a socket may have another flow.
///
/// # Safety
/// `known` is the state of the socket.
#[inline(always)]
unsafe fn has_place(cookie: u64, known: *const Known) -> bool {
    // SAFETY: guaranteed by the caller; the count is copied.
    unsafe {
        let removed = REMOVED_FLOWS.get(cookie).copied().unwrap_or(0);
        (*known).flows.wrapping_sub(removed) < u64::from(SOCKET_FLOWS_MAX)
    }
}

/// Counts a datagram of a flow that has no place.
#[inline(always)]
fn not_followed(cookie: u64) {
    emit::not_followed(kind::FLOW);
    if let Some(count) = NOT_FOLLOWED_BY.get_ptr_mut(cookie) {
        // SAFETY: memory of the map.
        unsafe { emit::add(count, 1) };
    } else {
        // If another CPU does the same, one of two is not counted for the socket.
        let _ = NOT_FOLLOWED_BY.insert(cookie, 1, 0);
    }
}

/// Notes that the current thread sends the first datagram of a flow; returns its thread group and thread. Its call has
/// not returned, unless the datagram was delayed: then this is another thread, which [`has_sent`] shows.
#[inline(always)]
fn sending(cookie: u64, known: *mut Known) -> (u32, u32) {
    let current = task::current();
    // SAFETY: the current task, and the state of this socket.
    let (tgid, tid) = unsafe { (task::tgid(current), task::tid(current)) };
    if SENDING.insert(tid, cookie, 0).is_ok() {
        // SAFETY: as above.
        unsafe { emit::add(&raw mut (*known).pending, 1) };
    }
    (tgid, tid)
}

/// Whether the call of the current thread on this socket, which returns now, sent the first datagram of a flow.
///
/// # Safety
/// `known` is the state of the socket.
#[inline(always)]
pub(crate) unsafe fn has_sent(tid: u32, cookie: u64, known: *mut Known) -> bool {
    // SAFETY: guaranteed by the caller; the cookie is copied.
    unsafe {
        if (*known).pending == 0 || SENDING.get(tid).copied() != Some(cookie) {
            return false;
        }
        // Fails only if it is gone.
        let _ = SENDING.remove(tid);
        emit::add(&raw mut (*known).pending, u64::MAX);
    }
    true
}

#[inline(always)]
fn report(
    sk: *const c_void,
    (cookie, protocol): (u64, u16),
    ends: &Ends,
    local: ([u8; 16], u16),
    remote: ([u8; 16], u16),
    begun: Begun,
) -> Option<()> {
    let sk = plain(sk);
    // SAFETY: `sk` is a socket.
    let fill = |out: &mut Sock| unsafe {
        let family: u16 = Untyped::read(sk, offset!(sk_family));
        *out = Sock {
            cookie,
            inode: sock::inode(sk),
            netns: sock::netns(sk),
            family: ends.family,
            local_port: local.1,
            remote_port: remote.1,
            protocol: ends.protocol,
            flags: {
                let raw = if sock::has_ports(protocol) { 0 } else { sock_flags::RAW };
                let mapped = if family == ends.family { 0 } else { sock_flags::MAPPED };
                raw | mapped
            },
            device: Untyped::read(sk, offset!(sk_bound_dev_if)),
            local: local.0,
            remote: remote.0,
        };
    };
    // SAFETY: the closure writes all.
    unsafe { report_flow(begun, ends.interface, fill) }
}

/// Sends a [`Flow`]; `None` if the ring was full, which is counted.
///
/// # Safety
/// `fill` writes every byte of its argument, which is memory of the ring.
#[inline(always)]
pub(crate) unsafe fn report_flow(
    (flags, (tgid, tid)): Begun,
    interface: u32,
    fill: impl FnOnce(&mut Sock),
) -> Option<()> {
    let mut entry = emit::reserve::<Flow>(kind::FLOW)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring with the size of the record; every byte is written.
    unsafe {
        (*record).header = emit::header(kind::FLOW);
        fill(&mut (*record).sock);
        (*record).tgid = tgid;
        (*record).tid = tid;
        (*record).flags = flags;
        (*record).interface = interface;
    }
    emit::submit(entry);
    Some(())
}

/// Sends a [`Release`], likewise.
///
/// # Safety
/// As [`report_flow`].
#[inline(always)]
pub(crate) unsafe fn report_release(fill: impl FnOnce(&mut Sock)) -> Option<()> {
    let mut entry = emit::reserve::<Release>(kind::RELEASE)?;
    let record = entry.as_mut_ptr();
    // SAFETY: as above.
    unsafe {
        (*record).header = emit::header(kind::RELEASE);
        fill(&mut (*record).sock);
    }
    emit::submit(entry);
    Some(())
}

#[cgroup_sock(sock_create)]
fn udp_create(ctx: SockContext) -> i32 {
    let _ = created(ctx.sock);
    PASS
}

#[inline(always)]
fn created(sk: *mut bpf_sock) -> Option<()> {
    // SAFETY: the context of the hook is the socket.
    unsafe {
        if !sock::has_flows(sock::protocol_of((*sk).protocol, (*sk).type_)) {
            return None;
        }
        // A socket keeps its namespace alive, so that of an older one is known by an older socket, or older than the probes.
        netns::recognise(plain(sk.cast()));
        let known = storage_in_cgroup(sk.cast(), true)?;
        (*known).flags |= BORN;
        // The creator is not noted as a user, so that its first use is reported and can be distinguished from a
        // child's.
        act::report(emit::header(kind::BORN), 0, 0, 0, |out| fill(sk, false, out))
    }
}

#[cgroup_sock(sock_release)]
fn udp_release(ctx: SockContext) -> i32 {
    let _ = released(ctx.sock);
    PASS
}

#[inline(always)]
fn released(sk: *mut bpf_sock) -> Option<()> {
    // SAFETY: the context of the hook is the socket.
    unsafe {
        if !sock::has_flows(sock::protocol_of((*sk).protocol, (*sk).type_)) {
            return None;
        }
        // Without state no record about the socket was sent.
        let known = storage_in_cgroup(sk.cast(), false)?;
        let (flags, flows) = ((*known).flags, (*known).flows);
        let address = plain(sk.cast());
        let [user, ..] = users(address as u64, known).last;
        forget(address);
        notes::forget(address);
        if flags & BORN == 0 && flows == 0 && user == 0 {
            return None;
        }
        report_release(|out| fill(sk, true, out))
    }
}

/// # Safety
/// `sk` is the socket in the context of a hook.
#[inline(always)]
unsafe fn fill(sk: *mut bpf_sock, closing: bool, out: &mut Sock) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        out.cookie = bpf_get_socket_cookie(sk.cast());
        sock::fill::<Untyped>(plain(sk.cast()), closing, out);
    }
}
