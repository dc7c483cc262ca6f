//! Reads `struct task_struct`.

use core::ffi::c_void;

use aya_ebpf::helpers::generated::{bpf_get_current_task, bpf_get_current_task_btf, bpf_task_pt_regs};
use netwatch_common::{COMM_LEN, Offsets, Task, task_flags};

use crate::files;
use crate::mem::{Current, Memory as _, Typed, Untyped, knob, offset};

/// `include/linux/sched.h`
const PF_KTHREAD: u32 = 0x0020_0000;

/// `include/linux/sched.h`, since 5.12: an io_uring worker, which is a thread of the application.
const PF_IO_WORKER: u32 = 0x10;

/// `include/uapi/asm-generic/unistd.h`; the same on every architecture.
const NR_IO_URING_ENTER: u64 = 426;

/// `arch/x86/entry/syscalls/syscall_32.tbl`, and the flag of a 32-bit call
/// (`arch/x86/include/asm/thread_info.h`).
const NR_SOCKETCALL: u64 = 102;
const TS_COMPAT: u32 = 2;

/// accept(2) and accept4(2) in `arch/x86/entry/syscalls/syscall_64.tbl`, and accept4(2) in `syscall_32.tbl`.
const NR_ACCEPT: [u64; 3] = [43, 288, 364];

/// [`task_flags`] of the way by which the current task entered the kernel; 0 for a plain system call.
#[inline(always)]
pub(crate) fn way(current: *const c_void) -> u32 {
    by_call(current, |_| false)
}

/// The same at the end of an accept. If the task is in another system call, io_uring did the accept, since it runs such
/// work whenever the task is in the kernel.
#[inline(always)]
pub(crate) fn way_of_accept(current: *const c_void) -> u32 {
    by_call(current, |call| !NR_ACCEPT.contains(&call))
}

#[inline(always)]
fn by_call(current: *const c_void, is_anothers: impl FnOnce(u64) -> bool) -> u32 {
    // SAFETY: the current task; the helper returns its saved registers.
    unsafe {
        let flags: u32 = Current::read(current, offset!(task_flags));
        if flags & PF_KTHREAD != 0 {
            return 0;
        }
        if flags & PF_IO_WORKER != 0 {
            return task_flags::IO_URING;
        }
        if !knob!(registers) || offset!(regs_syscall) == Offsets::MISSING {
            return 0;
        }
        let regs = bpf_task_pt_regs(current.cast_mut().cast()) as *const c_void;
        let call = Typed::read::<u64>(regs, offset!(regs_syscall));
        if call == NR_IO_URING_ENTER {
            return task_flags::IO_URING;
        }
        if call == NR_SOCKETCALL && offset!(task_status) != Offsets::MISSING {
            let status: u32 = Typed::read(current, offset!(task_status));
            if status & TS_COMPAT != 0 {
                return task_flags::SOCKETCALL;
            }
        }
        if is_anothers(call) { task_flags::IO_URING } else { 0 }
    }
}

/// The current task, which is read as [`Current`].
#[inline(always)]
pub(crate) fn current() -> *const c_void {
    if knob!(typed_current) {
        // SAFETY: a helper without arguments.
        unsafe { bpf_get_current_task_btf() }.cast_const().cast()
    } else {
        // SAFETY: as above.
        unsafe { bpf_get_current_task() as *const c_void }
    }
}

/// The thread group leader, and its start in nanoseconds since boot. Most threads that connect and accept are leaders.
///
/// # Safety
/// As [`start`].
#[inline(always)]
unsafe fn leader(task: *const c_void) -> (*const c_void, u64) {
    // SAFETY: guaranteed by the caller; every task has a leader.
    unsafe {
        if tgid(task) == tid(task) {
            return (task, Current::read(task, offset!(task_start)));
        }
        let leader: *const c_void = Untyped::read(task, offset!(task_leader));
        (leader, Untyped::read(leader, offset!(task_start)))
    }
}

/// Start of the thread group leader, in nanoseconds since boot.
///
/// # Safety
/// `task` is a `struct task_struct` of a tracepoint, or [`current`].
#[inline(always)]
pub(crate) unsafe fn start(task: *const c_void) -> u64 {
    // SAFETY: guaranteed by the caller.
    unsafe { leader(task) }.1
}

/// # Safety
/// `task` is a `struct task_struct` of a tracepoint, or [`current`].
#[inline(always)]
pub(crate) unsafe fn tgid(task: *const c_void) -> u32 {
    // SAFETY: guaranteed by the caller.
    unsafe { Current::read(task, offset!(task_tgid)) }
}

/// # Safety
/// `task` is a `struct task_struct` of a tracepoint, or [`current`].
#[inline(always)]
pub(crate) unsafe fn tid(task: *const c_void) -> u32 {
    // SAFETY: guaranteed by the caller.
    unsafe { Current::read(task, offset!(task_pid)) }
}

/// Fills `out` with the attributes of `task`; `cgroup` is [`cgroup_of`] it.
///
/// # Safety
/// `task` is a `struct task_struct` of a tracepoint, or [`current`].
#[inline(always)]
pub(crate) unsafe fn fill(task: *const c_void, cgroup: u64, out: &mut Task) {
    // SAFETY: guaranteed by the caller; each offset is that of a member of this type, and a read through an invalid
    // pointer gives zero.
    unsafe {
        let parent: *const c_void = Untyped::read(task, offset!(task_parent));
        let cred: *const c_void = Untyped::read(task, offset!(task_cred));
        out.tgid = tgid(task);
        out.tid = tid(task);
        out.ppid = Untyped::read(parent, offset!(task_tgid));
        out.uid = Untyped::read(cred, offset!(cred_euid));
        out.auid = if offset!(task_loginuid) == Offsets::MISSING {
            u32::MAX
        } else {
            Current::read(task, offset!(task_loginuid))
        };
        let flags: u32 = Current::read(task, offset!(task_flags));
        out.cgroup = cgroup;
        out.flags = if flags & PF_KTHREAD != 0 {
            task_flags::KERNEL
        } else if is_exe_unlinked(task) {
            task_flags::EXE_UNLINKED
        } else {
            0
        };
        let (leader, start) = leader(task);
        out.start = start;
        Untyped::read_to(&mut out.comm, leader, offset!(task_comm));
        if out.tid == out.tgid {
            // The name of the leader is in `comm`.
            out.thread = [0; COMM_LEN];
        } else {
            Untyped::read_to(&mut out.thread, task, offset!(task_comm));
        }
    }
}

/// Whether the executable has no link left. False if it cannot be read: an exiting task has no `mm`.
///
/// # Safety
/// As [`fill`].
#[inline(always)]
unsafe fn is_exe_unlinked(task: *const c_void) -> bool {
    // SAFETY: guaranteed by the caller; a read through an invalid pointer gives zero.
    unsafe {
        let inode = files::inode_of_exe(task);
        !inode.is_null() && Untyped::read::<u32>(inode, offset!(inode_nlink)) == 0
    }
}

/// Id of the task's cgroup in the v2 hierarchy, as `bpf_get_current_cgroup_id` returns it.
///
/// # Safety
/// `task` is a `struct task_struct` of a tracepoint.
#[inline(always)]
pub(crate) unsafe fn cgroup_of(task: *const c_void) -> u64 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let set: *const c_void = Untyped::read(task, offset!(task_cgroups));
        let cgroup: *const c_void = Untyped::read(set, offset!(css_set_cgroup));
        cgroup_id(cgroup)
    }
}

/// Id of a cgroup: `cgroup->kn->id`, as cgroup_id() in include/linux/cgroup.h (v6.12). On 64-bit kernels it is the
/// inode number of the cgroup's directory (include/linux/kernfs.h, kernfs_ino()). It is a u64 since 5.5.
///
/// # Safety
/// `cgroup` is a `struct cgroup`.
#[inline(always)]
pub(crate) unsafe fn cgroup_id(cgroup: *const c_void) -> u64 {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let node: *const c_void = Untyped::read(cgroup, offset!(cgroup_node));
        Untyped::read(node, offset!(kernfs_id))
    }
}
