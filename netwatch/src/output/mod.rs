//! What people and scripts read: pure renderings of values, as text or JSON. Nothing here reads a file or asks a
//! service; what a line needs is in the item and its context.

pub(crate) mod audit;
pub(crate) mod doctor;
mod json;
mod keys;
pub(crate) mod list;
mod log;
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

use crate::filter::Filter;
use crate::process::{ExeStatus, Process};
use crate::stream::{Context, Item};

pub use log::Log;
pub use process::{AncestorView, ProcessView};

/// How lines are rendered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One object a line.
    Json,
}

/// How JSON names processes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProcessForm {
    /// By the whole object, in every event.
    #[default]
    Full,
    /// By the key; the whole object comes once, in an event of its own before the first that names it.
    Once,
    /// By the key alone.
    Key,
}

/// How the log is written.
#[derive(Clone, Debug, Default)]
pub struct LogOptions {
    /// Text or JSON.
    pub format: Format,
    /// How JSON names processes.
    pub processes: ProcessForm,
    /// With colours, for text.
    pub colour: bool,
    /// What is shown.
    pub filter: Filter,
    /// The log is full after so many events, `ready` not counted.
    pub limit: Option<u64>,
}

/// Renders items as lines. `seq` is the number of the last line, and counts each line.
trait Render: Send {
    fn render(&mut self, seq: &mut u64, item: &Item, context: &Context, out: &mut Vec<u8>) -> io::Result<()>;
}

/// The time of a line.
fn time_of(item: &Item, context: &Context) -> Timestamp {
    let known = match item {
        Item::Event(event) => context.clock.time(event.at),
        Item::Loss(time, _) => Some(*time),
        Item::Ready(_) | Item::Process(..) | Item::Table(_) => None,
    };
    known.unwrap_or_else(Timestamp::now)
}

/// The status of an executable: at the time of the event, where that is known.
fn exe_status(at_event: Option<ExeStatus>, process: &Arc<Process>) -> ExeStatus {
    at_event.unwrap_or_else(|| process.exe_status())
}
