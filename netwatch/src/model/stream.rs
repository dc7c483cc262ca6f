//! Pipes, terminals and UNIX sockets between processes.

/// What one of stdin, stdout and stderr is, if it leads to another process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stream {
    /// Kind of stream.
    pub kind: StreamKind,
    /// Inode number of the pipe or UNIX socket; device number of the terminal as the kernel has it.
    pub id: u64,
    /// The parent has the other end.
    pub at_parent: bool,
}

/// Kind of a [`Stream`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StreamKind {
    /// A pipe or FIFO.
    Pipe,
    /// A pseudoterminal.
    Terminal,
    /// A UNIX socket.
    Unix,
}

impl StreamKind {
    /// In a sentence.
    #[must_use]
    pub const fn phrase(self) -> &'static str {
        match self {
            Self::Pipe => "a pipe",
            Self::Terminal => "a terminal",
            Self::Unix => "a UNIX socket",
        }
    }
}

/// What a message was written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Way {
    /// A UNIX socket.
    Unix,
    /// A pipe or FIFO.
    Pipe,
}

impl Way {
    /// Name in the output and in the store.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Unix => "unix",
            Self::Pipe => "pipe",
        }
    }

    /// The way with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Unix, Self::Pipe].into_iter().find(|way| way.name() == name)
    }
}
