//! Records about messages over UNIX sockets and pipes.

use std::mem::offset_of;
use std::sync::Arc;

use netwatch_common::{Cause, MESSAGES_MAX, Message as Wire, Pair, UNIX_NAME_MAX, message_flags};

use super::{Bytes, DecodeError};
use crate::escape;
use crate::model::{BootTime, ProcessKey, Way};

/// A message that somebody acted upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// The process that wrote it.
    pub writer: ProcessKey,
    /// When.
    pub at: BootTime,
    /// What it was written to.
    pub way: Way,
    /// Inode number of the writer's end.
    pub inode: u64,
}

/// The messages by which the cause in the record with the same time reached its thread, the oldest first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Messages {
    /// The thread; for a fork, the child.
    pub tid: u32,
    /// At least one.
    pub messages: Vec<Message>,
}

/// Two processes between which a message went over a UNIX socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairEvent {
    /// The process that wrote.
    pub writer: ProcessKey,
    /// The process that read.
    pub reader: ProcessKey,
    /// Name of the socket, escaped; an abstract one begins with `@`. `None` if it has none.
    pub path: Option<Arc<str>>,
}

pub(super) fn messages(bytes: Bytes<'_>) -> Result<Messages, DecodeError> {
    let count = bytes.u32(offset_of!(Cause, count))? as usize;
    let message = |nth: usize| {
        let at = offset_of!(Cause, messages) + nth * size_of::<Wire>();
        let tgid = bytes.u32(at + offset_of!(Wire, tgid))?;
        let flags = bytes.u32(at + offset_of!(Wire, flags))?;
        Ok(Message {
            writer: ProcessKey::new(tgid, bytes.time(at + offset_of!(Wire, start))?),
            at: bytes.time(at + offset_of!(Wire, at))?,
            way: if flags & message_flags::PIPE != 0 { Way::Pipe } else { Way::Unix },
            inode: bytes.u64(at + offset_of!(Wire, inode))?,
        })
    };
    let messages = (0..count.min(MESSAGES_MAX)).map(message).collect::<Result<_, _>>()?;
    Ok(Messages { tid: bytes.u32(offset_of!(Cause, tid))?, messages })
}

pub(super) fn pair(bytes: Bytes<'_>) -> Result<PairEvent, DecodeError> {
    let key = |tgid: usize, start: usize| Ok(ProcessKey::new(bytes.u32(tgid)?, bytes.time(start)?));
    let len = bytes.u32(offset_of!(Pair, len))? as usize;
    let name: [u8; UNIX_NAME_MAX] = bytes.array(offset_of!(Pair, name))?;
    Ok(PairEvent {
        writer: key(offset_of!(Pair, writer), offset_of!(Pair, writer_start))?,
        reader: key(offset_of!(Pair, reader), offset_of!(Pair, reader_start))?,
        path: path(name.get(..len).unwrap_or_default()),
    })
}

/// As in `/proc/net/unix`: a path ends at its NUL; an abstract name begins with one, which is written as `@`
/// (net/unix/af_unix.c, unix_seq_show(), v6.12), and may contain others.
fn path(name: &[u8]) -> Option<Arc<str>> {
    let text = match name {
        [] | [0] => return None,
        [0, rest @ ..] => [b"@", rest].concat(),
        path => path.split(|byte| *byte == 0).next().unwrap_or_default().to_vec(),
    };
    Some(escape::utf8(&text).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_unix_sockets() {
        for (name, written) in [
            (&b""[..], None),
            (b"\0", None),
            (b"/run/php.sock\0", Some("/run/php.sock")),
            (b"/run/php.sock", Some("/run/php.sock")),
            (b"/run/a\0garbage", Some("/run/a")),
            (b"\0abstract", Some("@abstract")),
            (b"\0a\0b\x1b[2J", Some("@a\0b\x1b[2J")),
            (b"/run/\xff", Some(r"/run/\xff")),
        ] {
            assert_eq!(path(name).as_deref(), written, "{name:?}");
        }
    }
}
