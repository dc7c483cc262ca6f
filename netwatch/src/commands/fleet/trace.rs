//! `netwatch fleet trace`: walks back over hosts.

use std::io::{BufWriter, Write};

use anyhow::Result;
use globset::GlobMatcher;
use jiff::tz::TimeZone;
use serde_json::json;

use super::super::trace::Completion;
use crate::enrich::Users;
use crate::escape;
use crate::fleet::{Hop, Mirrors, Server, ServerOptions, Walk, walks};
use crate::forensics::Selector;
use crate::origin::Confidence;
use crate::output::trace::{TraceFormat, Traces, matched, verdict, write};

/// Options of `fleet trace`.
#[derive(Debug)]
pub struct FleetTraceOptions {
    /// The server.
    pub server: ServerOptions,
    /// Hosts whose name matches.
    pub host: GlobMatcher,
    /// Connections to trace.
    pub selector: Selector,
    /// Maximum number of connections; the newest are taken.
    pub most: usize,
    /// Print JSON.
    pub json: bool,
    /// Print text with colours.
    pub colour: bool,
}

pub(super) fn run(options: &FleetTraceOptions, out: &mut dyn Write) -> Result<()> {
    let server = Server::new(&options.server)?;
    server.check()?;
    let mirrors = Mirrors::new(&server);
    let (mut found, more) = walks(&mirrors, &options.host, &options.selector, options.most)?;
    // Users are those of other hosts: names of this one would be wrong.
    let mut completion = Completion { programs: None, users: Users::patient() };
    for hop in found.iter_mut().flat_map(|walk| &mut walk.hops) {
        hop.trace.complete(&mut completion);
    }
    let mut out = BufWriter::new(out);
    if options.json {
        objects(options, &found, more, &mut out)?;
    } else {
        text(options, &found, more, &mut out)?;
    }
    Ok(out.flush()?)
}

fn text(options: &FleetTraceOptions, found: &[Walk], more: bool, out: &mut impl Write) -> Result<()> {
    let selector = options.selector.to_string();
    let selector = escape::terminal(&selector);
    if found.is_empty() {
        writeln!(
            out,
            "no connection of {} matches {selector}",
            escape::terminal(options.host.glob().glob())
        )?;
    }
    for (nth, walk) in found.iter().enumerate() {
        if nth > 0 {
            writeln!(out)?;
        }
        let Some(first) = walk.hops.last() else { continue };
        let sure = match walk.confidence {
            Confidence::Unknown => String::new(),
            confidence => format!(" ({})", confidence.name()),
        };
        writeln!(out, "{}: {}{sure}", escape::terminal(&first.host), verdict(&first.trace))?;
        if let Some(missing) = &walk.missing {
            writeln!(out, "  missing: {}", escape::terminal(missing))?;
        }
        for hop in walk.hops.iter().rev() {
            writeln!(out, "on {}{}", escape::terminal(&hop.host), linked(hop))?;
            let traces = Traces {
                selector: &options.selector,
                traces: std::slice::from_ref(&hop.trace),
                more: false,
                users: &std::sync::Arc::default(),
                zone: &TimeZone::system(),
            };
            let mut story = Vec::new();
            write(traces, TraceFormat::Text, options.colour, &mut story)?;
            for line in story.split_inclusive(|byte| *byte == b'\n') {
                out.write_all(b"  ")?;
                out.write_all(line)?;
            }
        }
    }
    if more {
        writeln!(out, "\nmore connections match {selector}: increase --count to show them")?;
    }
    Ok(())
}

/// What is to be known of the way to the next host.
fn linked(hop: &Hop) -> String {
    let Some(link) = &hop.link else { return String::new() };
    let clock = match link.clock_ahead_ms {
        Some(ahead) if link.compared == 1 => format!("clock {ahead:+} ms to the next, by another connection"),
        Some(ahead) => format!("clock {ahead:+} ms to the next, by {} other connections", link.compared),
        None => "difference to the clock of the next not known".into(),
    };
    match link.others {
        0 => format!(" ({clock})"),
        others => format!(" ({clock}; {others} other ends have these addresses at that time)"),
    }
}

fn objects(options: &FleetTraceOptions, found: &[Walk], more: bool, out: &mut impl Write) -> Result<()> {
    let mut matches = Vec::new();
    for walk in found {
        let mut hops = Vec::new();
        for hop in &walk.hops {
            let trace: serde_json::Value =
                serde_json::from_str(matched(&hop.trace, &std::sync::Arc::default())?.get())?;
            let link = hop.link.as_ref().map(|link| {
                json!({"clock_ahead_ms": link.clock_ahead_ms, "compared": link.compared, "others": link.others})
            });
            hops.push(json!({"host": hop.host, "link": link, "trace": trace}));
        }
        let origin = hops.last().and_then(|hop| hop.pointer("/trace/origin").cloned());
        let host = walk.hops.last().map(|hop| &*hop.host);
        matches.push(json!({
            "host": host,
            "origin": origin,
            "confidence": walk.confidence,
            "missing": walk.missing,
            "hops": hops,
        }));
    }
    let object = json!({"selector": options.selector.to_string(), "matches": matches, "more": more});
    serde_json::to_writer(&mut *out, &object)?;
    writeln!(out)?;
    Ok(())
}
