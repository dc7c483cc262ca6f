//! One connection: both ends, and what happened to it.

use maud::{Markup, html};
use serde_json::Value;

use super::{address, arrow, originator, path_of, process, text, time, whole};
use crate::serve::Question;

/// `events`: of both ends, the oldest first.
pub(in crate::serve) fn connection(id: &str, events: &[Value]) -> Markup {
    let last = events.iter().rev().find(|event| text(event, "/id") == id);
    let Some(last) = last.or(events.last()) else {
        return super::message("Not found", "The record has no event of this connection.");
    };
    let title = format!("{} {} {}", address(last, "/local"), arrow(last), address(last, "/remote"));
    let ends: Vec<_> = {
        let mut ends: Vec<&Value> = Vec::new();
        for event in events.iter().rev() {
            if ends.iter().all(|known| text(known, "/id") != text(event, "/id")) {
                ends.push(event);
            }
        }
        ends
    };
    let content = html! {
        @if !last["origin"].is_null() {
            p.actions { a href=(path_of("walk", id)) { "Walk back to its cause" } }
        }
        dl {
            @if !last["origin"].is_null() {
                dt { "Originator" } dd { (originator(last)) }
                dt { "How known" }
                dd class=(text(last, "/origin/confidence")) {
                    (text(last, "/origin/basis")) ", " (text(last, "/origin/confidence"))
                }
            }
            dt { "State" } dd { (text(last, "/proto")) " " (text(last, "/state")) " " (text(last, "/errno")) }
            (row("Closed by", &text(last, "/closed_by")))
            (row("Sent", &bytes(last, "/bytes_sent")))
            (row("Received", &bytes(last, "/bytes_received")))
            (row("Remote name", &text(last, "/remote_name/name")))
            (row("Called", &text(last, "/local_name/name")))
            (row("Translated local address", &address(last, "/nat/local")))
            (row("Translated remote address", &address(last, "/nat/remote")))
            (row("Interface", &text(last, "/device")))
            (row("Network namespace", &text(last, "/netns")))
        }
        @for end in ends {
            h2 { "At " (address(end, "/local")) }
            (program(end, "/process", "Process"))
            (program(end, "/listener/process", "Listener"))
        }
        h2 { "Events" }
        div.scroll {
            table {
                caption { "What happened, at both ends that are on this host" }
                thead { tr { @for name in ["Time", "Event", "At", "Process", "State", "Result"] { th scope="col" { (name) } } } }
                tbody {
                    @for event in events {
                        tr {
                            td.word { (time(event, "ts")) }
                            td.word { (text(event, "/event")) }
                            td.address { (address(event, "/local")) }
                            td { (process(event, "/process")) }
                            td.word { (text(event, "/state")) }
                            td { (text(event, "/errno")) (text(event, "/closed_by")) }
                        }
                    }
                }
            }
        }
    };
    whole(&title, &content)
}

fn row(name: &str, value: &str) -> Markup {
    html! { @if !value.is_empty() { dt { (name) } dd { (value) } } }
}

fn bytes(event: &Value, path: &str) -> String {
    let count = text(event, path);
    if count.is_empty() { count } else { format!("{count} B") }
}

/// All that is known of a process.
pub(super) fn program(event: &Value, path: &str, what: &str) -> Markup {
    let own = |key: &str| text(event, &format!("{path}/{key}"));
    if own("pid").is_empty() {
        return html! { p { (what) ": not known" } };
    }
    let of_pid = Question::default().with(&format!("pid:{}", own("pid")));
    let ancestors = event.pointer(&format!("{path}/ancestors")).and_then(Value::as_array);
    let above: Vec<_> = ancestors.into_iter().flatten().map(|one| process(one, "")).collect();
    html! {
        dl {
            dt { (what) } dd { a href={ "/?" (of_pid.query()) } { (process(event, path)) } }
            (row("Executable", &own("exe")))
            (row("State of the executable", &own("exe_state")))
            @if !own("args").is_empty() { dt { "Arguments" } dd { code { (own("args")) } } }
            (row("User", &format!("{} {}", own("user"), own("uid"))))
            (row("Login", &own("auid")))
            (row("Started", &own("start")))
            (row("Unit", &own("unit")))
            (row("Container", &own("container")))
            (row("Signs", &own("signs")))
            (row("Ancestors", &above.join(" ← ")))
        }
    }
}
