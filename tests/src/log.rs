//! The output of a run that has exited.

use std::process::ExitStatus;

use serde_json::Value;

use crate::event::{Endpoint, kind};

/// What a run printed, from its first line to its last.
#[derive(Debug)]
pub struct Log {
    /// `ready` first.
    pub events: Vec<Value>,
    /// Its exit status.
    pub status: ExitStatus,
    /// The whole stderr.
    pub stderr: String,
}

impl Log {
    /// Events of this kind about this endpoint.
    #[must_use]
    pub fn at(&self, event: &str, endpoint: Endpoint) -> Vec<&Value> {
        self.events.iter().filter(|seen| kind(seen) == event && endpoint.of(seen)).collect()
    }

    /// Kinds of the events about this endpoint, in order.
    #[must_use]
    pub fn kinds(&self, endpoint: Endpoint) -> Vec<&str> {
        self.events.iter().filter(|seen| endpoint.of(seen)).map(kind).collect()
    }
}
