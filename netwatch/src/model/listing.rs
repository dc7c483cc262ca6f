//! The interface between the room that loads BPF iterators and those that read their output.

use std::io;

/// What to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// TCP sockets of the calling thread's network namespace.
    Tcp,
    /// UDP sockets of the calling thread's network namespace.
    Udp,
    /// Descriptors of sockets, of every process.
    Files,
    /// Every process.
    Tasks,
}

/// Lists by iterators.
pub trait Lister: Send + Sync {
    /// The output of the kernel side: `netwatch_common::Listed`, `Held` or `Running` records, concatenated.
    ///
    /// # Errors
    /// If the kernel refuses.
    fn list(&self, what: Listing) -> io::Result<Vec<u8>>;
}
