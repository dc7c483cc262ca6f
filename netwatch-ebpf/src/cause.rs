//! The cause of what a thread does: the connection from which it last received or which it accepted, as long as it has
//! not slept since. A fork or a connect() before the next sleep is attributed to that. After a sleep it may have been
//! woken by something else, such as a timer, and there is no cause. A new thread inherits the cause.
//!
//! A thread that asks somebody else sleeps until the answer comes. So its cause is noted where the question is sent, and
//! the answer restores it: see `notes.rs`. Over UNIX sockets and pipes a cause goes on to the process that reads.

use core::ffi::c_void;

use aya_ebpf::btf_maps::LruHashMap;
use aya_ebpf::macros::btf_map;
use netwatch_common::{Cause as Record, Header, MESSAGES_MAX, Message, kind};

use crate::emit;
use crate::mem::{Current, Memory as _, offset};
use crate::task;

/// A cause.
#[repr(C)]
#[derive(Clone, Copy)]
pub(crate) struct Cause {
    /// Cookie of the connection; 0 if the first message was sent without a known cause.
    pub(crate) cookie: u64,
    /// Number of messages by which it came from the process that handled the connection.
    pub(crate) count: u64,
    /// Those messages, the oldest first.
    pub(crate) messages: [Message; MESSAGES_MAX],
}

#[repr(C)]
#[derive(Clone, Copy)]
struct About {
    /// Start of the thread, since thread ids are reused.
    start: u64,
    /// Number of its sleeps at that time (`task_struct.nvcsw`, voluntary context switches).
    slept: u64,
    /// 1 if it accepted the socket itself and a record was sent, otherwise 0.
    accepted: u64,
    cause: Cause,
}

const NO_MESSAGE: Message = Message { at: 0, start: 0, inode: 0, tgid: 0, flags: 0 };

/// No cause.
pub(crate) const NONE: Cause = Cause { cookie: 0, count: 0, messages: [NO_MESSAGE; MESSAGES_MAX] };

static NO_ENTRY: About = About { start: 0, slept: 0, accepted: 0, cause: NONE };

/// By thread id. A thread whose entry was evicted has no cause.
#[btf_map]
static ABOUT: LruHashMap<u32, About, 16384> = LruHashMap::new();

/// The current thread has received from a socket.
#[inline(always)]
pub(crate) fn got(cookie: u64) {
    if cookie != 0 {
        note(task::current(), cookie, 0);
    }
}

/// The current thread has accepted a socket, and a record about that is sent.
#[inline(always)]
pub(crate) fn accepted(cookie: u64) {
    if cookie != 0 {
        note(task::current(), cookie, 1);
    }
}

/// The current thread has received something that says nothing about the cause of what it does next.
#[inline(always)]
pub(crate) fn got_something() {
    if let Some(about) = ABOUT.get_ptr_mut(tid(task::current())) {
        // SAFETY: the entry of this thread.
        unsafe {
            (*about).cause.cookie = 0;
            (*about).cause.count = 0;
        }
    }
}

/// The current thread acts upon this cause again, or upon a message that carries it.
///
/// # Safety
/// `cause` is memory of a map.
#[inline(always)]
pub(crate) unsafe fn adopt(cause: *const Cause) {
    // SAFETY: guaranteed by the caller.
    unsafe { inherit(cause, task::current()) };
}

/// Whether the last thing that a thread did was to accept this socket. False for an inherited cause.
#[inline(always)]
pub(crate) fn has_accepted(thread: *const c_void, cookie: u64) -> bool {
    // SAFETY: a task of a tracepoint, or the current one; the entry is copied.
    unsafe {
        match ABOUT.get_ptr(tid(thread)) {
            Some(about) => {
                (*about).accepted != 0
                    && (*about).cause.cookie == cookie
                    && (*about).cause.count == 0
                    && (*about).start == start(thread)
            }
            None => false,
        }
    }
}

/// A thread with a cause has created another thread.
///
/// # Safety
/// `cause` is memory of a map.
#[inline(always)]
pub(crate) unsafe fn inherit(cause: *const Cause, child: *const c_void) {
    let Some(about) = begin(child, 0) else { return };
    // SAFETY: the entry of the thread, and a cause of the caller.
    unsafe { copy(cause, &raw mut (*about).cause) };
}

/// Copies a cause. Messages beyond the count are copied as well: the number of bytes is constant.
///
/// # Safety
/// Both are memory of a map.
#[inline(always)]
pub(crate) unsafe fn copy(from: *const Cause, to: *mut Cause) {
    // SAFETY: guaranteed by the caller. Word by word: the compiler would call memcpy().
    unsafe {
        for word in 0..size_of::<Cause>() / size_of::<u64>() {
            to.cast::<u64>().add(word).write_volatile(from.cast::<u64>().add(word).read_volatile());
        }
    }
}

#[inline(always)]
fn note(thread: *const c_void, cookie: u64, accepted: u64) {
    let Some(about) = begin(thread, accepted) else { return };
    // SAFETY: the entry of the thread.
    unsafe {
        (*about).cause.cookie = cookie;
        (*about).cause.count = 0;
    }
}

/// The entry of a thread, created if there is none, for a cause that holds from now until it sleeps. `accepted`: see
/// [`About::accepted`].
#[inline(always)]
fn begin(thread: *const c_void, accepted: u64) -> Option<*mut About> {
    let tid = tid(thread);
    let about = match ABOUT.get_ptr_mut(tid) {
        Some(about) => about,
        None => {
            // On failure the thread has no cause.
            let _ = ABOUT.insert(tid, &NO_ENTRY, 0);
            ABOUT.get_ptr_mut(tid)?
        }
    };
    // SAFETY: only programs in the context of the thread or of its creator write its entry.
    unsafe {
        (*about).start = start(thread);
        (*about).slept = slept(thread);
        (*about).accepted = accepted;
    }
    Some(about)
}

/// The cause of a thread, in the memory of a map.
#[inline(always)]
pub(crate) fn of(thread: *const c_void) -> Option<*const Cause> {
    let about = ABOUT.get_ptr(tid(thread))?;
    // SAFETY: the entry, which only programs in the context of this thread write.
    unsafe {
        let holds = (*about).start == start(thread) && (*about).slept == slept(thread);
        let is_some = (*about).cause.cookie != 0 || (*about).cause.count != 0;
        (holds && is_some).then_some(&raw const (*about).cause)
    }
}

/// Sends the messages of a cause, before the record with this header that has the rest. `tid`: see [`Record::tid`].
/// Returns their number.
///
/// # Safety
/// `cause` is memory of a map.
#[inline(always)]
pub(crate) unsafe fn report(cause: Option<*const Cause>, header: Header, tid: u32) -> u32 {
    let Some(cause) = cause else { return 0 };
    // SAFETY: guaranteed by the caller; every byte of the record is written.
    unsafe {
        let count = (*cause).count as u32;
        if count == 0 {
            return 0;
        }
        if let Some(mut entry) = emit::reserve::<Record>(kind::CAUSE) {
            let record = entry.as_mut_ptr();
            (*record).header = Header { kind: kind::CAUSE, ..header };
            (*record).tid = tid;
            (*record).count = count;
            for nth in 0..MESSAGES_MAX {
                (*record).messages[nth] = (*cause).messages[nth];
            }
            emit::submit(entry);
        }
        count
    }
}

/// The cookie of a cause; 0 for none.
///
/// # Safety
/// `cause` is memory of a map.
#[inline(always)]
pub(crate) unsafe fn cookie(cause: Option<*const Cause>) -> u64 {
    // SAFETY: guaranteed by the caller.
    cause.map_or(0, |cause| unsafe { (*cause).cookie })
}

/// Whether two causes are the same: the same connection by the same last message.
///
/// # Safety
/// Both are memory of a map.
#[inline(always)]
pub(crate) unsafe fn same(one: *const Cause, other: *const Cause) -> bool {
    // SAFETY: guaranteed by the caller.
    unsafe {
        (*one).cookie == (*other).cookie
            && (*one).count == (*other).count
            && ((*one).count == 0 || last(one).at == last(other).at)
    }
}

/// The last message of a cause that has any.
///
/// # Safety
/// `cause` is memory of a map.
#[inline(always)]
pub(crate) unsafe fn last(cause: *const Cause) -> Message {
    // SAFETY: guaranteed by the caller.
    unsafe { from_end(cause, 1) }
}

/// The message at this place from the end, where 1 is the last one, of a cause that has as many.
///
/// # Safety
/// `cause` is memory of a map.
#[inline(always)]
pub(crate) unsafe fn from_end(cause: *const Cause, place: u64) -> Message {
    // SAFETY: guaranteed by the caller.
    unsafe { message(cause.cast_mut(), (*cause).count.wrapping_sub(place)).read_volatile() }
}

/// The place of a message. The mask bounds the index in a form that the compiler keeps and the verifier understands.
///
/// # Safety
/// `cause` is memory of a map.
#[inline(always)]
pub(crate) unsafe fn message(cause: *mut Cause, nth: u64) -> *mut Message {
    let nth = core::hint::black_box(nth) & (MESSAGES_MAX as u64 - 1);
    // SAFETY: guaranteed by the caller.
    unsafe { (&raw mut (*cause).messages).cast::<Message>().add(nth as usize) }
}

#[inline(always)]
fn tid(thread: *const c_void) -> u32 {
    // SAFETY: a task of a tracepoint, or the current one.
    unsafe { task::tid(thread) }
}

#[inline(always)]
unsafe fn start(thread: *const c_void) -> u64 {
    // SAFETY: guaranteed by the caller.
    unsafe { Current::read(thread, offset!(task_start)) }
}

#[inline(always)]
unsafe fn slept(thread: *const c_void) -> u64 {
    // SAFETY: guaranteed by the caller.
    unsafe { Current::read(thread, offset!(task_slept)) }
}
