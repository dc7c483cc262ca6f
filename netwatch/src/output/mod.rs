//! Output of all commands as text or JSON. Pure functions of values: nothing here reads a file or asks a service; what
//! a line needs is in the item and its context.

pub(crate) mod audit;
mod community;
pub mod delivery;
pub(crate) mod doctor;
mod encoder;
mod formats;
mod host_name;
mod json;
mod keys;
pub(crate) mod list;
mod log;
pub mod metrics;
mod object;
mod process;
#[cfg(test)]
mod schema;
mod text;
mod timestamp;
pub mod trace;
pub(crate) mod verify;

use std::io;
use std::sync::Arc;

use jiff::Timestamp;
use jiff::tz::TimeZone;

use crate::filter::Filter;
use crate::process::{ExeStatus, Process};
use crate::stream::{Context, Item};

pub use encoder::Encoder;
pub use host_name::HostNameView;
pub use log::Log;
pub use process::{AncestorView, ProcessView};

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Text, for people.
    #[default]
    Text,
    /// JSON, one object per line.
    Json,
    /// Elastic Common Schema.
    Ecs,
    /// Open Cybersecurity Schema Framework.
    Ocsf,
    /// Zeek's conn.log.
    Zeek,
    /// The same as JSON.
    ZeekJson,
    /// Field names of Sysmon for Linux.
    Sysmon,
}

impl Format {
    /// All formats, with their names.
    pub const ALL: [(&'static str, Self); 7] = [
        ("text", Self::Text),
        ("json", Self::Json),
        ("ecs", Self::Ecs),
        ("ocsf", Self::Ocsf),
        ("zeek", Self::Zeek),
        ("zeek-json", Self::ZeekJson),
        ("sysmon", Self::Sysmon),
    ];
}

/// Version of the Open Cybersecurity Schema Framework.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OcsfVersion {
    /// The last one that is released.
    #[default]
    V1_8,
    /// The next one, which has `initiator_id`.
    V1_9,
}

impl OcsfVersion {
    /// As `metadata.version`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::V1_8 => "1.8.0",
            Self::V1_9 => "1.9.0",
        }
    }
}

/// How JSON names processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessForm {
    /// Every event has the whole object.
    #[default]
    Full,
    /// Events have the key; the whole object is emitted once, before the first event that refers to it.
    Once,
    /// Events have only the key.
    Key,
}

/// How events are printed.
#[derive(Clone, Debug)]
pub struct LogOptions {
    /// The format.
    pub format: Format,
    /// Version of [`Format::Ocsf`].
    pub ocsf: OcsfVersion,
    /// How JSON names processes.
    pub processes: ProcessForm,
    /// Whether JSON has the Community ID of each connection.
    pub community_id: bool,
    /// Use colours in text.
    pub colour: bool,
    /// Events to print.
    pub filter: Filter,
    /// Maximum number of events; `ready` is not counted.
    pub limit: Option<u64>,
    /// Time zone of times in text.
    pub zone: TimeZone,
}

impl Default for LogOptions {
    fn default() -> Self {
        Self {
            format: Format::default(),
            ocsf: OcsfVersion::default(),
            processes: ProcessForm::default(),
            community_id: false,
            colour: false,
            filter: Filter::default(),
            limit: None,
            zone: TimeZone::UTC,
        }
    }
}

/// What a line of text begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// Nothing: whoever takes the line adds the time.
    None,
    /// The time of day.
    Time,
    /// Date and time of day.
    DateAndTime,
}

/// Renders items as lines. `seq` is the number of the last line; it is incremented for each.
trait Render: Send {
    fn render(&mut self, seq: &mut u64, item: &Item, context: &Context, out: &mut Vec<u8>) -> io::Result<()>;

    /// What comes before the first line.
    fn begin(&mut self, _out: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }

    /// What comes after the last line.
    fn end(&mut self, _out: &mut Vec<u8>) -> io::Result<()> {
        Ok(())
    }
}

/// The time of a line.
fn time_of(item: &Item, context: &Context) -> Timestamp {
    let known = match item {
        Item::Event(event) => context.clock.time(event.at),
        Item::Alert(alert) => context.clock.time(alert.at),
        Item::Loss(time, _) => Some(*time),
        Item::Ready(_) | Item::Process(..) | Item::Exec(..) | Item::Table(_) => None,
    };
    known.unwrap_or_else(Timestamp::now)
}

/// The status of an executable: at the time of the event if that is known, else by the process.
fn exe_status(at_event: Option<ExeStatus>, process: &Arc<Process>) -> ExeStatus {
    at_event.unwrap_or_else(|| process.exe_status())
}
