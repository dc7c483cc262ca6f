//! Limits: docs/limits.md names each, and each test that it or the file of limits names exists.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use syn::visit::{self, Visit};
use syn::{Attribute, Expr, ImplItemConst, ItemConst, ItemFn, ItemImpl, ItemMod, ItemStatic, Lit, Meta};

use super::modules::is_test;
use super::{Violation, size};

/// The page.
const PAGE: &str = "docs/limits.md";

/// The file in which each constant is a limit; a path in the page may be relative to its folder.
const FILE: &str = "netwatch/src/limits.rs";
/// The folder of its parts.
const PARTS: &str = "netwatch/src/limits/";
const SOURCES: &str = "netwatch/src";

/// Folders in which a constant whose name says so is a limit.
const FOLDERS: [&str; 3] = [SOURCES, "netwatch-common/src", "netwatch-ebpf/src"];

/// Where a test is: a unit test, which is in a module `tests`, or an end-to-end test.
const UNIT: &str = "tests";
const END_TO_END: &str = "tests/tests/e2e";

/// A constant or static outside of tests.
struct Constant {
    name: String,
    line: usize,
    /// Its documentation.
    text: String,
    is_const: bool,
}

impl Constant {
    fn is_limit(&self, file: &str) -> bool {
        let is_named_so = self.name.starts_with("MOST_") || self.name.ends_with("_MAX");
        self.is_const && (is_of_limits(file) || is_named_so)
    }
}

/// Limits that the page does not name, and what the page or the file names that does not exist.
pub(super) fn check(workspace: &Path) -> Result<Vec<Violation>> {
    let page = match workspace.join(PAGE) {
        path if path.exists() => fs::read_to_string(path).with_context(|| format!("cannot read {PAGE}"))?,
        _ => String::new(),
    };
    let named = named(&page);
    let mut violations = Vec::new();
    for file in FOLDERS.iter().filter(|folder| workspace.join(folder).exists()) {
        for file in size::sources(workspace, file)?.into_iter().filter(|file| !is_of_tests(file)) {
            for limit in constants(workspace, &file)?.into_iter().filter(|limit| limit.is_limit(&file)) {
                let is_it =
                    |(_, path, name): &&(_, &str, &str)| *name == limit.name && is_path_of(path, &file);
                let mut wrong =
                    |text| violations.push(Violation { file: file.clone(), line: limit.line, text });
                if !named.iter().any(|named| is_it(&named)) {
                    let path = file.strip_prefix(SOURCES).map_or(&*file, |path| path.trim_start_matches('/'));
                    wrong(format!("{PAGE} does not name this limit: `{path}` `{}`", limit.name));
                }
                if is_of_limits(&file) && tests(&limit.text).next().is_none() {
                    wrong(format!("the comment on {} names no test: `module::tests::name`", limit.name));
                }
                for (_, test) in tests(&limit.text).filter(|_| is_of_limits(&file)) {
                    if !exists(workspace, test)? {
                        wrong(format!("there is no test {test}"));
                    }
                }
            }
        }
    }
    let mut wrong = |line, text| violations.push(Violation { file: PAGE.to_owned(), line, text });
    for (line, path, name) in named {
        let file = [format!("{SOURCES}/{path}"), path.to_owned()].into_iter();
        let Some(file) = file.into_iter().find(|file| workspace.join(file).exists()) else {
            // Reported for all documents.
            continue;
        };
        if !constants(workspace, &file)?.iter().any(|constant| constant.name == name) {
            wrong(line, format!("{file} has no constant {name}"));
        }
    }
    for line in untested(&page) {
        wrong(line, "this limit has neither a test nor the reason why there is none".into());
    }
    for (line, test) in tests(&page) {
        if !exists(workspace, test)? {
            wrong(line, format!("there is no test {test}"));
        }
    }
    Ok(violations)
}

/// Lines of the page that are rows of a table without anything in the last column.
fn untested(page: &str) -> impl Iterator<Item = usize> {
    let is_untested = |line: &str| {
        let cells = line.trim().strip_prefix('|').and_then(|line| line.strip_suffix('|'));
        let last = cells.and_then(|cells| cells.rsplit('|').next());
        last.is_some_and(|last| matches!(last.trim(), "" | "-"))
    };
    page.lines().enumerate().filter(move |(_, line)| is_untested(line)).map(|(number, _)| number + 1)
}

fn is_of_limits(file: &str) -> bool {
    file == FILE || file.starts_with(PARTS)
}

fn is_path_of(path: &str, file: &str) -> bool {
    path == file || file.strip_prefix(SOURCES).and_then(|file| file.strip_prefix('/')) == Some(path)
}

/// Whether a file is compiled for tests only: `tests.rs`, and what is in a folder `tests`.
fn is_of_tests(file: &str) -> bool {
    file.split('/').any(|part| part == UNIT || part == "tests.rs")
}

/// What is in backticks, each with its line and the text since the one before.
fn quoted(text: &str) -> impl Iterator<Item = (usize, &str, &str)> {
    text.lines().enumerate().flat_map(|(number, line)| {
        let parts: Vec<_> = line.split('`').collect();
        let pairs = parts.chunks(2).filter_map(|pair| match *pair {
            [before, quoted] => Some((before, quoted)),
            _ => None,
        });
        pairs.map(|(before, quoted)| (number + 1, before, quoted)).collect::<Vec<_>>()
    })
}

/// Constants in a page, each as `` `path` `NAME` ``: line, path and name.
fn named(page: &str) -> Vec<(usize, &str, &str)> {
    let mut before: Option<(usize, &str)> = None;
    let mut named = Vec::new();
    for (line, between, text) in quoted(page) {
        if let Some((_, path)) = before.filter(|before| between == " " && before.0 == line)
            && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
        {
            named.push((line, path, text));
        }
        before = text.ends_with(".rs").then_some((line, text));
    }
    named
}

/// Names of tests in a text, each with its line: lower-case paths.
fn tests(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_name = |part: &str| {
        !part.is_empty() && part.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_')
    };
    quoted(text)
        .filter(move |(_, _, path)| path.contains("::") && path.split("::").all(is_name))
        .map(|(line, _, path)| (line, path))
}

/// Whether there is a function of this path that is a test.
fn exists(workspace: &Path, test: &str) -> Result<bool> {
    let path: Vec<&str> = test.split("::").collect();
    let Some((name, modules)) = path.split_last() else { return Ok(false) };
    let root = if modules.contains(&UNIT) { SOURCES } else { END_TO_END };
    // The last modules may be inside the file of the one before them.
    for length in (1..=modules.len()).rev() {
        let (of_file, inside) = modules.split_at(length);
        let stem = format!("{root}/{}", of_file.join("/"));
        for file in [format!("{stem}.rs"), format!("{stem}/mod.rs")] {
            let file = workspace.join(file);
            if file.exists() {
                let text =
                    fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
                let has =
                    |module: &&str| text.lines().any(|line| line.ends_with(&format!("mod {module} {{")));
                return Ok(inside.iter().all(has) && has_test(&text, name));
            }
        }
    }
    Ok(false)
}

/// Whether a file has a test of this name, perhaps in a macro.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let begins = format!("fn {name}(");
    (0..lines.len()).any(|at| {
        let above = lines.get(..at).unwrap_or_default().iter().rev();
        let mut above = above.take_while(|line| line.starts_with("#[") || line.starts_with("//"));
        lines.get(at).is_some_and(|line| line.starts_with(&begins)) && above.any(|line| *line == "#[test]")
    })
}

fn constants(workspace: &Path, file: &str) -> Result<Vec<Constant>> {
    let text = fs::read_to_string(workspace.join(file)).with_context(|| format!("cannot read {file}"))?;
    let syntax = syn::parse_file(&text).with_context(|| format!("{file} is not valid Rust"))?;
    let mut collector = Collector::default();
    collector.visit_file(&syntax);
    Ok(collector.0)
}

#[derive(Default)]
struct Collector(Vec<Constant>);

impl Collector {
    fn add(&mut self, name: &syn::Ident, attributes: &[Attribute], is_const: bool) {
        if is_test(attributes) {
            return;
        }
        let text = attributes.iter().filter_map(documentation).collect::<Vec<_>>().join("\n");
        let line = name.span().start().line;
        self.0.push(Constant { name: name.to_string(), line, text, is_const });
    }
}

fn documentation(attribute: &Attribute) -> Option<String> {
    match &attribute.meta {
        Meta::NameValue(pair) if pair.path.is_ident("doc") => match &pair.value {
            Expr::Lit(literal) => match &literal.lit {
                Lit::Str(text) => Some(text.value()),
                _ => None,
            },
            _ => None,
        },
        _ => None,
    }
}

impl Visit<'_> for Collector {
    fn visit_item_const(&mut self, item: &ItemConst) {
        self.add(&item.ident, &item.attrs, true);
    }

    fn visit_impl_item_const(&mut self, item: &ImplItemConst) {
        self.add(&item.ident, &item.attrs, true);
    }

    fn visit_item_static(&mut self, item: &ItemStatic) {
        self.add(&item.ident, &item.attrs, false);
    }

    fn visit_item_mod(&mut self, item: &ItemMod) {
        if !is_test(&item.attrs) {
            visit::visit_item_mod(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &ItemFn) {
        if !is_test(&item.attrs) {
            visit::visit_item_fn(self, item);
        }
    }

    fn visit_item_impl(&mut self, item: &ItemImpl) {
        if !is_test(&item.attrs) {
            visit::visit_item_impl(self, item);
        }
    }
}
