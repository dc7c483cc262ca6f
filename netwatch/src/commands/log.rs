//! `netwatch log`: prints recorded events, with the filters and formats of `watch`.

use std::io::{self, BufWriter, Write};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use jiff::Timestamp;

use super::pager::Pager;
use super::progress::Bar;
use crate::filter::{Condition, Filter};
use crate::output::{Log, LogOptions};
use crate::store::{self, Narrow, Reader, StoreError};
use crate::stream::Batch;
use crate::{bus, enrich, rights};

/// Options of `log`.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// Path of the store.
    pub store: PathBuf,
    /// Events at or after this time.
    pub since: Option<Timestamp>,
    /// Events before this time.
    pub until: Option<Timestamp>,
    /// Only the last N events.
    pub count: Option<usize>,
    /// Read the tables without indexes and views.
    pub scan: bool,
    /// Filter and format; its limit is not used.
    pub log: LogOptions,
}

/// Prints the events in order of time; through a pager if stdout is a terminal.
///
/// # Errors
/// If the store does not exist or cannot be read, or the output fails. The `io::Error` is in the chain, so that the
/// caller can recognise a closed pipe.
pub fn run(options: &SearchOptions) -> Result<()> {
    let mut reader = Reader::open(&options.store)?;
    if options.scan {
        let bar = Bar::new("reading", true)?;
        reader.scan(Box::new(move |progress| bar.watch(progress)));
    }
    // Before no program can be executed any more.
    let pager = Pager::start();
    rights::give_up(&rights::READING, &readable(&options.store), None);
    pager.show(&mut io::stdout().lock(), |out| print(options, &reader, &mut BufWriter::new(out)))
}

/// What can be opened while a store is read and printed.
pub(super) fn readable(store: &Path) -> Vec<PathBuf> {
    let mut files = rights::names();
    files.extend(store::files(store));
    files
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
        let batch = match events.next_batch() {
            // What was read is printed.
            Err(StoreError::Interrupted) => None,
            other => other?,
        };
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
        // Read backwards from the end until there are enough events.
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
    Ok(log.finish()?)
}

/// Chooses the index that is likely to select the fewest rows. Only terms that are not negated narrow the search.
pub(super) fn narrow(filter: &Filter) -> Narrow {
    let event = |condition: &Condition| {
        matches!(condition, Condition::Alert | Condition::Event(_)).then(|| condition.clone())
    };
    if filter.one_of(event).is_some_and(|kinds| kinds.iter().all(|kind| matches!(kind, Condition::Alert))) {
        return Narrow::Nothing;
    }
    let one = |ips: Vec<IpAddr>| match ips[..] {
        [ip] => Some(ip),
        _ => None,
    };
    let pid = |condition: &Condition| if let Condition::Pid(pid) = condition { Some(*pid) } else { None };
    if let Some([pid]) = filter.one_of(pid).as_deref() {
        return Narrow::Pid(*pid);
    }
    let port = |condition: &Condition| if let Condition::Port(port) = condition { Some(*port) } else { None };
    if let Some(ports) = filter.one_of(port) {
        return Narrow::Ports(ports);
    }
    let remote = |condition: &Condition| match condition {
        Condition::Remote(pattern) => pattern.address(),
        _ => None,
    };
    if let Some(ip) = filter.one_of(remote).and_then(one) {
        return Narrow::RemoteIp(ip);
    }
    let local = |condition: &Condition| match condition {
        Condition::Local(pattern) => pattern.address(),
        _ => None,
    };
    if let Some(ip) = filter.one_of(local).and_then(one) {
        return Narrow::LocalIp(ip);
    }
    let process = |condition: &Condition| match condition {
        Condition::Process(glob) => Some(glob.clone()),
        _ => None,
    };
    let name = |condition: &Condition| match condition {
        Condition::Name(glob) => Some(glob.clone()),
        _ => None,
    };
    if let Some([glob]) = filter.one_of(name).as_deref() {
        return Narrow::Host(glob.clone());
    }
    match filter.one_of(process).as_deref() {
        Some([glob]) => Narrow::Named(glob.clone()),
        _ => Narrow::All,
    }
}
