//! `netwatch log`: what was recorded, searched by the same filters, in the same formats.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use crate::filter::Filter;
use crate::output::{Log, LogOptions};
use crate::store::{Narrow, Reader, StoreError};
use crate::stream::Batch;
use crate::{bus, enrich};

/// What to print of the store, and how.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// The database.
    pub store: PathBuf,
    /// Told since then.
    pub since: Option<Timestamp>,
    /// And before this.
    pub until: Option<Timestamp>,
    /// The last so many.
    pub count: Option<usize>,
    /// What is shown, and how. There is no limit in it.
    pub log: LogOptions,
}

/// Prints, the newest last; page by page on a terminal.
///
/// # Errors
/// Where there is no store, or it cannot be read, or the output fails: the `io::Error` is in the chain, so that a closed
/// pipe can be told.
pub fn run(options: &SearchOptions) -> Result<()> {
    let reader = Reader::open(&options.store)?;
    match pager() {
        Some(mut pager) => {
            let printed = match pager.stdin.take() {
                Some(stdin) => print(options, &reader, &mut BufWriter::new(stdin)),
                None => Ok(()),
            };
            pager.wait().context("the pager")?;
            printed
        }
        None => print(options, &reader, &mut BufWriter::new(io::stdout().lock())),
    }
}

fn print(options: &SearchOptions, reader: &Reader, out: &mut dyn Write) -> Result<()> {
    let mut log = Log::dated(&options.log, out);
    let mut stages = enrich::recorded();
    let mut print = |mut batch: Batch| {
        stages.iter_mut().for_each(|stage| stage.enrich(&mut batch));
        log.batch(&batch)
    };
    let nanoseconds = |time: Timestamp| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
    let (since, until) = (options.since.map(nanoseconds), options.until.map(nanoseconds));
    let filter = &options.log.filter;
    let mut events = reader.events(narrow(filter), since, until, options.count.is_some())?;
    let mut next = || {
        let batch = events.next_batch()?;
        Ok::<_, StoreError>(batch.map(|mut batch| {
            batch.items.retain(|item| bus::is_shown(item, filter));
            batch
        }))
    };
    match options.count {
        None => {
            while let Some(batch) = next()? {
                print(batch)?;
            }
        }
        // From the end backwards, until there are enough.
        Some(most) => {
            let (mut batches, mut count) = (Vec::new(), 0);
            while count < most
                && let Some(batch) = next()?
            {
                count += batch.items.len();
                batches.push(batch);
            }
            let mut beyond = count.saturating_sub(most);
            for mut batch in batches.into_iter().rev() {
                let left_out = beyond.min(batch.items.len());
                beyond -= left_out;
                batch.items.drain(..left_out);
                print(batch)?;
            }
        }
    }
    Ok(log.flush()?)
}

/// The index that is likely to find the fewest.
fn narrow(filter: &Filter) -> Narrow {
    if let Some(pid) = filter.pid {
        return Narrow::Pid(pid);
    }
    if !filter.ports.is_empty() {
        return Narrow::Ports(filter.ports.clone());
    }
    if let Some(ip) = filter.remote.and_then(|pattern| pattern.address()) {
        return Narrow::RemoteIp(ip);
    }
    if let Some(ip) = filter.local.and_then(|pattern| pattern.address()) {
        return Narrow::LocalIp(ip);
    }
    filter.process.clone().map_or(Narrow::All, Narrow::Named)
}

/// What shows a page at a time, where stdout is a terminal: `$PAGER`, else less where it is there.
fn pager() -> Option<Child> {
    if !io::stdout().is_terminal() {
        return None;
    }
    let mut command = match std::env::var_os("PAGER") {
        Some(pager) if pager.is_empty() => return None,
        Some(pager) => {
            let mut shell = Command::new("/bin/sh");
            shell.arg("-c").arg(pager);
            shell
        }
        None => {
            let mut less = Command::new("less");
            // Colours as they are, and no page where all fits on one.
            less.arg("-RFX");
            less
        }
    };
    command.stdin(Stdio::piped());
    command.spawn().ok()
}
