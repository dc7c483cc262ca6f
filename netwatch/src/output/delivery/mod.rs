//! Events as messages of log services, which have fields of their own for time, severity and origin.

mod syslog;
#[cfg(test)]
mod tests;

use std::io;

use super::{Encoder, LogOptions, Stamp, exe_status};
use crate::alert::Level;
use crate::signs;
use crate::stream::{Context, Item};
use crate::tracker::EventKind;

pub use syslog::{Facility, Syslog};

/// Severities of syslog, RFC 5424, section 6.2.1. journald has the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Severity {
    Critical = 2,
    Error = 3,
    Warning = 4,
    Notice = 5,
    Info = 6,
}

impl Severity {
    /// Suspicious processes and losses are warnings.
    fn of(item: &Item) -> Self {
        match item {
            Item::Loss(..) => Self::Warning,
            Item::Alert(alert) => match alert.rule.level {
                Level::Critical => Self::Critical,
                Level::High => Self::Error,
                Level::Medium => Self::Warning,
                Level::Low => Self::Notice,
                Level::Informational => Self::Info,
            },
            Item::Event(event) => {
                let process = event.endpoint.process.as_ref();
                let of_process = process.map(|actor| {
                    signs::of_process(&actor.process, exe_status(event.facts.exe.process, &actor.process))
                });
                let signs = of_process.into_iter().flatten().chain(signs::of_end(&event.endpoint));
                match event.kind {
                    _ if signs.count() > 0 => Self::Warning,
                    EventKind::Fail => Self::Notice,
                    _ => Self::Info,
                }
            }
            Item::Ready(_) | Item::Process(..) | Item::Exec(..) | Item::Table(_) => Self::Info,
        }
    }
}

/// The text of a message: a line in the format of the options, without its end, and without the time if it is text.
struct Line {
    encoder: Encoder,
    text: Vec<u8>,
}

impl Line {
    fn new(options: &LogOptions) -> Self {
        Self { encoder: Encoder::new(options, Stamp::None), text: Vec::new() }
    }

    /// `None` if the format has no line for it.
    fn of(&mut self, item: &Item, context: &Context) -> io::Result<Option<(u64, &[u8])>> {
        self.text.clear();
        if self.encoder.item(item, context, &mut self.text)? == 0 {
            return Ok(None);
        }
        Ok(Some((self.encoder.seq(), self.text.trim_ascii_end())))
    }
}
