//! The tables of docs/events.md: each stands between `<!-- keys: NAME -->` and `<!-- end -->`.

use std::fmt::Write as _;

use super::OBJECTS;
use crate::output::keys::{self, CONNECTIONS, Described, EVERY, Is, Key as _, Null, SOCKETS};

/// The page with its tables generated anew.
pub(super) fn with_tables(page: &str) -> String {
    const BEGIN: &str = "<!-- keys: ";
    const END: &str = "<!-- end -->";
    let mut out = String::new();
    let mut rest = page;
    let mut tables = Vec::new();
    while let Some((before, from)) = rest.split_once(BEGIN) {
        let (name, from) = from.split_once(" -->\n").unwrap();
        let (_, after) = from.split_once(END).unwrap();
        write!(out, "{before}{BEGIN}{name} -->\n\n{}\n{END}", table(name)).unwrap();
        tables.push(name);
        rest = after;
    }
    out.push_str(rest);
    for name in ["event"].into_iter().chain(OBJECTS.map(|object| object.name)) {
        assert!(tables.contains(&name), "docs/events.md has no table of {name}");
    }
    out
}

fn table(name: &str) -> String {
    let mut out = String::new();
    if name == "event" {
        out.push_str("| key | on | type | null | meaning |\n| --- | --- | --- | --- | --- |\n");
        for key in keys::Event::ALL {
            row(key, Some(events(key)), &mut out);
        }
        return out;
    }
    let object = OBJECTS.into_iter().find(|object| object.name == name).unwrap();
    out.push_str("| key | type | null | meaning |\n| --- | --- | --- | --- |\n");
    object.keys.iter().for_each(|key| row(key, None, &mut out));
    out
}

fn row(key: &Described, events: Option<String>, out: &mut String) {
    let events = events.map(|events| format!(" {events} |")).unwrap_or_default();
    let (name, is, meaning) = (key.name, spelled(&key.is), key.meaning);
    let null = match key.null {
        Null::Never => String::new(),
        Null::Maybe => "possible".to_owned(),
        Null::Except(CONNECTIONS) => "possible, for a listener always".to_owned(),
        Null::Except(kinds) => format!("possible on {}, else always", list(kinds)),
        Null::Absent => "absent instead".to_owned(),
        Null::AbsentOrNull => "possible, or absent".to_owned(),
    };
    writeln!(out, "| `{name}` |{events} {is} | {null} | {meaning} |").unwrap();
}

fn events(key: &Described) -> String {
    match *key.on.last().unwrap() {
        EVERY => "all".to_owned(),
        SOCKETS => "sockets".to_owned(),
        kinds => list(kinds),
    }
}

fn list(words: &[impl AsRef<str>]) -> String {
    words.iter().map(|word| format!("`{}`", word.as_ref())).collect::<Vec<_>>().join(", ")
}

fn spelled(is: &Is) -> String {
    let object = |name: &str| format!("[{name}](#{name})");
    match is {
        Is::Integer(least, greatest) if least == greatest => least.to_string(),
        Is::Integer(..) => "integer".to_owned(),
        Is::Text | Is::Matching(_) | Is::Address => "string".to_owned(),
        Is::Boolean => "boolean".to_owned(),
        Is::True => "`true`".to_owned(),
        Is::Word(words) => list(&words()),
        Is::Words(words) => format!("array of {}", list(&words())),
        Is::Texts => "array of strings".to_owned(),
        Is::Counts => "object: names to integers".to_owned(),
        Is::Names => "object: names to strings or null".to_owned(),
        Is::Opaque => "object".to_owned(),
        Is::Object(name) => object(name),
        Is::Objects(name) => format!("array of {}", object(name)),
        Is::Process => format!("{} or its key", object("process")),
    }
}
