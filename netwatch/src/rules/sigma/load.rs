//! Reads Sigma rules from files and directories. One that is wrong is said, with its file and line, and the others are
//! kept.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use rsigma_parser::{CorrelationRule, FilterRule, LogSource, SigmaCollection, SigmaRule, parse_sigma_yaml};
use thiserror::Error;

use crate::{blocking, escape, limits};

/// Why the paths cannot be used at all.
#[derive(Debug, Error)]
pub enum LoadError {
    /// A path cannot be read.
    #[error("cannot read the rules {}: {error}", .path.display())]
    Read {
        /// The path.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// There are too many.
    #[error("{} has more than {most} files of rules: give a directory with fewer", .path.display())]
    TooMany {
        /// The path.
        path: PathBuf,
        /// The limit.
        most: usize,
    },
}

/// A rule that is not used, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bad {
    /// Its file.
    pub file: PathBuf,
    /// The line that is wrong, or in which the rule begins.
    pub line: usize,
    /// What is wrong.
    pub why: String,
}

impl std::fmt::Display for Bad {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}: {}", self.file.display(), self.line, escape::terminal(&self.why))
    }
}

/// The log sources that netwatch is one of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Category {
    /// A process made or accepted a connection.
    Connection,
    /// A program was executed.
    Program,
}

impl Category {
    /// What an event of this category is, to a rule.
    pub(super) fn log_source(self) -> LogSource {
        let category = match self {
            Self::Connection => "network_connection",
            Self::Program => "process_creation",
        };
        LogSource {
            category: Some(category.into()),
            product: Some("linux".into()),
            service: None,
            definition: None,
            custom: std::collections::HashMap::default(),
        }
    }

    /// The category of a rule; `None` if it is for another log source.
    #[must_use]
    pub fn of(rule: &SigmaRule) -> Option<Self> {
        let source = &rule.logsource;
        let is_ours = source.product.as_deref().is_none_or(|product| product == "linux");
        if !is_ours || source.service.is_some() || !source.custom.is_empty() {
            return None;
        }
        match source.category.as_deref()? {
            "network_connection" => Some(Self::Connection),
            "process_creation" => Some(Self::Program),
            _ => None,
        }
    }
}

/// A rule with its file.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// Where it is.
    pub file: PathBuf,
    /// The line in which it begins.
    pub line: usize,
    /// The rule.
    pub rule: SigmaRule,
}

/// What was read.
#[derive(Clone, Debug, Default)]
pub struct Pack {
    /// Rules for netwatch's log sources.
    pub rules: Vec<Loaded>,
    /// Rules for others.
    pub others: Vec<Loaded>,
    /// Correlations, with their files.
    pub correlations: Vec<(PathBuf, usize, CorrelationRule)>,
    /// Filters, with their files.
    pub filters: Vec<(PathBuf, usize, FilterRule)>,
    /// What cannot be used.
    pub bad: Vec<Bad>,
}

impl Pack {
    /// Reads files, and the files `*.yml` and `*.yaml` of directories and those in them.
    ///
    /// # Errors
    /// If a path cannot be read, or there are too many files.
    pub fn read(paths: &[PathBuf]) -> Result<Self, LoadError> {
        let mut pack = Self::default();
        for path in paths {
            let mut files = Vec::new();
            let wrong = |error| LoadError::Read { path: path.clone(), error };
            if std::fs::metadata(path).map_err(wrong)?.is_dir() {
                walk(path, 0, &mut files).map_err(wrong)?;
            } else {
                // A file that was named and cannot be read ends the start; within a directory it is one of many.
                std::fs::File::open(path).map_err(wrong)?;
                files.push(path.clone());
            }
            if files.len() > limits::RULE_FILES {
                return Err(LoadError::TooMany { path: path.clone(), most: limits::RULE_FILES });
            }
            files.sort();
            files.iter().for_each(|file| pack.file(file));
        }
        Ok(pack)
    }

    fn file(&mut self, file: &Path) {
        let mut bad = |line, why: String| self.bad.push(Bad { file: file.to_owned(), line, why });
        let text = match blocking::text(file, limits::RULE_FILE, limits::READ_WAIT) {
            Ok(text) => text,
            Err(error) => return bad(1, format!("cannot be read: {error}")),
        };
        // The parser counts nothing that aliases expand to, and a rule needs none.
        if let Some(line) = line_of_alias(&text) {
            return bad(line, "aliases of YAML are not supported in rules".into());
        }
        let parsed = catch_unwind(AssertUnwindSafe(|| parse_sigma_yaml(&text)));
        let collection = match parsed {
            Ok(Ok(collection)) => collection,
            Ok(Err(error)) => return bad(line_of(&error.to_string(), &text), error.to_string()),
            Err(_) => return bad(1, "the parser failed, which is a bug of it".into()),
        };
        let SigmaCollection { rules, correlations, filters, errors } = collection;
        for error in errors {
            bad(line_of(&error, &text), error);
        }
        for rule in rules {
            let line = line_with(&format!("title: {}", rule.title), &text);
            let loaded = Loaded { file: file.to_owned(), line, rule };
            let is_ours = Category::of(&loaded.rule).is_some();
            if is_ours { &mut self.rules } else { &mut self.others }.push(loaded);
        }
        let place = |title: &str| (file.to_owned(), line_with(&format!("title: {title}"), &text));
        for correlation in correlations {
            let (file, line) = place(&correlation.title);
            self.correlations.push((file, line, correlation));
        }
        for filter in filters {
            let (file, line) = place(&filter.title);
            self.filters.push((file, line, filter));
        }
    }
}

/// The first line with an anchor or an alias. Lines of a block of text (`key: |`), which are indented deeper than its key,
/// have none.
fn line_of_alias(text: &str) -> Option<usize> {
    let mut block: Option<usize> = None;
    for (number, line) in text.lines().enumerate() {
        let indent = line.len() - line.trim_start().len();
        if block.is_some_and(|block| indent > block || line.trim().is_empty()) {
            continue;
        }
        block = None;
        if is_alias(line) {
            return Some(number + 1);
        }
        let end = line.trim_end().trim_end_matches(['-', '+']);
        if end.ends_with(['|', '>']) && end.contains(':') {
            block = Some(indent);
        }
    }
    None
}

/// Whether a line has an anchor or an alias as a value: `key: *name`, `- &name`.
fn is_alias(line: &str) -> bool {
    let value = line.trim_start().trim_start_matches("- ");
    let value = value.split_once(": ").map_or(value, |(_, value)| value).trim_start();
    let mut letters = value.chars();
    matches!(letters.next(), Some('*' | '&'))
        && letters.next().is_some_and(|letter| letter.is_ascii_alphanumeric())
        && !value.contains(['\'', '"'])
}

/// Directories within directories.
const DEPTH: usize = 16;

fn walk(folder: &Path, depth: usize, files: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let path = entry.path();
        // Links to directories are not followed, so this ends.
        if entry.file_type()?.is_dir() {
            if depth < DEPTH {
                walk(&path, depth + 1, files)?;
            }
        } else if path.extension().is_some_and(|ending| ending == "yml" || ending == "yaml") {
            files.push(path);
        }
        if files.len() > limits::RULE_FILES {
            break;
        }
    }
    Ok(())
}

/// The line that an error names, or that has what it quotes, or the first.
pub(super) fn line_of(error: &str, text: &str) -> usize {
    let named = error.split("line ").nth(1);
    let digits = named.map(|rest| rest.chars().take_while(char::is_ascii_digit).collect::<String>());
    if let Some(line) = digits.and_then(|digits| digits.parse().ok()) {
        return line;
    }
    let quoted = error.split(['\'', '`', '"']).skip(1).step_by(2).filter(|quoted| !quoted.is_empty());
    quoted.into_iter().map(|quoted| line_with(quoted, text)).find(|line| *line > 1).unwrap_or(1)
}

/// The first line that has a text; 1 if none has.
fn line_with(part: &str, text: &str) -> usize {
    let part = part.lines().next().unwrap_or_default();
    text.lines().position(|line| line.contains(part)).map_or(1, |line| line + 1)
}
