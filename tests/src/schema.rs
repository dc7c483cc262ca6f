//! The schema of events (docs/events.schema.json), applied to every event that a test reads.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::event::kind;

static SCHEMA: LazyLock<Value> = LazyLock::new(|| {
    serde_json::from_str(include_str!("../../docs/events.schema.json")).expect("the schema is JSON")
});

static VALIDATOR: LazyLock<Validator> = LazyLock::new(|| validator(&SCHEMA));

fn validator(schema: &Value) -> Validator {
    let options = jsonschema::options().should_validate_formats(true);
    options.build(schema).unwrap_or_else(|error| panic!("the schema of events: {error}"))
}

/// Validates the event.
///
/// # Panics
/// If it is invalid.
pub fn validate(event: &Value) {
    if VALIDATOR.is_valid(event) {
        return;
    }
    // The errors of the schema of its own kind are the useful ones.
    let of_kind = json!({"$ref": format!("#/$defs/event_{}", kind(event)), "$defs": SCHEMA["$defs"]});
    let errors = match jsonschema::options().should_validate_formats(true).build(&of_kind) {
        Ok(validator) => {
            let errors = validator.iter_errors(event);
            errors.map(|error| format!("{}: {error}", error.instance_path())).collect::<Vec<_>>().join("\n")
        }
        Err(_) => "no such event".to_owned(),
    };
    panic!("not as in docs/events.schema.json: {errors}\n{event:#}");
}

/// Every kind of event that the schema describes.
///
/// # Panics
/// If it describes none.
#[must_use]
pub fn documented_kinds() -> BTreeSet<&'static str> {
    let kinds = SCHEMA["oneOf"].as_array().expect("kinds of events").iter();
    kinds.filter_map(|kind| kind["$ref"].as_str()?.strip_prefix("#/$defs/event_")).collect()
}
