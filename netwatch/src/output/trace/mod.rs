//! What `trace` found: as a story for people, as one object, or as a picture.

mod dot;
mod json;
mod story;

use std::io::{self, Write};
use std::sync::Arc;

use crate::forensics::{OriginKind, Selector, Trace};
use crate::stream::UserNames;

pub use story::Story;

/// What there is to print.
#[derive(Clone, Copy, Debug)]
pub struct Traces<'a> {
    /// What was asked.
    pub selector: &'a Selector,
    /// The newest first.
    pub traces: &'a [Trace],
    /// There are others that match.
    pub more: bool,
    /// Names of the users of all processes that are named.
    pub users: &'a Arc<UserNames>,
}

/// How to print it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TraceFormat {
    /// For people.
    #[default]
    Text,
    /// One object.
    Json,
    /// A graph, for Graphviz.
    Dot,
}

/// Prints it.
///
/// # Errors
/// Where `out` fails, or an object cannot be spelled.
pub fn write(found: Traces<'_>, format: TraceFormat, colour: bool, out: &mut impl Write) -> io::Result<()> {
    match format {
        TraceFormat::Text => Story { colour }.write(found, out),
        TraceFormat::Json => json::write(found, out),
        TraceFormat::Dot => dot::write(found, out),
    }
}

/// The verdict, in a few words.
fn verdict(trace: &Trace) -> String {
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
            by(&format!("a login here: {user}"))
        }
        OriginKind::Service => {
            let unit = place.and_then(|place| place.unit).unwrap_or_default();
            by(&format!("the service {}, which began with", crate::escape::terminal(unit)))
        }
        OriginKind::Container => {
            let container = place.and_then(|place| place.container).unwrap_or_default();
            by(&format!("the container {}, which began with", crate::escape::terminal(&container)))
        }
        OriginKind::Kernel => by("the kernel"),
        OriginKind::Boot => by("the start of the system:"),
        OriginKind::Unknown => "origin unknown".into(),
    }
}
