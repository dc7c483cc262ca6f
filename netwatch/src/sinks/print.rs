//! Prints the stream to stdout, whose reader may be slow, blocked or gone.

use std::io::{self, Write};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;

use crate::bus::{Bus, Receiver, Subscription};
use crate::limits;
use crate::loss::LossReason;
use crate::output::{Log, LogOptions};

/// How long the thread waits for items; it has no periodic work.
const IDLE: Duration = Duration::from_secs(60);

/// Why printing failed.
#[derive(Debug, Error)]
pub enum PrintError {
    /// The reader closed the pipe.
    #[error("the output was closed")]
    Closed,
    /// The output failed, because the file system is full for example.
    #[error("cannot write the output")]
    Failed(#[source] io::Error),
}

impl From<io::Error> for PrintError {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe { Self::Closed } else { Self::Failed(error) }
    }
}

/// A subscriber that prints.
#[derive(Debug)]
pub struct Print {
    thread: JoinHandle<Result<(), PrintError>>,
}

impl Print {
    /// Subscribes to `bus` and prints to `out`. The subscription ends when the limit of the options is reached.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn start(options: &LogOptions, bus: &mut Bus, out: impl Write + Send + 'static) -> io::Result<Self> {
        let receiver = bus.subscribe(Subscription {
            reason: LossReason::Stdout,
            most_waiting: limits::STDOUT_ITEMS,
            is_announced: false,
            sees_all: false,
        });
        let log = Log::new(options, out);
        let thread = std::thread::Builder::new().name("netwatch-print".into());
        Ok(Self { thread: thread.spawn(move || print(&receiver, log))? })
    }

    /// Waits until everything is printed, or for a limited time if the reader is slow. Call it when the bus is closed.
    ///
    /// # Errors
    /// The error of the output. A closed pipe is not an error.
    pub fn finish(self) -> Result<(), PrintError> {
        let deadline = Instant::now() + limits::STDOUT_WAIT;
        while !self.thread.is_finished() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(2));
        }
        if !self.thread.is_finished() {
            // Blocked in a write; the thread ends with the process.
            return Ok(());
        }
        match self.thread.join() {
            Ok(Err(PrintError::Failed(error))) => Err(PrintError::Failed(error)),
            Ok(Ok(()) | Err(PrintError::Closed)) => Ok(()),
            Err(_) => Err(PrintError::Failed(io::Error::other("the thread that prints panicked"))),
        }
    }
}

fn print(receiver: &Receiver, mut log: Log<impl Write>) -> Result<(), PrintError> {
    loop {
        let gathered = receiver.gather(1, Duration::ZERO, IDLE);
        for batch in gathered.batches {
            log.batch(&batch)?;
            receiver.release(batch.items.len());
        }
        log.flush()?;
        if gathered.is_over || log.is_full() {
            return Ok(log.finish()?);
        }
    }
}
