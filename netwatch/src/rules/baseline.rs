//! What is usual on this host, learned for a while and kept in a file.
//!
//! The file is JSON and written anew as a whole. While it is younger than the learning period, what is seen is added
//! silently; later it is added too, and told of once.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{blocking, limits, replace};

/// What an entry is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// A program that connected.
    Connect,
    /// A program that listened.
    Listen,
    /// A unit, a network and a port.
    Destination,
}

/// Why a baseline cannot be used.
#[derive(Debug, Error)]
pub enum BaselineError {
    /// It cannot be read.
    #[error("cannot read the baseline {0}: {1}")]
    Read(PathBuf, std::io::Error),
    /// It is not a baseline.
    #[error("{0} is no baseline of netwatch ({1}): move it away, and a new one is learned")]
    Parse(PathBuf, serde_json::Error),
    /// It cannot be written.
    #[error("cannot write the baseline {0}: {1}")]
    Write(PathBuf, std::io::Error),
}

/// The content of the file.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    /// When learning began, in seconds since the epoch.
    since: i64,
    #[serde(default)]
    connect: BTreeSet<String>,
    #[serde(default)]
    listen: BTreeSet<String>,
    #[serde(default)]
    destinations: BTreeSet<String>,
}

/// A baseline.
#[derive(Debug)]
pub struct Baseline {
    path: PathBuf,
    /// Nothing is told of until then.
    learns_until: Timestamp,
    is_learning: bool,
    content: Content,
    has_changed: bool,
    /// There are as many entries as are kept.
    is_full: bool,
}

impl Baseline {
    /// Reads a baseline, or begins one. `learn`: how long everything counts as usual after it began.
    ///
    /// # Errors
    /// If there is a file and it cannot be used, or none can be written.
    pub fn open(path: &Path, learn: Duration, now: Timestamp) -> Result<Self, BaselineError> {
        let text = blocking::text(path, limits::RULE_BASELINE_FILE, limits::READ_WAIT);
        let content = match text {
            Ok(text) => {
                serde_json::from_str(&text).map_err(|error| BaselineError::Parse(path.to_owned(), error))?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Content {
                since: now.as_second(),
                connect: BTreeSet::new(),
                listen: BTreeSet::new(),
                destinations: BTreeSet::new(),
            },
            Err(error) => return Err(BaselineError::Read(path.to_owned(), error)),
        };
        let learns_until =
            Timestamp::from_second(content.since).unwrap_or(now).checked_add(learn).unwrap_or(Timestamp::MAX);
        let is_learning = now < learns_until;
        let mut baseline = Self {
            path: path.to_owned(),
            learns_until,
            is_learning,
            content,
            has_changed: true,
            is_full: false,
        };
        baseline.save()?;
        Ok(baseline)
    }

    /// Learning ends when its time is over.
    pub(super) fn tick(&mut self, now: Timestamp) {
        self.is_learning &= now < self.learns_until;
    }

    /// Adds an entry. Returns whether it is new, and to be told of.
    pub(super) fn is_first(&mut self, kind: Kind, entry: &str) -> bool {
        let Content { connect, listen, destinations, .. } = &mut self.content;
        let all = connect.len() + listen.len() + destinations.len();
        let entries = match kind {
            Kind::Connect => connect,
            Kind::Listen => listen,
            Kind::Destination => destinations,
        };
        if entries.contains(entry) {
            return false;
        }
        if all >= limits::RULE_BASELINE_ENTRIES || entry.len() > limits::RULE_BASELINE_ENTRY {
            // What is not kept would be told of each time.
            if !std::mem::replace(&mut self.is_full, true) {
                crate::stderr::print(&format!(
                    "netwatch: the baseline {} is full: what is new is not told of any more",
                    self.path.display()
                ));
            }
            return false;
        }
        entries.insert(entry.to_owned());
        self.has_changed = true;
        !self.is_learning
    }

    /// Writes the file, if something has changed.
    ///
    /// # Errors
    /// If it cannot be written.
    pub(super) fn save(&mut self) -> Result<(), BaselineError> {
        if !self.has_changed {
            return Ok(());
        }
        let failed = |error: std::io::Error| BaselineError::Write(self.path.clone(), error);
        let mut text = serde_json::to_vec_pretty(&self.content).map_err(|error| failed(error.into()))?;
        text.push(b'\n');
        replace::file(&self.path, &text, 0o600).map_err(failed)?;
        self.has_changed = false;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: Duration = Duration::from_secs(86_400);

    #[test]
    fn what_is_learned_is_usual_and_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("baseline.json");
        let began: Timestamp = "2026-01-01T00:00:00Z".parse().unwrap();
        let mut baseline = Baseline::open(&path, DAY, began).unwrap();
        assert!(!baseline.is_first(Kind::Connect, "/usr/bin/curl"), "it is learned");
        baseline.tick(began + DAY);
        assert!(!baseline.is_first(Kind::Connect, "/usr/bin/curl"));
        assert!(baseline.is_first(Kind::Listen, "/usr/bin/curl"), "another kind");
        assert!(!baseline.is_first(Kind::Listen, "/usr/bin/curl"), "told of once");
        baseline.save().unwrap();
        let mut again = Baseline::open(&path, DAY, began + 3 * DAY).unwrap();
        assert!(
            !again.is_first(Kind::Connect, "/usr/bin/curl") && !again.is_first(Kind::Listen, "/usr/bin/curl")
        );
        assert!(again.is_first(Kind::Connect, "/tmp/x"));
        let mut still_learning = Baseline::open(&path, 9 * DAY, began + 3 * DAY).unwrap();
        assert!(!still_learning.is_first(Kind::Connect, "/tmp/y"));
    }

    #[test]
    fn number_and_length_of_entries_are_limited() {
        let folder = tempfile::tempdir().unwrap();
        let mut baseline =
            Baseline::open(&folder.path().join("b"), Duration::ZERO, Timestamp::UNIX_EPOCH).unwrap();
        assert!(!baseline.is_first(Kind::Connect, &"x".repeat(limits::RULE_BASELINE_ENTRY + 1)));
        for entry in 0..limits::RULE_BASELINE_ENTRIES {
            assert!(baseline.is_first(Kind::Connect, &entry.to_string()));
        }
        assert!(!baseline.is_first(Kind::Listen, "one more"));
    }

    #[test]
    fn another_file_is_not_overwritten() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b");
        std::fs::write(&path, "{}").unwrap();
        let error = Baseline::open(&path, DAY, Timestamp::UNIX_EPOCH).unwrap_err().to_string();
        assert!(error.contains("is no baseline of netwatch"), "{error}");
        std::fs::write(&path, vec![b' '; limits::RULE_BASELINE_FILE + 1]).unwrap();
        let error = Baseline::open(&path, DAY, Timestamp::UNIX_EPOCH).unwrap_err().to_string();
        assert!(error.contains("cannot read"), "{error}");
    }
}
