//! Generates socket cookies where tracing programs cannot (before 5.12) and only read existing ones:
//! `cgroup/sock_create` for each socket that a process creates, `cgroup/connect4` and `connect6` for sockets of the
//! kernel that connect, and a `sock_ops` program for each child of a listener right before it is established
//! (net/ipv4/tcp_input.c, tcp_init_transfer(), v6.12). Older sockets get one from the snapshot at the start. Without
//! cookies sockets cannot be distinguished, so rungs that need these programs require them.

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, sock_ops};
use aya_ebpf::programs::{SockAddrContext, SockContext, SockOpsContext};

#[cgroup_sock(sock_create)]
fn cookie_of_made(ctx: SockContext) -> i32 {
    // SAFETY: the context of the hook is the socket.
    unsafe { bpf_get_socket_cookie(ctx.sock.cast()) };
    1
}

#[cgroup_sock_addr(connect4)]
fn cookie_of_connecting4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context of the hook.
    unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    1
}

#[cgroup_sock_addr(connect6)]
fn cookie_of_connecting6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the context of the hook.
    unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    1
}

/// `include/uapi/linux/bpf.h`, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
const PASSIVE_ESTABLISHED: u32 = 5;

#[sock_ops]
fn cookie_of_child(ctx: SockOpsContext) -> u32 {
    if ctx.op() == PASSIVE_ESTABLISHED {
        // SAFETY: the context of the hook.
        unsafe { bpf_get_socket_cookie(ctx.ops.cast()) };
    }
    1
}
