//! Sends records about an action of the current task on a socket.

use aya_ebpf::helpers::generated::bpf_get_current_cgroup_id;
use netwatch_common::{Begin, Header, Sock, begin_flags, kind};

use crate::{cause, emit, task};

/// Sends a [`Begin`] with the kind of the header; `fill` writes the socket. `way`: see [`task::way`]; `result`: of a
/// failed call; `flags`: see [`netwatch_common::begin_flags`]. `None` if the ring was full, which is counted.
///
/// # Safety
/// `fill` writes every byte of its argument, which is memory of the ring.
#[inline(always)]
pub(crate) unsafe fn report(
    header: Header,
    way: u32,
    result: i32,
    flags: u32,
    fill: impl FnOnce(&mut Sock),
) -> Option<()> {
    let current = task::current();
    let cause = cause::of(current);
    let begins =
        matches!(header.kind, kind::CONNECT | kind::FAIL) || flags & begin_flags::FIRST_DATAGRAM != 0;
    // SAFETY: memory of a map, and the current task.
    let messages = if begins { unsafe { cause::report(cause, header, task::tid(current)) } } else { 0 };
    let mut entry = emit::reserve::<Begin>(header.kind)?;
    let record = entry.as_mut_ptr();
    // SAFETY: memory of the ring with the size of the record; every byte is written.
    unsafe {
        (*record).header = header;
        fill(&mut (*record).sock);
        task::fill(current, bpf_get_current_cgroup_id(), &mut (*record).task);
        (*record).task.flags |= way;
        (*record).result = result;
        (*record).flags = if messages == 0 { flags } else { flags | begin_flags::BY_MESSAGE };
        (*record).cause = cause::cookie(cause);
    }
    emit::submit(entry);
    Some(())
}
