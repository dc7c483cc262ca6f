//! Cookies, where programs of the tracing types may not ask for one (before 5.12) and read what is there: it
//! has to be made before. `cgroup/sock_create` asks for that of each socket that a process makes, `cgroup/connect4` and
//! `connect6` for that of one that the kernel made and connects, a `sock_ops` program for that of each child of a listener, right before it is established (`net/ipv4/tcp_input.c`,
//! tcp_init_transfer). What was there before has one from the look at the start. Without these nothing is
//! told apart, so the rung that needs them goes with them.

use aya_ebpf::helpers::generated::bpf_get_socket_cookie;
use aya_ebpf::macros::{cgroup_sock, cgroup_sock_addr, sock_ops};
use aya_ebpf::programs::{SockAddrContext, SockContext, SockOpsContext};

#[cgroup_sock(sock_create)]
fn cookie_of_made(ctx: SockContext) -> i32 {
    // SAFETY: the hook's context is the socket.
    unsafe { bpf_get_socket_cookie(ctx.sock.cast()) };
    1
}

#[cgroup_sock_addr(connect4)]
fn cookie_of_connecting4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the hook's context.
    unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    1
}

#[cgroup_sock_addr(connect6)]
fn cookie_of_connecting6(ctx: SockAddrContext) -> i32 {
    // SAFETY: the hook's context.
    unsafe { bpf_get_socket_cookie(ctx.sock_addr.cast()) };
    1
}

/// `include/uapi/linux/bpf.h`, BPF_SOCK_OPS_PASSIVE_ESTABLISHED_CB
const PASSIVE_ESTABLISHED: u32 = 5;

#[sock_ops]
fn cookie_of_child(ctx: SockOpsContext) -> u32 {
    if ctx.op() == PASSIVE_ESTABLISHED {
        // SAFETY: the hook's context.
        unsafe { bpf_get_socket_cookie(ctx.ops.cast()) };
    }
    1
}
