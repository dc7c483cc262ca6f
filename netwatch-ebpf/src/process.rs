//! Fork, exec and exit of processes. All attributes of a process are read in the kernel, since a short-lived process is
//! gone before /proc can be read.

use core::ffi::c_void;

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::{
    bpf_get_current_cgroup_id, bpf_probe_read_kernel_str, bpf_probe_read_user,
};
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use netwatch_common::{EXEC_ARGS_MAX, EXEC_PATH_MAX, Exec, Exit, Fork, exec_flags, kind};

use crate::mem::{Memory as _, Typed, Untyped, offset};
use crate::twice::{self, Pair};
use crate::{calls, cause, emit, files, stdio, task};

/// Maximum length of a path component, including its NUL (`NAME_MAX` in include/uapi/linux/limits.h).
const COMPONENT_MAX: usize = 256;

/// Maximum number of components and mounts in the walk to the root.
const MAX_STEPS: u32 = 48;

#[btf_tracepoint(function = "sched_process_fork")]
fn sched_process_fork(ctx: BtfTracePointContext) -> i32 {
    twice::first(Pair::Fork, start(ctx.arg(1)));
    try_fork(&ctx).unwrap_or(0)
}

#[btf_tracepoint(function = "sched_process_fork")]
fn sched_process_fork_again(ctx: BtfTracePointContext) -> i32 {
    if twice::was_left_out(Pair::Fork, start(ctx.arg(1)), kind::FORK) {
        try_fork(&ctx).unwrap_or(0)
    } else {
        0
    }
}

/// An id of a task: its start time.
#[inline(always)]
fn start(task: *const c_void) -> u64 {
    // SAFETY: the arguments of the tracepoints are tasks. Not the start of the process, which its threads share.
    unsafe { Typed::read(task, offset!(task_start)) }
}

#[inline(always)]
fn try_fork(ctx: &BtfTracePointContext) -> Option<i32> {
    let parent: *const c_void = ctx.arg(0);
    let child: *const c_void = ctx.arg(1);
    // SAFETY: the argument of the tracepoints are tasks.
    unsafe {
        let cause = cause::of(parent);
        if let Some(cause) = cause {
            cause::inherit(cause, child);
        }
        if task::tgid(child) != task::tid(child) {
            return None;
        }
        let header = emit::header(kind::FORK);
        let messages = cause::report(cause, header, task::tid(child));
        let mut entry = emit::reserve::<Fork>(kind::FORK)?;
        let record = entry.as_mut_ptr();
        (*record).header = header;
        task::fill(child, task::cgroup_of(child), &mut (*record).task);
        (*record).parent_start = task::start(parent);
        (*record).parent_tgid = task::tgid(parent);
        (*record).messages = messages;
        (*record).cause = cause::cookie(cause);
        emit::submit(entry);
    }
    Some(0)
}

#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit(ctx: BtfTracePointContext) -> i32 {
    twice::first(Pair::Exit, start(ctx.arg(0)));
    try_exit(&ctx).unwrap_or(0)
}

#[btf_tracepoint(function = "sched_process_exit")]
fn sched_process_exit_again(ctx: BtfTracePointContext) -> i32 {
    if twice::was_left_out(Pair::Exit, start(ctx.arg(0)), kind::EXIT) {
        try_exit(&ctx).unwrap_or(0)
    } else {
        0
    }
}

#[inline(always)]
fn try_exit(ctx: &BtfTracePointContext) -> Option<i32> {
    let dying: *const c_void = ctx.arg(0);
    calls::settle();
    // SAFETY: the argument of the tracepoint is a task, the current one.
    unsafe {
        let signal: *const c_void = Untyped::read(dying, offset!(task_signal));
        // Decremented before the tracepoint (kernel/exit.c, do_exit(), v6.12): zero for the last thread.
        let live: i32 = Untyped::read(signal, offset!(signal_live));
        if live != 0 {
            return None;
        }
        let mut entry = emit::reserve::<Exit>(kind::EXIT)?;
        let record = entry.as_mut_ptr();
        (*record).header = emit::header(kind::EXIT);
        (*record).start = task::start(dying);
        (*record).tgid = task::tgid(dying);
        (*record).code = Typed::read(dying, offset!(task_exit_code));
        emit::submit(entry);
    }
    Some(0)
}

/// Buffer for an exec record, which is too large for the stack.
#[repr(C)]
struct Scratch {
    fixed: Exec,
    /// The path, directly followed by the arguments. The slack lets the verifier prove that a read of the maximum
    /// length is in bounds at any start.
    tail: [u8; EXEC_PATH_MAX + COMPONENT_MAX + EXEC_ARGS_MAX],
    sought: stdio::Sought,
}

/// One for each of the two programs, since the second may interrupt the first.
#[btf_map]
static SCRATCH: PerCpuArray<Scratch, 2> = PerCpuArray::new();

#[btf_tracepoint(function = "sched_process_exec")]
fn sched_process_exec(ctx: BtfTracePointContext) -> i32 {
    twice::first(Pair::Exec, start(ctx.arg(0)));
    try_exec(ctx.arg(0), 0)
}

#[btf_tracepoint(function = "sched_process_exec")]
fn sched_process_exec_again(ctx: BtfTracePointContext) -> i32 {
    if twice::was_left_out(Pair::Exec, start(ctx.arg(0)), kind::EXEC) { try_exec(ctx.arg(0), 1) } else { 0 }
}

#[inline(always)]
fn try_exec(current: *const c_void, scratch: u32) -> i32 {
    if let Some(scratch) = SCRATCH.get_ptr_mut(scratch) {
        // SAFETY: the argument of the tracepoint is the task; no other run uses this buffer meanwhile.
        unsafe { exec(current, &mut *scratch) };
    }
    0
}

#[inline(always)]
unsafe fn exec(current: *const c_void, scratch: &mut Scratch) {
    // SAFETY: `current` has a new program image, so it has an `mm` with an executable.
    unsafe {
        let fixed = &mut scratch.fixed;
        fixed.header = emit::header(kind::EXEC);
        task::fill(current, bpf_get_current_cgroup_id(), &mut fixed.task);
        let mm: *const c_void = Untyped::read(current, offset!(task_mm));
        let file: *const c_void = Untyped::read(mm, offset!(mm_exe_file));
        let inode = files::inode_of(file);
        let sb: *const c_void = Untyped::read(inode, offset!(inode_sb));
        fixed.dev = Untyped::read(sb, offset!(sb_dev));
        fixed.ino = Untyped::read(inode, offset!(inode_ino));
        fixed.nlink = Untyped::read(inode, offset!(inode_nlink));
        fixed.flags = 0;
        let nsproxy: *const c_void = Untyped::read(current, offset!(task_nsproxy));
        let mnt_ns: *const c_void = Untyped::read(nsproxy, offset!(nsproxy_mnt));
        fixed.mntns = Untyped::read(mnt_ns, offset!(mnt_ns_inum));
        stdio::fill(current, &raw mut scratch.sought, &raw mut fixed.stdio);

        let tail = scratch.tail.as_mut_ptr();
        fixed.path_len = 0;
        match path(file, tail, &raw mut fixed.path_len) {
            None => fixed.flags |= exec_flags::PATH_CUT,
            Some(sum) if sum != path_sum(file) => fixed.flags |= exec_flags::PATH_UNSURE,
            Some(_) => {}
        }

        let begin: u64 = Untyped::read(mm, offset!(mm_arg_start));
        let end: u64 = Untyped::read(mm, offset!(mm_arg_end));
        let mut len = end.wrapping_sub(begin) as usize;
        fixed.args_bytes = if len > u32::MAX as usize { u32::MAX } else { len as u32 };
        if len >= EXEC_ARGS_MAX {
            len = EXEC_ARGS_MAX - 1;
            fixed.flags |= exec_flags::ARGS_CUT;
        }
        let len = bounded(len, EXEC_ARGS_MAX);
        let path_len = bounded(usize::from(fixed.path_len), EXEC_PATH_MAX);
        // Gives zeros on a fault (kernel/trace/bpf_trace.c, bpf_probe_read_user_common(), v6.12).
        bpf_probe_read_user(tail.add(path_len).cast(), len as u32, begin as *const c_void);
        fixed.args_len = len as u16;
        let record = core::ptr::from_mut(scratch).cast();
        emit::output(kind::EXEC, record, size_of::<Exec>() + path_len + len);
    }
}

/// `value` modulo `limit`, a power of two, in a form that the compiler keeps and the verifier understands.
#[inline(always)]
fn bounded(value: usize, limit: usize) -> usize {
    core::hint::black_box(value) & (limit - 1)
}

/// A walk from a file to the root, as the kernel does it (fs/d_path.c, prepend_path(), v6.12): up the dentries, and from
/// the root of a mount to its mount point.
struct Walk {
    dentry: *const c_void,
    mount: *const c_void,
}

/// A step of a [`Walk`].
enum Step {
    /// A component of the path.
    Component {
        dentry: *const c_void,
        /// The same at the end of a path outside of any mount tree, like that of a memfd.
        parent: *const c_void,
        /// Changes before and after the name and the parent do, and is odd between (fs/dcache.c, __d_move(), v6.12).
        seq: u32,
    },
    /// From a mount to the one that it is mounted on.
    Crossed,
    /// The root.
    Root,
}

impl Walk {
    /// # Safety
    /// `file` is a `struct file`.
    #[inline(always)]
    unsafe fn from(file: *const c_void) -> Self {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mnt: *const c_void = Untyped::read(file, offset!(file_mnt));
            Self {
                dentry: Untyped::read(file, offset!(file_dentry)),
                mount: mnt.wrapping_byte_sub(offset!(mount_mnt) as usize),
            }
        }
    }

    #[inline(always)]
    fn step(&mut self) -> Step {
        let Self { dentry, mount } = *self;
        // SAFETY: every pointer is read by the helper, which gives zero for an invalid address.
        let seq = unsafe {
            let root: *const c_void = Untyped::read(mount, offset!(mount_mnt) + offset!(mnt_root));
            if dentry == root {
                self.mount = Untyped::read(mount, offset!(mount_parent));
                if self.mount == mount {
                    return Step::Root;
                }
                self.dentry = Untyped::read(mount, offset!(mount_point));
                return Step::Crossed;
            }
            let seq = Untyped::read(dentry, offset!(dentry_seq));
            self.dentry = Untyped::read(dentry, offset!(dentry_parent));
            seq
        };
        Step::Component { dentry, parent: self.dentry, seq }
    }
}

/// Writes the components of a file's path, from the file to the root, each with its NUL, and the number of bytes to
/// `written`. Returns a sum that identifies the path, or `None` if the root was not reached.
///
/// The count is in the memory of a map because the verifier does not track values there, so that it checks the loop
/// body only once.
///
/// The kernel holds `rename_lock` or repeats its walk; a program cannot. If a directory is renamed meanwhile the path may
/// be one that never was, so [`path_sum`] walks a second time. An entry that was not renamed between its visits had the
/// name that was read at the end of the first walk, and so had all the others.
#[inline(always)]
unsafe fn path(file: *const c_void, out: *mut u8, written: *mut u16) -> Option<u64> {
    // SAFETY: `file` is that of the caller; `out` has space for a whole component after EXEC_PATH_MAX.
    unsafe {
        let (mut walk, mut sum) = (Walk::from(file), 0);
        for _ in 0..MAX_STEPS {
            let (dentry, parent, seq) = match walk.step() {
                Step::Component { dentry, parent, seq } => (dentry, parent, seq),
                Step::Crossed => continue,
                Step::Root => return Some(sum),
            };
            // An entry that is being renamed now differs in the second walk, even if it still is (as raw_seqcount_begin(),
            // include/linux/seqlock.h, v6.12).
            sum = with_component(sum, dentry, parent, seq & !1);
            let name: *const c_void = Untyped::read(dentry, offset!(dentry_name));
            let room = bounded(usize::from(written.read_volatile()), EXEC_PATH_MAX);
            let len = bpf_probe_read_kernel_str(out.add(room).cast(), COMPONENT_MAX as u32, name);
            if len <= 1 || room + len as usize >= EXEC_PATH_MAX {
                return None;
            }
            written.write_volatile((room + len as usize) as u16);
            if dentry == parent {
                return Some(sum);
            }
        }
        None
    }
}

/// The sum of a path that reaches the root, as [`path`] returns it.
#[inline(always)]
unsafe fn path_sum(file: *const c_void) -> u64 {
    // SAFETY: `file` is that of the caller.
    unsafe {
        let (mut walk, mut sum) = (Walk::from(file), 0);
        for _ in 0..MAX_STEPS {
            match walk.step() {
                Step::Component { dentry, parent, seq } => {
                    sum = with_component(sum, dentry, parent, seq);
                    if dentry == parent {
                        break;
                    }
                }
                Step::Crossed => {}
                Step::Root => break,
            }
        }
        sum
    }
}

/// Adds a component to the sum of a path.
#[inline(always)]
fn with_component(sum: u64, dentry: *const c_void, parent: *const c_void, seq: u32) -> u64 {
    (sum.rotate_left(7) ^ dentry as u64).rotate_left(7) ^ parent as u64 ^ u64::from(seq)
}
