//! Names of hosts, as programs on this host learn or say them: DNS answers, and the name of the server in the TLS
//! ClientHello. Nothing is sent, and the packets are only read.
//!
//! An answer counts only if the same socket asked the same server with the same number, so that nobody can make netwatch
//! believe a name who could not make the program believe it.

use aya_ebpf::bindings::{__sk_buff, bpf_sock};
use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skb_load_bytes, bpf_tcp_sock};
use aya_ebpf::macros::{btf_map, cgroup_skb};
use aya_ebpf::programs::SkBuffContext;
use netwatch_common::{ASKED_MAX, NAME_BYTES, NAME_BYTES_MAX, Name, kind, name_source};

use crate::budget::Budget;
use crate::mem::plain;
use crate::packet::Ends;
use crate::sock::{self, IPPROTO_TCP, IPPROTO_UDP};
use crate::{emit, netns, packet};

/// A DNS question.
#[repr(C)]
#[derive(Clone, Copy)]
struct Question {
    /// Of the socket that asked.
    cookie: u64,
    server: [u8; 16],
    /// The number that the answer has as well (RFC 1035, section 4.1.1).
    id: u16,
    pad: [u8; 6],
}

/// Questions without an answer.
#[btf_map]
static ASKED: LruHashMap<Question, u8, ASKED_MAX> = LruHashMap::new();

/// Records in advance, and each second: more than a busy resolver needs, and at most a fifth of the default ring.
const NAMES_MOST: u32 = 1500;
const NAMES_REFILL: u32 = 1000;

static mut BUDGET: Budget = Budget::WHOLE;

const PASS: i32 = 1;

const DNS: u16 = 53;

/// The bit of the third byte that tells an answer from a question (RFC 1035, section 4.1.1).
const ANSWER: u8 = 0x80;

#[cgroup_skb(egress)]
fn name_egress(ctx: SkBuffContext) -> i32 {
    let _ = sent(ctx.skb.skb);
    PASS
}

#[cgroup_skb(ingress)]
fn name_ingress(ctx: SkBuffContext) -> i32 {
    let _ = received(ctx.skb.skb);
    PASS
}

#[inline(always)]
fn sent(skb: *mut __sk_buff) -> Option<()> {
    let (sk, protocol) = packet::socket(skb)?;
    if protocol == IPPROTO_TCP {
        // SAFETY: the socket of the context.
        let tcp = unsafe { bpf_tcp_sock(sk) };
        // Nothing but the SYN is acknowledged: this is the beginning of what the socket sends.
        // SAFETY: returned by the helper.
        if tcp.is_null() || unsafe { (*tcp).bytes_acked } > 1 {
            return None;
        }
        return hello(skb, sk, name_source::HELLO_SENT);
    }
    let (ends, id, is_answer) = dns(skb, protocol)?;
    if ends.destination_port != DNS || is_answer {
        return None;
    }
    let question = question(skb, ends.destination, id);
    // Without a place the answer is not believed.
    let _ = ASKED.insert(&question, &1, 0);
    None
}

#[inline(always)]
fn received(skb: *mut __sk_buff) -> Option<()> {
    let (sk, protocol) = packet::socket(skb)?;
    if protocol == IPPROTO_TCP {
        // SAFETY: the socket of the context.
        let tcp = unsafe { bpf_tcp_sock(sk) };
        // SAFETY: returned by the helper.
        if tcp.is_null() || unsafe { (*tcp).bytes_received } > 0 {
            return None;
        }
        return hello(skb, sk, name_source::HELLO_RECEIVED);
    }
    let (ends, id, is_answer) = dns(skb, protocol)?;
    if ends.source_port != DNS || !is_answer {
        return None;
    }
    // Fails if nobody asked.
    ASKED.remove(&question(skb, ends.source, id)).ok()?;
    report(skb, sk, name_source::DNS_ANSWER, ends.payload_at, ends.payload)
}

/// The ends of a datagram from or to the port of DNS, with the number of the message, and whether it is an answer.
#[inline(always)]
fn dns(skb: *mut __sk_buff, protocol: u16) -> Option<(Ends, [u8; 2], bool)> {
    if protocol != IPPROTO_UDP {
        return None;
    }
    let mut ends = Ends::NONE;
    if packet::ends(skb, protocol, &mut ends) == 0 {
        return None;
    }
    if ends.source_port != DNS && ends.destination_port != DNS {
        return None;
    }
    // Fails if the payload is shorter.
    let [high, low, flags]: [u8; 3] = packet::load(skb, ends.payload_at)?;
    Some((ends, [high, low], flags & ANSWER != 0))
}

#[inline(always)]
fn question(skb: *mut __sk_buff, server: [u8; 16], id: [u8; 2]) -> Question {
    // SAFETY: a helper that takes the context of the hook.
    let cookie = unsafe { bpf_get_socket_cookie(skb.cast()) };
    Question { cookie, server, id: u16::from_be_bytes(id), pad: [0; 6] }
}

/// A TLS record (RFC 8446, section 5.1) with a ClientHello (section 4) at its beginning.
#[inline(always)]
fn hello(skb: *mut __sk_buff, sk: *mut bpf_sock, source: u16) -> Option<()> {
    let (at, len) = packet::tcp_payload(skb)?;
    let [content, major, _, _, _, message]: [u8; 6] = packet::load(skb, at)?;
    if (content, major, message) != (22, 3, 1) {
        return None;
    }
    report(skb, sk, source, at, len)
}

#[inline(always)]
fn report(skb: *mut __sk_buff, sk: *mut bpf_sock, source: u16, at: u32, len: u32) -> Option<()> {
    // SAFETY: aligned words, copied.
    let mut budget = unsafe { (&raw const BUDGET).read_volatile() };
    if !budget.take(NAMES_MOST, NAMES_REFILL) {
        emit::not_followed(kind::NAME);
        return None;
    }
    // SAFETY: as above.
    unsafe { (&raw mut BUDGET).write_volatile(budget) };
    // SAFETY: the socket of the context.
    unsafe { netns::recognise(plain(sk.cast())) };
    if len < NAME_BYTES as u32 {
        copy::<NAME_BYTES>(skb, sk, source, at, len)
    } else {
        copy::<NAME_BYTES_MAX>(skb, sk, source, at, len.min(NAME_BYTES_MAX as u32 - 1))
    }
}

#[inline(always)]
fn copy<const N: usize>(
    skb: *mut __sk_buff,
    sk: *mut bpf_sock,
    source: u16,
    at: u32,
    len: u32,
) -> Option<()> {
    let mut entry = emit::reserve::<Name<N>>(kind::NAME)?;
    let record = entry.as_mut_ptr();
    // For the verifier, which needs to see that it is not 0 and at most N: the callers have checked both.
    let len = (len.wrapping_sub(1) & (N as u32 - 1)) + 1;
    // SAFETY: memory of the ring with the size of the record; what is not written of it is not read. `sk` is a socket.
    let copied = unsafe {
        (*record).header = emit::header(kind::NAME);
        (*record).cookie = bpf_get_socket_cookie(skb.cast());
        (*record).netns = sock::netns(plain(sk.cast()));
        (*record).source = source;
        (*record).len = len as u16;
        bpf_skb_load_bytes(skb.cast(), at, (&raw mut (*record).bytes).cast(), len) == 0
    };
    if copied {
        emit::submit(entry);
    } else {
        entry.discard(0);
    }
    Some(())
}
