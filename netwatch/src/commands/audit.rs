//! `netwatch audit`: explains each listening port, and reports those that cannot be explained.

use std::io::{BufWriter, Write};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, Result};
use jiff::ZonedDateTime;
use jiff::tz::TimeZone;

use super::list::Namespaces;
use super::verify::FOUND;
use crate::agent;
use crate::audit::baseline::{self, Baseline};
use crate::audit::{Report, Severity, judge};
use crate::boot;
use crate::clock::BootClock;
use crate::inventory::{Inventory, Scope};
use crate::kernel::Options;
use crate::output::audit::Writer;
use crate::replace;
use crate::rights;
use crate::snapshot::netns;

mod auditor;
pub(super) mod beside;
mod watch;

pub use crate::inventory::Hidden;

/// What to audit, and how to print it.
#[derive(Debug)]
pub struct AuditOptions {
    /// Path of the store; `None`: the standard store, if it exists.
    pub store: Option<PathBuf>,
    /// Ports and findings that are accepted.
    pub baseline: Option<Baseline>,
    /// Where to write the current state as a baseline.
    pub write_baseline: Option<PathBuf>,
    /// The least severity at which a finding makes the exit status 3.
    pub fail_on: Severity,
    /// The network namespaces to audit.
    pub namespaces: Namespaces,
    /// Print JSON, one object per line.
    pub json: bool,
    /// Print text with colours.
    pub colour: bool,
    /// Entries that views are made to hide (test equipment).
    pub hidden: Vec<Hidden>,
    /// Keep running on the event stream.
    pub watch: Option<Watch>,
}

/// Options of `--watch`.
#[derive(Debug)]
pub struct Watch {
    /// Options of the kernel side.
    pub kernel: Options,
    /// Stop after this time.
    pub duration: Option<Duration>,
    /// Interval between audits of the whole host.
    pub every: Duration,
}

/// Audits once, or until stopped with [`AuditOptions::watch`].
///
/// # Errors
/// If neither sockets nor processes can be listed, the store cannot be read, or `out` fails.
pub fn run(mut options: AuditOptions, out: &mut dyn Write) -> Result<ExitCode> {
    let known = options.baseline.take();
    let own =
        netns::own().context("cannot determine the network namespace of netwatch (is /proc mounted?)")?;
    let only = match options.namespaces {
        Namespaces::All => None,
        Namespaces::Own => Some(own),
        Namespaces::Inum(inum) => Some(inum),
    };
    let hidden = std::mem::take(&mut options.hidden);
    let scope = Scope { netns: only, hidden, store: options.store.take(), boot: boot::id() };
    let lister = agent::iterators().map_err(|error| format!("{:#}", anyhow::Error::from(error)));
    let mut inventory = Inventory::new(scope, lister)?;
    let mut writer = if options.json {
        Writer::json(BootClock::now()?)
    } else {
        Writer::text(options.colour, own, TimeZone::system())
    };
    if let Some(watch) = options.watch.take() {
        let scope = auditor::Scope { known, only, fail_on: options.fail_on };
        return watch::run(watch, inventory, writer, scope);
    }
    let report = judge(&inventory.facts()?, known.as_ref());
    if let Some(path) = &options.write_baseline {
        write_baseline(path, &report)?;
    }
    drop(inventory);
    rights::give_up(&rights::PRINTING, &rights::names(), None);
    let mut out = BufWriter::new(out);
    writer.report(&report, &mut out)?;
    out.flush()?;
    Ok(if report.is_bad(options.fail_on) { ExitCode::from(FOUND) } else { ExitCode::SUCCESS })
}

/// Mode of a new baseline: world-readable, for review.
const READABLE: u32 = 0o644;

/// Replaces the file as a whole: it may have been reviewed.
fn write_baseline(path: &Path, report: &Report) -> Result<()> {
    let host = rustix::system::uname();
    let now = ZonedDateTime::now().strftime("%F %T %:z").to_string();
    let text = baseline::write(report, &host.nodename().to_string_lossy(), &now);
    let mode = std::fs::metadata(path).map_or(READABLE, |old| old.mode());
    replace::file(path, text.as_bytes(), mode)
        .with_context(|| format!("cannot write the baseline {}", path.display()))
}
