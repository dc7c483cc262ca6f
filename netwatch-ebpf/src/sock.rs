//! Reads `struct sock`.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_skc_to_tcp_sock};
use netwatch_common::{Offsets, Sock, change_flags, sock_flags};

use crate::mem::{Memory, Typed, Untyped, knob, offset};

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
pub(crate) const IPPROTO_TCP: u16 = 6;
pub(crate) const IPPROTO_UDP: u16 = 17;
pub(crate) const IPPROTO_MPTCP: u16 = 262;
pub(crate) const IPPROTO_UDPLITE: u16 = 136;
pub(crate) const IPPROTO_ICMP: u16 = 1;
pub(crate) const IPPROTO_ICMPV6: u16 = 58;
/// A raw socket with this protocol never receives and sends packets of any (net/ipv4/raw.c, raw_sendmsg(), v6.12).
pub(crate) const IPPROTO_RAW: u16 = 255;

/// `include/linux/net.h`, enum sock_type
const SOCK_RAW: u32 = 3;

/// Set in the protocol of a raw socket, which has nothing else in common with other sockets of its protocol.
pub(crate) const RAW: u16 = 1 << 15;

/// The protocol of a socket of this type: with [`RAW`] for raw sockets.
#[inline(always)]
pub(crate) const fn protocol_of(protocol: u32, kind: u32) -> u16 {
    if kind == SOCK_RAW { protocol as u16 | RAW } else { protocol as u16 }
}

/// Whether sockets of this protocol send datagrams with ports.
#[inline(always)]
pub(crate) const fn has_ports(protocol: u16) -> bool {
    matches!(protocol, IPPROTO_UDP | IPPROTO_UDPLITE)
}

/// Whether it is the protocol of raw or ping sockets.
#[inline(always)]
pub(crate) const fn is_raw(protocol: u16) -> bool {
    protocol & RAW != 0 || matches!(protocol, IPPROTO_ICMP | IPPROTO_ICMPV6)
}

/// Whether what these sockets send and receive are flows of datagrams.
#[inline(always)]
pub(crate) const fn has_flows(protocol: u16) -> bool {
    has_ports(protocol) || is_raw(protocol)
}

/// Bits of `sk_flags` (`include/net/sock.h`, enum sock_flags): no process has the socket any more, and the FIN of the
/// peer was received.
const SOCK_DEAD: u64 = 1;
const SOCK_DONE: u64 = 1 << 1;

/// An empty record.
pub(crate) const EMPTY: Sock = Sock {
    cookie: 0,
    inode: 0,
    netns: 0,
    family: 0,
    local_port: 0,
    remote_port: 0,
    protocol: 0,
    flags: 0,
    device: 0,
    local: [0; 16],
    remote: [0; 16],
};

/// The `struct sock` of a `struct socket`; NULL if it has none.
///
/// # Safety
/// `socket` is a typed argument of a probed function.
#[inline(always)]
pub(crate) unsafe fn of_socket(socket: *const c_void) -> *const c_void {
    // SAFETY: guaranteed by the caller; valid during the function.
    unsafe { Typed::read(socket, offset!(socket_sk)) }
}

/// Whether a socket is IPv4 or IPv6.
///
/// # Safety
/// `sk` is a `struct sock`, readable as `M` says.
#[inline(always)]
pub(crate) unsafe fn is_inet<M: Memory>(sk: *const c_void) -> bool {
    // SAFETY: guaranteed by the caller.
    matches!(unsafe { M::read(sk, offset!(sk_family)) }, AF_INET | AF_INET6)
}

/// The state of a socket, as in `tcp.rs`.
///
/// # Safety
/// `sk` is a `struct sock_common`, readable as `M` says.
#[inline(always)]
pub(crate) unsafe fn state<M: Memory>(sk: *const c_void) -> i32 {
    // SAFETY: guaranteed by the caller.
    unsafe { M::read::<u8>(sk, offset!(sk_state)) }.into()
}

/// Whether a socket is TCP or MPTCP, since the tracepoint also fires for SCTP and DCCP. True for subflows; see
/// [`is_subflow`].
///
/// # Safety
/// `sk` is a `struct sock`, readable as `M` says.
#[inline(always)]
pub(crate) unsafe fn is_ours<M: Memory>(sk: *const c_void) -> bool {
    // SAFETY: guaranteed by the caller.
    matches!(unsafe { protocol::<M>(sk) }, IPPROTO_TCP | IPPROTO_MPTCP)
}

/// The `struct tcp_sock` of a typed `struct sock`, to be read as [`Typed`]; NULL for an MPTCP socket.
#[inline(always)]
pub(crate) fn tcp(sk: *const c_void) -> *const c_void {
    // SAFETY: the helper checks the type of the socket (net/core/filter.c, bpf_skc_to_tcp_sock(), v6.12).
    unsafe { bpf_skc_to_tcp_sock(sk.cast_mut()).cast_const().cast() }
}

/// Whether a socket is a subflow of an MPTCP socket.
///
/// # Safety
/// `sk` is a `struct sock` of TCP or MPTCP.
#[inline(always)]
pub(crate) unsafe fn is_subflow<M: Memory>(sk: *const c_void) -> bool {
    // SAFETY: guaranteed by the caller; the bit is only read if `sk` is a `struct tcp_sock`.
    unsafe { protocol::<M>(sk) == IPPROTO_TCP && bit::<M>(sk, offset!(tcp_is_mptcp)) }
}

/// Cookie of the MPTCP socket whose first subflow this is; 0 for a subflow that joined later, or if it has no cookie
/// yet.
///
/// # Safety
/// `sk` is a subflow: see [`is_subflow`].
#[inline(always)]
pub(crate) unsafe fn owner_of_subflow(sk: *const c_void) -> u64 {
    // SAFETY: guaranteed by the caller; see net/mptcp/protocol.h, mptcp_subflow_ctx(), v6.12.
    unsafe {
        if offset!(icsk_ulp_data) == Offsets::MISSING || offset!(subflow_conn) == Offsets::MISSING {
            return 0;
        }
        let subflow: *const c_void = Untyped::read(sk, offset!(icsk_ulp_data));
        if bit::<Untyped>(subflow, offset!(subflow_join)) {
            return 0;
        }
        let owner: *const c_void = Untyped::read(subflow, offset!(subflow_conn));
        Untyped::read(owner, offset!(sk_cookie))
    }
}

/// Whether a socket connects with TCP Fast Open.
///
/// # Safety
/// `tcp` is a `struct tcp_sock`, readable as `M` says.
#[inline(always)]
pub(crate) unsafe fn is_fastopen<M: Memory>(tcp: *const c_void) -> bool {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let request: u64 = if offset!(tcp_fastopen_req) == Offsets::MISSING {
            0
        } else {
            // A pointer, which is slow to verify as [`Typed`].
            Untyped::read(tcp, offset!(tcp_fastopen_req))
        };
        request != 0 || bit::<M>(tcp, offset!(tcp_fastopen_connect))
    }
}

/// Whether a process restores a connection with it (`TCP_REPAIR`).
///
/// # Safety
/// `tcp` is a `struct tcp_sock`.
#[inline(always)]
pub(crate) unsafe fn is_restored<M: Memory>(tcp: *const c_void) -> bool {
    // SAFETY: guaranteed by the caller.
    unsafe { bit::<M>(tcp, offset!(tcp_repair)) }
}

/// Whether the socket belongs to the kernel.
///
/// # Safety
/// `sk` is a `struct sock`.
#[inline(always)]
pub(crate) unsafe fn is_kernels<M: Memory>(sk: *const c_void) -> bool {
    // SAFETY: guaranteed by the caller.
    unsafe { bit::<M>(sk, offset!(sk_kern)) }
}

/// A bit-field of one bit, by its offset in bits; false if this kernel does not have it.
#[inline(always)]
pub(crate) unsafe fn bit<M: Memory>(sk: *const c_void, offset: u32) -> bool {
    if offset == Offsets::MISSING {
        return false;
    }
    // SAFETY: guaranteed by the caller.
    let byte: u8 = unsafe { M::read(sk, offset / 8) };
    byte & 1 << (offset % 8) != 0
}

/// The cookie of the socket, which is generated if it has none. Where tracing programs cannot generate it, 0 if there
/// is none: see `cookie.rs`.
///
/// # Safety
/// `sk` is a typed `struct sock`.
#[inline(always)]
pub(crate) unsafe fn cookie(sk: *const c_void) -> u64 {
    if knob!(socket_helpers) {
        // SAFETY: guaranteed by the caller.
        unsafe { bpf_get_socket_cookie(sk.cast_mut()) }
    } else {
        // SAFETY: as above.
        unsafe { Untyped::read(sk, offset!(sk_cookie)) }
    }
}

/// The protocol of a socket, as [`protocol_of`].
///
/// # Safety
/// `sk` is a `struct sock`, readable as `M` says.
#[inline(always)]
pub(crate) unsafe fn protocol<M: Memory>(sk: *const c_void) -> u16 {
    // SAFETY: guaranteed by the caller.
    let (protocol, kind): (u16, u16) =
        unsafe { (M::read(sk, offset!(sk_protocol)), M::read(sk, offset!(sk_type))) };
    protocol_of(protocol.into(), kind.into())
}

/// Fills `out` from `sk`, except the cookie, which depends on the type of program.
///
/// The local port is `skc_num`, which is 0 before bind and after the socket was unhashed. If it is 0 and `closing`,
/// `inet_sport` is used, which stays (and is stale if the socket is reused).
///
/// # Safety
/// `sk` is a `struct sock` of TCP, MPTCP or with [`has_flows`], readable as `M` says.
#[inline(always)]
pub(crate) unsafe fn fill<M: Memory>(sk: *const c_void, closing: bool, out: &mut Sock) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        fill_but_netns::<M>(sk, closing, out);
        out.netns = netns(sk);
    }
}

/// The same without the network namespace.
///
/// # Safety
/// As [`fill`].
#[inline(never)]
pub(crate) unsafe fn fill_but_netns<M: Memory>(sk: *const c_void, closing: bool, out: &mut Sock) {
    // SAFETY: guaranteed by the caller; each offset is that of the member of this type.
    unsafe {
        ends::<M>(sk, out);
        let protocol = protocol::<M>(sk);
        (out.protocol, out.flags) = match protocol {
            IPPROTO_MPTCP => (IPPROTO_TCP as u8, sock_flags::MPTCP),
            // The bit is beyond the protocol.
            _ if is_raw(protocol) => (protocol as u8, sock_flags::RAW),
            _ => (protocol as u8, 0),
        };
        let port: u16 = M::read(sk, offset!(sk_num));
        out.local_port = if port == 0 && closing {
            // Outside of `struct sock`, so not accessible as typed.
            u16::from_be(Untyped::read(sk, offset!(inet_sport)))
        } else {
            port
        };
        out.inode = inode(sk);
    }
}

/// Fills what request sockets and TIME_WAIT have as well: family, device, addresses and remote port.
///
/// # Safety
/// `sk` is a `struct sock_common`, readable as `M` says.
#[inline(always)]
pub(crate) unsafe fn ends<M: Memory>(sk: *const c_void, out: &mut Sock) {
    // SAFETY: guaranteed by the caller; each offset is that of the member of this type.
    unsafe {
        out.family = M::read(sk, offset!(sk_family));
        out.device = M::read(sk, offset!(sk_bound_dev_if));
        out.remote_port = u16::from_be(M::read(sk, offset!(sk_dport)));
        if out.family == AF_INET6 && offset!(sk_v6_daddr) != Offsets::MISSING {
            // 16 bytes with an alignment of 4: one helper call is cheaper than four loads.
            Untyped::read_to(&mut out.local, sk, offset!(sk_v6_rcv_saddr));
            Untyped::read_to(&mut out.remote, sk, offset!(sk_v6_daddr));
        } else {
            let local: [u8; 4] = M::read::<u32>(sk, offset!(sk_rcv_saddr)).to_ne_bytes();
            let remote: [u8; 4] = M::read::<u32>(sk, offset!(sk_daddr)).to_ne_bytes();
            out.local = widen(local);
            out.remote = widen(remote);
        }
    }
}

#[inline(always)]
pub(crate) const fn widen(v4: [u8; 4]) -> [u8; 16] {
    [v4[0], v4[1], v4[2], v4[3], 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
}

/// Inode number of the socket's network namespace.
///
/// # Safety
/// `sk` is a `struct sock`.
#[inline(always)]
pub(crate) unsafe fn netns(sk: *const c_void) -> u32 {
    // SAFETY: guaranteed by the caller; every socket has one.
    unsafe {
        let net: *const c_void = Untyped::read(sk, offset!(sk_net));
        Untyped::read(net, offset!(net_inum))
    }
}

/// Inode number of the socket (in `struct socket_alloc`, after `struct socket`); 0 if it has none.
///
/// # Safety
/// `sk` is a `struct sock`.
#[inline(always)]
pub(crate) unsafe fn inode(sk: *const c_void) -> u64 {
    // SAFETY: `sk_socket` is NULL or a `struct socket` in a `struct socket_alloc` (net/socket.c, sock_alloc_inode(),
    // v6.12).
    unsafe {
        let socket: *const c_void = Untyped::read(sk, offset!(sk_socket));
        if socket.is_null() {
            return 0;
        }
        Untyped::read(socket, offset!(socket_inode) + offset!(inode_ino))
    }
}

/// Payload bytes (sent, received) without retransmissions and the FIN of the peer, and how the socket ended, as
/// [`change_flags`]. `tcp` is [`tcp`]`(sk)`.
///
/// # Safety
/// `sk` is a typed `struct sock` of TCP or MPTCP.
#[inline(always)]
pub(crate) unsafe fn ending(sk: *const c_void, tcp: *const c_void) -> (u64, u64, u32) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let flags: u64 = Typed::read(sk, offset!(sk_flags));
        let done = flags & SOCK_DONE != 0;
        let mut how = 0;
        if done {
            how |= change_flags::DONE;
        }
        if flags & SOCK_DEAD != 0 {
            how |= change_flags::DEAD;
        }
        if tcp.is_null() {
            // The counters of MPTCP have only data.
            if offset!(mptcp_bytes_sent) == Offsets::MISSING
                || offset!(mptcp_bytes_received) == Offsets::MISSING
            {
                return (0, 0, how | change_flags::UNCOUNTED);
            }
            let sent = Untyped::read(sk, offset!(mptcp_bytes_sent));
            return (sent, Untyped::read(sk, offset!(mptcp_bytes_received)), how);
        }
        let sent: u64 = Typed::read(tcp, offset!(tcp_bytes_sent));
        let again: u64 = Typed::read(tcp, offset!(tcp_bytes_retrans));
        let received: u64 = Typed::read(tcp, offset!(tcp_bytes_received));
        (sent.saturating_sub(again), received.saturating_sub(done.into()), how)
    }
}

/// Whether a child that leaves SYN_RECV received data with its SYN; other children have none at that time
/// (net/ipv4/tcp_fastopen.c, tcp_fastopen_add_skb(), v6.12).
///
/// # Safety
/// `tcp` was returned by [`tcp`].
#[inline(always)]
pub(crate) unsafe fn has_data(tcp: *const c_void) -> bool {
    // SAFETY: guaranteed by the caller.
    !tcp.is_null() && unsafe { Typed::read::<u64>(tcp, offset!(tcp_bytes_received)) != 0 }
}
