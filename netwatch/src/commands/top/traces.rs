//! Traces, as lines for the screen.

use std::sync::Arc;

use jiff::tz::TimeZone;

use crate::forensics::{self, Past, Selector};
use crate::output::trace::{TraceFormat, Traces, write};

/// The lines of a trace of the connection with this id.
///
/// # Errors
/// If the past cannot be read.
pub(super) fn lines<P: Past>(past: &P, id: &str, zone: &TimeZone) -> Result<Vec<String>, P::Error> {
    let selector: Selector = match id.parse() {
        Ok(selector) => selector,
        Err(error) => return Ok(vec![error]),
    };
    let (lives, _) = past.select(&selector, 1)?;
    let traces = lives.into_iter().map(|life| forensics::trace(past, life)).collect::<Result<Vec<_>, _>>()?;
    let users = Arc::default();
    let found = Traces { selector: &selector, traces: &traces, more: false, users: &users, zone };
    let mut out = Vec::new();
    Ok(match write(found, TraceFormat::Text, false, &mut out) {
        Ok(()) => String::from_utf8_lossy(&out).lines().map(str::to_owned).collect(),
        Err(error) => vec![error.to_string()],
    })
}
