//! Records about the cause of what a thread does.

use crate::Header;

/// Maximum number of messages by which a cause is followed from thread to thread.
pub const MESSAGES_MAX: usize = 4;

/// A message that a process wrote to a UNIX socket or a pipe, and that the reader acted upon.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// When it was written, in nanoseconds since boot.
    pub at: u64,
    /// Start of the process that wrote it, in nanoseconds since boot.
    pub start: u64,
    /// Inode number of the writer's end.
    pub inode: u64,
    /// Thread group that wrote it.
    pub tgid: u32,
    /// [`message_flags`].
    pub flags: u32,
}

const _: () = assert!(size_of::<Message>() == 32 && align_of::<Message>() == 8);

/// Bits of [`Message::flags`].
pub mod message_flags {
    /// A pipe or FIFO; otherwise a UNIX socket.
    pub const PIPE: u32 = 1;
}

/// The messages by which the cause in the next record reached the thread. Sent before a [`Fork`](crate::Fork) or a
/// [`Begin`](crate::Begin) that says how many there are. The time in the header is that of the other record.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// [`kind::CAUSE`](crate::kind::CAUSE).
    pub header: Header,
    /// The thread that acted, or the child of a fork.
    pub tid: u32,
    /// Number of messages.
    pub count: u32,
    /// The messages, the oldest first.
    pub messages: [Message; MESSAGES_MAX],
}

const _: () = assert!(size_of::<Cause>() == 24 + 32 * MESSAGES_MAX && align_of::<Cause>() == 8);

/// Space for the name of a UNIX socket, whose maximum is 108 bytes (`sockaddr_un.sun_path`). A power of two.
pub const UNIX_NAME_MAX: usize = 128;

/// A process read a message from a UNIX socket for the first time from this writer. Sent once for two processes, so
/// that a [`Message`] between the two can be described.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pair {
    /// [`kind::PAIR`](crate::kind::PAIR).
    pub header: Header,
    /// Start of the process that wrote, in nanoseconds since boot.
    pub writer_start: u64,
    /// Start of the process that read, in nanoseconds since boot.
    pub reader_start: u64,
    /// Thread group that wrote.
    pub writer: u32,
    /// Thread group that read.
    pub reader: u32,
    /// Length of the name in bytes; 0 if neither end has one.
    pub len: u32,
    /// Zero.
    pub pad: u32,
    /// The name of the bound end. The first byte of an abstract name is NUL.
    pub name: [u8; UNIX_NAME_MAX],
}

const _: () = assert!(size_of::<Pair>() == 176 && align_of::<Pair>() == 8);

impl Default for Pair {
    fn default() -> Self {
        Self {
            header: Header::default(),
            writer_start: 0,
            reader_start: 0,
            writer: 0,
            reader: 0,
            len: 0,
            pad: 0,
            name: [0; UNIX_NAME_MAX],
        }
    }
}
