//! Reports what a start waits for. Attaching probes waits for grace periods of RCU, which take seconds on a busy host
//! (kernel/bpf/trampoline.c, bpf_trampoline_update(); kernel/trace/ftrace.c, register_ftrace_direct(), v6.12), and
//! cannot be cancelled.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{limits, stderr};

/// Watches a start until it is dropped.
pub(super) struct Progress(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    step: String,
    since: Instant,
    /// The step was reported.
    reported: bool,
    over: bool,
}

/// What the watching thread does. Tests replace it.
struct Watcher {
    slow: Duration,
    limit: Duration,
    report: Box<dyn FnMut(String) + Send>,
    give_up: Box<dyn FnOnce(String) + Send>,
}

impl Progress {
    /// Watches a start that begins now. A step that takes longer than [`limits::SLOW_START`] is reported on stderr; the
    /// process ends with exit status 1 if the start takes longer than [`limits::START_WAIT`].
    pub(super) fn begin() -> Self {
        Self::watched_by(Watcher {
            slow: limits::SLOW_START,
            limit: limits::START_WAIT,
            report: Box::new(|line| stderr::print(&format!("netwatch: {line}"))),
            give_up: Box::new(|line| {
                stderr::print(&format!("netwatch: {line}"));
                stderr::finish();
                std::process::exit(1);
            }),
        })
    }

    fn watched_by(watcher: Watcher) -> Self {
        let state = State { step: String::new(), since: Instant::now(), reported: false, over: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let thread = std::thread::Builder::new().name("netwatch-start".into());
        let watched = shared.clone();
        // Without the thread the start is not watched.
        let _ = thread.spawn(move || watched.watch(watcher)).inspect_err(|error| log::info!("{error}"));
        Self(shared)
    }

    /// The next step begins.
    pub(super) fn step(&self, step: impl Into<String>) {
        let mut state = self.0.lock();
        (state.step, state.since, state.reported) = (step.into(), Instant::now(), false);
        self.0.changed.notify_one();
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.lock().over = true;
        self.0.changed.notify_one();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn watch(&self, mut watcher: Watcher) {
        let begun = Instant::now();
        let mut state = self.lock();
        while !state.over {
            if begun.elapsed() >= watcher.limit {
                let line = format!("not ready after {} s, while {}", watcher.limit.as_secs(), state.step);
                drop(state);
                (watcher.give_up)(line);
                return;
            }
            if !state.reported && state.since.elapsed() >= watcher.slow {
                state.reported = true;
                (watcher.report)(format!("still starting: {}", state.step));
            }
            let slow = if state.reported {
                watcher.limit
            } else {
                watcher.slow.saturating_sub(state.since.elapsed())
            };
            let wait = slow.min(watcher.limit.saturating_sub(begun.elapsed()));
            state = self.changed.wait_timeout(state, wait).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    /// Never, within a test.
    const NEVER: Duration = Duration::from_secs(3600);

    fn watched(slow: Duration, limit: Duration) -> (Progress, Receiver<String>) {
        let (report, lines) = channel();
        let give_up = report.clone();
        let progress = Progress::watched_by(Watcher {
            slow,
            limit,
            // The test may be over.
            report: Box::new(move |line| _ = report.send(line)),
            give_up: Box::new(move |line| _ = give_up.send(line)),
        });
        (progress, lines)
    }

    #[test]
    fn slow_step_is_reported_once() {
        let (progress, lines) = watched(Duration::ZERO, NEVER);
        progress.step("loading");
        // A step without a name may have been reported before.
        let line = lines.iter().find(|line| line != "still starting: ").unwrap();
        assert_eq!(line, "still starting: loading");
        progress.step("attaching");
        assert_eq!(lines.recv().unwrap(), "still starting: attaching");
        drop(progress);
        // The thread ends, and with it the channel.
        assert!(lines.recv().is_err());
    }

    #[test]
    fn fast_start_is_not_reported() {
        let (progress, lines) = watched(NEVER, NEVER);
        progress.step("loading");
        drop(progress);
        assert!(lines.recv().is_err());
    }

    #[test]
    fn start_is_given_up_at_the_limit() {
        let (progress, lines) = watched(NEVER, Duration::from_millis(1));
        assert!(lines.recv().unwrap().starts_with("not ready after 0 s, while "));
        assert!(lines.recv().is_err());
        drop(progress);
    }
}
