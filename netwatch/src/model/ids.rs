//! Numbers that name things. Where the kernel says 0 for "none" or "not known", that is `None` from the decoder on.

use std::fmt;
use std::num::NonZeroU64;

/// A socket's cookie: unique for the host's uptime. A socket has none before somebody asks the kernel for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cookie(NonZeroU64);

const _: () = assert!(size_of::<Option<Cookie>>() == size_of::<u64>());

impl Cookie {
    /// As the kernel spells it; `None` of 0.
    #[must_use]
    pub const fn new(cookie: u64) -> Option<Self> {
        match NonZeroU64::new(cookie) {
            Some(cookie) => Some(Self(cookie)),
            None => None,
        }
    }

    /// The number.
    #[must_use]
    pub const fn get(self) -> u64 {
        self.0.get()
    }

    /// The number as it is printed: 0 for none.
    #[must_use]
    pub const fn number(cookie: Option<Self>) -> u64 {
        match cookie {
            Some(cookie) => cookie.get(),
            None => 0,
        }
    }
}

impl fmt::Display for Cookie {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
