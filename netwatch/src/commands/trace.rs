//! `netwatch trace`: from a connection back to whoever caused it, by the store or, without one, by what is open now.

use std::convert::Infallible;
use std::io::{BufWriter, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;

use crate::agent;
use crate::boot;
use crate::clock::BootClock;
use crate::engine::complain;
use crate::enrich::{Executables, Users, service_of};
use crate::forensics::{self, Complete, Life, LiveHistory, Past, Selector, Trace};
use crate::output::trace::{TraceFormat, Traces, write};
use crate::process::Actor;
use crate::store::{DEFAULT_PATH, History, Reader};
use crate::tracker::ConnectionEvent;

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
    let mut completion = Completion::default();
    let (mut traces, more) = match Reader::named_or_usual(options.store.as_deref())? {
        Some(reader) => traced(&History::new(reader)?, options)?,
        None => {
            completion.programs = Some(Executables::default());
            complain(&format!("there is no store at {DEFAULT_PATH}: this is what is open now"));
            traced(&live()?, options).unwrap_or_else(|never: Infallible| match never {})
        }
    };
    let mut out = BufWriter::new(out);
    traces.iter_mut().for_each(|trace| trace.complete(&mut completion));
    let users = completion.users.names();
    let traces = Traces { selector: &options.selector, traces: &traces, more, users: &users };
    write(traces, options.format, options.colour, &mut out)?;
    Ok(out.flush()?)
}

/// Adds names, and of processes that are there now the status of their executables.
#[derive(Default)]
struct Completion {
    /// `None`: what is recorded is all that is known of executables.
    programs: Option<Executables>,
    users: Users,
}

impl Complete for Completion {
    fn actor(&mut self, actor: &mut Actor) {
        if let Some(programs) = &mut self.programs {
            programs.complete(actor);
        }
        self.users.ask(actor.process.uid);
    }

    fn event(&mut self, event: &mut ConnectionEvent) {
        if let Some(programs) = &mut self.programs {
            programs.complete_event(event, Instant::now());
        }
        self.users.ask_for_event(event);
        service_of(event);
    }
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
fn live() -> Result<LiveHistory> {
    let (events, notes, began) = agent::snapshot()?;
    for note in notes {
        complain(&note.to_string());
    }
    let (boot, clock): (Arc<str>, _) = (boot::id().into(), BootClock::now()?);
    let lives = events.into_iter().filter_map(|event| Life::new(boot.clone(), clock, vec![event])).collect();
    Ok(LiveHistory { lives, began, gaps: Vec::new() })
}
