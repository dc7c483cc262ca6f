//! The JSON Schema of an event.

use serde_json::{Map, Value, json};

use super::OBJECTS;
use crate::output::keys::{self, Described, EVERY, Is, Key as _, Null, SOCKETS};

/// Of every kind of event. Kinds about sockets have the same keys, and differ in which of them are null.
pub(super) fn schema() -> Value {
    let mut defs = Map::new();
    for object in OBJECTS {
        let mut def = closed(object.keys.iter());
        def["title"] = object.title.into();
        defs.insert(object.name.to_owned(), def);
    }
    let first = SOCKETS.first().unwrap();
    let mut socket = closed(keys::Event::ALL.iter().filter(|key| key.is_on(first)));
    socket["title"] = "What events about a connection or a listener have in common".into();
    defs.insert("socket".to_owned(), socket);
    for kind in EVERY {
        let on = keys::Event::ALL.iter().filter(|key| key.is_on(kind));
        let def = if SOCKETS.contains(kind) {
            let is_null = |key: &&Described| matches!(key.null, Null::Except(kinds) if !kinds.contains(kind));
            let mut narrowed: Map<_, _> =
                on.filter(is_null).map(|key| (key.name.to_owned(), json!({"type": "null"}))).collect();
            narrowed.insert("event".to_owned(), json!({"const": kind}));
            json!({"$ref": "#/$defs/socket", "properties": narrowed})
        } else {
            let mut def = closed(on);
            def["properties"]["event"] = json!({"const": kind});
            def
        };
        defs.insert(format!("event_{kind}"), def);
    }
    let kinds: Vec<_> = EVERY.iter().map(|kind| json!({"$ref": format!("#/$defs/event_{kind}")})).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "An event of netwatch",
        "description": "A line of `netwatch watch --json`, `record --print --json` or `log --json`.",
        "oneOf": kinds,
        "$defs": defs,
    })
}

/// An object with these keys and no others.
fn closed<'a>(keys: impl Iterator<Item = &'a Described>) -> Value {
    let mut properties = Map::new();
    let mut required = Vec::new();
    for key in keys {
        properties.insert(key.name.to_owned(), property(key));
        if !matches!(key.null, Null::Absent | Null::AbsentOrNull) {
            required.push(key.name);
        }
    }
    json!({
        "type": "object",
        "properties": properties,
        "required": required,
        "additionalProperties": false,
    })
}

fn property(key: &Described) -> Value {
    let mut property = value(&key.is);
    if matches!(key.null, Null::Maybe | Null::Except(_) | Null::AbsentOrNull) {
        property = or_null(property);
    }
    property["description"] = key.meaning.into();
    property
}

fn or_null(mut schema: Value) -> Value {
    let null = json!({"type": "null"});
    if let Some(Value::Array(words)) = schema.get_mut("enum") {
        words.push(Value::Null);
    } else if let Some(Value::Array(others)) = schema.get_mut("anyOf") {
        others.push(null);
    } else if let Some(Value::String(name)) = schema.get("type") {
        schema["type"] = json!([name, "null"]);
    } else {
        schema = json!({"anyOf": [schema, {"type": "null"}]});
    }
    schema
}

fn value(is: &Is) -> Value {
    let reference = |name: &str| json!({"$ref": format!("#/$defs/{name}")});
    match is {
        Is::Integer(least, greatest) if least == greatest => json!({"const": least}),
        Is::Integer(least, greatest) => {
            json!({"type": "integer", "minimum": least, "maximum": greatest})
        }
        Is::Text => json!({"type": "string"}),
        Is::Matching(pattern) => json!({"type": "string", "pattern": pattern}),
        Is::Address => json!({"type": "string", "anyOf": [{"format": "ipv4"}, {"format": "ipv6"}]}),
        Is::Boolean => json!({"type": "boolean"}),
        Is::True => json!({"const": true}),
        Is::Word(words) => json!({"enum": words()}),
        Is::Words(words) => json!({"type": "array", "items": {"enum": words()}, "minItems": 1}),
        Is::Texts => json!({"type": "array", "items": {"type": "string"}}),
        Is::Counts => json!({
            "type": "object",
            "additionalProperties": {"type": "integer", "minimum": 1, "maximum": u64::MAX},
        }),
        Is::Names => json!({"type": "object", "additionalProperties": {"type": ["string", "null"]}}),
        Is::Opaque => json!({"type": "object"}),
        Is::Object(name) => reference(name),
        Is::Objects(name) => json!({"type": "array", "items": reference(name)}),
        Is::Process => json!({"anyOf": [reference("process"), value(&keys::PROCESS_KEY)]}),
    }
}
