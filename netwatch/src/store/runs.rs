//! The runs of recorders.

use std::sync::Arc;

use super::StoreError;
use super::read::Reader;
use super::scan::last_batch;
use super::search::segments;
use crate::clock::BootClock;
use crate::hash::Set;

/// A run: a period in which everything was recorded except losses.
#[derive(Clone, Debug)]
pub struct Run {
    /// Boot id.
    pub boot: Arc<str>,
    /// Converts times since boot to times of day.
    pub clock: BootClock,
    /// Start, in nanoseconds since the epoch.
    pub began: i64,
    /// Time of the last write, in nanoseconds since the epoch.
    pub last: i64,
    /// It ended in order; otherwise it may be running, or was interrupted.
    pub stopped: bool,
}

impl Reader {
    /// All runs, oldest first.
    ///
    /// # Errors
    /// If the store cannot be read.
    pub fn runs(&self) -> Result<Vec<Run>, StoreError> {
        let mut runs: Vec<(i64, Run)> = Vec::new();
        // In one pass, since the table has no index.
        let mut stopped = self.db().prepare_cached("SELECT DISTINCT segment FROM stopped")?;
        let stopped: Set<i64> = stopped.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?;
        for segment in segments(self.db())? {
            let last = last_batch(segment.id, self.is_scan(), self.db())?;
            let is_stopped = stopped.contains(&segment.id);
            let last = last.unwrap_or(segment.started);
            match runs.last_mut().filter(|(run, _)| *run == segment.run) {
                Some((_, run)) => (run.last, run.stopped) = (last, is_stopped),
                None => runs.push((
                    segment.run,
                    Run {
                        boot: segment.boot.clone(),
                        clock: segment.clock,
                        began: segment.started,
                        last,
                        stopped: is_stopped,
                    },
                )),
            }
        }
        Ok(runs.into_iter().map(|(_, run)| run).collect())
    }
}
