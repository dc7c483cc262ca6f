//! UDP has no states: a flow begins with the first datagram between a socket and a remote address, and its sender is
//! the originator. `cgroup_skb` at the root of the cgroup tree sees each packet with the cookie of its socket;
//! `cgroup/sock_create` and `sock_release` (5.9) see who creates a socket and when it is closed; `using` reports the
//! processes that send and receive. Without these probes UDP is not seen.
//!
//! After the first datagram a flow costs one map lookup per packet.

use core::ffi::c_void;

use aya_ebpf::bindings::{__sk_buff, BPF_F_NO_PREALLOC, bpf_sock};
use aya_ebpf::btf_maps::HashMap;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_sk_fullsock, bpf_skb_load_bytes};
use aya_ebpf::macros::{btf_map, cgroup_skb, cgroup_sock};
use aya_ebpf::programs::{SkBuffContext, SockContext};
use netwatch_common::{FLOWS_MAX, Flow, FlowCount, FlowKey, Release, Sock, flow_flags, kind};

use crate::known::{BORN, FLOWS as HAS_FLOWS, PENDING, forget, storage_in_cgroup};
use crate::mem::{Memory as _, Untyped, offset, plain};
use crate::sock::{AF_INET, AF_INET6, IPPROTO_UDP};
use crate::{act, emit, sock};

/// Allocated per flow, not in advance.
#[btf_map]
static FLOWS: HashMap<FlowKey, FlowCount, FLOWS_MAX, { BPF_F_NO_PREALLOC as usize }> = HashMap::new();

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

/// Lengths of headers: RFC 791, RFC 8200, RFC 768.
const IPV4_MIN: u32 = 20;
const IPV6_LEN: u32 = 40;
const UDP_LEN: u32 = 8;

/// Addresses, ports and payload length of a datagram.
struct Ends {
    family: u16,
    source: [u8; 16],
    destination: [u8; 16],
    source_port: u16,
    destination_port: u16,
    payload: u32,
}

/// Parses the headers; `None` if the packet is not UDP. Packets with IPv6 extension headers are rare, and ignored.
#[inline(always)]
fn parse(skb: *mut __sk_buff) -> Option<Ends> {
    let first: [u8; IPV4_MIN as usize] = load(skb, 0)?;
    let (family, header, source, destination) = match first[0] >> 4 {
        4 if u16::from(first[9]) == IPPROTO_UDP => {
            let source = sock::widen([first[12], first[13], first[14], first[15]]);
            let destination = sock::widen([first[16], first[17], first[18], first[19]]);
            (AF_INET, u32::from(first[0] & 0xf) * 4, source, destination)
        }
        6 if u16::from(first[6]) == IPPROTO_UDP => (AF_INET6, IPV6_LEN, load(skb, 8)?, load(skb, 24)?),
        _ => return None,
    };
    let [a, b, c, d]: [u8; 4] = load(skb, header)?;
    // SAFETY: the context of the hook.
    let len = unsafe { (*skb).len };
    Some(Ends {
        family,
        source,
        destination,
        source_port: u16::from_be_bytes([a, b]),
        destination_port: u16::from_be_bytes([c, d]),
        // Not the length field of the header: with segmentation offload the packet is larger than one datagram.
        payload: len.saturating_sub(header + UDP_LEN),
    })
}

#[inline(always)]
fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0_u8; N];
    // SAFETY: the helper writes N bytes or fails.
    let result = unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    (result == 0).then_some(bytes)
}

#[inline(always)]
fn datagram(skb: *mut __sk_buff, received: u32) -> Option<()> {
    // SAFETY: the context of the hook and its socket, which may be NULL.
    let sk: *mut bpf_sock = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // Checking the protocol of the socket is cheaper than parsing the packet, and most packets are TCP.
    // SAFETY: the socket of the context. The kernel runs the hook only for full sockets (kernel/bpf/cgroup.c,
    // __cgroup_bpf_run_filter_skb(), v6.12).
    let whole = unsafe { bpf_sk_fullsock(sk) };
    // SAFETY: returned by the helper.
    if whole.is_null() || unsafe { (*whole).protocol } != u32::from(IPPROTO_UDP) {
        return None;
    }
    let ends = parse(skb)?;
    let (local, remote) = if received == 0 {
        ((ends.source, ends.source_port), (ends.destination, ends.destination_port))
    } else {
        ((ends.destination, ends.destination_port), (ends.source, ends.source_port))
    };
    // SAFETY: helpers that take the context of the hook.
    let (cookie, now) = unsafe { (bpf_get_socket_cookie(skb.cast()), bpf_ktime_get_boot_ns()) };
    let key = FlowKey { cookie, remote: remote.0, port: remote.1, pad: [0; 6] };
    if let Some(count) = FLOWS.get_ptr_mut(&key) {
        // SAFETY: memory of the map.
        unsafe {
            (*count).last = now;
            if received == 0 {
                (*count).sent += u64::from(ends.payload);
            } else {
                (*count).received += u64::from(ends.payload);
            }
            if (*count).reported != 0 {
                return None;
            }
            // The ring was full at the first datagram: send its record now.
            (*count).reported =
                u32::from(report(sk.cast(), cookie, &ends, local, remote, (*count).flags).is_some());
        }
        return None;
    }
    let mut flags = received;
    if let Some(known) = storage_in_cgroup(sk.cast(), true) {
        // SAFETY: the state of this socket.
        unsafe {
            if (*known).flags & BORN == 0 {
                flags |= flow_flags::OLD;
            }
            (*known).flags |= HAS_FLOWS;
            if received == 0 {
                // The sender is reported when its call returns.
                (*known).flags |= PENDING;
            }
        }
    }
    let reported = report(sk.cast(), cookie, &ends, local, remote, flags).is_some();
    let payload = u64::from(ends.payload);
    let (sent, received) = if received == 0 { (payload, 0) } else { (0, payload) };
    let count = FlowCount { sent, received, last: now, flags, reported: u32::from(reported) };
    if FLOWS.insert(&key, &count, 0).is_err() {
        emit::lost(kind::FLOW);
    }
    None
}

#[inline(always)]
fn report(
    sk: *const c_void,
    cookie: u64,
    ends: &Ends,
    local: ([u8; 16], u16),
    remote: ([u8; 16], u16),
    flags: u32,
) -> Option<()> {
    let mut entry = emit::reserve::<Flow>(kind::FLOW)?;
    let record = entry.as_mut_ptr();
    let sk = plain(sk);
    // SAFETY: memory of the ring with the size of the record; every byte is written. `sk` is a socket.
    unsafe {
        (*record).header = emit::header(kind::FLOW);
        let family: u16 = Untyped::read(sk, offset!(sk_family));
        (*record).sock = Sock {
            cookie,
            inode: sock::inode(sk),
            netns: sock::netns(sk),
            family: ends.family,
            local_port: local.1,
            remote_port: remote.1,
            protocol: IPPROTO_UDP as u8,
            flags: if family == ends.family { 0 } else { netwatch_common::sock_flags::MAPPED },
            pad: [0; 4],
            local: local.0,
            remote: remote.0,
        };
        (*record).flags = flags;
        (*record).pad = 0;
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
        if (*sk).protocol != u32::from(IPPROTO_UDP) {
            return None;
        }
        let known = storage_in_cgroup(sk.cast(), true)?;
        (*known).flags |= BORN;
        // The creator is not noted as a user, so that its first use is reported and can be distinguished from a
        // child's.
        act::report(emit::header(kind::BORN), 0, 0, |out| fill(sk, false, out))
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
        if (*sk).protocol != u32::from(IPPROTO_UDP) {
            return None;
        }
        // Without state no record about the socket was sent.
        let known = storage_in_cgroup(sk.cast(), false)?;
        let flags = (*known).flags;
        forget(plain(sk.cast()));
        if flags & (HAS_FLOWS | BORN) == 0 {
            return None;
        }
        let mut entry = emit::reserve::<Release>(kind::RELEASE)?;
        let record = entry.as_mut_ptr();
        (*record).header = emit::header(kind::RELEASE);
        fill(sk, true, &mut (*record).sock);
        emit::submit(entry);
    }
    Some(())
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
