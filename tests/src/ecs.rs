//! The published list of fields of the Elastic Common Schema, applied to events.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::LazyLock;

use serde_json::Value;

struct Field {
    of_type: &'static str,
    is_array: bool,
}

static FIELDS: LazyLock<HashMap<&'static str, Field>> = LazyLock::new(|| {
    let list = include_str!("../data/ecs-fields.csv");
    let rows = list.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let mut cells = row.split(',');
        let mut cell = || cells.next().expect("three columns");
        let (name, of_type, normalization) = (cell(), cell(), cell());
        (name, Field { of_type, is_array: normalization == "array" })
    })
    .collect()
});

/// Values that the schema prescribes.
const ALLOWED: [(&str, &[&str]); 5] = [
    ("event.kind", &["alert", "asset", "enrichment", "event", "metric", "state", "pipeline_error", "signal"]),
    ("event.outcome", &["failure", "success", "unknown"]),
    ("event.category", &["network", "process"]),
    (
        "event.type",
        &["access", "allowed", "connection", "denied", "end", "error", "info", "protocol", "start"],
    ),
    ("network.direction", &["ingress", "egress", "unknown"]),
];

/// Checks that each key of an event is in the list, with a value of its type, or below `netwatch`.
///
/// # Errors
/// The keys that are not, with their values.
pub fn check_ecs(event: &Value) -> Result<(), String> {
    let mut errors = Vec::new();
    check("", event, &mut errors);
    for required in ["@timestamp", "ecs"] {
        if event.get(required).is_none() {
            errors.push(format!("no {required}"));
        }
    }
    if errors.is_empty() { Ok(()) } else { Err(errors.join("\n")) }
}

fn check(at: &str, value: &Value, errors: &mut Vec<String>) {
    if let Value::Object(object) = value {
        for (key, value) in object {
            let name = if at.is_empty() { key.clone() } else { format!("{at}.{key}") };
            if name != "netwatch" {
                check(&name, value, errors);
            }
        }
        return;
    }
    let Some(field) = FIELDS.get(at) else {
        errors.push(format!("{at}: no such field"));
        return;
    };
    let items = match value {
        Value::Array(items) if field.is_array => items.iter().collect(),
        _ if field.is_array => Vec::new(),
        value => vec![value],
    };
    let allowed = ALLOWED.iter().find(|(name, _)| *name == at).map(|(_, allowed)| *allowed);
    let is_allowed = |item: &Value| {
        allowed.is_none_or(|allowed| item.as_str().is_some_and(|item| allowed.contains(&item)))
    };
    if items.is_empty() || !items.iter().all(|item| is_of_type(field.of_type, item) && is_allowed(item)) {
        errors.push(format!("{at}: not {}: {value}", field.of_type));
    }
}

fn is_of_type(of_type: &str, value: &Value) -> bool {
    match of_type {
        "keyword" | "wildcard" | "constant_keyword" | "match_only_text" => value.is_string(),
        "long" => value.is_i64(),
        "ip" => value.as_str().is_some_and(|text| text.parse::<IpAddr>().is_ok()),
        "date" => value.as_str().is_some_and(|text| text.parse::<jiff::Timestamp>().is_ok()),
        "boolean" => value.is_boolean(),
        _ => false,
    }
}
