//! Writes to pipes and FIFOs (fs/pipe.c). They carry the cause of the writer to the reader, as messages over UNIX sockets
//! do, but only of a writer that has one: most writes are by programs that handle no connection. Functions have to be
//! probed for this. They are called `pipe_read` and `pipe_write` up to 6.13, and `anon_pipe_read`, `fifo_pipe_read` and
//! so on since 6.14.

use core::ffi::c_void;

use aya_ebpf::macros::{fentry, fexit};
use aya_ebpf::programs::{FEntryContext, FExitContext};
use netwatch_common::{Offsets, message_flags};

use crate::mem::{Memory as _, Untyped, offset};
use crate::{cause, files, notes, task, unix};

#[fentry(function = "pipe_write")]
fn pipe_write(ctx: FEntryContext) -> i32 {
    writes(ctx.arg(0))
}

#[fexit(function = "pipe_read")]
fn pipe_read(ctx: FExitContext) -> i32 {
    reads(ctx.arg(0), ctx.arg(RETURNED))
}

#[fentry(function = "anon_pipe_write")]
fn anon_pipe_write(ctx: FEntryContext) -> i32 {
    writes(ctx.arg(0))
}

#[fexit(function = "anon_pipe_read")]
fn anon_pipe_read(ctx: FExitContext) -> i32 {
    reads(ctx.arg(0), ctx.arg(RETURNED))
}

#[fentry(function = "fifo_pipe_write")]
fn fifo_pipe_write(ctx: FEntryContext) -> i32 {
    writes(ctx.arg(0))
}

#[fexit(function = "fifo_pipe_read")]
fn fifo_pipe_read(ctx: FExitContext) -> i32 {
    reads(ctx.arg(0), ctx.arg(RETURNED))
}

/// Index of the return value, after the two arguments.
const RETURNED: usize = 2;

/// `call`: the `struct kiocb`.
#[inline(always)]
fn writes(call: *const c_void) -> i32 {
    // SAFETY: the argument of the probed function; notes and causes are memory of maps.
    unsafe {
        let cause = cause::of(task::current());
        let (file, pipe) = pipe_of(call);
        let Some(note) = notes::by_address(pipe as u64, cause.is_some()) else { return 0 };
        match cause {
            Some(_) => {
                let inode = Untyped::read(files::inode_of(file), offset!(inode_ino));
                unix::write(note, cause, inode, message_flags::PIPE);
            }
            None => notes::sent_without(note),
        }
    }
    0
}

#[inline(always)]
fn reads(call: *const c_void, length: i64) -> i32 {
    if length <= 0 {
        return 0;
    }
    // SAFETY: the argument of the probed function; notes are memory of maps.
    unsafe {
        let (_, pipe) = pipe_of(call);
        if let Some(note) = notes::by_address(pipe as u64, false) {
            // Nobody is introduced: a pipe has no name.
            unix::read(note, is_empty(pipe));
        }
    }
    0
}

/// The `struct file` and the `struct pipe_inode_info` of a call.
///
/// # Safety
/// `call` is a `struct kiocb` of a pipe.
#[inline(always)]
unsafe fn pipe_of(call: *const c_void) -> (*const c_void, *const c_void) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let file: *const c_void = Untyped::read(call, offset!(kiocb_file));
        (file, Untyped::read(file, offset!(file_private)))
    }
}

/// Whether nothing is left to read (include/linux/pipe_fs_i.h, pipe_empty(), v6.12).
#[inline(always)]
unsafe fn is_empty(pipe: *const c_void) -> bool {
    // SAFETY: a `struct pipe_inode_info`.
    unsafe {
        if offset!(pipe_head) == Offsets::MISSING || offset!(pipe_tail) == Offsets::MISSING {
            return false;
        }
        Untyped::read::<u32>(pipe, offset!(pipe_head)) == Untyped::read::<u32>(pipe, offset!(pipe_tail))
    }
}
