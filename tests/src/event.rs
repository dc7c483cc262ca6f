//! Helpers for the events that tests read.

use serde_json::Value;

use crate::netns::netns;

/// An endpoint, identified on the host by its namespace and ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Inode number of the namespace.
    pub netns: u64,
    /// The local port.
    pub local: u16,
    /// The remote port; 0 for a listener.
    pub remote: u16,
}

impl Endpoint {
    /// Whether the event is about this endpoint.
    #[must_use]
    pub fn of(&self, event: &Value) -> bool {
        event["netns"] == self.netns
            && port(event, "local") == self.local
            && port(event, "remote") == self.remote
    }
}

/// An endpoint in the calling thread's namespace; a listener if `remote` is 0.
#[must_use]
pub fn endpoint(local: u16, remote: u16) -> Endpoint {
    Endpoint { netns: netns(), local, remote }
}

/// The kind of `event`.
#[must_use]
pub fn kind(event: &Value) -> &str {
    event["event"].as_str().unwrap_or_default()
}

/// The port of `local` or `remote`; 0 if there is none.
#[must_use]
pub fn port(event: &Value, side: &str) -> u16 {
    event[side]["port"].as_u64().and_then(|port| port.try_into().ok()).unwrap_or_default()
}

/// The first name of a port of `proto` in `/etc/services`, or null: not every host has the file.
#[must_use]
pub fn service(port: u16, proto: &str) -> Value {
    let file = std::fs::read_to_string("/etc/services").unwrap_or_default();
    let key = format!("{port}/{proto}");
    let mut lines = file.lines().map(|line| line.split_ascii_whitespace());
    lines.find_map(|mut words| words.next().filter(|_| words.next() == Some(&key))).into()
}

/// Asserts that `found` contains `expected`: objects may have more keys, everything else must be equal.
///
/// # Panics
/// If something differs, with the whole of `found`.
#[track_caller]
#[expect(clippy::needless_pass_by_value, reason = "expectations are written where they are used, by json!")]
pub fn assert_has(found: &Value, expected: Value) {
    let mut differences = Vec::new();
    compare("", found, &expected, &mut differences);
    assert!(differences.is_empty(), "{}\nin {found:#}", differences.join("\n"));
}

fn compare(path: &str, found: &Value, expected: &Value, differences: &mut Vec<String>) {
    match expected {
        Value::Object(keys) if found.is_object() => {
            for (key, expected) in keys {
                compare(&format!("{path}.{key}"), &found[key], expected, differences);
            }
        }
        _ if found == expected => {}
        _ => differences.push(format!("{path}: expected {expected}, found {found}")),
    }
}
