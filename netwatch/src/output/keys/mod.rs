//! The keys of the JSON events. Each is declared once, with its type and its meaning: the writer takes keys from here,
//! so it cannot write one that is not declared, and the JSON Schema and the reference page in docs/ are generated from
//! the same declarations (see `schema`, which is compiled for tests only).

#[cfg(test)]
mod describe;
mod events;
mod process;

#[cfg(test)]
pub(super) use describe::{CONNECTIONS, Described, EVERY, Is, Null, PROCESS_KEY, SOCKETS};
pub(super) use events::{
    Coverage, Endpoint, Event, HostName, LossOfSocket, Message, Nat, Origin, Party, Rule,
};
pub(super) use process::{Ancestor, Process};

/// The keys of one JSON object.
pub(super) trait Key: Copy {
    /// The key as it is written behind another one: `,"name":`.
    fn with_comma(self) -> &'static str;

    /// The key itself.
    fn name(self) -> &'static str;

    /// Every key, in the order in which they are written.
    #[cfg(test)]
    const ALL: &'static [Described];
}

/// Declares the keys of an object as an enum: the variant, the key, optionally the events that have it (all, unless
/// given), its type, when it is absent or null, and a description.
macro_rules! keys {
    (
        $(#[$meta:meta])*
        $object:ident {
            $($variant:ident $key:literal $(on $on:expr)?, $is:expr, $null:expr, $meaning:literal;)+
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug)]
        pub(in crate::output) enum $object {
            $(#[doc = $meaning] $variant,)+
        }

        impl $crate::output::keys::Key for $object {
            #[inline]
            fn with_comma(self) -> &'static str {
                match self {
                    $(Self::$variant => concat!(",\"", $key, "\":"),)+
                }
            }

            #[inline]
            fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $key,)+
                }
            }

            #[cfg(test)]
            const ALL: &'static [Described] = &[
                $(Described {
                    name: $key,
                    // The last of the two.
                    on: &[$crate::output::keys::describe::EVERY $(, $on)?],
                    is: $is,
                    null: $null,
                    meaning: $meaning,
                },)+
            ];
        }
    };
}
use keys;
