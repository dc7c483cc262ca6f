//! Paths in the documents: each source path in backticks must exist.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};

use super::Violation;

/// Documents in the root of the workspace; all files `*.md` in [`FOLDER`] are read as well.
const DOCUMENTS: [&str; 3] = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md"];
const FOLDER: &str = "docs";

/// A path is relative to the root of the workspace or to this folder.
const SOURCES: &str = "netwatch/src";

/// How a source path ends; the last is a folder.
const ENDS: [&str; 5] = [".rs", ".sql", ".toml", ".md", "/"];

/// Paths that do not exist.
pub(super) fn check(workspace: &Path) -> Result<Vec<Violation>> {
    let mut violations = Vec::new();
    for file in documents(workspace)? {
        let text =
            fs::read_to_string(workspace.join(&file)).with_context(|| format!("cannot read {file}"))?;
        for (line, path) in paths(&text) {
            let roots = [workspace.to_owned(), workspace.join(SOURCES)];
            if !roots.iter().any(|root| root.join(path).exists()) {
                let text = format!("{path} exists neither in the root of the workspace nor in {SOURCES}");
                violations.push(Violation { file: file.clone(), line, text });
            }
        }
    }
    Ok(violations)
}

fn documents(workspace: &Path) -> Result<Vec<String>> {
    let mut documents: Vec<_> = DOCUMENTS.map(str::to_owned).into();
    if workspace.join(FOLDER).exists() {
        for entry in fs::read_dir(workspace.join(FOLDER)).with_context(|| format!("cannot read {FOLDER}"))? {
            let name = entry.with_context(|| format!("cannot read {FOLDER}"))?.file_name();
            documents.push(format!("{FOLDER}/{}", name.to_string_lossy()));
        }
    }
    documents.retain(|file| file.ends_with(".md") && workspace.join(file).exists());
    Ok(documents)
}

/// Source paths in backticks, each with its line. Code blocks are left out. A pair of backticks may span two lines, but
/// not two paragraphs.
fn paths(text: &str) -> Vec<(usize, &str)> {
    let mut paths = Vec::new();
    let (mut in_block, mut in_quotes) = (false, false);
    for (number, line) in text.lines().enumerate() {
        if line.trim_start().starts_with("```") {
            in_block = !in_block;
        }
        if in_block || line.trim().is_empty() {
            in_quotes = false;
            continue;
        }
        for (index, part) in line.split('`').enumerate() {
            in_quotes ^= index > 0;
            if in_quotes && is_source(part) {
                paths.push((number + 1, part));
            }
        }
    }
    paths
}

fn is_source(text: &str) -> bool {
    let is_relative = text.starts_with(|first: char| first.is_ascii_alphanumeric());
    let is_path = text.chars().all(|c| c.is_ascii_alphanumeric() || "/._-".contains(c));
    is_relative && is_path && ENDS.iter().any(|end| text.ends_with(end))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_in_backticks_are_read() {
        let text = "`a/b.rs` and `c/`, `d.sql`; `cargo\nrun`, `e.toml`\n\nA lone ` here.\n\n`f.md`";
        assert_eq!(paths(text), [(1, "a/b.rs"), (1, "c/"), (1, "d.sql"), (2, "e.toml"), (6, "f.md")]);
        let others =
            "a.rs `/proc/` `tests/*.md` `.rs` `cargo test a.rs` `store::open` `libc.so`\n```\n`a.rs`\n```";
        assert_eq!(paths(others), []);
    }
}
