//! `cargo xtask lint`: compares the sources with ARCHITECTURE.md and checks the paths in the
//! documents and the limits that they name.
//!
//! The imports between rooms are read from the sources and compared with the table of rooms. An import that the table
//! does not allow is an error, and so is a permission that no file uses.

mod circles;
mod imports;
mod limits;
mod modules;
mod paths;
mod rules;
mod size;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, Result};

use crate::cargo;
use table::Table;

/// The document with the table of rooms.
const DOCUMENT: &str = "ARCHITECTURE.md";

/// The crate that has rooms.
const CRATE: &str = "netwatch";

#[derive(clap::Args)]
pub(crate) struct Args {}

/// A violation of a rule, in the sources or in a document.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Violation {
    file: String,
    line: usize,
    text: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { file, line, text } = self;
        write!(out, "{file}:{line}: {text}")
    }
}

/// The result of a run.
pub(crate) struct Report {
    violations: Vec<Violation>,
    files: usize,
}

impl Report {
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Prints each violation on a line, then the total.
impl fmt::Display for Report {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.violations {
            writeln!(out, "{violation}")?;
        }
        writeln!(out, "lint: {} files, {} violations", self.files, self.violations.len())
    }
}

pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    let report = check()?;
    print!("{report}");
    Ok(if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn check() -> Result<Report> {
    let (violations, files) = violations(&cargo::workspace()?)?;
    Ok(Report { violations, files })
}

/// All violations in a workspace, sorted by file and line, and the number of source files.
fn violations(workspace: &Path) -> Result<(Vec<Violation>, usize)> {
    let document = workspace.join(DOCUMENT);
    let document =
        fs::read_to_string(&document).with_context(|| format!("cannot read {}", document.display()))?;
    let table = Table::parse(&document);
    let tree = modules::Tree::load(workspace, CRATE)?;
    let imports = imports::all(&tree, CRATE);
    let (long, files) = size::check(workspace, &table)?;
    let rules = rules::check(&tree, &imports, &table);
    let documents = [paths::check(workspace)?, limits::check(workspace)?].concat();
    let mut violations = [table.violations.clone(), rules, long, documents].concat();
    violations.sort();
    violations.dedup();
    Ok((violations, files))
}
