//! The processes of an end, by what they are to it, and what there is of each: its row, what was found out about it.

use crate::process::Actor;
use crate::tracker::{End, Party};

/// Something of each process of an end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Roles<T> {
    pub(crate) originator: T,
    pub(crate) process: T,
    pub(crate) listener: T,
    pub(crate) peer: T,
}

impl<'a> Roles<Option<&'a Actor>> {
    /// The processes themselves.
    pub(super) fn of(end: &'a End) -> Self {
        let of_party = |party: Option<&'a Party>| party.and_then(|party| party.process.as_ref());
        Self {
            originator: end.originator.as_ref(),
            process: end.process.as_ref(),
            listener: of_party(end.listener.as_deref()),
            peer: of_party(end.peer.as_ref()),
        }
    }
}

impl<T> Roles<Option<T>> {
    /// Of those that are there.
    pub(super) fn map<U>(self, mut to: impl FnMut(T) -> U) -> Roles<Option<U>> {
        Roles {
            originator: self.originator.map(&mut to),
            process: self.process.map(&mut to),
            listener: self.listener.map(&mut to),
            peer: self.peer.map(to),
        }
    }

    /// The same where it can fail: the first error ends it.
    pub(super) fn try_map<U, E>(self, mut to: impl FnMut(T) -> Result<U, E>) -> Result<Roles<Option<U>>, E> {
        Ok(Roles {
            originator: self.originator.map(&mut to).transpose()?,
            process: self.process.map(&mut to).transpose()?,
            listener: self.listener.map(&mut to).transpose()?,
            peer: self.peer.map(to).transpose()?,
        })
    }

    /// With what `other` has of the same process, which may be nothing.
    pub(super) fn with<U>(self, other: Roles<U>) -> Roles<Option<(T, U)>> {
        Roles {
            originator: self.originator.map(|this| (this, other.originator)),
            process: self.process.map(|this| (this, other.process)),
            listener: self.listener.map(|this| (this, other.listener)),
            peer: self.peer.map(|this| (this, other.peer)),
        }
    }
}
