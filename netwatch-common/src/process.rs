//! Records about processes.

use crate::{COMM_LEN, Header};

/// A task, read while it is the current one (or, on a fork, the child).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Start of the thread group's leader, nanoseconds since boot (`task_struct.start_boottime`).
    pub start: u64,
    /// Thread group, in the initial pid namespace.
    pub tgid: u32,
    /// Thread, likewise.
    pub tid: u32,
    /// Thread group of the present parent (`real_parent`).
    pub ppid: u32,
    /// Effective user id in the initial user namespace (`cred.euid`).
    pub uid: u32,
    /// Login user id, `u32::MAX` where none was set.
    pub auid: u32,
    /// [`task_flags`].
    pub flags: u32,
    /// Id of the cgroup in the v2 hierarchy: the inode number of its directory.
    pub cgroup: u64,
    /// Name of the thread group's leader, NUL-padded.
    pub comm: [u8; COMM_LEN],
    /// Name of the thread, NUL-padded.
    pub thread: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<Task>() == 72 && align_of::<Task>() == 8);

/// Bits of [`Task::flags`].
pub mod task_flags {
    /// A kernel thread (`PF_KTHREAD`).
    pub const KERNEL: u32 = 1;
    /// It is in io_uring_enter(2), or one of io_uring's threads. Told on connect, listen, accept, use
    /// and of a refused connect.
    pub const IO_URING: u32 = 2;
    /// It is in 32-bit socketcall(2). Told likewise.
    pub const SOCKETCALL: u32 = 4;
}

/// A new thread group.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fork {
    /// [`kind::FORK`](crate::kind::FORK).
    pub header: Header,
    /// The child; its `ppid` may differ from `parent_tgid` (CLONE_PARENT).
    pub task: Task,
    /// Start of the process that called fork().
    pub parent_start: u64,
    /// The process that called fork().
    pub parent_tgid: u32,
    /// Zero.
    pub pad: u32,
    /// What the thread that called fork() was about: cookie of the socket from which it received last, or which
    /// it accepted, and since when it has not slept; 0: none.
    pub cause: u64,
}

const _: () = assert!(size_of::<Fork>() == 112 && align_of::<Fork>() == 8);

/// The last thread of a thread group is gone.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// [`kind::EXIT`](crate::kind::EXIT).
    pub header: Header,
    /// Start of the thread group's leader.
    pub start: u64,
    /// Thread group.
    pub tgid: u32,
    /// `task_struct.exit_code` of the last thread, as wait(2) packs it.
    pub code: u32,
}

const _: () = assert!(size_of::<Exit>() == 32 && align_of::<Exit>() == 8);

/// Longest path of an executable that a record carries, its NULs included. A power of two.
pub const EXEC_PATH_MAX: usize = 2048;

/// Longest argument vector that a record carries. A power of two.
pub const EXEC_ARGS_MAX: usize = 4096;

/// A new program image. `path_len` bytes of path and `args_len` bytes of arguments follow the fixed part.
///
/// The path is the sequence of its components from the file up to the root, each ended by a NUL: what
/// the kernel's own walk finds (`fs/d_path.c`), before it is turned around. The arguments are as they lay
/// on the new stack, each ended by a NUL but a last one that was cut.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// [`kind::EXEC`](crate::kind::EXEC).
    pub header: Header,
    /// The process, with its new name.
    pub task: Task,
    /// Device of the executable, as the kernel numbers it (`super_block.s_dev`, 12 bits major, 20 minor).
    pub dev: u32,
    /// Links to the executable; 0 when it was deleted already (or is a memfd).
    pub nlink: u32,
    /// Inode of the executable.
    pub ino: u64,
    /// Bytes of path that follow.
    pub path_len: u16,
    /// Bytes of arguments that follow the path.
    pub args_len: u16,
    /// [`exec_flags`].
    pub flags: u32,
    /// Inode number of the mount namespace, in which the path means something.
    pub mntns: u32,
    /// Zero.
    pub pad: u32,
    /// Cookies of the IPv4 and IPv6 sockets behind descriptors 0, 1 and 2; 0 where there is something else.
    pub stdio: [u64; 3],
}

const _: () = assert!(size_of::<Exec>() == 144 && align_of::<Exec>() == 8);

/// Bits of [`Exec::flags`].
pub mod exec_flags {
    /// The path has more components or bytes than a record carries; the root's end is missing.
    pub const PATH_CUT: u32 = 1;
    /// There are more arguments than a record carries.
    pub const ARGS_CUT: u32 = 2;
}

/// Longest path of a cgroup that a record carries. A power of two.
pub const CGROUP_PATH_MAX: usize = 1024;

/// A cgroup was made (`tgid` 0), or a process moved into one. `path_len` bytes of path follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// [`kind::CGROUP`](crate::kind::CGROUP).
    pub header: Header,
    /// Id of the cgroup: the inode number of its directory.
    pub id: u64,
    /// Start of the process that moved.
    pub start: u64,
    /// The process that moved, 0 when the cgroup was made.
    pub tgid: u32,
    /// Hierarchy: 0 is the unified one (v2), any other a v1 hierarchy.
    pub hierarchy: u32,
    /// Bytes of path that follow.
    pub path_len: u16,
    /// Zero.
    pub pad: [u8; 6],
}

const _: () = assert!(size_of::<Cgroup>() == 48 && align_of::<Cgroup>() == 8);
