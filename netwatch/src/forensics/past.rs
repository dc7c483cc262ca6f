//! What the walk asks of the past, and the past that is a table in memory.

use std::convert::Infallible;
use std::sync::Arc;

use super::{Life, Selector};
use crate::model::{BootTime, Cookie, ProcessKey};
use crate::tracker::EndpointId;

/// Something that is not known of a stretch of time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Gap {
    /// From.
    pub from: BootTime,
    /// To.
    pub to: BootTime,
    /// Records that are missing; 0: nobody recorded.
    pub records: u64,
}

/// What happened, as far as is known. Everything is asked within one boot: cookies and keys begin anew with each.
pub trait Past {
    /// Why it cannot be read.
    type Error;

    /// Connections that a selector means, the newest first, and no more than `most`; and whether there are others.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn select(&self, selector: &Selector, most: usize) -> Result<(Vec<Life>, bool), Self::Error>;

    /// One end.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn end(&self, boot: &Arc<str>, id: EndpointId) -> Result<Option<Life>, Self::Error>;

    /// The ends of the socket with this cookie: several where it was used again, or has several flows.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn of_socket(&self, boot: &Arc<str>, cookie: Cookie) -> Result<Vec<Life>, Self::Error>;

    /// The ends that a process had before `at`; of very many the newest.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn of_process(&self, boot: &Arc<str>, key: ProcessKey, at: BootTime) -> Result<Vec<Life>, Self::Error>;

    /// When recording began in this boot; `None` where nothing was recorded.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn began(&self, boot: &Arc<str>) -> Result<Option<BootTime>, Self::Error>;

    /// Where records are missing between two times.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn gaps(&self, boot: &Arc<str>, from: BootTime, to: BootTime) -> Result<Vec<Gap>, Self::Error>;
}

/// A past that is one look: what is there now.
#[derive(Clone, Debug, Default)]
pub struct LiveHistory {
    /// In the order of their beginning.
    pub lives: Vec<Life>,
    /// When the look was taken.
    pub began: BootTime,
    /// What is missing.
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
