//! Numbers and renders events in the format of the options.

use std::io;

use super::formats::{Ecs, Lines, Ocsf, Sysmon, Zeek};
use super::json::Json;
use super::text::Text;
use super::{Format, LogOptions, Render, Stamp};
use crate::stream::{Context, Item};

/// Renders the items of one stream.
pub struct Encoder {
    render: Box<dyn Render>,
    seq: u64,
}

impl Encoder {
    /// `stamp`: what lines of text begin with.
    #[must_use]
    pub fn new(options: &LogOptions, stamp: Stamp) -> Self {
        let render: Box<dyn Render> = match options.format {
            Format::Json => Box::new(Json::new(options.processes).with_community_id(options.community_id)),
            Format::Text => Box::new(Text::new(options.colour, stamp, options.zone.clone())),
            Format::Ecs => Box::new(Lines(Ecs)),
            Format::Ocsf => Box::new(Lines(Ocsf { version: options.ocsf })),
            Format::Zeek => Box::new(Zeek::new(false, options.zone.clone())),
            Format::ZeekJson => Box::new(Zeek::new(true, options.zone.clone())),
            Format::Sysmon => Box::new(Lines(Sysmon)),
        };
        Self { render, seq: 0 }
    }

    /// Appends the lines of an item, of which there may be none. Returns how many.
    ///
    /// # Errors
    /// If a value cannot be rendered.
    pub fn item(&mut self, item: &Item, context: &Context, out: &mut Vec<u8>) -> io::Result<u64> {
        let before = self.seq;
        self.render.render(&mut self.seq, item, context, out)?;
        Ok(self.seq - before)
    }

    /// Number of the last line.
    #[must_use]
    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// Appends what comes before the first line of a file.
    ///
    /// # Errors
    /// If it cannot be rendered.
    pub fn begin(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.render.begin(out)
    }

    /// Appends what comes after the last line of a file.
    ///
    /// # Errors
    /// If it cannot be rendered.
    pub fn end(&mut self, out: &mut Vec<u8>) -> io::Result<()> {
        self.render.end(out)
    }
}
