//! Checks that apply to every event of every run: the schema, and what a schema cannot express.

use std::collections::HashMap;

use serde_json::Value;

use crate::event::kind;
use crate::schema;

/// The bases in order of trust, with the confidences that each may have.
const BASES: [(&str, &[&str]); 9] = [
    ("connect", &["observed"]),
    ("accept", &["observed"]),
    ("handshake", &["observed"]),
    ("peer", &["observed", "inferred"]),
    ("listener", &["inferred"]),
    ("port-range", &["guessed"]),
    ("idle", &["unknown"]),
    ("repair", &["unknown"]),
    ("none", &["unknown"]),
];

/// What was seen of an endpoint so far.
#[derive(Debug)]
struct Seen {
    cookie: Value,
    flow: Value,
    trust: usize,
    over: bool,
}

/// The keys at the beginning of a line, read before it is parsed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Head<'a> {
    pub(crate) seq: u64,
    pub(crate) kind: &'a str,
    /// `None` if the event is not about a socket.
    pub(crate) netns: Option<u64>,
}

impl<'a> Head<'a> {
    fn of(line: &'a str) -> Option<Self> {
        let (seq, rest) = line.strip_prefix(r#"{"v":1,"seq":"#)?.split_once(r#","ts":""#)?;
        let (_, rest) = rest.split_once(r#"","event":""#)?;
        let (kind, rest) = rest.split_once('"')?;
        // In a string, which may have any content, a quote has a backslash before it.
        let netns = rest.split_once(r#","netns":"#).and_then(|(_, rest)| {
            let end = rest.find(|letter: char| !letter.is_ascii_digit())?;
            rest.get(..end)?.parse().ok()
        });
        Some(Self { seq: seq.parse().ok()?, kind, netns })
    }
}

/// Checks a run, line by line.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    seq: Option<u64>,
    endpoints: HashMap<String, Seen>,
}

impl Checks {
    /// Parses the line.
    ///
    /// # Panics
    /// If the line violates the contract.
    pub(crate) fn line(&mut self, line: &str) -> Value {
        self.head(line);
        self.rest(line)
    }

    /// Reads the beginning of a line, which is checked even if the rest is not: see [`Checks::rest`].
    ///
    /// # Panics
    /// As [`Checks::line`].
    pub(crate) fn head<'a>(&mut self, line: &'a str) -> Head<'a> {
        let head =
            Head::of(line).unwrap_or_else(|| panic!("keys do not begin with v, seq, ts, event: {line}"));
        if let Some(before) = self.seq.replace(head.seq) {
            assert_eq!(head.seq, before + 1, "a gap before {line}");
        } else {
            assert_eq!(head.kind, "ready", "{line}");
        }
        head
    }

    /// Parses a line whose [`Checks::head`] was read.
    ///
    /// # Panics
    /// As [`Checks::line`].
    pub(crate) fn rest(&mut self, line: &str) -> Value {
        let event: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        let seq = event["seq"].as_u64().unwrap_or_else(|| panic!("no seq: {line}"));
        let ts = event["ts"].as_str().unwrap_or_else(|| panic!("no ts: {line}"));
        assert!(ts.parse::<jiff::Timestamp>().is_ok(), "ts is no time: {line}");
        let head = format!(r#"{{"v":1,"seq":{seq},"ts":"{ts}","event":"{}""#, kind(&event));
        assert!(line.starts_with(&head), "keys do not begin with v, seq, ts, event: {line}");
        schema::validate(&event);
        if !["ready", "loss", "process", "alert"].contains(&kind(&event)) {
            self.socket(&event);
        }
        event
    }

    fn socket(&mut self, event: &Value) {
        let listens = matches!(kind(event), "listen" | "unlisten") || event["state"] == "LISTEN";
        assert!(event["remote"].is_null() == listens || event["proto"] == "udp", "{event:#}");
        let trust = if event["remote"].is_null() {
            assert!(event["origin"].is_null(), "{event:#}");
            0
        } else {
            assert!(event["flow"].is_string(), "{event:#}");
            origin(event)
        };
        let id = event["id"].as_str().unwrap_or_else(|| panic!("no id: {event:#}"));
        let seen = self.endpoints.entry(id.to_owned()).or_insert_with(|| Seen {
            cookie: event["cookie"].clone(),
            flow: event["flow"].clone(),
            trust,
            over: false,
        });
        assert_eq!(seen.cookie, event["cookie"], "one id: {event:#}");
        // It may become known only in a repair that two endpoints belong together.
        let flow = seen.flow == event["flow"] || event["repaired"] == true;
        assert!(flow, "one id, and a flow other than {}: {event:#}", seen.flow);
        assert!(seen.trust >= trust, "trusted less than before: {event:#}");
        assert!(!seen.over || kind(event) == "accept", "after its end: {event:#}");
        seen.trust = trust;
        seen.flow = event["flow"].clone();
        seen.over |= matches!(kind(event), "close" | "fail" | "unlisten");
    }
}

/// Checks that the values of an origin are consistent; returns its position in the order of trust.
fn origin(event: &Value) -> usize {
    let origin = &event["origin"];
    let trust = BASES.iter().position(|(basis, _)| origin["basis"] == *basis);
    let trust = trust.unwrap_or_else(|| panic!("what basis is this: {event:#}"));
    let (_, confidences) = BASES[trust];
    assert!(confidences.iter().any(|word| origin["confidence"] == *word), "{event:#}");
    let local = event["local"].clone();
    let endpoint = match origin["side"].as_str() {
        Some("local" | "both") => local,
        Some("remote") => event["remote"].clone(),
        Some("unknown") => Value::Null,
        _ => panic!("what side is this: {event:#}"),
    };
    assert_eq!(origin["endpoint"], endpoint, "{event:#}");
    assert_eq!(origin["side"] == "unknown", origin["confidence"] == "unknown", "{event:#}");
    let sure = ["observed", "inferred"].iter().any(|word| origin["confidence"] == *word);
    assert!(sure || origin["process"].is_null(), "a guess names a process: {event:#}");
    let low = |side: &str| crate::event::port(event, side) < 1024;
    let rule = match (low("local"), low("remote")) {
        (false, true) => "local",
        (true, false) => "remote",
        _ => "unknown",
    };
    assert_eq!(origin["port_rule"], rule, "{event:#}");
    trust
}
