//! What stdin, stdout and stderr of a program are at its start, and whether its parent has their other ends: the relay of
//! a shell (nc, socat, sshd, an interpreter) creates a pipe, a pseudoterminal or a pair of UNIX sockets for it and keeps
//! the other end.

use core::ffi::c_void;

use netwatch_common::{Offsets, Stream, stream_kind};

use crate::files::{self, S_IFMT, S_IFSOCK};
use crate::mem::{Memory as _, Untyped, offset};
use crate::sock;
use crate::unix::AF_UNIX;

/// `include/uapi/linux/stat.h`
const S_IFIFO: u16 = 0o010_000;
const S_IFCHR: u16 = 0o020_000;

/// `include/uapi/linux/major.h`: pseudoterminals, and the major and minor number of their multiplexer (fs/devpts/inode.c).
const UNIX98_PTY_SLAVE_MAJOR: u32 = 136;
const UNIX98_PTY_MAJOR_COUNT: u32 = 8;
const PTMX: u32 = 5 << MINOR_BITS | 2;
/// `include/linux/kdev_t.h`
const MINOR_BITS: u32 = 20;

/// `include/linux/fs.h`
const FMODE_READ: u32 = 1;
const FMODE_WRITE: u32 = 2;

/// Descriptors of the parent that are looked at. A relay makes few before it forks.
const PARENT_FDS: u32 = 64;

/// What is looked for, in the memory of a map, where the verifier does not track values, so that it checks the loop body
/// once a descriptor.
#[repr(C)]
pub(crate) struct Sought {
    others: [Other; 3],
    fd: u64,
}

/// The other end of a stream: what the parent must have at a descriptor.
#[repr(C)]
#[derive(Clone, Copy)]
struct Other {
    kind: u32,
    /// For a pipe: how the parent has to have opened it.
    mode: u32,
    /// The address of the `struct pipe_inode_info`, `struct tty_struct` or `struct sock`; 0: not looked for.
    what: u64,
}

/// Describes the standard streams of the current task.
///
/// # Safety
/// `current` is a `struct task_struct`; `sought` and `out` are memory of a map.
#[inline(always)]
pub(crate) unsafe fn fill(current: *const c_void, sought: *mut Sought, out: *mut [Stream; 3]) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let others = (&raw mut (*sought).others).cast::<Other>();
        let out = out.cast::<Stream>();
        describe(current, 0, FMODE_WRITE, others, out);
        describe(current, 1, FMODE_READ, others.add(1), out.add(1));
        describe(current, 2, FMODE_READ, others.add(2), out.add(2));
        let [stdin, stdout, stderr] =
            [0, 1, 2].map(|nth| (&raw const (*others.add(nth)).what).read_volatile());
        if stdin | stdout | stderr == 0 {
            return;
        }
        let parent: *const c_void = Untyped::read(current, offset!(task_parent));
        let next = &raw mut (*sought).fd;
        next.write_volatile(0);
        for _ in 0..PARENT_FDS {
            let fd = next.read_volatile();
            next.write_volatile(fd + 1);
            let file = files::file_of(parent, fd as u32);
            let (kind, what, mode) = held(file);
            for nth in 0..3 {
                let other = others.add(nth).read_volatile();
                let same = other.what ^ what | u64::from(other.kind ^ kind);
                if what != 0 && same == 0 && mode & other.mode != 0 {
                    (*out.add(nth)).at_parent = 1;
                }
            }
        }
    }
}

/// Describes one stream and its other end. `mode`: how the parent has to have opened a pipe.
#[inline(always)]
unsafe fn describe(current: *const c_void, fd: u32, mode: u32, other: *mut Other, out: *mut Stream) {
    // SAFETY: a task, and memory of a map; reads through an invalid pointer give zeros.
    unsafe {
        (*out).id = 0;
        (*out).kind = stream_kind::OTHER;
        (*out).at_parent = 0;
        (*other).kind = 0;
        (*other).mode = u32::MAX;
        (*other).what = 0;
        let file = files::file_of(current, fd);
        let inode = files::inode_of(file);
        match files::mode_of(file) & S_IFMT {
            S_IFIFO => {
                (*out).kind = stream_kind::PIPE;
                (*out).id = Untyped::read(inode, offset!(inode_ino));
                (*other).kind = stream_kind::PIPE;
                (*other).mode = mode;
                (*other).what = pipe_of(file);
            }
            S_IFCHR => {
                let device: u32 = Untyped::read(inode, offset!(inode_rdev));
                let major = (device >> MINOR_BITS).wrapping_sub(UNIX98_PTY_SLAVE_MAJOR);
                if major >= UNIX98_PTY_MAJOR_COUNT {
                    return;
                }
                (*out).kind = stream_kind::TERMINAL;
                (*out).id = device.into();
                (*other).kind = stream_kind::TERMINAL;
                (*other).what = terminal_of(file);
            }
            S_IFSOCK => {
                let sk = files::socket_of_file(file);
                if sock::is_inet::<Untyped>(sk) {
                    let cookie: u64 = Untyped::read(sk, offset!(sk_cookie));
                    if cookie != 0 {
                        (*out).kind = stream_kind::SOCKET;
                        (*out).id = cookie;
                    }
                    return;
                }
                if Untyped::read::<u16>(sk, offset!(sk_family)) != AF_UNIX
                    || offset!(unix_peer) == Offsets::MISSING
                {
                    return;
                }
                (*out).kind = stream_kind::UNIX;
                (*out).id = sock::inode(sk);
                (*other).kind = stream_kind::UNIX;
                (*other).what = Untyped::read(sk, offset!(unix_peer));
            }
            _ => {}
        }
    }
}

/// What a descriptor of the parent is, as the other end of a stream: kind, [`Other::what`] and mode.
#[inline(always)]
unsafe fn held(file: *const c_void) -> (u32, u64, u32) {
    // SAFETY: a `struct file`; reads through an invalid pointer give zeros.
    unsafe {
        match files::mode_of(file) & S_IFMT {
            S_IFIFO => (stream_kind::PIPE, pipe_of(file), Untyped::read(file, offset!(file_mode))),
            S_IFCHR => {
                let device: u32 = Untyped::read(files::inode_of(file), offset!(inode_rdev));
                if device != PTMX || offset!(tty_link) == Offsets::MISSING {
                    return (0, 0, 0);
                }
                let link: u64 = Untyped::read(terminal_of(file) as *const c_void, offset!(tty_link));
                (stream_kind::TERMINAL, link, u32::MAX)
            }
            S_IFSOCK => (stream_kind::UNIX, files::socket_of_file(file) as u64, u32::MAX),
            _ => (0, 0, 0),
        }
    }
}

/// The address of the `struct pipe_inode_info` of a pipe.
#[inline(always)]
unsafe fn pipe_of(file: *const c_void) -> u64 {
    // SAFETY: a `struct file`.
    unsafe { Untyped::read(file, offset!(file_private)) }
}

/// The address of the `struct tty_struct` of a terminal.
#[inline(always)]
unsafe fn terminal_of(file: *const c_void) -> u64 {
    // SAFETY: a `struct file` of a terminal, whose private data is a `struct tty_file_private`.
    unsafe {
        if offset!(tty_file_tty) == Offsets::MISSING {
            return 0;
        }
        let private: *const c_void = Untyped::read(file, offset!(file_private));
        Untyped::read(private, offset!(tty_file_tty))
    }
}
