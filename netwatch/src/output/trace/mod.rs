//! The output of `trace`: text, JSON, or a graph.

mod dot;
mod json;
mod story;

use std::io::{self, Write};
use std::sync::Arc;

use jiff::tz::TimeZone;
use serde_json::value::RawValue;

use crate::forensics::{OriginKind, Selector, Trace};
use crate::stream::UserNames;

pub use story::Story;

/// The result of a trace.
#[derive(Clone, Copy, Debug)]
pub struct Traces<'a> {
    /// The selector from the command line.
    pub selector: &'a Selector,
    /// The newest first.
    pub traces: &'a [Trace],
    /// More connections match than were traced.
    pub more: bool,
    /// Names of the users of all processes in the traces.
    pub users: &'a Arc<UserNames>,
    /// Time zone of times in text.
    pub zone: &'a TimeZone,
}

/// Output format.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceFormat {
    /// Text, for people.
    #[default]
    Text,
    /// One JSON object.
    Json,
    /// A graph, for Graphviz.
    Dot,
}

/// Writes the traces.
///
/// # Errors
/// If `out` fails, or a value cannot be serialised.
pub fn write(found: Traces<'_>, format: TraceFormat, colour: bool, out: &mut impl Write) -> io::Result<()> {
    match format {
        TraceFormat::Text => Story { colour, zone: found.zone }.write(found, out),
        TraceFormat::Json => json::write(found, out),
        TraceFormat::Dot => dot::write(found, out),
    }
}

/// A trace as JSON has it in `matches`.
///
/// # Errors
/// If a value cannot be serialised.
pub fn matched(trace: &Trace, users: &Arc<UserNames>) -> io::Result<Box<RawValue>> {
    json::value(trace, users)
}

/// The verdict in a few words.
#[must_use]
pub fn verdict(trace: &Trace) -> String {
    let origin = &trace.origin;
    let who = super::text::who(origin.process.as_ref());
    let by = |what: &str| match &origin.process {
        Some(_) => format!("{what} {who}"),
        None => what.to_owned(),
    };
    let place = origin.process.as_ref().map(|actor| crate::where_it_runs::of_cgroup(&actor.process.cgroup));
    match origin.kind {
        OriginKind::Remote => match origin.endpoint {
            Some((ip, port)) => format!("came from {}", crate::model::SockAddr { ip, port }),
            None => "came from another host".into(),
        },
        OriginKind::Login => {
            let user = origin.process.as_ref().and_then(|actor| actor.process.auid);
            let user = user.map_or_else(String::new, |uid| format!("user {uid}, "));
            by(&format!("originated in a login on this host: {user}"))
        }
        OriginKind::Service => {
            let unit = place.and_then(|place| place.unit).unwrap_or_default();
            by(&format!("originated in service {}, first process", crate::escape::terminal(unit)))
        }
        OriginKind::Container => {
            let container = place.and_then(|place| place.container).unwrap_or_default();
            by(&format!("originated in container {}, first process", crate::escape::terminal(&container)))
        }
        OriginKind::Kernel => by("originated in the kernel"),
        OriginKind::Boot => by("originated at system start:"),
        OriginKind::Unknown => "origin unknown".into(),
    }
}
