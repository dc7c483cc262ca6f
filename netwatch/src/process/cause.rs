//! The cause of what a thread did: a connection, and the messages by which it reached the thread.

use std::sync::Arc;

use super::Process;
use crate::limits;
use crate::model::{BootTime, Cookie, Way};

/// The cause of an action. A clone costs little.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// The connection that the thread, or the writer of the first message, had last received from or accepted, if it
    /// had not slept since.
    pub socket: Option<Cookie>,
    /// The messages, the oldest first: each was written because of the one before. A thin pointer, since every endpoint
    /// has a cause.
    messages: Option<Arc<Vec<Message>>>,
}

/// A message that a process wrote to a UNIX socket or a pipe, and that another one read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The process that wrote it, as it was when the message had its effect.
    pub writer: Arc<Process>,
    /// When it was written.
    pub at: BootTime,
    /// What it was written to.
    pub way: Way,
    /// Inode number of the writer's end.
    pub inode: u64,
    /// Name of the UNIX socket, escaped; an abstract one begins with `@`.
    pub path: Option<Arc<str>>,
}

impl Cause {
    /// A cause without messages.
    #[must_use]
    pub fn of_socket(socket: Option<Cookie>) -> Self {
        Self { socket, messages: None }
    }

    /// A cause that came by messages.
    #[must_use]
    pub fn new(socket: Option<Cookie>, messages: Vec<Message>) -> Self {
        let messages: Vec<_> = messages.into_iter().map(Message::shortened).collect();
        let messages = (!messages.is_empty()).then(|| Arc::new(messages));
        Self { socket, messages }
    }

    /// The connection, if the thread itself handled it.
    #[must_use]
    pub fn direct(&self) -> Option<Cookie> {
        self.socket.filter(|_| self.messages.is_none())
    }

    /// Nothing is known.
    #[must_use]
    pub fn is_none(&self) -> bool {
        self.socket.is_none() && self.messages.is_none()
    }

    /// Whether it is the same connection by the same messages, as a child inherits them. The name of a socket is that
    /// between two processes, so the child's cause may lack it.
    #[must_use]
    pub fn is_same(&self, other: &Self) -> bool {
        let what = |message: &Message| (message.writer.key, message.at, message.way, message.inode);
        self.socket == other.socket && self.messages().iter().map(what).eq(other.messages().iter().map(what))
    }

    /// The messages, the oldest first.
    #[must_use]
    pub fn messages(&self) -> &[Message] {
        self.messages.as_ref().map_or(&[], |messages| &messages[..])
    }

    /// How far it reaches: see [`Process::reach`].
    pub(super) fn reach(&self) -> u32 {
        self.messages().iter().map(|message| message.writer.reach()).max().unwrap_or(0)
    }
}

impl Message {
    /// A process holds its parent, and the writers of the messages that caused it, who hold theirs. Where this becomes
    /// too long only the identity of the writer is kept.
    fn shortened(mut self) -> Self {
        if self.writer.reach() >= limits::MOST_ANCESTORS {
            self.writer = Arc::new(Process::bare(self.writer.key, self.writer.comm.clone()));
        }
        self
    }
}
