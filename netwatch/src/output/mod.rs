//! What people and scripts read: the log's lines, as text or JSON, handed to a writer that never makes the
//! agent wait.

pub(crate) mod audit;
pub(crate) mod doctor;
mod json;
pub(crate) mod list;
mod object;
mod printer;
mod process;
mod sink;
mod text;
pub mod trace;
pub(crate) mod verify;

use std::io::{self, Write};

use crate::filter::Filter;
use crate::kernel::Coverage;
use crate::loss::{Loss, LossReason};
use crate::process::found::Looks;
use crate::process::view::BootClock;
use crate::tracker::ConnectionEvent;

pub(crate) use json::boot;
pub use printer::Printer;
pub use sink::{Sink, SinkError};

/// How lines are spelled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// What the first line says.
#[derive(Clone, Copy, Debug)]
pub struct Ready<'a> {
    /// Which probe does which job.
    pub coverage: &'a Coverage,
    /// How many sockets were there before.
    pub seeded: usize,
}

/// A line before it is spelled.
enum Line<'a> {
    Ready(Ready<'a>),
    Connection(&'a ConnectionEvent),
    Loss(&'a Loss),
}

/// Spells lines. `time` is that of the line.
trait Spell {
    fn spell(
        &mut self,
        seq: u64,
        time: jiff::Timestamp,
        line: &Line<'_>,
        out: &mut Vec<u8>,
    ) -> io::Result<()>;
}

/// The log: numbers lines, drops what the filter hides, and counts what its reader was too slow for.
pub struct Log {
    spell: Box<dyn Spell>,
    sink: Sink,
    filter: Filter,
    clock: BootClock,
    looks: Looks,
    seq: u64,
    /// Lines after `ready`.
    printed: u64,
    /// No more than these.
    limit: Option<u64>,
    missed: Loss,
}

/// How the log is written.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Spelling.
    pub format: Format,
    /// Colours, for text.
    pub colour: bool,
    /// What is shown.
    pub filter: Filter,
    /// The log is full after so many lines, `ready` not counted.
    pub limit: Option<u64>,
}

impl Log {
    /// A log to `out`, which a thread of its own writes to.
    ///
    /// # Errors
    /// Where the thread cannot be started or the clock cannot be read.
    pub fn new(options: LogOptions, out: impl Write + Send + 'static) -> io::Result<Self> {
        Self::beside(options, BootClock::now()?, Looks::default(), out)
    }

    /// The same, to tell times by `clock` and what became of programs by `looks`, as somebody else does.
    ///
    /// # Errors
    /// As [`Log::new`].
    pub fn beside(
        options: LogOptions,
        clock: BootClock,
        looks: Looks,
        out: impl Write + Send + 'static,
    ) -> io::Result<Self> {
        let spell: Box<dyn Spell> = match options.format {
            Format::Json => Box::new(json::Json::new(clock, looks.clone())),
            Format::Text => Box::new(text::Text::new(options.colour, looks.clone())),
        };
        Ok(Self {
            spell,
            sink: Sink::new(out)?,
            filter: options.filter,
            clock,
            looks,
            seq: 0,
            printed: 0,
            limit: options.limit,
            missed: Loss { reason: LossReason::Stdout, kinds: Default::default() },
        })
    }

    /// The first line.
    ///
    /// # Errors
    /// Where it cannot be spelled, which is a fault of netwatch's.
    pub fn ready(&mut self, ready: Ready<'_>) -> io::Result<()> {
        self.line(jiff::Timestamp::now(), &Line::Ready(ready))
    }

    /// An event, unless the filter hides it.
    ///
    /// # Errors
    /// As [`Log::ready`].
    pub fn connection(&mut self, event: &ConnectionEvent) -> io::Result<()> {
        if !self.filter.shows(event) || self.is_full() {
            return Ok(());
        }
        if !self.sink.has_room() {
            *self.missed.kinds.entry(event.kind.name()).or_default() += 1;
            return Ok(());
        }
        self.tell_missed()?;
        let time = self.clock.time(event.at).unwrap_or_else(jiff::Timestamp::now);
        self.printed += 1;
        self.line(time, &Line::Connection(event))
    }

    /// Something is about to be told: time goes on for what is known of programs.
    pub fn begin(&self) {
        self.looks.refresh();
    }

    /// What was lost, as was noticed at `time`. No filter hides that.
    ///
    /// # Errors
    /// As [`Log::ready`].
    pub fn loss(&mut self, time: jiff::Timestamp, loss: &Loss) -> io::Result<()> {
        if self.is_full() {
            return Ok(());
        }
        if !self.sink.has_room() {
            *self.missed.kinds.entry("loss").or_default() += 1;
            return Ok(());
        }
        self.printed += 1;
        self.line(time, &Line::Loss(loss))
    }

    /// Tells what the reader was too slow for, once it reads again.
    ///
    /// # Errors
    /// As [`Log::ready`].
    pub fn tell_missed(&mut self) -> io::Result<()> {
        if self.missed.kinds.is_empty() || !self.sink.is_relieved() || self.is_full() {
            return Ok(());
        }
        let kinds = std::mem::take(&mut self.missed.kinds);
        let missed = Loss { reason: LossReason::Stdout, kinds };
        self.printed += 1;
        self.line(jiff::Timestamp::now(), &Line::Loss(&missed))
    }

    /// As many lines as were asked for have been printed.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.limit.is_some_and(|limit| self.printed >= limit)
    }

    /// Hands on what was spelled so far. To be called whenever there is nothing else to do.
    pub fn flush(&mut self) {
        self.sink.flush();
    }

    /// Follows the wall clock where it was set; returns it. Process starts keep the reading of the beginning: a process
    /// has but one.
    ///
    /// # Errors
    /// Where the clock cannot be read.
    pub fn follow_clock(&mut self) -> io::Result<BootClock> {
        self.clock = self.clock.corrected()?;
        Ok(self.clock)
    }

    /// Follows somebody else's clock.
    pub fn set_clock(&mut self, clock: BootClock) {
        self.clock = clock;
    }

    /// The writer, to wait for.
    pub fn sink(&mut self) -> &mut Sink {
        &mut self.sink
    }

    /// Writes what is left, as far as the reader lets it.
    ///
    /// # Errors
    /// What the writer met.
    pub fn finish(self) -> Result<(), SinkError> {
        self.sink.finish()
    }

    fn line(&mut self, time: jiff::Timestamp, line: &Line<'_>) -> io::Result<()> {
        self.seq += 1;
        self.spell.spell(self.seq, time, line, self.sink.buffer())
    }
}
