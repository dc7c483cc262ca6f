//! The table of rooms in ARCHITECTURE.md, its leaf rooms and its known exceptions.

use super::{DOCUMENT, Violation};

/// Titles of the table's columns.
const COLUMNS: [&str; 3] = ["room", "what it owns", "may import"];

/// First words of the paragraph with the leaf rooms, and of the one before the list of exceptions.
const LEAVES: &str = "Leaf rooms";
const EXCEPTIONS: &str = "Known exceptions";

/// The third column of a room that may import every room.
const EVERYTHING: &str = "everything";

/// The rules in the document.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) rows: Vec<Row>,
    /// Rooms that every room may import; they import only each other.
    pub(super) leaves: Vec<Leaf>,
    pub(super) exceptions: Vec<Exception>,
    /// Parts that cannot be parsed.
    pub(super) violations: Vec<Violation>,
}

#[derive(Debug)]
pub(super) struct Row {
    /// A room, or a module in one. The row of a module replaces that of its room.
    pub(super) room: String,
    pub(super) line: usize,
    /// `None`: every room.
    pub(super) may: Option<Vec<String>>,
}

#[derive(Debug)]
pub(super) struct Leaf {
    pub(super) room: String,
    pub(super) line: usize,
}

/// A known violation of a rule.
#[derive(Debug)]
pub(super) struct Exception {
    pub(super) line: usize,
    pub(super) of: Of,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// The first module imports the second, or a module in it.
    Import(String, String),
    /// A file that is too long.
    Long(String),
}

impl Table {
    pub(super) fn parse(document: &str) -> Self {
        let mut table = Self::default();
        let mut part = Part::Other;
        for (number, line) in document.lines().enumerate().map(|(index, line)| (index + 1, line.trim())) {
            part = match (part, cells(line)) {
                (_, Some(cells)) if cells == COLUMNS => Part::Rows,
                (Part::Rows, Some(cells)) => {
                    table.row(&cells, number);
                    Part::Rows
                }
                _ if line.starts_with(LEAVES) => Part::Leaves,
                _ if line.starts_with(EXCEPTIONS) => Part::Exceptions,
                // There is a blank line between that paragraph and its list.
                (Part::Exceptions, _) if line.is_empty() => Part::Exceptions,
                (Part::Exceptions, _) if line.starts_with("- ") => {
                    table.exception(line, number);
                    Part::Exceptions
                }
                (Part::Leaves | Part::Exceptions, _) if line.is_empty() || line.starts_with('#') => {
                    Part::Other
                }
                (part @ (Part::Leaves | Part::Exceptions), _) => part,
                _ => Part::Other,
            };
            if let Part::Leaves = part {
                let rooms = quoted(line).into_iter();
                table.leaves.extend(rooms.map(|room| Leaf { room, line: number }));
            }
        }
        if table.rows.is_empty() {
            let header = COLUMNS.join(" | ");
            table.wrong(1, format!("there is no table of rooms: its header is `| {header} |`"));
        }
        table
    }

    /// The row that applies to a module: its own, or that of the nearest ancestor that has one.
    pub(super) fn row_of(&self, module: &str) -> Option<&Row> {
        let rows = self.rows.iter().filter(|row| super::modules::is_within(module, &row.room));
        rows.max_by_key(|row| row.room.len())
    }

    fn row(&mut self, cells: &[&str], line: usize) {
        let [room, _, may] = cells else {
            return self.wrong(line, "a row of the table of rooms has three columns".to_owned());
        };
        if room.starts_with("--") {
            return;
        }
        let [room] = quoted(room).try_into().unwrap_or_else(|_| [String::new()]);
        let rooms = quoted(may);
        let may = match *may {
            EVERYTHING => None,
            "-" => Some(Vec::new()),
            may if !rooms.is_empty() && is_list(may) => Some(rooms),
            _ => {
                let text = format!("the third column is a list of rooms in backticks, `-` or {EVERYTHING}");
                return self.wrong(line, text);
            }
        };
        if room.is_empty() {
            return self.wrong(line, "the first column is one room in backticks".to_owned());
        }
        self.rows.push(Row { room, line, may });
    }

    fn exception(&mut self, text: &str, line: usize) {
        let (what, reason) = text.split_once(": ").unwrap_or((text, ""));
        let of = match <[String; 2]>::try_from(quoted(what)) {
            Ok([from, to]) if what.contains('→') => Of::Import(from, to),
            Ok(_) => return self.wrong(line, "an exception is `- `A` → `B`: reason`".to_owned()),
            Err(names) => match names.as_slice() {
                [file] if has_extension(file) => Of::Long(file.clone()),
                _ => {
                    let text =
                        "an exception is `- `A` → `B`: reason`, or `- `path.rs`: reason` for a long file";
                    return self.wrong(line, text.to_owned());
                }
            },
        };
        if reason.is_empty() {
            self.wrong(line, "an exception needs a reason: `- `A` → `B`: reason`".to_owned());
        }
        self.exceptions.push(Exception { line, of });
    }

    fn wrong(&mut self, line: usize, text: String) {
        self.violations.push(Violation { file: DOCUMENT.to_owned(), line, text });
    }
}

#[derive(Clone, Copy)]
enum Part {
    Rows,
    Leaves,
    Exceptions,
    Other,
}

fn has_extension(file: &str) -> bool {
    std::path::Path::new(file).extension().is_some_and(|extension| extension == "rs")
}

/// The cells of a line of a table.
fn cells(line: &str) -> Option<Vec<&str>> {
    let inside = line.strip_prefix('|')?.strip_suffix('|')?;
    Some(inside.split('|').map(str::trim).collect())
}

/// The texts in backticks.
fn quoted(text: &str) -> Vec<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

/// Whether there are only commas between the texts in backticks.
fn is_list(text: &str) -> bool {
    text.split('`').step_by(2).all(|between| matches!(between.trim(), "" | ","))
}
