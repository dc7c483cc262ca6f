//! Messages between netwatch and the helper: one packet each.

use std::ffi::OsString;
use std::os::fd::{AsRawFd as _, OwnedFd};

use serde::{Deserialize, Serialize};

use super::files::FileFacts;

/// Longest packet: a path has at most 4096 bytes (`PATH_MAX`), each of which is up to four characters in JSON.
pub(super) const LONGEST: usize = 32 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// See [`super::stat`].
    Stat { root_of: Option<u32>, path: OsString },
    /// See [`super::stat_running`] and [`super::stat_open`].
    OfProcess { pid: u32, fd: Option<u32> },
    /// See [`super::real_path`].
    RealPath(OsString),
    /// See [`super::user_name`].
    UserName(u32),
    /// See [`super::open_namespace`].
    Namespace { path: OsString, inode: u64 },
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The errno if it failed.
    Stat(Result<FileFacts, i32>),
    RealPath(Option<OsString>),
    UserName(Option<String>),
    /// The errno if it failed.
    Namespace(Result<Opened, i32>),
}

/// A file that the helper opened. It is sent beside the text of the packet (`SCM_RIGHTS` in unix(7)).
#[derive(Debug, Default, Serialize, Deserialize)]
pub(super) struct Opened {
    #[serde(skip)]
    pub(super) file: Option<OwnedFd>,
}

impl PartialEq for Opened {
    fn eq(&self, other: &Self) -> bool {
        let number = |opened: &Self| opened.file.as_ref().map(|file| file.as_raw_fd());
        number(self) == number(other)
    }
}

impl Eq for Opened {}

/// What may have a file beside it.
pub(super) trait Body {
    fn file(&mut self) -> Option<&mut Opened>;
}

impl Body for Question {
    fn file(&mut self) -> Option<&mut Opened> {
        None
    }
}

impl Body for Answer {
    fn file(&mut self) -> Option<&mut Opened> {
        match self {
            Self::Namespace(Ok(opened)) => Some(opened),
            Self::Namespace(Err(_)) | Self::Stat(_) | Self::RealPath(_) | Self::UserName(_) => None,
        }
    }
}

/// What a packet carries: a question, or the answer to the question with this id.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Packet<T> {
    pub(super) id: u64,
    pub(super) body: T,
}
