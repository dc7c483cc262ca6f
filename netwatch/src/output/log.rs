//! Numbers and renders events, and writes them in large chunks.

use std::io::{self, Write};

use super::{Encoder, LogOptions, Stamp};
use crate::stream::{Batch, Context, Item};

/// Bytes per write: large enough that a flood needs few system calls, small enough for low latency.
const CHUNK: usize = 256 << 10;

/// Prints events to `W`: when [`CHUNK`] is reached, and when flushed.
pub struct Log<W> {
    encoder: Encoder,
    out: W,
    buffer: Vec<u8>,
    has_begun: bool,
    /// Number of events printed, not counting `ready`, nor what the format has no line for.
    printed: u64,
    limit: Option<u64>,
}

impl<W: Write> Log<W> {
    /// For live events: text has only the time.
    pub fn new(options: &LogOptions, out: W) -> Self {
        Self::with(options, Stamp::Time, out)
    }

    /// For recorded events: text has the date in each line.
    pub fn dated(options: &LogOptions, out: W) -> Self {
        Self::with(options, Stamp::DateAndTime, out)
    }

    fn with(options: &LogOptions, stamp: Stamp, out: W) -> Self {
        let encoder = Encoder::new(options, stamp);
        Self { encoder, out, buffer: Vec::new(), has_begun: false, printed: 0, limit: options.limit }
    }

    /// Prints the items of a batch, as far as the limit allows.
    ///
    /// # Errors
    /// Those of the output.
    pub fn batch(&mut self, batch: &Batch) -> io::Result<()> {
        batch.items.iter().try_for_each(|item| self.item(item, &batch.context))
    }

    /// Prints an item, unless the limit is reached.
    ///
    /// # Errors
    /// Those of the output.
    pub fn item(&mut self, item: &Item, context: &Context) -> io::Result<()> {
        if self.is_full() {
            return Ok(());
        }
        self.begin()?;
        let lines = self.encoder.item(item, context, &mut self.buffer)?;
        let is_counted = matches!(item, Item::Event(_) | Item::Alert(_) | Item::Loss(..));
        self.printed += u64::from(is_counted && lines > 0);
        if self.buffer.len() >= CHUNK {
            self.write()?;
        }
        Ok(())
    }

    /// Whether the limit is reached.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.printed >= limit)
    }

    /// Writes everything rendered so far.
    ///
    /// # Errors
    /// Those of the output.
    pub fn flush(&mut self) -> io::Result<()> {
        self.write()?;
        self.out.flush()
    }

    /// Writes what comes after the last event.
    ///
    /// # Errors
    /// Those of the output.
    pub fn finish(&mut self) -> io::Result<()> {
        self.begin()?;
        self.encoder.end(&mut self.buffer)?;
        self.flush()
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.has_begun {
            return Ok(());
        }
        self.has_begun = true;
        self.encoder.begin(&mut self.buffer)
    }

    fn write(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
