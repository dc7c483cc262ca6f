//! The length of files.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::table::{Of, Table};
use super::{DOCUMENT, Violation};

/// Maximum number of lines of a file.
const MOST_LINES: usize = 400;

/// Folders of the workspace with sources.
const PACKAGES: [&str; 5] = ["netwatch", "netwatch-common", "netwatch-ebpf", "tests", "xtask"];

/// Files that are too long, exceptions that are no longer needed, and the number of files.
pub(super) fn check(workspace: &Path, table: &Table) -> Result<(Vec<Violation>, usize)> {
    let mut files = Vec::new();
    for package in PACKAGES {
        if workspace.join(package).exists() {
            list(workspace, package, &mut files)?;
        }
    }
    let mut violations = Vec::new();
    let mut long = Vec::new();
    for file in &files {
        let text = fs::read_to_string(workspace.join(file)).with_context(|| format!("cannot read {file}"))?;
        let lines = text.lines().count();
        if lines <= MOST_LINES {
            continue;
        }
        long.push(Of::Long(file.clone()));
        if !table.exceptions.iter().any(|exception| exception.of == Of::Long(file.clone())) {
            let text = format!("the file has {lines} lines, and {MOST_LINES} is the most: split it");
            violations.push(Violation { file: file.clone(), line: MOST_LINES + 1, text });
        }
    }
    for exception in &table.exceptions {
        if let Of::Long(file) = &exception.of
            && !long.contains(&exception.of)
        {
            let text = format!("{file} has no more than {MOST_LINES} lines: remove the exception");
            violations.push(Violation { file: DOCUMENT.to_owned(), line: exception.line, text });
        }
    }
    Ok((violations, files.len()))
}

/// Rust files in a folder, relative to the root of the workspace.
pub(super) fn sources(workspace: &Path, folder: &str) -> Result<Vec<String>> {
    let mut files = Vec::new();
    list(workspace, folder, &mut files)?;
    Ok(files)
}

fn list(workspace: &Path, folder: &str, files: &mut Vec<String>) -> Result<()> {
    let entries = fs::read_dir(workspace.join(folder)).with_context(|| format!("cannot read {folder}"))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("cannot read {folder}"))?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.path().is_dir() {
            list(workspace, &path, files)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}
