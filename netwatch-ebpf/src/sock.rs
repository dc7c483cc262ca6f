//! Reads `struct sock`.

use core::ffi::c_void;

use netwatch_common::{Offsets, Sock, change_flags};

use crate::mem::{Memory, Untyped, offset};

pub(crate) const AF_INET: u16 = 2;
pub(crate) const AF_INET6: u16 = 10;
pub(crate) const IPPROTO_TCP: u16 = 6;

/// Bits of `sk_flags` (`include/net/sock.h`, enum sock_flags): no process has the socket any more, and
/// the peer's FIN was taken in.
const SOCK_DEAD: u64 = 1;
const SOCK_DONE: u64 = 1 << 1;

/// The protocol of a socket: the tracepoints for TCP states fire for MPTCP, SCTP and DCCP as well.
///
/// # Safety
/// `sk` is a `struct sock`, readable as `M` says.
#[inline(always)]
pub(crate) unsafe fn protocol<M: Memory>(sk: *const c_void) -> u16 {
    // SAFETY: the caller's.
    unsafe { M::read(sk, offset!(sk_protocol)) }
}

/// Fills `out` from `sk`, all but the cookie, which each kind of program gets its own way.
///
/// The local port is `skc_num`, which is 0 before the socket is bound and again once it was unhashed;
/// `closing` asks for `inet_sport` instead, which stays (and is stale when the socket is used again).
///
/// # Safety
/// `sk` is a TCP `struct sock`, readable as `M` says.
#[inline(always)]
pub(crate) unsafe fn fill<M: Memory>(sk: *const c_void, closing: bool, out: &mut Sock) {
    // SAFETY: the caller's; each offset is that of the member of this type.
    unsafe {
        out.family = M::read(sk, offset!(sk_family));
        out.protocol = IPPROTO_TCP as u8;
        out.pad = [0; 5];
        let port: u16 = M::read(sk, offset!(sk_num));
        out.local_port = if port == 0 && closing {
            // Beyond the `struct sock` that the verifier knows.
            u16::from_be(Untyped::read(sk, offset!(inet_sport)))
        } else {
            port
        };
        out.remote_port = u16::from_be(M::read(sk, offset!(sk_dport)));
        let net: *const c_void = M::read(sk, offset!(sk_net));
        out.netns = M::read(net, offset!(net_inum));
        out.inode = inode::<M>(sk);
        if out.family == AF_INET6 && offset!(sk_v6_daddr) != Offsets::MISSING {
            // Sixteen bytes at an offset that is a multiple of 4 only: one helper call beats four loads.
            out.local = Untyped::read(sk, offset!(sk_v6_rcv_saddr));
            out.remote = Untyped::read(sk, offset!(sk_v6_daddr));
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

/// The socket's inode (`struct socket_alloc` puts it behind the `struct socket`), 0 while it has none.
#[inline(always)]
unsafe fn inode<M: Memory>(sk: *const c_void) -> u64 {
    // SAFETY: `sk_socket` is a `struct socket` inside a `struct socket_alloc` (`net/socket.c`,
    // sock_alloc_inode), or NULL; beyond the typed part only the helper may read.
    unsafe {
        let socket: *const c_void = M::read(sk, offset!(sk_socket));
        if socket.is_null() {
            return 0;
        }
        Untyped::read(socket, offset!(socket_inode) + offset!(inode_ino))
    }
}

/// Payload bytes (sent, received), each once, without the peer's FIN; and how the socket ended, as
/// [`change_flags`].
///
/// # Safety
/// `sk` is a `struct tcp_sock`.
#[inline(always)]
pub(crate) unsafe fn ending(sk: *const c_void) -> (u64, u64, u32) {
    // SAFETY: the caller's. The verifier knows `sk` as a `struct sock` only, so the helper reads.
    unsafe {
        let sent: u64 = Untyped::read(sk, offset!(tcp_bytes_sent));
        let again: u64 = Untyped::read(sk, offset!(tcp_bytes_retrans));
        let received: u64 = Untyped::read(sk, offset!(tcp_bytes_received));
        let flags: u64 = Untyped::read(sk, offset!(sk_flags));
        let done = flags & SOCK_DONE != 0;
        let mut how = 0;
        if done {
            how |= change_flags::DONE;
        }
        if flags & SOCK_DEAD != 0 {
            how |= change_flags::DEAD;
        }
        (sent.saturating_sub(again), received.saturating_sub(done.into()), how)
    }
}
