//! The output of a run that has ended.

use std::process::ExitStatus;

use serde_json::Value;

use crate::event::{End, kind};

/// What a run printed, from its first line to its last.
#[derive(Debug)]
pub struct Log {
    /// `ready` first.
    pub events: Vec<Value>,
    /// How it ended.
    pub status: ExitStatus,
    /// All of it.
    pub stderr: String,
}

impl Log {
    /// Events of this kind about this end.
    #[must_use]
    pub fn at(&self, event: &str, end: End) -> Vec<&Value> {
        self.events.iter().filter(|seen| kind(seen) == event && end.of(seen)).collect()
    }

    /// Kinds of the events about this end, in their order.
    #[must_use]
    pub fn kinds(&self, end: End) -> Vec<&str> {
        self.events.iter().filter(|seen| end.of(seen)).map(kind).collect()
    }
}
