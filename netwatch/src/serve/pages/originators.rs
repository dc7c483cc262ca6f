//! Who caused what: connections by their originator.

use std::collections::BTreeMap;

use maud::{Markup, html};
use serde_json::Value;

use super::{text, whole};
use crate::serve::{Found, Question};

/// What one originator caused.
#[derive(Default)]
struct Caused {
    connections: u64,
    bytes: u64,
    first: String,
    last: String,
    unsure: u64,
    /// The filter that shows them.
    term: String,
}

/// `found`: at most one page of the record.
pub(in crate::serve) fn originators(question: &Question, found: &Found) -> Markup {
    let mut all: BTreeMap<String, Caused> = BTreeMap::new();
    // Of a connection with both ends here, one counts.
    let mut flows = std::collections::BTreeSet::new();
    let connections = found.events.iter().filter(|event| !event["remote"].is_null());
    for event in connections.filter(|event| flows.insert(text(event, "/flow"))) {
        let (name, term) = group(event);
        let caused = all.entry(name).or_default();
        let bytes = |path: &str| event.pointer(path).and_then(Value::as_u64).unwrap_or(0);
        caused.connections += 1;
        caused.bytes =
            caused.bytes.saturating_add(bytes("/bytes_sent")).saturating_add(bytes("/bytes_received"));
        caused.unsure += u64::from(text(event, "/origin/confidence") != "observed");
        let ts = super::time(event, "ts");
        if caused.last.is_empty() {
            caused.last.clone_from(&ts);
        }
        caused.first = ts;
        caused.term = term;
    }
    let mut rows: Vec<_> = all.into_iter().collect();
    rows.sort_by_key(|(_, caused)| std::cmp::Reverse(caused.connections));
    let content = html! {
        p {
            "Of the newest " (found.events.len()) " ends of connections"
            @if !question.filter.is_empty() { " that match " code { (super::clean(&question.filter)) } }
            @if found.more.is_some() { "; there are older ones" } "."
        }
        div.scroll {
            table {
                thead { tr { @for name in ["Originator", "Connections", "Bytes", "First", "Last", "Not observed"] { th scope="col" { (name) } } } }
                tbody {
                    @for (name, caused) in &rows {
                        tr {
                            td {
                                @if caused.term.is_empty() { (name) }
                                @else { a href={ "/?" (question.with(&caused.term).query()) } { (name) } }
                            }
                            td { (caused.connections) }
                            td { (caused.bytes) }
                            td.word { (caused.first) }
                            td.word { (caused.last) }
                            td { (caused.unsure) }
                        }
                    }
                }
            }
        }
    };
    whole("Originators", &content)
}

/// The originator's name, and a term that selects what it caused.
fn group(event: &Value) -> (String, String) {
    let quoted = |text: &str| format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""));
    match &*text(event, "/origin/side") {
        "remote" if text(event, "/origin/process/pid").is_empty() => {
            let ip = text(event, "/origin/endpoint/ip");
            (ip.clone(), format!("origin:remote remote:{}", quoted(&ip)))
        }
        "local" => {
            let comm = event.pointer("/origin/process/comm").and_then(Value::as_str).unwrap_or_default();
            let glob = globset::escape(comm);
            let name = super::clean(comm).into_owned();
            let term = if comm.is_empty() {
                String::new()
            } else {
                format!("origin:local process:{}", quoted(&glob))
            };
            (if name.is_empty() { "a process that is not known".into() } else { name }, term)
        }
        "remote" | "both" => (text(event, "/origin/process/comm"), String::new()),
        _ => ("unknown".into(), "origin:unknown".into()),
    }
}
