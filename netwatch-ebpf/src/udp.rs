//! UDP has no states: a flow begins with the first datagram between a socket and a remote address, and
//! whoever sent that began it. `cgroup_skb` at the root of the cgroup tree sees each packet of each socket
//! with its cookie, `cgroup/sock_create` and `sock_release` (5.9) who makes a socket and when it is closed;
//! who sends and receives is told by `using`. Without them UDP is not seen.
//!
//! After its first datagram a flow costs one look-up in its table a packet.

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

/// Takes memory a flow, not all at the start.
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

/// Sizes and places in the headers: RFC 791, RFC 8200, RFC 768.
const IPV4_MIN: u32 = 20;
const IPV6_LEN: u32 = 40;
const UDP_LEN: u32 = 8;

/// Addresses and ports of a datagram, as seen from this end.
struct Ends {
    family: u16,
    source: [u8; 16],
    destination: [u8; 16],
    source_port: u16,
    destination_port: u16,
    payload: u32,
}

/// Reads the headers; `None` where it is no UDP. IPv6 extension headers before UDP are rare, and passed by.
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
    // SAFETY: the hook's context.
    let len = unsafe { (*skb).len };
    Some(Ends {
        family,
        source,
        destination,
        source_port: u16::from_be_bytes([a, b]),
        destination_port: u16::from_be_bytes([c, d]),
        // A packet that the device cuts up later is whole here, and its own length field is not to be used.
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
    // SAFETY: the hook's context; its socket, if it has one.
    let sk: *mut bpf_sock = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // Nearly every packet is TCP's, and a look at its socket is less than one into the packet.
    // SAFETY: a socket of the hook's context, of which the kernel runs the hook for whole ones only
    // (`kernel/bpf/cgroup.c`, __cgroup_bpf_run_filter_skb).
    let whole = unsafe { bpf_sk_fullsock(sk) };
    // SAFETY: as the helper returned it.
    if whole.is_null() || unsafe { (*whole).protocol } != u32::from(IPPROTO_UDP) {
        return None;
    }
    let ends = parse(skb)?;
    let (local, remote) = if received == 0 {
        ((ends.source, ends.source_port), (ends.destination, ends.destination_port))
    } else {
        ((ends.destination, ends.destination_port), (ends.source, ends.source_port))
    };
    // SAFETY: helpers that take the hook's context.
    let (cookie, now) = unsafe { (bpf_get_socket_cookie(skb.cast()), bpf_ktime_get_boot_ns()) };
    let key = FlowKey { cookie, remote: remote.0, port: remote.1, pad: [0; 6] };
    if let Some(count) = FLOWS.get_ptr_mut(&key) {
        // SAFETY: the table's memory.
        unsafe {
            (*count).last = now;
            if received == 0 {
                (*count).sent += u64::from(ends.payload);
            } else {
                (*count).received += u64::from(ends.payload);
            }
            if (*count).told != 0 {
                return None;
            }
            // The ring was full: once more, with what the first datagram was.
            (*count).told =
                u32::from(tell(sk.cast(), cookie, &ends, local, remote, (*count).flags).is_some());
        }
        return None;
    }
    let mut flags = received;
    if let Some(known) = storage_in_cgroup(sk.cast(), true) {
        // SAFETY: this socket's storage.
        unsafe {
            if (*known).flags & BORN == 0 {
                flags |= flow_flags::OLD;
            }
            (*known).flags |= HAS_FLOWS;
            if received == 0 {
                // The call that sends it will say who that is.
                (*known).flags |= PENDING;
            }
        }
    }
    let told = tell(sk.cast(), cookie, &ends, local, remote, flags).is_some();
    let payload = u64::from(ends.payload);
    let (sent, received) = if received == 0 { (payload, 0) } else { (0, payload) };
    let count = FlowCount { sent, received, last: now, flags, told: u32::from(told) };
    if FLOWS.insert(&key, &count, 0).is_err() {
        emit::lost(kind::FLOW);
    }
    None
}

#[inline(always)]
fn tell(
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
    // SAFETY: the ring's memory, sized for the record; every byte of it is written. `sk` is a socket.
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
    // SAFETY: the hook's context is the socket.
    unsafe {
        if (*sk).protocol != u32::from(IPPROTO_UDP) {
            return None;
        }
        let known = storage_in_cgroup(sk.cast(), true)?;
        (*known).flags |= BORN;
        // Who makes it is not noted as a user: its own first use is told too, as another one than a child's.
        act::tell(emit::header(kind::BORN), 0, 0, |out| fill(sk, false, out))
    }
}

#[cgroup_sock(sock_release)]
fn udp_release(ctx: SockContext) -> i32 {
    let _ = released(ctx.sock);
    PASS
}

#[inline(always)]
fn released(sk: *mut bpf_sock) -> Option<()> {
    // SAFETY: the hook's context is the socket.
    unsafe {
        if (*sk).protocol != u32::from(IPPROTO_UDP) {
            return None;
        }
        // Without it the socket had no flow, and nobody was told of it.
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
/// `sk` is the socket that a hook has for its context.
#[inline(always)]
unsafe fn fill(sk: *mut bpf_sock, closing: bool, out: &mut Sock) {
    // SAFETY: the caller's.
    unsafe {
        out.cookie = bpf_get_socket_cookie(sk.cast());
        sock::fill::<Untyped>(plain(sk.cast()), closing, out);
    }
}
