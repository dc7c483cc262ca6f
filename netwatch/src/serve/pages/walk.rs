//! The walk back: as a list in the order of time, and as a picture.

use maud::{Markup, html};
use serde_json::Value;

use super::{address, clean, path_of, process, text, time, whole};

/// `walk`: a match of `trace --format json`.
pub(in crate::serve) fn walk(id: &str, walk: &Value) -> Markup {
    let steps = steps(walk);
    let missing = walk.pointer("/origin/missing").and_then(Value::as_array);
    let possible = walk.pointer("/origin/possible").and_then(Value::as_array);
    let content = html! {
        p {
            strong { (verdict(walk)) }
            " (" span class=(text(walk, "/origin/confidence")) { (text(walk, "/origin/confidence")) } ")"
        }
        @for what in missing.into_iter().flatten() {
            p.unsure { "Missing: " (clean(what.as_str().unwrap_or_default())) }
        }
        (picture(walk, &steps))
        h2 { "Step by step" }
        ol.walk {
            @for step in &steps {
                li {
                    span.word { (time(step, "ts")) } " "
                    @match step.get("connection").filter(|connection| !connection.is_null()) {
                        Some(connection) => a href=(path_of("c", &text(connection, "/id"))) { (label(step)) },
                        None => strong { (label(step)) },
                    }
                    span.why { (text(step, "/why")) }
                    @if !text(step, "/process/args").is_empty() { code { (text(step, "/process/args")) } }
                }
            }
            li {
                span.word { (time(walk.get("connection").unwrap_or(&Value::Null), "ts")) } " "
                a href=(path_of("c", id)) { (ends(walk.get("connection").unwrap_or(&Value::Null))) }
                span.why { "the connection that was asked about" }
            }
        }
        @if possible.is_some_and(|possible| !possible.is_empty()) {
            h2 { "Open at the time, without evidence that they were the cause" }
            ul {
                @for connection in possible.into_iter().flatten() {
                    li { a href=(path_of("c", &text(connection, "/id"))) { (ends(connection)) } }
                }
            }
        }
    };
    whole("Walk back", &content)
}

/// The oldest first.
fn steps(walk: &Value) -> Vec<Value> {
    let mut steps = walk.get("chain").and_then(Value::as_array).cloned().unwrap_or_default();
    steps.reverse();
    steps
}

fn verdict(walk: &Value) -> String {
    let (kind, who) = (text(walk, "/origin/kind"), process(walk, "/origin/process"));
    match &*kind {
        "remote" => format!("Came from {}", address(walk, "/origin")),
        "unknown" => "Origin unknown".into(),
        kind if who.is_empty() => format!("Originated in: {kind}"),
        kind => format!("Originated in: {kind}, {who}"),
    }
}

fn ends(connection: &Value) -> String {
    let arrow = super::arrow(connection);
    format!("{} {arrow} {}", address(connection, "/local"), address(connection, "/remote"))
}

fn label(step: &Value) -> String {
    match step.get("connection").filter(|connection| !connection.is_null()) {
        Some(connection) => ends(connection),
        None => process(step, "/process"),
    }
}

/// Sizes in the picture, in pixels. A character of its font is at most [`LETTER`] wide.
const WIDE: usize = 900;
const BOX: usize = 34;
const STEP: usize = 64;
const LEFT: usize = 20;
const LETTER: usize = 8;

/// Time goes down. What is on this host is in boxes, a connection from elsewhere in a bold one; the line between two says
/// why, and is dashed if that is only inferred.
fn picture(walk: &Value, steps: &[Value]) -> Markup {
    let connection = walk.get("connection").unwrap_or(&Value::Null);
    let count = steps.len() + 1;
    let height = count * STEP;
    let is_remote = |nth: usize| nth == 0 && text(walk, "/origin/kind") == "remote";
    // What is not known is who began it all; the steps are.
    let is_inferred = matches!(&*text(walk, "/origin/confidence"), "inferred" | "guessed");
    html! {
        svg.picture viewBox={ "0 0 " (WIDE) " " (height) } width=(WIDE) height=(height) role="img" aria-label="The same as a picture; the list below has all of it" {
            @for nth in 0..count {
                @let step = steps.get(nth);
                @let name = step.map_or_else(|| ends(connection), label);
                @let y = nth * STEP;
                @if nth > 0 {
                    path.tie.inferred[is_inferred] d={ "M" (LEFT + 40) " " (y + BOX - STEP) " V" (y) } {}
                    @if let Some(why) = steps.get(nth - 1).map(|step| text(step, "/why")) {
                        text x=(LEFT + 52) y=(y - 10) { (short(&why)) }
                    }
                }
                rect.box.remote[is_remote(nth)] x=(LEFT) y=(y) rx="4" width=(width(&name)) height=(BOX) {}
                text x=(LEFT + 10) y=(y + 22) { (short(&name)) }
            }
        }
    }
}

fn width(name: &str) -> usize {
    (short(name).chars().count() * LETTER + 24).min(WIDE - LEFT)
}

/// What fits in the picture.
fn short(name: &str) -> String {
    const MOST: usize = 100;
    match name.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", name.get(..end).unwrap_or_default()),
        None => name.to_owned(),
    }
}
