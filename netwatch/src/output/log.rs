//! Numbers and renders events, and writes them in large chunks.

use std::io::{self, Write};

use super::formats::{Ecs, Lines, Ocsf, Sysmon, Zeek};
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
    has_begun: bool,
    seq: u64,
    /// Number of events printed, not counting `ready`, nor what the format has no line for.
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
            Format::Ecs => Box::new(Lines(Ecs)),
            Format::Ocsf => Box::new(Lines(Ocsf { version: options.ocsf })),
            Format::Zeek => Box::new(Zeek::new(false, options.zone.clone())),
            Format::ZeekJson => Box::new(Zeek::new(true, options.zone.clone())),
            Format::Sysmon => Box::new(Lines(Sysmon)),
        };
        let buffer = Vec::new();
        Self { render, out, buffer, has_begun: false, seq: 0, printed: 0, limit: options.limit }
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
        let before = self.seq;
        self.render.render(&mut self.seq, item, context, &mut self.buffer)?;
        let is_counted = matches!(item, Item::Event(_) | Item::Alert(_) | Item::Loss(..));
        self.printed += u64::from(is_counted && self.seq > before);
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
        self.render.end(&mut self.buffer)?;
        self.flush()
    }

    fn begin(&mut self) -> io::Result<()> {
        if self.has_begun {
            return Ok(());
        }
        self.has_begun = true;
        self.render.begin(&mut self.buffer)
    }

    fn write(&mut self) -> io::Result<()> {
        self.out.write_all(&self.buffer)?;
        self.buffer.clear();
        Ok(())
    }
}
