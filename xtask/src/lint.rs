//! `cargo xtask lint`: holds the sources against ARCHITECTURE.md.
//!
//! Which room imports which is read from the sources and compared with the table of rooms; what the compiler accepts
//! and the table does not allow is an error, and so is what the table allows and no file uses.

mod circles;
mod imports;
mod modules;
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

/// Where the table of rooms is.
const DOCUMENT: &str = "ARCHITECTURE.md";

/// The crate that has rooms.
const CRATE: &str = "netwatch";

#[derive(clap::Args)]
pub(crate) struct Args {}

/// A place where the sources and the table differ, or where a file is too long.
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

/// What a run found.
pub(crate) struct Told {
    violations: Vec<Violation>,
    files: usize,
}

impl Told {
    pub(crate) fn is_clean(&self) -> bool {
        self.violations.is_empty()
    }
}

/// Each violation on a line, then how many there are.
impl fmt::Display for Told {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        for violation in &self.violations {
            writeln!(out, "{violation}")?;
        }
        writeln!(out, "lint: {} files, {} violations", self.files, self.violations.len())
    }
}

pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    let told = check()?;
    print!("{told}");
    Ok(if told.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

pub(crate) fn check() -> Result<Told> {
    let (violations, files) = violations(&cargo::workspace()?)?;
    Ok(Told { violations, files })
}

/// All violations in a workspace, in the order of files and lines, and the number of files that were read.
fn violations(workspace: &Path) -> Result<(Vec<Violation>, usize)> {
    let document = workspace.join(DOCUMENT);
    let document =
        fs::read_to_string(&document).with_context(|| format!("cannot read {}", document.display()))?;
    let table = Table::parse(&document);
    let tree = modules::Tree::load(workspace, CRATE)?;
    let imports = imports::all(&tree, CRATE);
    let (long, files) = size::check(workspace, &table)?;
    let mut violations = [table.violations.clone(), rules::check(&tree, &imports, &table), long].concat();
    violations.sort();
    violations.dedup();
    Ok((violations, files))
}
