//! The rules: imports between rooms must be allowed, there are no circles, and the table has no unused entries.

use std::collections::BTreeSet;

use super::circles;
use super::imports::Import;
use super::modules::{Tree, is_within, room};
use super::table::{Exception, Of, Table};
use super::{DOCUMENT, Violation};

pub(super) fn check(tree: &Tree, imports: &[Import], table: &Table) -> Vec<Violation> {
    let mut exceptions: Vec<&Exception> = table.exceptions.iter().collect();
    let mut violations = Vec::new();
    // One at a time: if two exceptions break the same circle, only one of them is needed.
    for exception in &table.exceptions {
        let Of::Import(from, to) = &exception.of else { continue };
        let others: Vec<_> =
            exceptions.iter().copied().filter(|other| other.line != exception.line).collect();
        let excepted = |import: &&Import| is_within(&import.from, from) && is_within(&import.to, to);
        let is_needed = imports.iter().any(|import| excepted(&import))
            && sources(imports, table, &others) != sources(imports, table, &exceptions);
        if !is_needed {
            exceptions = others;
            violations.push(wrong(
                exception.line,
                format!("{from} → {to} breaks no rule any more: remove the exception"),
            ));
        }
    }
    violations.extend(sources(imports, table, &exceptions));
    violations.extend(unused(imports, table));
    violations.extend(unknown(tree, table));
    violations
}

fn wrong(line: usize, text: String) -> Violation {
    Violation { file: DOCUMENT.to_owned(), line, text }
}

/// Violations in the sources.
fn sources(imports: &[Import], table: &Table, exceptions: &[&Exception]) -> Vec<Violation> {
    let is_excepted = |import: &&Import| {
        exceptions.iter().any(|exception| match &exception.of {
            Of::Import(from, to) => is_within(&import.from, from) && is_within(&import.to, to),
            Of::Long(_) => false,
        })
    };
    let imports: Vec<_> = imports.iter().filter(|import| !is_excepted(import)).collect();
    let forbidden = imports.iter().filter(|import| !is_allowed(import, table)).map(|import| {
        let (from, to) = (named(&import.from, table), named(&import.to, table));
        let text = format!("room {from} must not import room {to} (see {DOCUMENT})");
        Violation { file: import.file.clone(), line: import.line, text }
    });
    let circles = circles::all(imports.iter().copied()).into_iter().filter_map(|circle| {
        let (_, import) = circle.first()?;
        let next = circle.iter().map(|(module, _)| module).cycle().skip(1);
        let steps = circle.iter().zip(next).map(|((from, import), to)| {
            let Import { file, line, .. } = import;
            format!("{from} → {to} ({file}:{line})")
        });
        let text = format!("circle of imports: {} (see {DOCUMENT})", steps.collect::<Vec<_>>().join(", "));
        Some(Violation { file: import.file.clone(), line: import.line, text })
    });
    forbidden.chain(circles).collect()
}

/// The name in the table of the room of a module.
fn named<'a>(module: &'a str, table: &'a Table) -> &'a str {
    table.row_of(module).map_or(room(module), |row| &row.room)
}

fn is_leaf(module: &str, table: &Table) -> bool {
    table.leaves.iter().any(|leaf| leaf.room == room(module))
}

/// Whether the table allows an import. Imports within a room are always allowed.
fn is_allowed(import: &Import, table: &Table) -> bool {
    if import.from.is_empty() || room(&import.from) == room(&import.to) || is_leaf(&import.to, table) {
        return true;
    }
    let to = named(&import.to, table);
    match table.row_of(&import.from) {
        Some(row) => row.may.as_ref().is_none_or(|may| may.iter().any(|allowed| allowed == to)),
        // A leaf room, or one without a row, which is reported once by `unknown`.
        None => !is_leaf(&import.from, table),
    }
}

/// Permissions that no file uses.
fn unused(imports: &[Import], table: &Table) -> Vec<Violation> {
    let uses = |from: &str, to: &str| {
        let is_use = |import: &&Import| named(&import.from, table) == from && named(&import.to, table) == to;
        imports.iter().any(|import| is_use(&import) && room(&import.from) != room(&import.to))
    };
    let mut violations = Vec::new();
    for row in &table.rows {
        for to in row.may.iter().flatten() {
            let text = if table.leaves.iter().any(|leaf| leaf.room == *to) {
                format!(
                    "{to} is a leaf room, which every room may import: remove it from the row of {}",
                    row.room
                )
            } else if !uses(&row.room, to) {
                format!("{DOCUMENT} allows {} → {to}, which nothing uses", row.room)
            } else {
                continue;
            };
            violations.push(wrong(row.line, text));
        }
    }
    for leaf in &table.leaves {
        let others = imports.iter().filter(|import| room(&import.from) != leaf.room);
        if !others.into_iter().any(|import| room(&import.to) == leaf.room) {
            violations.push(wrong(leaf.line, format!("{} is a leaf room that nothing imports", leaf.room)));
        }
    }
    violations
}

/// Rooms without a row, and rows without a room.
fn unknown(tree: &Tree, table: &Table) -> Vec<Violation> {
    let mut violations = Vec::new();
    let rooms: BTreeSet<_> = tree.modules.keys().map(|module| room(module)).collect();
    for name in rooms.into_iter().filter(|name| !name.is_empty()) {
        let has_row = table.rows.iter().any(|row| row.room == name);
        match (has_row, is_leaf(name, table)) {
            (false, false) => violations.push(wrong(1, format!("the table has no row for the room {name}"))),
            (true, true) => {
                violations.push(wrong(1, format!("{name} is a leaf room and has a row: remove one of them")));
            }
            _ => {}
        }
    }
    let mut seen = BTreeSet::new();
    let rows = table.rows.iter().map(|row| (&row.room, row.line));
    for (name, line) in rows.chain(table.leaves.iter().map(|leaf| (&leaf.room, leaf.line))) {
        if !tree.modules.contains_key(name) {
            violations.push(wrong(line, format!("there is no room {name}: remove it")));
        } else if !seen.insert(name) {
            violations.push(wrong(line, format!("{name} stands there twice: remove one of them")));
        }
    }
    violations
}
