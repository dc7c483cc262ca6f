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

pub(crate) fn run(_: &Args) -> Result<ExitCode> {
    Ok(if check()? == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Prints each violation on a line of stdout, then how many there are, which is returned.
pub(crate) fn check() -> Result<usize> {
    let (violations, files) = violations(&cargo::workspace()?)?;
    for violation in &violations {
        println!("{violation}");
    }
    println!("lint: {files} files, {} violations", violations.len());
    Ok(violations.len())
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
