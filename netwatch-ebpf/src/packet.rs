//! Reads the headers of packets in `cgroup_skb` programs, whose context begins with the IP header.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::helpers::generated::{bpf_sk_fullsock, bpf_skb_load_bytes};

use crate::sock::{self, AF_INET, AF_INET6, IPPROTO_ICMP, IPPROTO_ICMPV6, IPPROTO_RAW, IPPROTO_TCP};

/// The socket of a packet, with its protocol ([`sock::protocol_of`]), which is cheaper to look at than the packet.
#[inline(always)]
pub(crate) fn socket(skb: *mut __sk_buff) -> Option<(*mut bpf_sock, u16)> {
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
    Some((sk, unsafe { sock::protocol_of((*whole).protocol, (*whole).type_) }))
}

/// Lengths of headers: RFC 791, RFC 8200, RFC 768.
const IPV4_MIN: u32 = 20;
const IPV6_LEN: u32 = 40;
const UDP_LEN: u32 = 8;

/// Addresses, ports and payload length of a datagram.
pub(crate) struct Ends {
    pub(crate) family: u16,
    /// IP protocol.
    pub(crate) protocol: u8,
    /// It answers a datagram or reports an error about one.
    pub(crate) answers: bool,
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

impl Ends {
    pub(crate) const NONE: Self = Self {
        family: 0,
        protocol: 0,
        answers: false,
        source: [0; 16],
        destination: [0; 16],
        source_port: 0,
        destination_port: 0,
        payload: 0,
        payload_at: 0,
        interface: 0,
    };
}

/// Parses the headers of a packet of a socket with this protocol ([`sock::protocol_of`]) that has flows. What a raw socket
/// sends with [`IPPROTO_RAW`] has the protocol that its own header says. Returns 1, or 0 if the packet is of another
/// protocol. A function of its own, for whose variables its callers have no room on the stack.
#[inline(never)]
pub(crate) fn ends(skb: *mut __sk_buff, protocol: u16, out: &mut Ends) -> u32 {
    parse(skb, protocol, out).is_some().into()
}

#[inline(always)]
fn parse(skb: *mut __sk_buff, protocol: u16, out: &mut Ends) -> Option<()> {
    let own = protocol & !sock::RAW;
    let first: [u8; IPV4_MIN as usize] = load(skb, 0)?;
    let header = match first[0] >> 4 {
        4 => {
            let [.., a, b, c, d, e, f, g, h] = first;
            out.family = AF_INET;
            out.protocol = first[9];
            out.source = sock::widen([a, b, c, d]);
            out.destination = sock::widen([e, f, g, h]);
            u32::from(first[0] & 0xf) * 4
        }
        6 => {
            out.family = AF_INET6;
            out.protocol = if own == IPPROTO_RAW { first[6] } else { own as u8 };
            load_to(skb, 8, &mut out.source)?;
            load_to(skb, 24, &mut out.destination)?;
            ipv6_header(skb, first[6], out.protocol)?
        }
        _ => return None,
    };
    // SAFETY: the context of the hook.
    let len = unsafe {
        out.interface = (*skb).ifindex;
        (*skb).len
    };
    // Not the length field of the header: with segmentation offload the packet is larger than one datagram.
    if sock::is_raw(protocol) {
        out.payload_at = header;
        out.payload = len.saturating_sub(header);
        if matches!(u16::from(out.protocol), IPPROTO_ICMP | IPPROTO_ICMPV6) {
            let [kind]: [u8; 1] = load(skb, header)?;
            out.answers = !asks(out.family, kind);
        }
        return Some(());
    }
    if u16::from(out.protocol) != protocol {
        return None;
    }
    let [a, b, c, d]: [u8; 4] = load(skb, header)?;
    out.source_port = u16::from_be_bytes([a, b]);
    out.destination_port = u16::from_be_bytes([c, d]);
    out.payload_at = header + UDP_LEN;
    out.payload = len.saturating_sub(header + UDP_LEN);
    Some(())
}

/// Whether an ICMP or ICMPv6 message of this type begins something. Others answer, or report errors. ICMP: echo, router
/// solicitation, timestamp, information, address mask and extended echo requests (RFC 792, 950, 1256, 8335); ICMPv6: echo,
/// router and neighbour solicitation, extended echo requests (RFC 4443, 4861, 8335).
#[inline(always)]
const fn asks(family: u16, kind: u8) -> bool {
    if family == AF_INET {
        matches!(kind, 8 | 10 | 13 | 15 | 17 | 42)
    } else {
        matches!(kind, 128 | 133 | 135 | 160)
    }
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
fn ipv6_header(skb: *mut __sk_buff, first: u8, protocol: u8) -> Option<u32> {
    let (mut next, mut at) = (first, IPV6_LEN);
    for _ in 0..MOST_EXTENSIONS {
        if next == protocol {
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
    (next == protocol).then_some(at)
}

#[inline(always)]
pub(crate) fn load<const N: usize>(skb: *mut __sk_buff, offset: u32) -> Option<[u8; N]> {
    let mut bytes = [0_u8; N];
    load_to(skb, offset, &mut bytes)?;
    Some(bytes)
}

#[inline(always)]
fn load_to<const N: usize>(skb: *mut __sk_buff, offset: u32, out: &mut [u8; N]) -> Option<()> {
    // SAFETY: the helper writes N bytes or fails.
    let result = unsafe { bpf_skb_load_bytes(skb.cast(), offset, out.as_mut_ptr().cast(), N as u32) };
    (result == 0).then_some(())
}

/// Smallest header: RFC 9293, section 3.1.
const TCP_MIN: u32 = 20;

/// Offset and length of the payload; `None` if the packet is not TCP or has none.
#[inline(always)]
pub(crate) fn tcp_payload(skb: *mut __sk_buff) -> Option<(u32, u32)> {
    let first: [u8; IPV4_MIN as usize] = load(skb, 0)?;
    let header = match first[0] >> 4 {
        4 if u16::from(first[9]) == IPPROTO_TCP => u32::from(first[0] & 0xf) * 4,
        6 => ipv6_header(skb, first[6], IPPROTO_TCP as u8)?,
        _ => return None,
    };
    let [offset]: [u8; 1] = load(skb, header + 12)?;
    let at = header + (u32::from(offset >> 4) * 4).max(TCP_MIN);
    // SAFETY: the context of the hook.
    let len = unsafe { (*skb).len }.checked_sub(at)?;
    (len > 0).then_some((at, len))
}
