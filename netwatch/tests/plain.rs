//! What is built without the feature `test-equipment` has none of it.
#![cfg(not(feature = "test-equipment"))]

use std::ffi::OsString;

use netwatch::cli::{one_line, parse};

fn complaint(line: &str) -> String {
    let words = std::iter::once("netwatch").chain(line.split_whitespace()).map(OsString::from);
    parse(words).map_or_else(|error| one_line(&error), |_| String::new())
}

#[test]
fn test_equipment_is_not_known() {
    for (line, unknown) in [
        ("generate --connections 1 --store x", "generate"),
        ("watch --sabotage deaf=all", "--sabotage"),
        ("record --sabotage deaf=all", "--sabotage"),
        ("doctor --sabotage deaf=all", "--sabotage"),
        ("audit --hide net=1", "--hide"),
    ] {
        let told = complaint(line);
        let words =
            ["unexpected argument", "unrecognized subcommand"].map(|what| format!("{what} '{unknown}'"));
        assert!(words.iter().any(|words| told.contains(words)), "{line}: {told}");
    }
}
