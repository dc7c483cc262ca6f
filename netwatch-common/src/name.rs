//! Records about names of hosts.

use crate::Header;

/// Space for the bytes of most answers: without EDNS a DNS message has at most 512 bytes (RFC 1035, section 4.2.1).
pub const NAME_BYTES: usize = 512;

/// Space for the longest that is looked at. Both are powers of two.
pub const NAME_BYTES_MAX: usize = 2048;

/// Number of DNS questions whose answers are waited for; the oldest are forgotten.
pub const ASKED_MAX: usize = 8192;

/// Bytes in which a host is named. `N`: [`NAME_BYTES`] or [`NAME_BYTES_MAX`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Name<const N: usize> {
    /// [`kind::NAME`](crate::kind::NAME).
    pub header: Header,
    /// Cookie of the socket.
    pub cookie: u64,
    /// Network namespace of the socket: inode number.
    pub netns: u32,
    /// One of [`name_source`].
    pub source: u16,
    /// Number of bytes, less than `N`.
    pub len: u16,
    /// The bytes; those after the first `len` mean nothing.
    pub bytes: [u8; N],
}

const _: () =
    assert!(size_of::<Name<NAME_BYTES>>() == 32 + NAME_BYTES && align_of::<Name<NAME_BYTES>>() == 8);

/// A network namespace has the number of an older one, which is gone, or of one that nothing was seen of for long.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Netns {
    /// [`kind::NETNS`](crate::kind::NETNS).
    pub header: Header,
    /// Its inode number.
    pub inum: u32,
    /// Zero.
    pub pad: u32,
}

const _: () = assert!(size_of::<Netns>() == 24 && align_of::<Netns>() == 8);

/// Number of network namespaces that are recognised; the least recently used are forgotten.
pub const NETNS_MAX: usize = 4096;

/// What the bytes of [`Name`] are.
pub mod name_source {
    /// The answer to a DNS question that the same socket had sent to the same server.
    pub const DNS_ANSWER: u16 = 1;
    /// The beginning of what a TCP socket sent: a TLS ClientHello.
    pub const HELLO_SENT: u16 = 2;
    /// The same, received.
    pub const HELLO_RECEIVED: u16 = 3;
}
