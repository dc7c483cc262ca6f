//! Identifiers. 0, by which the kernel means "none" or "not known", is `None` from the decoder on.

use std::fmt;
use std::num::NonZeroU64;

use serde::Serialize;

/// A number other than 0, so that an `Option` of it has the same size.
macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name(NonZeroU64);

        const _: () = assert!(size_of::<Option<$name>>() == size_of::<u64>());

        impl $name {
            /// From the kernel's number; `None` for 0.
            #[must_use]
            pub const fn new(number: u64) -> Option<Self> {
                match NonZeroU64::new(number) {
                    Some(number) => Some(Self(number)),
                    None => None,
                }
            }

            /// The number.
            #[must_use]
            pub const fn get(self) -> u64 {
                self.0.get()
            }

            /// The number in output: 0 for none.
            #[must_use]
            pub const fn number(id: Option<Self>) -> u64 {
                match id {
                    Some(id) => id.get(),
                    None => 0,
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }
    };
}

id! {
    /// A socket cookie, unique until the next boot. A socket has none until it is first requested from the kernel.
    Cookie
}

id! {
    /// A control group in the unified hierarchy.
    CgroupId
}

/// Network namespace, by the inode number that `/proc/PID/ns/net` shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct NetnsId(u32);

impl NetnsId {
    /// From the inode number.
    #[must_use]
    pub const fn new(inode: u32) -> Self {
        Self(inode)
    }

    /// The inode number.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Display for NetnsId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
