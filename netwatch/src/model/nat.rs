//! Address translation of a connection.

use std::sync::Arc;

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::{Proto, SockAddr};

/// What the connection tracking table has about a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Nat {
    /// It could not be asked, or was not yet.
    #[default]
    Unknown,
    /// Both endpoints see the same addresses.
    None,
    /// Addresses were translated on the way.
    Translated(Arc<Translation>),
}

impl Nat {
    /// How a translation is known.
    pub const BASIS: &'static str = "conntrack";

    /// From the addresses of an endpoint as the other side sees them.
    #[must_use]
    pub fn of(own: Tuple, seen: Tuple) -> Self {
        if own == seen {
            Self::None
        } else {
            Self::Translated(Arc::new(Translation { local: seen.source, remote: seen.destination }))
        }
    }

    /// The addresses of an endpoint, `local` and `remote`, as the other one sees them.
    #[must_use]
    pub fn seen(&self, local: SockAddr, remote: SockAddr) -> (SockAddr, SockAddr) {
        self.translation().map_or((local, remote), |seen| (seen.local, seen.remote))
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_unknown(&self) -> bool {
        *self == Self::Unknown
    }

    /// The translation, if there is one.
    #[must_use]
    pub fn translation(&self) -> Option<&Translation> {
        match self {
            Self::Translated(translation) => Some(translation),
            Self::Unknown | Self::None => None,
        }
    }
}

/// `{local, remote, basis}`, or null.
impl Serialize for Nat {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Some(Translation { local, remote }) = self.translation() else {
            return serializer.serialize_none();
        };
        let mut object = serializer.serialize_struct("Nat", 3)?;
        object.serialize_field("local", local)?;
        object.serialize_field("remote", remote)?;
        object.serialize_field("basis", Self::BASIS)?;
        object.end()
    }
}

/// The addresses of an endpoint as the other side sees them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Translation {
    /// Of this endpoint.
    pub local: SockAddr,
    /// Of the other one.
    pub remote: SockAddr,
}

/// Addresses of the packets of one direction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Tuple {
    /// Transport.
    pub proto: Proto,
    /// Where they come from.
    pub source: SockAddr,
    /// Where they go.
    pub destination: SockAddr,
}

impl Tuple {
    /// Of the packets of the other direction.
    #[must_use]
    pub const fn reversed(self) -> Self {
        Self { proto: self.proto, source: self.destination, destination: self.source }
    }

    /// Whether they stay in their network namespace.
    #[must_use]
    pub fn is_loopback(&self) -> bool {
        self.source.ip.is_loopback() || self.destination.ip.is_loopback()
    }
}
