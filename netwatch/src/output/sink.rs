//! The writer: a thread of its own, so that a reader who does not read never holds up the agent. What is
//! waiting is bounded; beyond that the log drops lines and counts them.

use std::io::{self, Write};
use std::sync::mpsc::{self, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

/// What waits at the most, but for the chunks under way: several seconds of a busy host's events.
const MOST_WAITING: usize = 64 << 20;

/// Chunks handed over and not yet written: one that is being written and one behind it.
const CHUNKS: usize = 1;

/// Large enough that a flood needs few system calls, small enough to be soon on the other side.
const CHUNK: usize = 256 << 10;

/// How long the end of the run waits for a reader.
const LAST_PATIENCE: Duration = Duration::from_secs(2);

/// Why nothing more can be written.
#[derive(Debug, Error)]
pub enum SinkError {
    /// Nobody reads any more: a pipe was closed.
    #[error("the output was closed")]
    Closed,
    /// The output failed: a full file system, say.
    #[error("cannot write the output")]
    Failed(#[source] io::Error),
}

/// Takes lines, and has them written in order.
pub struct Sink {
    waiting: Vec<u8>,
    chunks: Option<Sender<Vec<u8>>>,
    /// Chunks that are written, for the lines to come.
    written: mpsc::Receiver<Vec<u8>>,
    writer: Option<JoinHandle<()>>,
    failure: Option<oneshot::Receiver<io::Error>>,
}

impl Sink {
    pub(crate) fn new(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (chunks, received) = channel(CHUNKS);
        let (spare, written) = sync_channel(CHUNKS);
        let (failed, failure) = oneshot::channel();
        let writer = std::thread::Builder::new().name("netwatch-write".into()).spawn(move || {
            if let Err(error) = write_all(out, received, &spare) {
                // Nobody waits for it any more: the run is over.
                let _ = failed.send(error);
            }
        })?;
        let waiting = Vec::new();
        Ok(Self { waiting, chunks: Some(chunks), written, writer: Some(writer), failure: Some(failure) })
    }

    /// Where the next line goes.
    pub(crate) fn buffer(&mut self) -> &mut Vec<u8> {
        if self.waiting.len() >= CHUNK {
            self.flush();
        }
        &mut self.waiting
    }

    /// Whether one more line may wait.
    pub(crate) fn has_room(&self) -> bool {
        self.waiting.len() < MOST_WAITING
    }

    /// Whether the reader has caught up so far that it may be told what it missed.
    pub(super) fn is_relieved(&self) -> bool {
        self.waiting.len() < MOST_WAITING / 2
    }

    /// Hands over what waits, if the writer is ready for it.
    pub(crate) fn flush(&mut self) {
        let Some(chunks) = &self.chunks else { return };
        if self.waiting.is_empty() {
            return;
        }
        // Else what waits goes with the next one; the writer's failure is told by `attend`.
        if let Ok(room) = chunks.try_reserve() {
            room.send(next(&mut self.waiting, &self.written));
        }
    }

    /// Hands over what waits as soon as the writer is ready for it, and goes on so until nothing more can
    /// be written, perhaps forever.
    pub async fn attend(&mut self) -> SinkError {
        while let (Some(failure), Some(chunks)) = (&mut self.failure, &self.chunks) {
            tokio::select! {
                Ok(error) = &mut *failure => {
                    self.failure = None;
                    return kind_of(error);
                }
                Ok(room) = chunks.reserve(), if !self.waiting.is_empty() => {
                    room.send(next(&mut self.waiting, &self.written));
                }
                else => break,
            }
        }
        std::future::pending().await
    }

    /// Writes what is left and ends the writer, as far as the reader lets it.
    ///
    /// # Errors
    /// What the writer met.
    pub fn finish(mut self) -> Result<(), SinkError> {
        let deadline = Instant::now() + LAST_PATIENCE;
        let wait = || std::thread::sleep(Duration::from_millis(2));
        while !self.waiting.is_empty() && Instant::now() < deadline {
            self.flush();
            if !self.waiting.is_empty() {
                if self.writer.as_ref().is_none_or(JoinHandle::is_finished) {
                    break;
                }
                wait();
            }
        }
        self.chunks = None;
        while self.writer.as_ref().is_some_and(|writer| !writer.is_finished()) && Instant::now() < deadline {
            wait();
        }
        // A writer that is still stuck in a write ends with the process.
        match self.failure.take().map(|mut failure| failure.try_recv()) {
            Some(Ok(error)) => Err(kind_of(error)),
            _ => Ok(()),
        }
    }
}

/// What waits; a chunk that is written takes its place.
fn next(waiting: &mut Vec<u8>, written: &mpsc::Receiver<Vec<u8>>) -> Vec<u8> {
    std::mem::replace(waiting, written.try_recv().unwrap_or_default())
}

fn kind_of(error: io::Error) -> SinkError {
    if error.kind() == io::ErrorKind::BrokenPipe { SinkError::Closed } else { SinkError::Failed(error) }
}

fn write_all(
    mut out: impl Write,
    mut chunks: Receiver<Vec<u8>>,
    spare: &SyncSender<Vec<u8>>,
) -> io::Result<()> {
    while let Some(mut chunk) = chunks.blocking_recv() {
        out.write_all(&chunk)?;
        out.flush()?;
        // What a slow reader made large is not kept.
        if chunk.capacity() <= 2 * CHUNK {
            chunk.clear();
            // There is one already, or the run is over.
            let _ = spare.try_send(chunk);
        }
    }
    Ok(())
}
