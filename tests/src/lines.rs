//! Lines of another process, with a deadline for each.

use std::io::{BufRead as _, BufReader, Read};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// Reads a line and not a byte more, so that the rest stays in the pipe.
///
/// # Panics
/// If the output ends before the line does.
pub fn first_line(from: &mut impl Read) -> String {
    let mut line = Vec::new();
    let mut byte = [0];
    while byte != *b"\n" {
        from.read_exact(&mut byte).expect("a whole line");
        line.extend(byte);
    }
    String::from_utf8_lossy(&line).into_owned()
}

/// How lines on stderr begin that netwatch prints during its start on a busy host. Tests do not see them.
pub(crate) const PROGRESS: &str = "netwatch: still starting: ";

/// Reads on its own thread, so that a silent process cannot hang a test.
#[derive(Debug)]
pub struct Lines(Receiver<String>);

impl Lines {
    /// Starts to read; stops when `from` ends.
    pub fn of(from: impl Read + Send + 'static) -> Self {
        let (send, receive) = channel();
        std::thread::spawn(move || {
            // The thread panics on bytes that are not UTF-8: then the lines end early, and the test fails.
            for line in BufReader::new(from).lines() {
                let line = line.expect("lines are UTF-8");
                if !line.starts_with(PROGRESS) && send.send(line).is_err() {
                    return;
                }
            }
        });
        Self(receive)
    }

    /// The next line; `None` at the end of the output.
    ///
    /// # Panics
    /// If neither a line nor the end comes within `patience`.
    pub fn next(&self, patience: Duration) -> Option<String> {
        self.before(Instant::now() + patience).expect("in vain: a line, or the end of the output")
    }

    /// The next line; `Ok(None)` at the end of the output.
    ///
    /// # Errors
    /// If the deadline passes first.
    pub fn before(&self, deadline: Instant) -> Result<Option<String>, RecvTimeoutError> {
        match self.0.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(timeout) => Err(timeout),
        }
    }
}
