//! `netwatch log`: what was recorded, searched by the same filters, in the same formats.

use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};
use jiff::Timestamp;

use crate::filter::Filter;
use crate::output::{Format, Printer};
use crate::store::{Line, Narrow, Page, Reader};

/// What to print of the store, and how.
#[derive(Clone, Debug)]
pub struct SearchOptions {
    /// The database.
    pub store: PathBuf,
    /// Only this.
    pub filter: Filter,
    /// Told since then.
    pub since: Option<Timestamp>,
    /// And before this.
    pub until: Option<Timestamp>,
    /// The last so many.
    pub count: Option<usize>,
    /// Spelling.
    pub format: Format,
    /// With colours, for text.
    pub colour: bool,
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
    let mut printer = Printer::new(options.format, options.colour);
    let nanoseconds = |time: Timestamp| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
    let (since, until) = (options.since.map(nanoseconds), options.until.map(nanoseconds));
    let narrow = narrow(&options.filter);
    let Some(most) = options.count else {
        let mut told = reader.told(narrow, since, until, false)?;
        while let Some(page) = told.page()? {
            write(&page, &options.filter, 0, &mut printer, out)?;
        }
        return Ok(out.flush()?);
    };
    // From the end backwards, until there are enough.
    let mut told = reader.told(narrow, since, until, true)?;
    let (mut pages, mut count) = (Vec::new(), 0);
    while count < most
        && let Some(mut page) = told.page()?
    {
        page.lines.retain(|(_, line)| is_shown(line, &options.filter));
        count += page.lines.len();
        pages.push(page);
    }
    let mut beyond = count.saturating_sub(most);
    for page in pages.iter().rev() {
        write(page, &options.filter, beyond, &mut printer, out)?;
        beyond = beyond.saturating_sub(page.lines.len());
    }
    Ok(out.flush()?)
}

fn is_shown(line: &Line, filter: &Filter) -> bool {
    match line {
        Line::Event(event) => filter.shows(event),
        // No filter hides that.
        Line::Loss(_) => true,
    }
}

/// Writes what is shown of a page but for the first `beyond` lines.
fn write(
    page: &Page,
    filter: &Filter,
    beyond: usize,
    printer: &mut Printer,
    out: &mut dyn Write,
) -> Result<()> {
    printer.turn_to(&page.segment.boot, page.segment.run_clock);
    let mut buffer = Vec::new();
    for (time, line) in page.lines.iter().filter(|(_, line)| is_shown(line, filter)).skip(beyond) {
        match line {
            Line::Event(event) => printer.connection(*time, event, &mut buffer)?,
            Line::Loss(missing) => printer.loss(*time, &missing.loss, &mut buffer)?,
        }
    }
    Ok(out.write_all(&buffer)?)
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
