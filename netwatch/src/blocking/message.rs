//! Messages between netwatch and the helper: one packet each.

use std::ffi::OsString;

use serde::{Deserialize, Serialize};

use super::files::FileFacts;

/// Longest packet: a path has at most 4096 bytes (`PATH_MAX`), each of which is up to four characters in JSON.
pub(super) const LONGEST: usize = 32 << 10;

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Question {
    /// See [`super::stat`].
    Stat { root_of: Option<u32>, path: OsString },
    /// See [`super::real_path`].
    RealPath(OsString),
    /// See [`super::user_name`].
    UserName(u32),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Answer {
    /// The errno if it failed.
    Stat(Result<FileFacts, i32>),
    RealPath(Option<OsString>),
    UserName(Option<String>),
}

/// What a packet carries: a question, or the answer to the question with this id.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Packet<T> {
    pub(super) id: u64,
    pub(super) body: T,
}
