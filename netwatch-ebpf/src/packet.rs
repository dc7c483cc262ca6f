//! Reads the headers of packets in `cgroup_skb` programs, whose context begins with the IP header.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_sk_fullsock, bpf_skb_load_bytes};

use crate::sock::{self, AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};

/// The socket of a packet, with its protocol, which is cheaper to look at than the packet.
#[inline(always)]
pub(crate) fn socket(skb: *mut __sk_buff) -> Option<(*mut bpf_sock, u32)> {
    // SAFETY: the context of the hook and its socket, which may be NULL.
    let sk: *mut bpf_sock = unsafe { (*skb).__bindgen_anon_2.sk };
    if sk.is_null() {
        return None;
    }
    // SAFETY: the socket of the context. The kernel runs the hook only for full sockets (kernel/bpf/cgroup.c,
    // __cgroup_bpf_run_filter_skb(), v6.12).
    let whole = unsafe { bpf_sk_fullsock(sk) };
    if whole.is_null() {
        return None;
    }
    // SAFETY: returned by the helper.
    Some((sk, unsafe { (*whole).protocol }))
}

/// Lengths of headers: RFC 791, RFC 8200, RFC 768.
const IPV4_MIN: u32 = 20;
const IPV6_LEN: u32 = 40;
const UDP_LEN: u32 = 8;

/// Addresses, ports and payload length of a datagram.
pub(crate) struct Ends {
    pub(crate) family: u16,
    pub(crate) source: [u8; 16],
    pub(crate) destination: [u8; 16],
    pub(crate) source_port: u16,
    pub(crate) destination_port: u16,
    pub(crate) payload: u32,
    /// Offset of the payload in the packet.
    pub(crate) payload_at: u32,
    /// Index of the interface by which it came or goes.
    pub(crate) interface: u32,
}

/// Parses the headers; `None` if the packet is not UDP.
#[inline(always)]
pub(crate) fn udp(skb: *mut __sk_buff) -> Option<Ends> {
    let first: [u8; IPV4_MIN as usize] = load(skb, 0)?;
    let (family, header, source, destination) = match first[0] >> 4 {
        4 if u16::from(first[9]) == IPPROTO_UDP => {
            let source = sock::widen([first[12], first[13], first[14], first[15]]);
            let destination = sock::widen([first[16], first[17], first[18], first[19]]);
            (AF_INET, u32::from(first[0] & 0xf) * 4, source, destination)
        }
        6 => (AF_INET6, ipv6_header(skb, first[6], IPPROTO_UDP)?, load(skb, 8)?, load(skb, 24)?),
        _ => return None,
    };
    let [a, b, c, d]: [u8; 4] = load(skb, header)?;
    // SAFETY: the context of the hook.
    let (len, interface) = unsafe { ((*skb).len, (*skb).ifindex) };
    Some(Ends {
        family,
        source,
        destination,
        source_port: u16::from_be_bytes([a, b]),
        destination_port: u16::from_be_bytes([c, d]),
        // Not the length field of the header: with segmentation offload the packet is larger than one datagram.
        payload: len.saturating_sub(header + UDP_LEN),
        payload_at: header + UDP_LEN,
        interface,
    })
}

/// Extension headers of IPv6 that may come before UDP: hop-by-hop options, routing, fragment, destination options
/// (RFC 8200, section 4), and authentication (RFC 4302).
const HOP_BY_HOP: u8 = 0;
const ROUTING: u8 = 43;
const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const DESTINATION: u8 = 60;

/// Each may occur once, except destination options, which may occur twice.
const MOST_EXTENSIONS: usize = 6;

/// Length of the IPv6 header with its extension headers; `None` if another protocol than this follows.
#[inline(always)]
fn ipv6_header(skb: *mut __sk_buff, first: u8, protocol: u16) -> Option<u32> {
    let (mut next, mut at) = (first, IPV6_LEN);
    for _ in 0..MOST_EXTENSIONS {
        if u16::from(next) == protocol {
            return Some(at);
        }
        if !matches!(next, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION) {
            return None;
        }
        let [following, len]: [u8; 2] = load(skb, at)?;
        at += match next {
            FRAGMENT => 8,
            AUTHENTICATION => (u32::from(len) + 2) * 4,
            _ => (u32::from(len) + 1) * 8,
        };
        next = following;
    }
    (u16::from(next) == protocol).then_some(at)
}

#[inline(always)]
pub(crate) fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0_u8; N];
    // SAFETY: the helper writes N bytes or fails.
    let result = unsafe { bpf_skb_load_bytes(skb.cast(), offset, bytes.as_mut_ptr().cast(), N as u32) };
    (result == 0).then_some(bytes)
}

/// Smallest header: RFC 9293, section 3.1.
const TCP_MIN: u32 = 20;

/// Offset and length of the payload; `None` if the packet is not TCP or has none.
#[inline(always)]
pub(crate) fn tcp_payload(skb: *mut __sk_buff) -> Option<(u32, u32)> {
    let first: [u8; IPV4_MIN as usize] = load(skb, 0)?;
    let header = match first[0] >> 4 {
        4 if u16::from(first[9]) == IPPROTO_TCP => u32::from(first[0] & 0xf) * 4,
        6 => ipv6_header(skb, first[6], IPPROTO_TCP)?,
        _ => return None,
    };
    let [offset]: [u8; 1] = load(skb, header + 12)?;
    let at = header + (u32::from(offset >> 4) * 4).max(TCP_MIN);
    // SAFETY: the context of the hook.
    let len = unsafe { (*skb).len }.checked_sub(at)?;
    (len > 0).then_some((at, len))
}
