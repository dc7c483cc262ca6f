//! The documentation of the JSON events, generated from the declarations of their keys: docs/events.schema.json, and
//! the tables in docs/events.md. The tests here fail where a file differs from what is generated; with
//! `NETWATCH_WRITE_DOCS` set they write the file instead.

mod json;
mod page;

use std::path::{Path, PathBuf};

use super::keys::{self, Described, Key as _};

/// An object that events contain, as the schema and the page have it.
struct Object {
    name: &'static str,
    title: &'static str,
    keys: &'static [Described],
}

const OBJECTS: [Object; 11] = [
    Object { name: "origin", title: "Who originated a connection", keys: keys::Origin::ALL },
    Object { name: "endpoint", title: "An address and a port", keys: keys::Endpoint::ALL },
    Object { name: "nat", title: "The addresses as the other side saw them", keys: keys::Nat::ALL },
    Object { name: "host_name", title: "The name of a host", keys: keys::HostName::ALL },
    Object { name: "party", title: "Another endpoint or listener", keys: keys::Party::ALL },
    Object { name: "process", title: "A process at the time of the event", keys: keys::Process::ALL },
    Object { name: "ancestor", title: "An ancestor of a process", keys: keys::Ancestor::ALL },
    Object { name: "message", title: "A message that led to a connection", keys: keys::Message::ALL },
    Object {
        name: "loss_of_socket",
        title: "The part of a loss that concerns one socket",
        keys: keys::LossOfSocket::ALL,
    },
    Object { name: "rule", title: "The rule that raised an alert", keys: keys::Rule::ALL },
    Object { name: "coverage", title: "What the kernel side observes", keys: keys::Coverage::ALL },
];

fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(name)
}

/// Compares a file with what is generated, or writes it.
fn check(name: &str, generated: &str) {
    let path = path(name);
    if std::env::var_os("NETWATCH_WRITE_DOCS").is_some() {
        std::fs::write(&path, generated).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    let differs =
        written.lines().zip(generated.lines()).position(|(written, generated)| written != generated);
    assert!(
        written == generated,
        "docs/{name} differs from netwatch/src/output/keys, first in line {}. To write it anew: \
         NETWATCH_WRITE_DOCS=1 cargo test -p netwatch --lib output::schema",
        differs.unwrap_or(written.lines().count().min(generated.lines().count())) + 1
    );
}

#[test]
fn schema_matches_the_keys() {
    check("events.schema.json", &format!("{:#}\n", json::schema()));
}

#[test]
fn page_matches_the_keys() {
    let page = std::fs::read_to_string(path("events.md")).unwrap();
    check("events.md", &page::with_tables(&page));
}

#[test]
fn no_event_has_a_key_twice() {
    for kind in keys::EVERY {
        let mut names: Vec<_> =
            keys::Event::ALL.iter().filter(|key| key.is_on(kind)).map(|key| key.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{kind}: {names:?}");
    }
}
