//! Exports of a search.

use serde_json::Value;

use super::{address, process, text};

/// Columns of the table.
const COLUMNS: [&str; 14] = [
    "ts",
    "event",
    "id",
    "proto",
    "local",
    "remote",
    "remote_name",
    "process",
    "exe",
    "side",
    "basis",
    "confidence",
    "originator",
    "bytes",
];

/// Events as they are, one per line.
pub(in crate::serve) fn lines(events: &[Value]) -> String {
    events.iter().map(|event| format!("{event}\n")).collect()
}

/// RFC 4180; the first page with the names of the columns.
pub(in crate::serve) fn table(events: &[Value], is_first: bool) -> String {
    let mut out = String::new();
    if is_first {
        out.push_str(&COLUMNS.join(","));
        out.push_str("\r\n");
    }
    for event in events {
        let bytes =
            ["/bytes_sent", "/bytes_received"].map(|path| event.pointer(path).and_then(Value::as_u64));
        let [sent, received] = bytes;
        let total = sent.zip(received).map(|(sent, received)| sent.saturating_add(received).to_string());
        let cells = [
            text(event, "/ts"),
            text(event, "/event"),
            text(event, "/id"),
            text(event, "/proto"),
            address(event, "/local"),
            address(event, "/remote"),
            text(event, "/remote_name/name"),
            process(event, "/process"),
            text(event, "/process/exe"),
            text(event, "/origin/side"),
            text(event, "/origin/basis"),
            text(event, "/origin/confidence"),
            if event["origin"].is_null() { String::new() } else { super::originator(event) },
            total.unwrap_or_default(),
        ];
        let cells: Vec<_> = cells.iter().map(|cell| quoted(cell)).collect();
        out.push_str(&cells.join(","));
        out.push_str("\r\n");
    }
    out
}

/// A spreadsheet takes a cell that begins with one of some characters for a formula.
fn quoted(cell: &str) -> String {
    let is_formula = cell.starts_with(['=', '+', '-', '@', '\t', '\r']);
    format!("\"{}{}\"", if is_formula { "'" } else { "" }, cell.replace('"', "\"\""))
}
