//! Prints what was recorded, as it was told then: numbered from 1 on, with the times and processes of the record.

use std::io;

use jiff::Timestamp;

use super::{Format, Line, Spell, json, text};
use crate::loss::Loss;
use crate::process::view::BootClock;
use crate::tracker::ConnectionEvent;

/// Spells lines into a buffer.
pub struct Printer {
    spell: Box<dyn Spell>,
    format: Format,
    /// What the lines so far were told by.
    context: Option<(String, BootClock)>,
    seq: u64,
}

impl Printer {
    /// In this format, with colours or without.
    #[must_use]
    pub fn new(format: Format, colour: bool) -> Self {
        Self { spell: Box::new(text::Text::dated(colour)), format, context: None, seq: 0 }
    }

    /// What comes is of this boot, and processes started by this clock.
    pub fn turn_to(&mut self, boot: &str, clock: BootClock) {
        let is_known = |(known, by): &(String, BootClock)| known == boot && *by == clock;
        if self.format == Format::Json && !self.context.as_ref().is_some_and(is_known) {
            self.spell = Box::new(json::Json::of(clock, boot));
            self.context = Some((boot.to_owned(), clock));
        }
    }

    /// An event of this time.
    ///
    /// # Errors
    /// Where it cannot be spelled, which is a fault of netwatch's.
    pub fn connection(
        &mut self,
        time: Timestamp,
        event: &ConnectionEvent,
        out: &mut Vec<u8>,
    ) -> io::Result<()> {
        self.line(time, &Line::Connection(event), out)
    }

    /// What was lost, as was noticed then.
    ///
    /// # Errors
    /// As [`Printer::connection`].
    pub fn loss(&mut self, time: Timestamp, loss: &Loss, out: &mut Vec<u8>) -> io::Result<()> {
        self.line(time, &Line::Loss(loss), out)
    }

    fn line(&mut self, time: Timestamp, line: &Line<'_>, out: &mut Vec<u8>) -> io::Result<()> {
        self.seq += 1;
        self.spell.spell(self.seq, time, line, out)
    }
}
