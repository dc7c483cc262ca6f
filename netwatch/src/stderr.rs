//! Lines on stderr. Its reader may be slow, blocked or gone, which must not hold up the event stream: a thread writes,
//! and what it cannot keep up with is dropped and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::{escape, limits};

static STDERR: LazyLock<Lines> = LazyLock::new(|| Lines::start(io::stderr()));

/// Prints a line, later if stderr is blocked. It may contain paths and names from outside, so control characters are
/// escaped.
pub fn print(line: &str) {
    STDERR.push(format!("{}\n", escape::terminal(line)));
}

/// Lines are kept until this is dropped: a screen is shown, and stderr is likely to be the same terminal.
#[derive(Debug)]
pub struct Held(());

/// Keeps lines from now on.
#[must_use]
pub fn hold() -> Held {
    STDERR.hold(true);
    Held(())
}

impl Held {
    /// Takes the lines that are kept, each with its newline. They are not printed later.
    #[must_use]
    pub fn take(&self) -> Vec<String> {
        STDERR.0.locked().lines.drain(..).collect()
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        STDERR.hold(false);
    }
}

/// Waits until everything is printed, or for a limited time. The process may end then.
pub fn finish() {
    STDERR.finish(limits::STDERR_WAIT);
}

/// For the log of the program, which is written line by line.
#[derive(Clone, Copy, Debug)]
pub struct Log;

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        STDERR.push(String::from_utf8_lossy(bytes).into_owned());
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lines that wait, and the thread that writes them.
struct Lines(Arc<Shared>);

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    lines: VecDeque<String>,
    /// Lines that were dropped since the last was written.
    dropped: u64,
    /// A line is being written.
    is_writing: bool,
    /// There is no thread: nothing can be written.
    is_over: bool,
    /// Nothing is written for now.
    is_held: bool,
}

impl Lines {
    fn start(out: impl Write + Send + 'static) -> Self {
        let shared = Arc::new(Shared::default());
        let own = shared.clone();
        let thread = std::thread::Builder::new().name("netwatch-stderr".into());
        if thread.spawn(move || own.write_to(out)).is_err() {
            shared.locked().is_over = true;
        }
        Self(shared)
    }

    fn push(&self, line: String) {
        let mut state = self.0.locked();
        if state.lines.len() < limits::STDERR_LINES && state.dropped == 0 {
            state.lines.push_back(line);
        } else {
            state.dropped += 1;
        }
        self.0.changed.notify_all();
    }

    fn hold(&self, is_held: bool) {
        self.0.locked().is_held = is_held;
        self.0.changed.notify_all();
    }

    fn finish(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let mut state = self.0.locked();
        while !state.is_over && (state.is_writing || !state.lines.is_empty() || state.dropped > 0) {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            (state, _) = self.0.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Shared {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut out: impl Write) {
        let mut state = self.locked();
        loop {
            state.is_writing = false;
            self.changed.notify_all();
            while state.is_held || (state.lines.is_empty() && state.dropped == 0) {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            }
            let line = state.lines.pop_front().unwrap_or_else(|| {
                let dropped = std::mem::take(&mut state.dropped);
                format!("netwatch: stderr was blocked; {dropped} lines that belong here were dropped\n")
            });
            state.is_writing = true;
            drop(state);
            // If stderr is closed there is nowhere to report it.
            let _ = out.write_all(line.as_bytes());
            state = self.locked();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    /// Each write waits for a permit, and is handed on.
    struct Blocked {
        permits: Receiver<()>,
        written: Sender<String>,
    }

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Without a sender everything is permitted.
            let _ = self.permits.recv();
            let _ = self.written.send(String::from_utf8(bytes.to_vec()).unwrap());
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_for_a_blocked_reader_are_counted() {
        let ((permit, permits), (written, lines)) = (channel(), channel());
        let stderr = Lines::start(Blocked { permits, written });
        stderr.push("first".into());
        permit.send(()).unwrap();
        assert_eq!(lines.recv().unwrap(), "first");
        // The thread may have taken one more line than wait.
        let sent = limits::STDERR_LINES + 100;
        (0..sent).for_each(|n| stderr.push(n.to_string()));
        stderr.finish(Duration::ZERO);
        drop(permit);
        stderr.finish(Duration::from_secs(20));
        let mut lines: Vec<_> = lines.try_iter().collect();
        let note = lines.pop().unwrap();
        let dropped = sent - lines.len();
        assert!((99..=100).contains(&dropped), "{dropped}");
        assert!(lines.iter().enumerate().all(|(n, line)| *line == n.to_string()));
        assert_eq!(
            note,
            format!("netwatch: stderr was blocked; {dropped} lines that belong here were dropped\n")
        );
    }
}
