//! Creation of cgroups, and moves of processes between cgroups, with paths, so that the cgroup of a process can be
//! named after its directory is removed. The kernel calls both tracepoints with interrupts off
//! (kernel/cgroup/cgroup-internal.h, TRACE_CGROUP_PATH(), v6.12), so they do not interrupt each other.

use core::ffi::c_void;

use aya_ebpf::btf_maps::PerCpuArray;
use aya_ebpf::helpers::generated::bpf_probe_read_kernel_str;
use aya_ebpf::macros::{btf_map, btf_tracepoint};
use aya_ebpf::programs::BtfTracePointContext;
use netwatch_common::{CGROUP_PATH_MAX, Cgroup, kind};

use crate::mem::{Memory as _, Untyped, offset};
use crate::{emit, task};

#[repr(C)]
struct Scratch {
    fixed: Cgroup,
    path: [u8; CGROUP_PATH_MAX],
}

#[btf_map]
static CGROUP_SCRATCH: PerCpuArray<Scratch, 1> = PerCpuArray::new();

#[btf_tracepoint(function = "cgroup_mkdir")]
fn cgroup_mkdir(ctx: BtfTracePointContext) -> i32 {
    report(ctx.arg(0), ctx.arg(1), None);
    0
}

#[btf_tracepoint(function = "cgroup_attach_task")]
fn cgroup_attach_task(ctx: BtfTracePointContext) -> i32 {
    report(ctx.arg(0), ctx.arg(1), Some(ctx.arg(2)));
    0
}

#[inline(always)]
fn report(cgroup: *const c_void, path: *const c_void, moved: Option<*const c_void>) {
    let Some(scratch) = CGROUP_SCRATCH.get_ptr_mut(0) else { return };
    // SAFETY: the arguments of the tracepoints have these types; no other run uses the scratch of this CPU meanwhile.
    unsafe {
        let fixed = &mut (*scratch).fixed;
        fixed.header = emit::header(kind::CGROUP);
        fixed.id = task::cgroup_id(cgroup);
        let root: *const c_void = Untyped::read(cgroup, offset!(cgroup_root));
        // The id is unique only within a hierarchy, so the record has both. The unified hierarchy is the first that is
        // registered, and has hierarchy_id 0 (kernel/cgroup/cgroup.c, cgroup_init_root_id(), v6.12).
        fixed.hierarchy = Untyped::read(root, offset!(cgroup_root_hierarchy));
        if let Some(moved) = moved {
            fixed.tgid = task::tgid(moved);
            fixed.start = task::start(moved);
        } else {
            fixed.tgid = 0;
            fixed.start = 0;
        }
        let out = (&raw mut (*scratch).path).cast();
        let len = bpf_probe_read_kernel_str(out, CGROUP_PATH_MAX as u32, path);
        if len <= 0 {
            emit::lost(kind::CGROUP);
            return;
        }
        // The helper counts the NUL, and returns at most the size of the buffer.
        let len = (len as usize - 1) & (CGROUP_PATH_MAX - 1);
        (*scratch).fixed.path_len = len as u16;
        (*scratch).fixed.pad = [0; 6];
        emit::output(kind::CGROUP, scratch.cast(), size_of::<Cgroup>() + len);
    }
}
