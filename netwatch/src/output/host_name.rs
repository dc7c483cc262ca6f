//! The name of a host in JSON.

use serde::ser::SerializeStruct as _;
use serde::{Serialize, Serializer};

use super::AncestorView;
use super::keys::{HostName as Keys, Key as _};
use crate::model::BootTime;
use crate::names::{HostName, NameBasis};

/// A name with the keys of [`Keys`].
#[derive(Clone, Copy, Debug)]
pub struct HostNameView<'a> {
    name: &'a HostName,
    age_ms: Option<u64>,
}

impl<'a> HostNameView<'a> {
    /// `began`: when the connection did.
    #[must_use]
    pub fn new(name: &'a HostName, began: BootTime) -> Self {
        let is_answer = name.basis == NameBasis::DnsAnswer;
        Self { name, age_ms: is_answer.then(|| began.saturating_sub(name.at) / 1_000_000) }
    }
}

impl Serialize for HostNameView<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self { name, age_ms } = self;
        let mut object = serializer.serialize_struct("HostName", 5)?;
        object.serialize_field(Keys::Name.name(), &*name.name)?;
        object.serialize_field(Keys::Basis.name(), name.basis.name())?;
        object.serialize_field(Keys::AskedBy.name(), &name.asked_by.as_deref().map(AncestorView::of))?;
        object.serialize_field(Keys::AgeMs.name(), age_ms)?;
        object.serialize_field(Keys::Candidates.name(), &name.candidates)?;
        object.end()
    }
}
