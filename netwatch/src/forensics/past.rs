//! The history that a walk reads, and its implementation by a snapshot.

use std::convert::Infallible;
use std::sync::Arc;

use super::{Life, Selector};
use crate::model::{BootTime, Cookie, ProcessKey};
use crate::tracker::EndpointId;

/// A period for which records are missing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Start.
    pub from: BootTime,
    /// End.
    pub to: BootTime,
    /// Number of lost records; 0 if nothing was recorded.
    pub records: u64,
}

/// Recorded history. Every query is within one boot, since cookies and keys are unique only within a boot.
pub trait Past {
    /// Why the history cannot be read.
    type Error;

    /// The newest `most` connections that a selector matches, the newest first, and whether there are more.
    ///
    /// # Errors
    /// If it cannot be read.
    fn select(&self, selector: &Selector, most: usize) -> Result<(Vec<Life>, bool), Self::Error>;

    /// One endpoint.
    ///
    /// # Errors
    /// If it cannot be read.
    fn end(&self, boot: &Arc<str>, id: EndpointId) -> Result<Option<Life>, Self::Error>;

    /// The endpoints of the socket with this cookie; several if it was connected again or has several flows.
    ///
    /// # Errors
    /// If it cannot be read.
    fn of_socket(&self, boot: &Arc<str>, cookie: Cookie) -> Result<Vec<Life>, Self::Error>;

    /// The endpoints that a process had before `at`; the newest ones if there are very many.
    ///
    /// # Errors
    /// If it cannot be read.
    fn of_process(&self, boot: &Arc<str>, key: ProcessKey, at: BootTime) -> Result<Vec<Life>, Self::Error>;

    /// When recording began in this boot; `None` if nothing was recorded.
    ///
    /// # Errors
    /// If it cannot be read.
    fn began(&self, boot: &Arc<str>) -> Result<Option<BootTime>, Self::Error>;

    /// Gaps between two times.
    ///
    /// # Errors
    /// If it cannot be read.
    fn gaps(&self, boot: &Arc<str>, from: BootTime, to: BootTime) -> Result<Vec<Gap>, Self::Error>;
}

/// A history made of one snapshot of the host.
#[derive(Clone, Debug, Default)]
pub struct LiveHistory {
    /// Sorted by start.
    pub lives: Vec<Life>,
    /// When the snapshot was taken.
    pub began: BootTime,
    /// Gaps.
    pub gaps: Vec<Gap>,
}

impl LiveHistory {
    fn all(&self, is: impl Fn(&Life) -> bool) -> Vec<Life> {
        self.lives.iter().filter(|life| is(life)).cloned().collect()
    }
}

impl Past for LiveHistory {
    type Error = Infallible;

    fn select(&self, selector: &Selector, most: usize) -> Result<(Vec<Life>, bool), Infallible> {
        let mut found = self.all(|life| selector.means(life));
        found.reverse();
        let more = found.len() > most;
        found.truncate(most);
        Ok((found, more))
    }

    fn end(&self, _: &Arc<str>, id: EndpointId) -> Result<Option<Life>, Infallible> {
        Ok(self.lives.iter().find(|life| life.id() == id).cloned())
    }

    fn of_socket(&self, _: &Arc<str>, cookie: Cookie) -> Result<Vec<Life>, Infallible> {
        Ok(self.all(|life| life.end().cookie == Some(cookie)))
    }

    fn of_process(&self, _: &Arc<str>, key: ProcessKey, _: BootTime) -> Result<Vec<Life>, Infallible> {
        Ok(self.all(|life| life.used_by(key).is_some()))
    }

    fn began(&self, _: &Arc<str>) -> Result<Option<BootTime>, Infallible> {
        Ok(Some(self.began))
    }

    fn gaps(&self, _: &Arc<str>, from: BootTime, to: BootTime) -> Result<Vec<Gap>, Infallible> {
        Ok(self.gaps.iter().filter(|gap| gap.from <= to && gap.to >= from).cloned().collect())
    }
}
