//! Interfaces of a network namespace.

use std::fmt;
use std::num::NonZeroU32;

/// An interface: its index in the network namespace of a socket. Every connection has room for one, so it is one word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Device(NonZeroU32);

impl Device {
    /// Indexes are positive numbers of 31 bits (net/core/dev.c, dev_index_reserve(), v6.12).
    const OF_DATAGRAM: u32 = 1 << 31;

    /// The interface that a socket is bound to; `None` for index 0.
    #[must_use]
    pub fn bound(index: u32) -> Option<Self> {
        NonZeroU32::new(index & !Self::OF_DATAGRAM).map(Self)
    }

    /// The interface of a datagram, to which the socket is not bound.
    #[must_use]
    pub fn of_datagram(index: u32) -> Option<Self> {
        Self::bound(index).map(|Self(index)| Self(index | Self::OF_DATAGRAM))
    }

    /// The index.
    #[must_use]
    pub const fn index(self) -> u32 {
        self.0.get() & !Self::OF_DATAGRAM
    }

    /// Both, as one number.
    #[must_use]
    pub const fn code(self) -> u32 {
        self.0.get()
    }

    /// From [`Self::code`].
    #[must_use]
    pub fn from_code(code: u32) -> Option<Self> {
        Self::bound(code).and(NonZeroU32::new(code)).map(Self)
    }

    /// Whether a socket is bound to it.
    #[must_use]
    pub const fn is_bound(self) -> bool {
        self.0.get() & Self::OF_DATAGRAM == 0
    }
}

/// The name of an interface, which is at most 15 bytes long (`IFNAMSIZ` in include/uapi/linux/if.h), or its index where
/// it has no name any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceName {
    bytes: [u8; 15],
    length: u8,
}

impl DeviceName {
    /// A name; a longer one is cut, which no kernel has.
    #[must_use]
    pub fn new(name: &str) -> Self {
        let mut bytes = [0; 15];
        let end =
            (0..=name.len().min(bytes.len())).rev().find(|end| name.is_char_boundary(*end)).unwrap_or(0);
        for (slot, byte) in bytes.iter_mut().zip(name.as_bytes().iter().take(end)) {
            *slot = *byte;
        }
        Self { bytes, length: u8::try_from(end).unwrap_or(0) }
    }

    /// The index of an interface without a name.
    #[must_use]
    pub fn of_index(index: u32) -> Self {
        Self::new(&index.to_string())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        self.bytes
            .get(..self.length.into())
            .and_then(|name| std::str::from_utf8(name).ok())
            .unwrap_or_default()
    }
}

impl fmt::Display for DeviceName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl serde::Serialize for DeviceName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_indexes() {
        assert_eq!(DeviceName::new("eth0").as_str(), "eth0");
        assert_eq!(DeviceName::new("a-very-long-name-of-a-device").as_str(), "a-very-long-nam");
        // Not in the middle of a character.
        assert_eq!(DeviceName::new("abcdefghijklmn\u{e9}").as_str(), "abcdefghijklmn");
        assert_eq!(DeviceName::of_index(7).as_str(), "7");
        let bound = Device::bound(7).unwrap();
        assert_eq!((bound.index(), bound.is_bound()), (7, true));
        let taken = Device::of_datagram(7).unwrap();
        assert_eq!((taken.index(), taken.is_bound()), (7, false));
        assert_eq!((Device::bound(0), Device::of_datagram(0)), (None, None));
        assert_eq!([bound, taken].map(|device| Device::from_code(device.code())), [Some(bound), Some(taken)]);
        assert_eq!((Device::from_code(0), Device::from_code(1 << 31)), (None, None));
    }
}
