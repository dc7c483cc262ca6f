//! Records about processes.

use crate::{COMM_LEN, Header};

/// A task: the current one or, for a fork, the child.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Task {
    /// Start of the thread group leader, in nanoseconds since boot (`task_struct.start_boottime`).
    pub start: u64,
    /// Thread group id in the initial pid namespace.
    pub tgid: u32,
    /// Thread id in the initial pid namespace.
    pub tid: u32,
    /// Thread group id of the current parent (`real_parent`).
    pub ppid: u32,
    /// Effective user id in the initial user namespace (`cred.euid`).
    pub uid: u32,
    /// Login user id; `u32::MAX` if none is set.
    pub auid: u32,
    /// [`task_flags`].
    pub flags: u32,
    /// Id of the cgroup in the v2 hierarchy: its kernfs id, which is the inode number of its directory.
    pub cgroup: u64,
    /// Name of the thread group leader, padded with NULs.
    pub comm: [u8; COMM_LEN],
    /// Name of the thread, padded with NULs; empty for the leader.
    pub thread: [u8; COMM_LEN],
}

const _: () = assert!(size_of::<Task>() == 72 && align_of::<Task>() == 8);

/// Bits of [`Task::flags`].
pub mod task_flags {
    /// A kernel thread (`PF_KTHREAD`).
    pub const KERNEL: u32 = 1;
    /// It is in io_uring_enter(2), or an io_uring worker. Set for connect, listen, accept, use and a failed connect.
    pub const IO_URING: u32 = 2;
    /// It is in 32-bit socketcall(2). Set for the same records.
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
    /// Start of the process that called fork(), in nanoseconds since boot.
    pub parent_start: u64,
    /// Thread group id of the process that called fork().
    pub parent_tgid: u32,
    /// Number of messages by which the cause reached the thread that called fork(); if not 0 a
    /// [`Cause`](crate::Cause) has them.
    pub messages: u32,
    /// Cookie of the socket that the thread that called fork() handled: from which it, or the first writer of the
    /// messages, had last received, or which it had accepted. 0 if it has slept since, or there is none.
    pub cause: u64,
}

const _: () = assert!(size_of::<Fork>() == 112 && align_of::<Fork>() == 8);

/// The last thread of a thread group exited.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exit {
    /// [`kind::EXIT`](crate::kind::EXIT).
    pub header: Header,
    /// Start of the thread group leader, in nanoseconds since boot.
    pub start: u64,
    /// Thread group.
    pub tgid: u32,
    /// `task_struct.exit_code` of the last thread, as wait(2) packs it.
    pub code: u32,
}

const _: () = assert!(size_of::<Exit>() == 32 && align_of::<Exit>() == 8);

/// Maximum length of the path of an executable in a record, including NULs. A power of two.
pub const EXEC_PATH_MAX: usize = 2048;

/// Maximum length of the arguments in a record. A power of two.
pub const EXEC_ARGS_MAX: usize = 4096;

/// A new program image. `path_len` bytes of path and `args_len` bytes of arguments follow the fixed part.
///
/// The path is the sequence of its components from the file to the root, each terminated by a NUL, in the order in
/// which the kernel walks them (fs/d_path.c, prepend_path(), v6.12). The arguments are those on the new stack, each
/// terminated by a NUL except a last one that was truncated.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Exec {
    /// [`kind::EXEC`](crate::kind::EXEC).
    pub header: Header,
    /// The process after exec, with its new name.
    pub task: Task,
    /// Device of the executable in the kernel's encoding (`super_block.s_dev`: 12 bits major, 20 bits minor).
    pub dev: u32,
    /// Number of links to the executable; 0 if it was deleted or is a memfd.
    pub nlink: u32,
    /// Inode number of the executable.
    pub ino: u64,
    /// Length of the path that follows, in bytes.
    pub path_len: u16,
    /// Length of the arguments after the path, in bytes.
    pub args_len: u16,
    /// [`exec_flags`].
    pub flags: u32,
    /// Inode number of the mount namespace in which the path is valid.
    pub mntns: u32,
    /// Length of all arguments in bytes; `u32::MAX` if it is more.
    pub args_bytes: u32,
    /// What descriptors 0, 1 and 2 are.
    pub stdio: [Stream; 3],
}

const _: () = assert!(size_of::<Exec>() == 168 && align_of::<Exec>() == 8);

/// What a descriptor is.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stream {
    /// The cookie of an IPv4 or IPv6 socket; the inode number of a UNIX socket or a pipe; the device number of a terminal
    /// (`inode.i_rdev`).
    pub id: u64,
    /// [`stream_kind`].
    pub kind: u32,
    /// 1 if the parent has the other end: of a pipe, the master side of the terminal, the peer of a UNIX socket.
    pub at_parent: u32,
}

const _: () = assert!(size_of::<Stream>() == 16 && align_of::<Stream>() == 8);

/// Values of [`Stream::kind`].
pub mod stream_kind {
    /// Closed, a file, or anything else.
    pub const OTHER: u32 = 0;
    /// An IPv4 or IPv6 socket.
    pub const SOCKET: u32 = 1;
    /// A pipe or FIFO.
    pub const PIPE: u32 = 2;
    /// A pseudoterminal.
    pub const TERMINAL: u32 = 3;
    /// A UNIX socket.
    pub const UNIX: u32 = 4;
}

/// Bits of [`Exec::flags`].
pub mod exec_flags {
    /// The path was truncated; the components next to the root are missing.
    pub const PATH_CUT: u32 = 1;
    /// The path changed while it was read, so it may be one that the file never had.
    pub const PATH_UNSURE: u32 = 4;
    /// The arguments were truncated.
    pub const ARGS_CUT: u32 = 2;
}

/// Maximum length of the path of a cgroup in a record. A power of two.
pub const CGROUP_PATH_MAX: usize = 1024;

/// A cgroup was created (`tgid` is 0), or a process moved to one. `path_len` bytes of path follow.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cgroup {
    /// [`kind::CGROUP`](crate::kind::CGROUP).
    pub header: Header,
    /// Kernfs id of the cgroup: the inode number of its directory. Unique only within a hierarchy.
    pub id: u64,
    /// Start of the process that moved, in nanoseconds since boot.
    pub start: u64,
    /// Thread group id of the process that moved; 0 if the cgroup was created.
    pub tgid: u32,
    /// Hierarchy id: 0 is the unified hierarchy (v2), others are v1 hierarchies.
    pub hierarchy: u32,
    /// Length of the path that follows, in bytes.
    pub path_len: u16,
    /// Zero.
    pub pad: [u8; 6],
}

const _: () = assert!(size_of::<Cgroup>() == 48 && align_of::<Cgroup>() == 8);
