//! Numbers and renders events, and writes them in large chunks.

use std::io::{self, Write};

use super::json::Json;
use super::text::Text;
use super::{Format, LogOptions, Render};
use crate::stream::{Batch, Context, Item};

/// Bytes per write: large enough that a flood needs few system calls, small enough for low latency.
const CHUNK: usize = 256 << 10;

/// Prints events to `W`: when [`CHUNK`] is reached, and when flushed.
pub struct Log<W> {
    render: Box<dyn Render>,
    out: W,
    buffer: Vec<u8>,
    seq: u64,
    /// Number of events printed, not counting `ready`.
    printed: u64,
    limit: Option<u64>,
}

impl<W: Write> Log<W> {
    /// For live events: text has only the time.
    pub fn new(options: &LogOptions, out: W) -> Self {
        Self::with(options, false, out)
    }

    /// For recorded events: text has the date in each line.
    pub fn dated(options: &LogOptions, out: W) -> Self {
        Self::with(options, true, out)
    }

    fn with(options: &LogOptions, dated: bool, out: W) -> Self {
        let render: Box<dyn Render> = match options.format {
            Format::Json => Box::new(Json::new(options.processes).with_community_id(options.community_id)),
            Format::Text => Box::new(Text::new(options.colour, dated, options.zone.clone())),
        };
        Self { render, out, buffer: Vec::new(), seq: 0, printed: 0, limit: options.limit }
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
        self.render.render(&mut self.seq, item, context, &mut self.buffer)?;
        self.printed += u64::from(matches!(item, Item::Event(_) | Item::Loss(..)));
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

    fn write(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
