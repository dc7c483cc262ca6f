//! Pages, from JSON objects. Pure. Whatever comes from outside netwatch is text: maud escapes it, and there is no other way
//! into a page; characters that change how a line reads are spelled out.

mod connection;
pub(super) mod csv;
mod originators;
mod search;
mod walk;

use std::borrow::Cow;

use maud::{DOCTYPE, Markup, html};
use serde_json::Value;

use super::State;
use crate::escape;

pub(super) use connection::connection;
pub(super) use originators::originators;
pub(super) use search::search;
pub(super) use walk::walk;

/// What every page has in its head.
fn head(title: &str) -> Markup {
    html! {
        meta charset="utf-8";
        meta name="viewport" content="width=device-width, initial-scale=1";
        title { (title) }
        link rel="stylesheet" href="/assets/style.css";
    }
}

/// A page with its navigation.
fn whole(title: &str, content: &Markup) -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head { (head(&format!("{title} - netwatch"))) }
            body {
                a.skip href="#content" { "Skip to the content" }
                header {
                    nav aria-label="Pages" {
                        ul {
                            li { a href="/" { "Search" } }
                            li { a href="/originators" { "Originators" } }
                            li { a href="/state" { "Losses and integrity" } }
                        }
                    }
                }
                main id="content" { h1 { (title) } (content) }
                footer { p { "netwatch " (env!("CARGO_PKG_VERSION")) ". All times are UTC." } }
            }
        }
    }
}

/// What is shown without the token.
pub(super) fn enter() -> Markup {
    html! {
        (DOCTYPE)
        html lang="en" {
            head {
                (head("netwatch"))
                script type="module" src="/assets/enter.js" {}
            }
            body {
                main {
                    h1 { "netwatch" }
                    p id="status" role="status" {
                        "Open the address that netwatch printed when it started: it ends with the token."
                    }
                    noscript { p { "Only this step needs a script, which keeps the token out of every log." } }
                }
            }
        }
    }
}

/// A page with one sentence.
pub(super) fn message(title: &str, text: &str) -> Markup {
    whole(title, &html! { p role="alert" { (clean(text)) } })
}

/// Losses, and the state of the chain.
pub(super) fn state(state: &State) -> Markup {
    let content = html! {
        dl {
            dt { "Store" } dd { code { (clean(&state.store)) } }
            dt { "Newest link" }
            dd { @match &state.link {
                Some(link) => code { (link) },
                None => "none: nothing was recorded yet",
            } }
        }
        p {
            "Keep the newest link elsewhere: " code { "netwatch verify --anchor LINK" }
            " proves later that nothing before it was altered."
        }
        h2 { "Losses" }
        @if state.losses.is_empty() {
            p { "None: every event that netwatch saw was recorded." }
        } @else {
            div.scroll {
                table {
                    caption { "What was not recorded, the newest first" }
                    thead { tr { th scope="col" { "Time" } th scope="col" { "Reason" } th scope="col" { "Count" } th scope="col" { "Kinds" } } }
                    tbody {
                        @for loss in &state.losses {
                            tr {
                                td.word { (time(loss, "ts")) }
                                td { (text(loss, "/reason")) }
                                td { (text(loss, "/count")) }
                                td { (kinds(loss)) }
                            }
                        }
                    }
                }
            }
        }
    };
    whole("Losses and integrity", &content)
}

fn kinds(loss: &Value) -> String {
    let kinds = loss.get("kinds").and_then(Value::as_object).into_iter().flatten();
    let kinds: Vec<_> = kinds.map(|(kind, count)| format!("{kind} {count}")).collect();
    clean(&kinds.join(", ")).into_owned()
}

/// Text as it is shown.
fn clean(text: &str) -> Cow<'_, str> {
    escape::terminal(text)
}

/// The value at a path, as text; empty if it is null or there is none.
fn text(of: &Value, path: &str) -> String {
    match of.pointer(path) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => clean(text).into_owned(),
        Some(Value::Array(words)) => {
            let words: Vec<_> = words.iter().map(|word| word.as_str().unwrap_or_default()).collect();
            clean(&words.join(" ")).into_owned()
        }
        Some(other) => clean(&other.to_string()).into_owned(),
    }
}

/// A time to milliseconds.
fn time(of: &Value, key: &str) -> String {
    let ts = text(of, &format!("/{key}"));
    // 2026-11-24T10:00:00.123456789Z
    ts.get(..23).map_or_else(|| ts.clone(), |short| short.replacen('T', " ", 1))
}

/// `ADDRESS:PORT`
fn address(of: &Value, path: &str) -> String {
    let (ip, port) = (text(of, &format!("{path}/ip")), text(of, &format!("{path}/port")));
    match (ip.is_empty(), ip.contains(':')) {
        (true, _) => String::new(),
        (false, true) => format!("[{ip}]:{port}"),
        (false, false) => format!("{ip}:{port}"),
    }
}

/// `comm[pid]`
fn process(of: &Value, path: &str) -> String {
    let pid = text(of, &format!("{path}/pid"));
    if pid.is_empty() { String::new() } else { format!("{}[{pid}]", text(of, &format!("{path}/comm"))) }
}

/// Who originated a connection, in a few words.
fn originator(event: &Value) -> String {
    let who = process(event, "/origin/process");
    let who = if who.is_empty() { address(event, "/origin/endpoint") } else { who };
    if who.is_empty() { "unknown".into() } else { who }
}

/// The direction, away from the originator.
fn arrow(event: &Value) -> &'static str {
    match event.pointer("/origin/side").and_then(Value::as_str) {
        Some("local") => "→",
        Some("remote") => "←",
        Some("both") => "↔",
        _ => "–",
    }
}

/// A path with an id from a record.
fn path_of(page: &str, id: &str) -> String {
    let id: String = form_urlencoded::byte_serialize(id.as_bytes()).collect();
    // A `+` is a space in a query only.
    format!("/{page}/{}", id.replace('+', "%20"))
}
