//! Judges a listener when its event arrives, on a thread of its own: reading package databases may take long, and those
//! of a container are under the control of the container.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, channel, sync_channel};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};

use crate::audit::baseline::Baseline;
use crate::audit::{Report, judge};
use crate::hash::Map;
use crate::inventory::{self, Programs};
use crate::limits;
use crate::model::NetnsId;
use crate::tracker::Endpoint;

/// Handle of the thread.
pub(in crate::commands) struct Beside {
    jobs: Option<SyncSender<Job>>,
    reports: Receiver<Report>,
}

enum Job {
    Listens(Box<Endpoint>),
    /// A pass over the host is done: the ephemeral port range of each namespace.
    Gathered(Map<NetnsId, (u16, u16)>),
}

impl Beside {
    /// Starts the thread.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub(in crate::commands) fn start(known: Arc<Option<Baseline>>) -> Result<Self> {
        let (jobs, to_do) = sync_channel(limits::AUDIT_LISTENERS);
        let (done, reports) = channel();
        let work = move || {
            let mut programs = Programs::default();
            let mut ranges = Map::default();
            for job in to_do {
                match job {
                    Job::Gathered(found) => {
                        ranges = found;
                        programs.forget();
                    }
                    Job::Listens(endpoint) => {
                        let facts = inventory::of_listener(&endpoint, &mut programs, &ranges);
                        // The receiver may have been dropped.
                        let _ = done.send(judge(&facts, Option::as_ref(&known)));
                    }
                }
            }
        };
        let thread = std::thread::Builder::new().name("netwatch-judge".into()).spawn(work);
        thread.context("cannot start a thread")?;
        Ok(Self { jobs: Some(jobs), reports })
    }

    /// Has a socket judged; false where too many wait already.
    pub(in crate::commands) fn listens(&self, endpoint: &Endpoint) -> bool {
        self.jobs.as_ref().is_some_and(|jobs| jobs.try_send(Job::Listens(Box::new(endpoint.clone()))).is_ok())
    }

    /// The whole host was gathered anew.
    pub(super) fn gathered(&self, ranges: Map<NetnsId, (u16, u16)>) {
        if let Some(jobs) = &self.jobs {
            // Where it is that far behind, the next time will do.
            let _ = jobs.try_send(Job::Gathered(ranges));
        }
    }

    /// What was judged so far.
    pub(in crate::commands) fn judged(&self) -> Vec<Report> {
        self.reports.try_iter().collect()
    }

    /// All that is left, as far as it comes within `patience`.
    pub(super) fn last(&mut self, patience: Duration) -> Vec<Report> {
        // It ends when there is nothing more to do.
        self.jobs = None;
        let deadline = Instant::now() + patience;
        let mut reports = Vec::new();
        loop {
            match self.reports.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(report) => reports.push(report),
                Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return reports,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tracker::EventKind;
    use crate::tracker::tests::event;

    #[test]
    fn listeners_beyond_the_limit_wait_for_the_next_pass() {
        let (jobs, _to_do) = sync_channel(limits::AUDIT_LISTENERS);
        let beside = Beside { jobs: Some(jobs), reports: channel().1 };
        let endpoint = event(EventKind::Listen, "10.0.0.1:1", None).endpoint;
        let taken = (0..limits::AUDIT_LISTENERS + 2).filter(|_| beside.listens(&endpoint)).count();
        assert_eq!(taken, limits::AUDIT_LISTENERS);
    }

    #[test]
    fn end_does_not_wait_longer_than_the_limit() {
        // The sender stays, as that of a thread that does not end.
        let (_done, reports) = channel();
        let mut beside = Beside { jobs: None, reports };
        let (ended, end) = channel();
        std::thread::spawn(move || ended.send(beside.last(Duration::from_millis(1)).len()));
        assert_eq!(end.recv_timeout(Duration::from_secs(20)), Ok(0));
    }
}
