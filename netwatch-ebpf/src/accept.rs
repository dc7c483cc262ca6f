//! The exits of accept(2) and accept4(2): who took a connection off its listener.
//!
//! The descriptor that the call returns leads to the socket; the address in the caller's buffer is
//! never looked at, it may be NULL or rewritten. Calls that were blocked before netwatch started are
//! seen as well. io_uring and socketcall(2) do not pass here.

use core::ffi::c_void;

use aya_ebpf::macros::tracepoint;
use aya_ebpf::programs::TracePointContext;
use netwatch_common::{Begin, kind, sock_flags};

use crate::connect::SYSCALL_RESULT;
use crate::mem::{Memory as _, Typed, Untyped, offset};
use crate::{emit, sock, task};

/// `include/uapi/linux/stat.h`
const S_IFMT: u16 = 0o170_000;
const S_IFSOCK: u16 = 0o140_000;

/// `include/net/tcp_states.h`
const SYN_RECV: u8 = 3;

#[tracepoint(category = "syscalls", name = "sys_exit_accept")]
fn sys_exit_accept(ctx: TracePointContext) -> u32 {
    let _ = accepted(&ctx);
    0
}

#[tracepoint(category = "syscalls", name = "sys_exit_accept4")]
fn sys_exit_accept4(ctx: TracePointContext) -> u32 {
    let _ = accepted(&ctx);
    0
}

#[inline(always)]
fn accepted(ctx: &TracePointContext) -> Option<()> {
    // SAFETY: within the tracepoint's record.
    let fd: i64 = unsafe { ctx.read_at(SYSCALL_RESULT) }.ok()?;
    if fd < 0 {
        return None;
    }
    let current = task::current();
    let sk = socket_of(current, fd as u32)?;
    // SAFETY: `socket_of` found a `struct sock`.
    if !unsafe { sock::is_ours::<Untyped>(sk) } {
        return None;
    }
    let mut entry = emit::reserve::<Begin>(kind::ACCEPT)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the ring's memory, sized for the record; every byte of it is written.
    unsafe {
        (*record).header = emit::header(kind::ACCEPT);
        // Programs of this type may not ask for the cookie; it is there if anyone ever did.
        (*record).sock.cookie = Untyped::read(sk, offset!(sk_cookie));
        // The socket may be closed already: its number then stands in `inet_sport` only.
        sock::fill::<Untyped>(sk, true, &mut (*record).sock);
        // Taken before the handshake's end.
        if Untyped::read::<u8>(sk, offset!(sk_state)) == SYN_RECV {
            (*record).sock.flags |= sock_flags::FASTOPEN;
        }
        task::fill(current, &mut (*record).task);
        (*record).result = 0;
        (*record).pad = 0;
    }
    entry.submit(0);
    None
}

/// The `struct sock` behind a descriptor of the current task.
#[inline(always)]
fn socket_of(current: *const c_void, fd: u32) -> Option<*const c_void> {
    // SAFETY: the current task's table stays while it is inside its own system call; a descriptor
    // that another thread closes meanwhile gives a file that is checked to be a socket, or zeros.
    unsafe {
        let files: *const c_void = Typed::read(current, offset!(task_files));
        let table: *const c_void = Untyped::read(files, offset!(files_fdt));
        let max: u32 = Untyped::read(table, offset!(fdt_max));
        if fd >= max {
            return None;
        }
        let array: *const c_void = Untyped::read(table, offset!(fdt_fd));
        let file: *const c_void = Untyped::read(array.byte_add(fd as usize * size_of::<usize>()), 0);
        let inode: *const c_void = Untyped::read(file, offset!(file_inode));
        let mode: u16 = Untyped::read(inode, offset!(inode_mode));
        if mode & S_IFMT != S_IFSOCK {
            return None;
        }
        let socket: *const c_void = Untyped::read(file, offset!(file_private));
        let sk: *const c_void = Untyped::read(socket, offset!(socket_sk));
        (!sk.is_null()).then_some(sk)
    }
}
