//! Iterators that list existing sockets, descriptors and processes. `iter/tcp` and `iter/udp` iterate over the sockets of
//! the reader's network namespace, `iter/task_file` over the descriptors of every process in its pid namespace, and
//! `iter/task` over its tasks (net/ipv4/tcp_ipv4.c, bpf_iter_tcp_seq_show(); net/ipv4/udp.c; kernel/bpf/task_iter.c,
//! v6.12). A pass takes a tenth of the time of `/proc` and sock_diag. The values are those of sock_diag (`net/ipv4/inet_diag.c`, `tcp_diag.c`,
//! `udp_diag.c`).

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_socket_cookie, bpf_seq_write, bpf_skc_to_tcp_timewait_sock};
use netwatch_common::{Held, Listed, Running, listed_flags};

use crate::mem::{Memory as _, Typed, Untyped, offset};
use crate::{files, sock, task, tcp};

/// `struct bpf_iter_meta` (`include/linux/bpf.h`).
#[repr(C)]
struct Meta {
    seq: *mut c_void,
}

/// `struct bpf_iter__tcp` (`net/ipv4/tcp_ipv4.c`) and `struct bpf_iter__udp` (`net/ipv4/udp.c`).
#[repr(C)]
pub(crate) struct Sockets {
    meta: *const Meta,
    sk: *const c_void,
    uid: u32,
}

/// `struct bpf_iter__task_file` (`kernel/bpf/task_iter.c`).
#[repr(C)]
pub(crate) struct Files {
    meta: *const Meta,
    task: *const c_void,
    fd: u32,
    file: *const c_void,
}

/// `struct bpf_iter__task` (`kernel/bpf/task_iter.c`).
#[repr(C)]
pub(crate) struct Tasks {
    meta: *const Meta,
    task: *const c_void,
}

const EMPTY: Listed = Listed {
    sock: sock::EMPTY,
    sent: 0,
    received: 0,
    recv_queue: 0,
    send_queue: 0,
    uid: 0,
    state: 0,
    flags: 0,
    pad: [0; 2],
};

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/tcp")]
fn list_tcp(ctx: *const Sockets) -> i32 {
    // SAFETY: the context of the iterator; its pointers are typed, and NULL in the last call.
    unsafe {
        let Some((meta, sk, mut row)) = opened(ctx) else { return 0 };
        row.sock.protocol = sock::IPPROTO_TCP as u8;
        let whole = sock::tcp(sk);
        if whole.is_null() {
            // A request socket or TIME_WAIT, which are only a `struct sock_common`.
            sock::ends::<Typed>(sk, &mut row.sock);
            row.sock.netns = sock::netns(sk);
            row.sock.local_port = Typed::read(sk, offset!(sk_num));
            if i32::from(row.state) == tcp::TIME_WAIT {
                let waiting: *const c_void = bpf_skc_to_tcp_timewait_sock(sk.cast_mut()).cast_const().cast();
                if !waiting.is_null() {
                    row.state = Typed::read(waiting, offset!(tw_substate));
                }
            }
        } else {
            sock::fill::<Typed>(whole, false, &mut row.sock);
            row.flags = flags(whole, row.sock.family, row.state);
            if sock::is_subflow::<Typed>(whole) {
                row.flags |= listed_flags::SUBFLOW;
            }
            if i32::from(row.state) == tcp::LISTEN {
                row.recv_queue = Typed::read(whole, offset!(sk_ack_backlog));
                row.send_queue = Typed::read(whole, offset!(sk_max_ack_backlog));
            } else {
                let (next, copied): (u32, u32) =
                    (Typed::read(whole, offset!(tcp_rcv_nxt)), Typed::read(whole, offset!(tcp_copied_seq)));
                let waiting = next.wrapping_sub(copied);
                row.recv_queue = if waiting as i32 > 0 { waiting } else { 0 };
                let (written, unacked): (u32, u32) =
                    (Typed::read(whole, offset!(tcp_write_seq)), Typed::read(whole, offset!(tcp_snd_una)));
                row.send_queue = written.wrapping_sub(unacked);
                let (sent, again): (u64, u64) = (
                    Typed::read(whole, offset!(tcp_bytes_sent)),
                    Typed::read(whole, offset!(tcp_bytes_retrans)),
                );
                row.sent = sent.saturating_sub(again);
                row.received = Typed::read(whole, offset!(tcp_bytes_received));
            }
        }
        write(meta, &row);
    }
    0
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/udp")]
fn list_udp(ctx: *const Sockets) -> i32 {
    // SAFETY: as above.
    unsafe {
        let Some((meta, sk, mut row)) = opened(ctx) else { return 0 };
        sock::fill::<Typed>(sk, false, &mut row.sock);
        row.flags = flags(sk, row.sock.family, row.state);
        let (queued, deficit): (u32, u32) =
            (Typed::read(sk, offset!(sk_rmem_alloc)), Typed::read(sk, offset!(udp_deficit)));
        row.recv_queue = queued.wrapping_sub(deficit);
        // The initial value is one (net/core/sock.c, sk_alloc(), v6.12).
        row.send_queue = Typed::read::<u32>(sk, offset!(sk_wmem_alloc)).wrapping_sub(1);
        write(meta, &row);
    }
    0
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task_file")]
fn list_files(ctx: *const Files) -> i32 {
    // SAFETY: as above.
    unsafe {
        let meta = (&raw const (*ctx).meta).read_volatile();
        let task = (&raw const (*ctx).task).read_volatile();
        let file = (&raw const (*ctx).file).read_volatile();
        if task.is_null() || file.is_null() {
            return 0;
        }
        let inode: *const c_void = Typed::read(file, offset!(file_inode));
        if !files::is_socket(Typed::read(inode, offset!(inode_mode))) {
            return 0;
        }
        let sk = files::socket_of_file(file);
        if sk.is_null() {
            return 0;
        }
        if !sock::is_inet::<Untyped>(sk) {
            return 0;
        }
        let held = Held {
            inode: Typed::read(inode, offset!(inode_ino)),
            tgid: task::tgid(task),
            fd: (&raw const (*ctx).fd).read_volatile(),
        };
        write(meta, &held);
    }
    0
}

#[unsafe(no_mangle)]
#[unsafe(link_section = "iter/task")]
fn list_tasks(ctx: *const Tasks) -> i32 {
    // SAFETY: as above.
    unsafe {
        let meta = (&raw const (*ctx).meta).read_volatile();
        let task = (&raw const (*ctx).task).read_volatile();
        if task.is_null() || task::tid(task) != task::tgid(task) {
            return 0;
        }
        let running = Running { start: task::start(task), tgid: task::tgid(task), pad: [0; 4] };
        write(meta, &running);
    }
    0
}

/// Where to write a row, the socket, and a row with the common values; `None` in the last call.
///
/// # Safety
/// `ctx` is the context of the iterator.
#[inline(always)]
unsafe fn opened(ctx: *const Sockets) -> Option<(*const Meta, *const c_void, Listed)> {
    // SAFETY: guaranteed by the caller; each member is read by one access, as the verifier requires.
    unsafe {
        let meta = (&raw const (*ctx).meta).read_volatile();
        let sk = (&raw const (*ctx).sk).read_volatile();
        if sk.is_null() {
            return None;
        }
        let mut row = EMPTY;
        row.uid = (&raw const (*ctx).uid).read_volatile();
        row.sock.cookie = bpf_get_socket_cookie(sk.cast_mut());
        row.state = sock::state::<Typed>(sk) as u8;
        Some((meta, sk, row))
    }
}

/// IPV6_V6ONLY, which sock_diag reports for listening and unconnected IPv6 sockets, SO_REUSEPORT, and whether the kernel
/// created the socket for itself.
#[inline(always)]
unsafe fn flags(sk: *const c_void, family: u16, state: u8) -> u8 {
    // SAFETY: the caller passes a `struct sock`.
    let only = family == sock::AF_INET6
        && matches!(i32::from(state), tcp::LISTEN | tcp::CLOSE)
        && unsafe { sock::bit::<Typed>(sk, offset!(sk_ipv6only)) };
    let mut flags = if only { listed_flags::V6ONLY } else { 0 };
    // SAFETY: as above.
    unsafe {
        if sock::bit::<Typed>(sk, offset!(sk_reuseport)) {
            flags |= listed_flags::REUSEPORT;
        }
        if sock::is_kernels::<Typed>(sk) {
            flags |= listed_flags::KERNEL;
        }
    }
    flags
}

/// If a record does not fit, the kernel runs the program on this object again (kernel/bpf/bpf_iter.c, bpf_seq_read(),
/// v6.12).
#[inline(always)]
unsafe fn write<T>(meta: *const Meta, record: &T) {
    // SAFETY: the typed pointer of the context, and a record on the stack.
    unsafe {
        let seq = (&raw const (*meta).seq).read_volatile();
        bpf_seq_write(seq.cast(), core::ptr::from_ref(record).cast(), size_of::<T>() as u32);
    }
}
