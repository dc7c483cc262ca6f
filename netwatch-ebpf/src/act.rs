//! What the current task does to a socket: one shape of record for all of it.

use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use netwatch_common::{Begin, Header, Sock};

use crate::{cause, emit, task};

/// Tells it under the header's kind, with the socket as `fill` leaves it. `way` is of [`task::way`], `result` that of
/// a call that failed. `None` where the ring was full, which is counted.
///
/// # Safety
/// `fill` writes every byte of what it is given, which is the ring's memory.
#[inline(always)]
pub(crate) unsafe fn tell(header: Header, way: u32, result: i32, fill: impl FnOnce(&mut Sock)) -> Option<()> {
    let current = task::current();
    let mut entry = emit::reserve::<Begin>(header.kind)?;
    let record = entry.as_mut_ptr();
    // SAFETY: the ring's memory, sized for the record; every byte of it is written.
    unsafe {
        (*record).header = header;
        fill(&mut (*record).sock);
        task::fill(current, bpf_get_current_cgroup_id(), &mut (*record).task);
        (*record).task.flags |= way;
        (*record).result = result;
        (*record).pad = 0;
        (*record).cause = cause::of(current);
    }
    emit::submit(entry);
    Some(())
}
