//! `netwatch trace`: walks from a connection back to its cause, in the store or, without one, in a snapshot of the
//! host.

use std::convert::Infallible;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use jiff::tz::TimeZone;

use super::log;
use super::progress::Bar;
use crate::agent;
use crate::boot;
use crate::clock::BootClock;
use crate::engine::complain;
use crate::enrich::{Executables, Users, service_of};
use crate::forensics::{self, Complete, Life, LiveHistory, Past, Selector, Trace};
use crate::output::trace::{TraceFormat, Traces, write};
use crate::process::Actor;
use crate::rights;
use crate::store::{DEFAULT_PATH, History, Reader};
use crate::tracker::ConnectionEvent;

/// Options of `trace`.
#[derive(Clone, Debug)]
pub struct TraceOptions {
    /// The connections to trace.
    pub selector: Selector,
    /// Path of the store; `None`: the standard store, if it exists.
    pub store: Option<PathBuf>,
    /// Read the tables of the store without indexes and views.
    pub scan: bool,
    /// Maximum number of connections; the newest are taken.
    pub most: usize,
    /// Output format.
    pub format: TraceFormat,
    /// Print text with colours.
    pub colour: bool,
}

/// Traces the selected connections and prints the result.
///
/// # Errors
/// If the store, or without one the host, cannot be read, or `out` fails.
pub fn run(options: &TraceOptions, out: &mut dyn Write) -> Result<()> {
    let mut completion = Completion { programs: None, users: Users::patient() };
    let (mut traces, more) = match Reader::named_or_usual(options.store.as_deref())? {
        Some(mut reader) => {
            let store = options.store.as_deref().unwrap_or(Path::new(DEFAULT_PATH));
            rights::give_up(&rights::READING, &log::readable(store), None);
            if options.scan {
                let bar = Bar::new("reading", false)?;
                reader.scan(Box::new(move |progress| bar.watch(progress)));
            }
            traced(&History::new(reader)?, &options.selector, options.most)?
        }
        None => {
            completion.programs = Some(Executables::patient());
            complain(&format!("no store at {DEFAULT_PATH}: tracing connections that are open now"));
            traced(&live()?, &options.selector, options.most)
                .unwrap_or_else(|never: Infallible| match never {})
        }
    };
    let mut out = BufWriter::new(out);
    traces.iter_mut().for_each(|trace| trace.complete(&mut completion));
    if completion.programs.is_some() {
        // The host was read until here.
        rights::give_up(&rights::PRINTING, &rights::names(), None);
    }
    let users = completion.users.names();
    let traces = Traces {
        selector: &options.selector,
        traces: &traces,
        more,
        users: &users,
        zone: &TimeZone::system(),
    };
    write(traces, options.format, options.colour, &mut out)?;
    Ok(out.flush()?)
}

/// Adds names of users and services, and the status of the executables of running processes.
pub(super) struct Completion {
    /// `None` for a store, whose events have the status of executables at the time of the event.
    pub(super) programs: Option<Executables>,
    pub(super) users: Users,
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

/// The trace of each selected connection, and whether more match. Of two endpoints of one connection only the
/// originator's is traced.
pub(super) fn traced<P: Past>(
    past: &P,
    selector: &Selector,
    most: usize,
) -> Result<(Vec<Trace>, bool), P::Error> {
    let (lives, more) = past.select(selector, most)?;
    let traces = forensics::originators(lives)
        .into_iter()
        .map(|life| forensics::trace(past, life))
        .collect::<Result<_, _>>()?;
    Ok((traces, more))
}

/// A history made of one snapshot of the host.
fn live() -> Result<LiveHistory> {
    let (events, notes, began) = agent::snapshot()?;
    for note in notes {
        complain(&note.to_string());
    }
    let (boot, clock): (Arc<str>, _) = (boot::id().into(), BootClock::now()?);
    let lives = events.into_iter().filter_map(|event| Life::new(boot.clone(), clock, vec![event])).collect();
    Ok(LiveHistory { lives, began, gaps: Vec::new() })
}
