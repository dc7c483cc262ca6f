//! The processes of an endpoint by their roles, and a value for each of them.

/// One value for each process that an endpoint names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Roles<T> {
    /// Of the process that originated the connection.
    pub originator: T,
    /// Of the process on this endpoint.
    pub process: T,
    /// Of the process that called listen().
    pub listener: T,
    /// Of the process on the other endpoint.
    pub peer: T,
}

impl<T> Roles<Option<T>> {
    /// Applies `to` to each value that is there.
    pub fn map<U>(self, mut to: impl FnMut(T) -> U) -> Roles<Option<U>> {
        Roles {
            originator: self.originator.map(&mut to),
            process: self.process.map(&mut to),
            listener: self.listener.map(&mut to),
            peer: self.peer.map(to),
        }
    }

    /// The same where `to` can fail: the first error is returned.
    ///
    /// # Errors
    /// The error of `to`.
    pub fn try_map<U, E>(self, mut to: impl FnMut(T) -> Result<U, E>) -> Result<Roles<Option<U>>, E> {
        Ok(Roles {
            originator: self.originator.map(&mut to).transpose()?,
            process: self.process.map(&mut to).transpose()?,
            listener: self.listener.map(&mut to).transpose()?,
            peer: self.peer.map(to).transpose()?,
        })
    }

    /// Pairs each value with the one of the same role in `other`.
    #[must_use]
    pub fn with<U>(self, other: Roles<U>) -> Roles<Option<(T, U)>> {
        Roles {
            originator: self.originator.map(|this| (this, other.originator)),
            process: self.process.map(|this| (this, other.process)),
            listener: self.listener.map(|this| (this, other.listener)),
            peer: self.peer.map(|this| (this, other.peer)),
        }
    }
}
