//! A trace as text: the verdict, then the steps in order of time, each indented below its cause. Strings from outside
//! netwatch are escaped.

use std::fmt::Write as _;
use std::io::{self, Write};

use anstyle::{AnsiColor, Style};
use jiff::tz::TimeZone;

use super::super::text::{how_known, who};
use super::{Traces, verdict};
use crate::escape;
use crate::forensics::{Life, OriginKind, Step, Trace, What};
use crate::model::BootTime;
use crate::origin::Confidence;
use crate::process::Actor;
use crate::signs;
use crate::tracker::ProcessBasis;

/// Writes traces as text.
#[derive(Clone, Copy, Debug)]
pub struct Story<'a> {
    /// Use colours.
    pub colour: bool,
    /// Time zone of the times.
    pub zone: &'a TimeZone,
}

/// Maximum length of a command line; JSON has all of it.
const MOST_ARGUMENTS: usize = 60;

impl Story<'_> {
    pub(super) fn write(self, found: Traces<'_>, out: &mut impl Write) -> io::Result<()> {
        let Traces { selector, traces, more, .. } = found;
        let selector = selector.to_string();
        if traces.is_empty() {
            return writeln!(out, "no connection matches {}", escape::terminal(&selector));
        }
        for (nth, trace) in traces.iter().enumerate() {
            if nth > 0 {
                writeln!(out)?;
            }
            self.one(trace, out)?;
        }
        if more {
            let selector = escape::terminal(&selector);
            writeln!(out, "\nmore connections match {selector}: increase --count to show them")?;
        }
        Ok(())
    }

    fn one(self, trace: &Trace, out: &mut impl Write) -> io::Result<()> {
        let origin = &trace.origin;
        let style = match origin.kind {
            OriginKind::Remote => AnsiColor::Red.on_default().bold(),
            OriginKind::Unknown => AnsiColor::Yellow.on_default().bold(),
            _ => Style::new().bold(),
        };
        let sure = match origin.confidence {
            Confidence::Unknown => String::new(),
            confidence => format!(" ({})", confidence.name()),
        };
        writeln!(out, "{}{sure}", self.styled(&verdict(trace), style))?;
        for missing in &origin.missing {
            writeln!(out, "  missing: {}", escape::terminal(missing))?;
        }
        for life in &origin.possible {
            writeln!(out, "  open at the time, no evidence that it was the cause: {}", connection(life))?;
        }
        let mut depth = 0;
        for step in trace.chain.iter().rev() {
            self.step(trace, step, depth, out)?;
            depth += 1;
        }
        let asked = &trace.connection;
        self.line(
            asked,
            asked.began(),
            depth,
            &format!("{}; {}", connection(asked), how_known(asked.end())),
            out,
        )
    }

    fn step(self, trace: &Trace, step: &Step, depth: usize, out: &mut impl Write) -> io::Result<()> {
        let why = escape::terminal(&step.why);
        let text = match &step.what {
            What::Process(actor) => format!("{} {why}{}", who(Some(actor)), described(actor)),
            What::Connection(life) => format!("{}; {why}", connection(life)),
            What::Message { writer, .. } => format!("{why}{}", described(writer)),
            What::Stream { holder, .. } => format!("{} {why}{}", who(Some(holder)), described(holder)),
        };
        self.line(&trace.connection, step.at, depth, &text, out)
    }

    fn line(self, of: &Life, at: BootTime, depth: usize, text: &str, out: &mut impl Write) -> io::Result<()> {
        let time = match of.clock.time(at) {
            Some(time) => time.to_zoned_datetime(self.zone.clone()).strftime("%F %T.%3f").to_string(),
            None => "-".into(),
        };
        let branch = if depth == 0 { String::new() } else { format!("{:1$}└ ", "", 2 * (depth - 1)) };
        writeln!(out, "  {} {branch}{text}", self.styled(&time, Style::new().dimmed()))
    }

    fn styled(self, text: &str, style: Style) -> String {
        if self.colour { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// Path or command line, and user.
fn described(actor: &Actor) -> String {
    let image = &actor.process.image;
    let mut line = image.args.join(" ");
    if line.is_empty() {
        line = image.exe.as_deref().unwrap_or_default().to_owned();
    }
    let line = escape::terminal(&line).into_owned();
    let mut shown: String = line.chars().take(MOST_ARGUMENTS).collect();
    if shown.len() < line.len() {
        shown.push('…');
    }
    let mut out = if shown.is_empty() { String::new() } else { format!("; {shown}") };
    // Writing to a String cannot fail.
    let _ = write!(out, "; uid {}", actor.process.uid);
    if let Some(auid) = actor.process.auid {
        let _ = write!(out, ", login uid {auid}");
    }
    for sign in signs::of_process(&actor.process, actor.process.exe_status()) {
        let _ = write!(out, " ! {}", sign.text());
    }
    out
}

/// The addresses from originator to responder, with the process on this host.
fn connection(life: &Life) -> String {
    let endpoint = life.end();
    let Some(remote) = endpoint.remote else { return format!("listener {}", endpoint.local) };
    // The acceptor, even if another process had the socket later.
    let took = life.uses().find(|used| used.basis == ProcessBasis::Accept).map(|used| used.actor);
    let here = who(took.or(endpoint.process.as_ref()));
    let proto = endpoint.proto;
    let (local, remote) = (proto.spell(endpoint.local), proto.spell(remote));
    if life.is_inbound() {
        format!("{} {remote} -> {local} {here}", proto.name())
    } else {
        format!("{} {here} {local} -> {remote}", proto.name())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn long_command_line_is_cut() {
        let of = |length: usize| {
            let mut process = crate::process::tests::process(5, None);
            let mut image = (*process.image).clone();
            image.args = ["x".repeat(length - 2), "y".to_owned()].into_iter().collect();
            Arc::make_mut(&mut process).image = Arc::new(image);
            described(&Actor::leader(process))
        };
        let whole = format!("; {} y; uid", "x".repeat(58));
        assert!(of(60).starts_with(&whole), "{}", of(60));
        let cut = format!("; {} …; uid", "x".repeat(59));
        assert!(of(61).starts_with(&cut), "{}", of(61));
    }
}
