//! Messages over UNIX sockets: the cause of the writer goes on to the reader.
//!
//! The entries of `unix_stream_sendmsg` and `unix_dgram_sendmsg` (net/unix/af_unix.c; the latter also for SOCK_SEQPACKET)
//! note on the other end who writes, and with which cause, before the message is there. Where functions cannot be probed,
//! `tp_btf/sock_send_length` notes it when the call returns; a reader that was faster finds no cause. The exits of
//! `unix_*_recvmsg`, or `tp_btf/sock_recv_length`, make it the cause of the reader.
//!
//! Only connected sockets are followed. Many may write to an unconnected datagram socket, such as that of a log daemon.

use core::ffi::c_void;

use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::helpers::bpf_ktime_get_boot_ns;
use aya_ebpf::helpers::generated::{bpf_probe_read_kernel, bpf_skc_to_unix_sock};
use aya_ebpf::macros::{btf_map, btf_tracepoint, fentry, fexit};
use aya_ebpf::programs::{BtfTracePointContext, FEntryContext, FExitContext};
use netwatch_common::{MESSAGES_MAX, Message, Offsets, Pair, UNIX_NAME_MAX, kind};

use crate::budget::Budget;
use crate::cause::{self, Cause};
use crate::mem::{Memory as _, Typed, Untyped, knob, offset};
use crate::notes::{self, Note, state};
use crate::{emit, sock, task};

/// `include/linux/socket.h`
pub(crate) const AF_UNIX: u16 = 1;

/// Number of [`Pair`] records that are sent in advance, and how many more each second.
const MOST_PAIRS: u32 = 256;
const REFILL: u32 = 32;

/// The processes that wrote to each other, by hash, so that a [`Pair`] is sent once.
#[btf_map]
static PAIRS: LruHashMap<u64, u64, 8192> = LruHashMap::new();

/// Two CPUs that take from it at once may take one for two.
static mut BUDGET: Budget = Budget::WHOLE;

#[fentry(function = "unix_stream_sendmsg")]
fn unix_stream_sendmsg(ctx: FEntryContext) -> i32 {
    writes(socket_of(ctx.arg(0)), false)
}

#[fentry(function = "unix_dgram_sendmsg")]
fn unix_dgram_sendmsg(ctx: FEntryContext) -> i32 {
    writes(socket_of(ctx.arg(0)), false)
}

/// Index of the return value, after the four arguments of the receiving functions.
const RECEIVED: usize = 4;

#[fexit(function = "unix_stream_recvmsg")]
fn unix_stream_recvmsg(ctx: FExitContext) -> i32 {
    reads(socket_of(ctx.arg(0)), ctx.arg(RECEIVED))
}

#[fexit(function = "unix_dgram_recvmsg")]
fn unix_dgram_recvmsg(ctx: FExitContext) -> i32 {
    reads(socket_of(ctx.arg(0)), ctx.arg(RECEIVED))
}

#[fexit(function = "unix_seqpacket_recvmsg")]
fn unix_seqpacket_recvmsg(ctx: FExitContext) -> i32 {
    reads(socket_of(ctx.arg(0)), ctx.arg(RECEIVED))
}

#[btf_tracepoint(function = "sock_send_length")]
fn unix_send_length(ctx: BtfTracePointContext) -> i32 {
    let length: i32 = ctx.arg(1);
    if length > 0 { writes(ctx.arg(0), true) } else { 0 }
}

#[btf_tracepoint(function = "sock_recv_length")]
fn unix_recv_length(ctx: BtfTracePointContext) -> i32 {
    reads(ctx.arg(0), ctx.arg(1))
}

/// The `struct sock` of the first argument.
#[inline(always)]
fn socket_of(socket: *const c_void) -> *const c_void {
    // SAFETY: a typed argument of the probed function.
    unsafe { sock::of_socket(socket) }
}

/// `after`: the call has returned, and the message may have been read already.
#[inline(always)]
fn writes(sk: *const c_void, after: bool) -> i32 {
    if sk.is_null() {
        return 0;
    }
    // SAFETY: a typed `struct sock` of the probe.
    unsafe {
        if Typed::read::<u16>(sk, offset!(sk_family)) == AF_UNIX && offset!(unix_peer) != Offsets::MISSING {
            written(sk, after);
        }
    }
    0
}

/// # Safety
/// `sk` is a typed `struct sock` of a UNIX socket.
#[inline(always)]
unsafe fn written(sk: *const c_void, after: bool) -> Option<()> {
    // SAFETY: guaranteed by the caller; notes and causes are memory of maps.
    unsafe {
        let cause = cause::of(task::current());
        if let Some(note) = note_at(sk, cause.is_some()) {
            (*note).asked = cause.is_some().into();
        }
        let at_peer = note_at_peer(sk)?;
        if after && Untyped::read::<u32>(Untyped::read(sk, offset!(unix_peer)), offset!(sk_queue)) == 0 {
            return None;
        }
        write(at_peer, cause, sock::inode(sk), 0);
    }
    Some(())
}

/// The note on the own end of a socket, where [`note_at_peer`] of the other end leaves it.
#[inline(always)]
fn note_at(sk: *const c_void, create: bool) -> Option<*mut Note> {
    if knob!(unix_helper) { notes::on(sk, create) } else { notes::by_address(sk as u64, create) }
}

/// The note on the other end of a connected socket; created if there is none.
///
/// # Safety
/// `sk` is a typed `struct sock` of a UNIX socket.
#[inline(always)]
unsafe fn note_at_peer(sk: *const c_void) -> Option<*mut Note> {
    // SAFETY: guaranteed by the caller.
    unsafe {
        if !knob!(unix_helper) {
            let peer: u64 = Untyped::read(sk, offset!(unix_peer));
            return if peer == 0 { None } else { notes::by_address(peer, true) };
        }
        let unix = bpf_skc_to_unix_sock(sk.cast_mut().cast()).cast_const().cast::<c_void>();
        if unix.is_null() {
            return None;
        }
        let peer: *const c_void = Typed::read(unix, offset!(unix_peer));
        if peer.is_null() { None } else { notes::on(peer, true) }
    }
}

/// Notes that the current process writes with this cause to a UNIX socket or a pipe. `inode`: of its end; `flags`: see
/// [`Message::flags`].
///
/// # Safety
/// `note` and `cause` are memory of maps.
#[inline(always)]
pub(crate) unsafe fn write(note: *mut Note, cause: Option<*const Cause>, inode: u64, flags: u32) {
    let current = task::current();
    // SAFETY: guaranteed by the caller; the current task.
    unsafe {
        let (tgid, start) = (task::tgid(current), task::start(current));
        let (cookie, count) = cause.map_or((0, 0), |cause| ((*cause).cookie, (*cause).count));
        if count >= MESSAGES_MAX as u64 {
            // Too far from the connection.
            return notes::sent_without(note);
        }
        let noted = &raw mut (*note).cause;
        if (*note).state == state::SENT {
            // Not read yet. The same process may write more for the same reason.
            let last = cause::last(noted);
            let same = (*noted).cookie == cookie
                && (*noted).count == count + 1
                && last.tgid == tgid
                && last.start == start
                && (count == 0
                    || cause.is_some_and(|cause| cause::last(cause).at == cause::from_end(noted, 2).at));
            if !same {
                (*note).state = state::MIXED;
            }
            return;
        }
        if (*note).state == state::MIXED {
            return;
        }
        match cause {
            Some(cause) => cause::copy(cause, noted),
            None => (*noted).cookie = 0,
        }
        let message = cause::message(noted, count);
        (*message).at = bpf_ktime_get_boot_ns();
        (*message).start = start;
        (*message).inode = inode;
        (*message).tgid = tgid;
        (*message).flags = flags;
        (*noted).count = count + 1;
        (*note).state = state::SENT;
    }
}

#[inline(always)]
fn reads(sk: *const c_void, length: i32) -> i32 {
    if sk.is_null() || length <= 0 {
        return 0;
    }
    // SAFETY: a typed `struct sock` of the probe.
    unsafe {
        if Typed::read::<u16>(sk, offset!(sk_family)) == AF_UNIX {
            received(sk);
        }
    }
    0
}

/// # Safety
/// `sk` is a typed `struct sock` of a UNIX socket.
#[inline(always)]
unsafe fn received(sk: *const c_void) {
    // SAFETY: guaranteed by the caller; notes are memory of maps.
    unsafe {
        let Some(note) = note_at(sk, false) else { return cause::got_something() };
        let left: u32 = Untyped::read(sk, offset!(sk_queue));
        if let Some(writer) = read(note, left == 0) {
            introduce(sk, &writer);
        }
    }
}

/// The current process has read what is noted; `all`: nothing is left to read. Returns the last writer, unless that is the
/// process itself or not known.
///
/// # Safety
/// `note` is memory of a map.
#[inline(always)]
pub(crate) unsafe fn read(note: *mut Note, all: bool) -> Option<Message> {
    let current = task::current();
    // SAFETY: guaranteed by the caller; the current task.
    unsafe {
        let was = (*note).state;
        if all {
            (*note).state = state::EMPTY;
        }
        if was != state::SENT {
            if was == state::MIXED {
                cause::got_something();
            }
            return None;
        }
        let noted = &raw mut (*note).cause;
        let writer = cause::last(noted);
        let (tgid, start) = (task::tgid(current), task::start(current));
        let is_self = |message: &Message| message.tgid == tgid && message.start == start;
        if is_self(&writer) {
            // To wake another thread. What that takes from memory then may be from anybody.
            return None;
        }
        let alone = (*noted).count == 1 && (*noted).cookie == 0;
        if alone && (*note).asked != 0 {
            // This may be the answer to a question for which the reader had a cause, from a process that has slept.
            return Some(writer);
        }
        // An answer to what this process has sent itself restores the cause that it had then.
        let mut count = (*noted).count;
        for nth in 0..MESSAGES_MAX {
            if (nth as u64) < count && is_self(&(*noted).messages[nth]) {
                count = nth as u64;
            }
        }
        if count == 0 && (*noted).cookie == 0 {
            return Some(writer);
        }
        cause::adopt(noted);
        if let Some(mine) = cause::of(current) {
            (*mine.cast_mut()).count = count;
        }
        Some(writer)
    }
}

/// Tells the agent, once, over which socket two processes speak to each other.
///
/// # Safety
/// `sk` is a typed `struct sock` of a UNIX socket.
#[inline(always)]
unsafe fn introduce(sk: *const c_void, writer: &Message) -> Option<()> {
    let current = task::current();
    // SAFETY: guaranteed by the caller; the current task.
    unsafe {
        let (tgid, start) = (task::tgid(current), task::start(current));
        let key = (u64::from(writer.tgid) << 32 | u64::from(tgid)) ^ writer.start.rotate_left(17) ^ start;
        if PAIRS.get_ptr(key).is_some() {
            return None;
        }
        let mut budget = (&raw const BUDGET).read_volatile();
        if !budget.take(MOST_PAIRS, REFILL) {
            emit::not_followed(kind::PAIR);
            return None;
        }
        (&raw mut BUDGET).write_volatile(budget);
        // If this fails the record is sent again.
        let _ = PAIRS.insert(key, 1, 0);
        let mut entry = emit::reserve::<Pair>(kind::PAIR)?;
        let record = entry.as_mut_ptr();
        (*record).header = emit::header(kind::PAIR);
        (*record).writer_start = writer.start;
        (*record).reader_start = start;
        (*record).writer = writer.tgid;
        (*record).reader = tgid;
        (*record).pad = 0;
        (*record).name = [0; UNIX_NAME_MAX];
        (*record).len = name(sk, (*record).name.as_mut_ptr());
        emit::submit(entry);
    }
    Some(())
}

/// Writes the name of the socket, or else of its other end, to `out`, and returns its length.
///
/// # Safety
/// `sk` is a `struct sock` of a UNIX socket; `out` has [`UNIX_NAME_MAX`] bytes.
#[inline(always)]
unsafe fn name(sk: *const c_void, out: *mut u8) -> u32 {
    /// Of `sun_family`, before the name.
    const FAMILY: u32 = 2;
    // SAFETY: guaranteed by the caller; reads through an invalid pointer give zeros.
    unsafe {
        if offset!(unix_addr) == Offsets::MISSING
            || offset!(unix_addr_len) == Offsets::MISSING
            || offset!(unix_addr_name) == Offsets::MISSING
        {
            return 0;
        }
        let mut address: *const c_void = Untyped::read(sk, offset!(unix_addr));
        if address.is_null() {
            let peer: *const c_void = Untyped::read(sk, offset!(unix_peer));
            address = Untyped::read(peer, offset!(unix_addr));
        }
        let len: u32 = Untyped::read(address, offset!(unix_addr_len));
        let len = len.wrapping_sub(FAMILY);
        if address.is_null() || len as usize >= UNIX_NAME_MAX {
            return 0;
        }
        // In a form that the verifier understands.
        let len = core::hint::black_box(len) & (UNIX_NAME_MAX as u32 - 1);
        let from = address.byte_add((offset!(unix_addr_name) + FAMILY) as usize);
        bpf_probe_read_kernel(out.cast(), len, from);
        len
    }
}
