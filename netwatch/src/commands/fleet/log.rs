//! `netwatch fleet log`: recorded events of all hosts, with the filters and formats of `log`.

use std::io::{self, BufWriter, Write};

use anyhow::Result;
use jiff::Timestamp;

use super::super::pager::Pager;
use crate::fleet::{HostItem, Log, Question, Server, ServerOptions};
use crate::output::{Encoder, Format, LogOptions, Stamp};
use crate::stream::Batch;
use crate::{bus, enrich, escape};

/// Options of `fleet log`.
#[derive(Debug)]
pub struct FleetLogOptions {
    /// The server.
    pub server: ServerOptions,
    /// Hosts whose name matches.
    pub host: Option<globset::GlobMatcher>,
    /// Events at or after this time.
    pub since: Option<Timestamp>,
    /// Events before this time.
    pub until: Option<Timestamp>,
    /// Only the last N events.
    pub count: Option<usize>,
    /// Filter and format; its limit is not used.
    pub log: LogOptions,
}

pub(super) fn run(options: &FleetLogOptions) -> Result<()> {
    let server = Server::new(&options.server)?;
    server.check()?;
    let pager = Pager::start();
    pager.show(&mut io::stdout().lock(), |out| print(options, &server, &mut BufWriter::new(out)))
}

fn print(options: &FleetLogOptions, server: &Server, out: &mut dyn Write) -> Result<()> {
    let nanoseconds = |time: Timestamp| i64::try_from(time.as_nanosecond()).unwrap_or(i64::MAX);
    let question = Question {
        filter: options.log.filter.clone(),
        host: options.host.clone(),
        since: options.since.map(nanoseconds),
        until: options.until.map(nanoseconds),
        newest_first: options.count.is_some(),
    };
    let mut log = Log::new(server, question);
    let mut lines = Lines::new(&options.log, out)?;
    let mut next = || {
        log.next_page().map(|page| {
            page.map(|mut items| {
                items.retain(|item| bus::is_shown(&item.item, &options.log.filter));
                items
            })
        })
    };
    match options.count {
        None => {
            while let Some(items) = next()? {
                items.into_iter().try_for_each(|item| lines.item(item))?;
            }
        }
        Some(most) => {
            let (mut pages, mut count) = (Vec::new(), 0);
            while count < most
                && let Some(items) = next()?
            {
                count += items.len();
                pages.push(items);
            }
            let mut items: Vec<_> = pages.into_iter().rev().flatten().collect();
            items.sort_by_key(|item| item.time);
            items.into_iter().skip(count.saturating_sub(most)).try_for_each(|item| lines.item(item))?;
        }
    }
    lines.finish()
}

/// Lines, each with its host.
struct Lines<'o> {
    encoder: Encoder,
    format: Format,
    stages: Vec<Box<dyn enrich::Stage>>,
    out: &'o mut dyn Write,
}

impl<'o> Lines<'o> {
    fn new(options: &LogOptions, out: &'o mut dyn Write) -> Result<Self> {
        let mut lines = Self {
            encoder: Encoder::new(options, Stamp::DateAndTime),
            format: options.format,
            stages: enrich::recorded(),
            out,
        };
        let mut bytes = Vec::new();
        lines.encoder.begin(&mut bytes)?;
        lines.out.write_all(&bytes)?;
        Ok(lines)
    }

    fn item(&mut self, item: HostItem) -> Result<()> {
        let HostItem { host, context, item, .. } = item;
        let mut batch = Batch { context, items: vec![item] };
        self.stages.iter_mut().for_each(|stage| stage.enrich(&mut batch));
        let mut bytes = Vec::new();
        for item in &batch.items {
            self.encoder.item(item, &batch.context, &mut bytes)?;
        }
        for line in bytes.split_inclusive(|byte| *byte == b'\n') {
            self.line(&host, line)?;
        }
        Ok(())
    }

    /// Text has the host first, and objects their format's key.
    fn line(&mut self, host: &str, line: &[u8]) -> Result<()> {
        let name = serde_json::to_string(host)?;
        let key = match self.format {
            Format::Text => {
                write!(self.out, "{:16} ", escape::terminal(host))?;
                return Ok(self.out.write_all(line)?);
            }
            Format::Zeek => return Ok(self.out.write_all(line)?),
            Format::Json | Format::ZeekJson => format!("\"host\":{name}"),
            Format::Ecs => format!("\"host\":{{\"name\":{name}}}"),
            Format::Ocsf => format!("\"device\":{{\"hostname\":{name},\"type_id\":0}}"),
            Format::Sysmon => format!("\"Computer\":{name}"),
        };
        match line.strip_prefix(b"{") {
            Some(rest) => {
                write!(self.out, "{{{key},")?;
                Ok(self.out.write_all(rest)?)
            }
            None => Ok(self.out.write_all(line)?),
        }
    }

    fn finish(mut self) -> Result<()> {
        let mut bytes = Vec::new();
        self.encoder.end(&mut bytes)?;
        self.out.write_all(&bytes)?;
        Ok(self.out.flush()?)
    }
}
