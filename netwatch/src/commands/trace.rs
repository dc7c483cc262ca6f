//! `netwatch trace`: from a connection back to whoever caused it, by the store or, without one, by what is open now.

use std::convert::Infallible;
use std::io::{self, BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use crate::agent;
use crate::forensics::{self, Life, Past, Selector, Table, Trace};
use crate::output::trace::{Found, TraceFormat, write};
use crate::process::view::BootClock;

/// What to trace, and how to print it.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// Which connections.
    pub selector: Selector,
    /// Where the record is.
    pub store: Option<PathBuf>,
    /// No more than these, the newest.
    pub most: usize,
    /// How to print.
    pub format: TraceFormat,
    /// With colours.
    pub colour: bool,
}

/// Traces, and prints what was found.
///
/// # Errors
/// Where neither store nor host can be read, or `out` fails.
pub fn run(options: &TraceOptions, out: &mut dyn Write) -> Result<()> {
    let (traces, beyond) = traced(&live()?, options).unwrap_or_else(|never: Infallible| match never {});
    let mut out = BufWriter::new(out);
    let found = Found { selector: &options.selector, traces: &traces, beyond };
    write(found, options.format, options.colour, &mut out)?;
    Ok(out.flush()?)
}

/// The trace of each connection that is meant, and how many more there are. Two ends of one are one: the one that
/// began it.
fn traced<P: Past>(past: &P, options: &TraceOptions) -> Result<(Vec<Trace>, usize), P::Error> {
    let (mut lives, beyond) = past.select(&options.selector, options.most)?;
    let flows: Vec<_> =
        lives.iter().map(|life| (life.boot.clone(), life.end().flow, life.is_inbound())).collect();
    lives.retain(|life| {
        let has_other = flows
            .iter()
            .any(|(boot, flow, inbound)| !inbound && *flow == life.end().flow && **boot == *life.boot);
        !(life.is_inbound() && has_other)
    });
    let traces = lives.into_iter().map(|life| forensics::trace(past, life)).collect::<Result<_, _>>()?;
    Ok((traces, beyond))
}

/// What is open now.
fn live() -> Result<Table> {
    let (events, notes, began) = agent::look()?;
    for note in notes {
        // Nobody can be told that stderr is closed.
        let _ = writeln!(io::stderr(), "netwatch: {note}");
    }
    let (boot, clock): (Arc<str>, _) = (crate::output::boot().into(), BootClock::now()?);
    let lives = events.into_iter().filter_map(|event| Life::new(boot.clone(), clock, vec![event])).collect();
    Ok(Table { lives, began, gaps: Vec::new() })
}
