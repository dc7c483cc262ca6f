//! A graph for Graphviz: processes are boxes, connections are ovals, and edges point from cause to effect.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::super::text::who;
use super::{Traces, verdict};
use crate::escape;
use crate::forensics::{Life, Trace, What};

pub(super) fn write(found: Traces<'_>, out: &mut impl Write) -> io::Result<()> {
    writeln!(out, "digraph trace {{")?;
    writeln!(out, "  rankdir=LR; node [fontname=\"sans-serif\"];")?;
    for (nth, trace) in found.traces.iter().enumerate() {
        one(nth, trace, out)?;
    }
    writeln!(out, "}}")
}

fn one(nth: usize, trace: &Trace, out: &mut impl Write) -> io::Result<()> {
    let mut before = format!("t{nth}");
    writeln!(out, "  {before} [shape=octagon, label={}];", quoted(&verdict(trace)))?;
    for (step, what) in trace.chain.iter().rev().enumerate() {
        let (shape, label) = match &what.what {
            What::Process(actor)
            | What::Message { writer: actor, .. }
            | What::Stream { holder: actor, .. } => ("box", who(Some(actor))),
            What::Connection(life) => ("ellipse", ends(life)),
        };
        let node = format!("t{nth}s{step}");
        writeln!(out, "  {node} [shape={shape}, label={}];", quoted(&label))?;
        writeln!(out, "  {before} -> {node} [label={}];", quoted(&what.why))?;
        before = node;
    }
    let node = format!("t{nth}c");
    writeln!(out, "  {node} [shape=ellipse, style=bold, label={}];", quoted(&ends(&trace.connection)))?;
    writeln!(out, "  {before} -> {node};")
}

fn ends(life: &Life) -> String {
    let endpoint = life.end();
    match (endpoint.remote, life.is_inbound()) {
        (Some(remote), true) => format!("{remote} -> {}", endpoint.local),
        (Some(remote), false) => format!("{} -> {remote}", endpoint.local),
        (None, _) => endpoint.local.to_string(),
    }
}

/// A quoted DOT string, escaped, since names come from outside netwatch.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in escape::terminal(text).chars() {
        match c {
            '"' | '\\' => _ = write!(out, "\\{c}"),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quotes_and_controls_stay_inside() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\\\x0a\"");
    }
}
