//! What the screen has seen, as the history that a trace walks through.

use super::state::State;
use crate::forensics::{Life, LiveHistory};

impl State {
    /// A history of what was taken in, for a trace.
    pub fn past(&self) -> impl FnOnce() -> LiveHistory + Send + use<> {
        let table = self.table.clone();
        let began = self.began;
        move || {
            let mut lives: Vec<_> = table
                .rows
                .into_values()
                .filter_map(|row| {
                    let events = row.events().map(|event| (**event).clone()).collect();
                    Life::new(row.boot.clone(), row.clock, events)
                })
                .collect();
            lives.sort_by_key(Life::began);
            LiveHistory { lives, began, gaps: Vec::new() }
        }
    }
}
