//! `netwatch trace`: from a connection back to whoever caused it, by the store or, without one, by what is open now.

use std::convert::Infallible;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;

use super::follow::complain;
use crate::agent;
use crate::forensics::{self, Life, Past, Record, Selector, Table, Trace};
use crate::output::trace::{Found, TraceFormat, write};
use crate::process::view::BootClock;
use crate::store::{DEFAULT_PATH, Reader};

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
    let (traces, more) = match Reader::named_or_usual(options.store.as_deref())? {
        Some(reader) => traced(&Record::new(reader)?, options)?,
        None => {
            complain(&format!("there is no store at {DEFAULT_PATH}: this is what is open now"));
            traced(&live()?, options).unwrap_or_else(|never: Infallible| match never {})
        }
    };
    let mut out = BufWriter::new(out);
    let found = Found { selector: &options.selector, traces: &traces, more };
    write(found, options.format, options.colour, &mut out)?;
    Ok(out.flush()?)
}

/// The trace of each connection that is meant, and whether there are others. Two ends of one are one: the one that
/// began it.
fn traced<P: Past>(past: &P, options: &TraceOptions) -> Result<(Vec<Trace>, bool), P::Error> {
    let (mut lives, more) = past.select(&options.selector, options.most)?;
    let begun: Vec<_> = lives
        .iter()
        .filter(|life| !life.is_inbound())
        .map(|life| (life.boot.clone(), life.end().flow))
        .collect();
    lives.retain(|life| !(life.is_inbound() && begun.contains(&(life.boot.clone(), life.end().flow))));
    let traces = lives.into_iter().map(|life| forensics::trace(past, life)).collect::<Result<_, _>>()?;
    Ok((traces, more))
}

/// What is open now.
fn live() -> Result<Table> {
    let (events, notes, began) = agent::look()?;
    for note in notes {
        complain(&note.to_string());
    }
    let (boot, clock): (Arc<str>, _) = (crate::output::boot().into(), BootClock::now()?);
    let lives = events.into_iter().filter_map(|event| Life::new(boot.clone(), clock, vec![event])).collect();
    Ok(Table { lives, began, gaps: Vec::new() })
}
