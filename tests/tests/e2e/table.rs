//! The sockets of a namespace, according to the events and according to the kernel.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use tests::{kind, port};

/// State and addresses by cookie.
pub(crate) type Table = BTreeMap<u64, (String, String, String)>;

/// The sockets that exist according to the events.
pub(crate) fn table_of_log(events: &[Value], netns: u64) -> Table {
    let mut table = Table::new();
    for event in events.iter().filter(|event| event["netns"] == netns && event["proto"] == "tcp") {
        let cookie = event["cookie"].as_u64().unwrap();
        match kind(event) {
            "close" | "fail" | "unlisten" => drop(table.remove(&cookie)),
            // accept may come after close.
            "accept" if !table.contains_key(&cookie) => {}
            _ => {
                let at = |side: &str| match event[side]["ip"].as_str() {
                    Some(ip) => format!("{ip}:{}", port(event, side)),
                    None => "*".to_owned(),
                };
                let state = event["state"].as_str().unwrap().to_owned();
                table.insert(cookie, (state, at("local"), at("remote")));
            }
        }
    }
    table
}

/// The sockets that exist according to the kernel.
pub(crate) fn table_of_kernel() -> Table {
    let output = Command::new("ss").args(["-tanHe"]).output().unwrap();
    assert!(output.status.success());
    let text = String::from_utf8(output.stdout).unwrap();
    let mut table = Table::new();
    for line in text.lines().filter(|line| !line.starts_with("TIME-WAIT")) {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        let cookie = words.iter().find_map(|word| word.strip_prefix("sk:")).unwrap();
        let state = match words[0] {
            "ESTAB" => "ESTABLISHED",
            other => other,
        };
        let remote = if words[4].ends_with(":*") { "*" } else { words[4] };
        let row = (state.to_owned(), words[3].to_owned(), remote.to_owned());
        table.insert(u64::from_str_radix(cookie, 16).unwrap(), row);
    }
    table
}
