//! What the kernel's iterators can list: the border between whoever loads them and whoever reads what they write.

use std::io;

/// What there is to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// TCP sockets of the calling thread's network namespace.
    Tcp,
    /// UDP sockets there.
    Udp,
    /// Descriptors of sockets, of every process.
    Files,
}

/// Whoever can list them.
pub trait Lister: Send + Sync {
    /// The records that the kernel side writes (`netwatch_common::Listed`, `Held`), one behind the other.
    ///
    /// # Errors
    /// Where the kernel does not let us.
    fn list(&self, what: Listing) -> io::Result<Vec<u8>>;
}
