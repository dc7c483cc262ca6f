//! Imports between modules: by `use`, by a path in an expression or a type, or in the tokens of a macro.

use std::collections::{BTreeMap, HashMap};

use proc_macro2::{Ident, Span, TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{ImplItem, Item, ItemMod, ItemUse, Macro, UseTree, Visibility};

use super::modules::{Tree, is_test, room};

/// An import of a module, or of something in it, by another one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Import {
    pub(super) from: String,
    pub(super) to: String,
    /// Relative to the root of the workspace.
    pub(super) file: String,
    pub(super) line: usize,
}

/// Names in a module by `use`, each with its path from the root of the crate.
type Names = HashMap<String, HashMap<String, Vec<String>>>;

/// Maximum length of a chain of re-exports; a longer one is a cycle.
const MOST_STEPS: usize = 16;

/// All imports of a crate, one per pair of modules: the first in the file. Imports of the module itself are left out.
pub(super) fn all(tree: &Tree, name: &str) -> Vec<Import> {
    let collected: Vec<_> = tree
        .modules
        .iter()
        .map(|(module, source)| {
            let mut collector = Collector { scope: segments(module), ..Collector::default() };
            collector.visit_file(&source.syntax);
            (module, source, collector)
        })
        .collect();
    let mut names = Names::new();
    for (module, _, collector) in &collected {
        // A name may refer to one that is declared further down.
        for _ in 0..2 {
            for used in &collector.uses {
                if let Some(path) = resolve(tree, &names, name, module, used) {
                    names.entry((*module).clone()).or_default().insert(used.name.clone(), path);
                }
            }
        }
    }
    let mut imports = Vec::new();
    for (module, source, collector) in collected {
        let mut first = BTreeMap::new();
        for used in collector.uses.iter().chain(&collector.paths) {
            let Some(path) = resolve(tree, &names, name, module, used) else { continue };
            for to in follow(tree, &names, path) {
                let line = first.entry(to).or_insert(used.line);
                *line = used.line.min(*line);
            }
        }
        let others = first.into_iter().filter(|(to, _)| to != module && !to.is_empty());
        imports.extend(others.map(|(to, line)| Import {
            from: module.clone(),
            to,
            file: source.file.clone(),
            line,
        }));
    }
    imports
}

fn segments(module: &str) -> Vec<String> {
    module.split("::").filter(|segment| !segment.is_empty()).map(str::to_owned).collect()
}

/// A path as written in a file.
#[derive(Debug)]
struct Used {
    /// The module that contains it; inline modules count.
    scope: Vec<String>,
    path: Vec<String>,
    /// The name that a `use` gives it.
    name: String,
    line: usize,
}

/// The path from the root of the crate. `None` if it refers to another crate or to a local item.
fn resolve(tree: &Tree, names: &Names, crate_name: &str, module: &str, used: &Used) -> Option<Vec<String>> {
    let (first, mut rest) = used.path.split_first()?;
    let mut base = used.scope.clone();
    match first.as_str() {
        "crate" => base.clear(),
        "self" | "super" => {
            rest = &used.path;
            while let Some((step @ ("self" | "super"), further)) =
                rest.split_first().map(|(one, more)| (one.as_str(), more))
            {
                if step == "super" {
                    base.pop()?;
                }
                rest = further;
            }
        }
        other if other == crate_name => base.clear(),
        other => {
            base.push(other.to_owned());
            if !tree.modules.contains_key(&base.join("::")) {
                base = names.get(module)?.get(other)?.clone();
            }
        }
    }
    base.extend_from_slice(rest);
    Some(base)
}

/// The modules that a path refers to: the one that it names and, if that one re-exports the name from its own room
/// (`pub use`), the one that declares it.
fn follow(tree: &Tree, names: &Names, mut path: Vec<String>) -> Vec<String> {
    let mut modules: Vec<String> = Vec::new();
    for _ in 0..MOST_STEPS {
        let (module, length) = tree.module_of(&path);
        let next = path.get(length).and_then(|name| names.get(&module)?.get(name)).cloned();
        let is_inside = |next: &Vec<String>| next.first().is_some_and(|first| first == room(&module));
        let rest = path.get(length + 1..).unwrap_or_default().to_vec();
        let next = next.filter(is_inside);
        modules.push(module);
        let Some(next) = next else { break };
        path = [next, rest].concat();
    }
    modules
}

#[derive(Default)]
struct Collector {
    scope: Vec<String>,
    uses: Vec<Used>,
    paths: Vec<Used>,
}

impl Collector {
    fn used(&self, path: Vec<String>, name: String, span: Span) -> Used {
        Used { scope: self.scope.clone(), path, name, line: span.start().line }
    }

    fn use_tree(&mut self, tree: &UseTree, prefix: &[String]) {
        let join = |ident: &Ident| [prefix, &[ident.to_string()]].concat();
        let (path, name, span) = match tree {
            UseTree::Path(path) => return self.use_tree(&path.tree, &join(&path.ident)),
            UseTree::Group(group) => {
                return group.items.iter().for_each(|tree| self.use_tree(tree, prefix));
            }
            UseTree::Name(name) if name.ident == "self" => {
                (prefix.to_vec(), prefix.last().cloned().unwrap_or_default(), name.ident.span())
            }
            UseTree::Name(name) => (join(&name.ident), name.ident.to_string(), name.ident.span()),
            UseTree::Rename(rename) if rename.ident == "self" => {
                (prefix.to_vec(), rename.rename.to_string(), rename.ident.span())
            }
            UseTree::Rename(rename) => (join(&rename.ident), rename.rename.to_string(), rename.ident.span()),
            UseTree::Glob(glob) => (prefix.to_vec(), String::new(), glob.star_token.spans[0]),
        };
        self.uses.push(self.used(path, name, span));
    }

    /// Paths of two segments or more in the tokens of a macro, which are not parsed.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut span = None;
        let mut colons = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.end_of_path(&mut path, span);
                    }
                    if path.is_empty() {
                        span = Some(ident.span());
                    }
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.end_of_path(&mut path, span);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.end_of_path(&mut path, span);
    }

    fn end_of_path(&mut self, path: &mut Vec<String>, span: Option<Span>) {
        let path = std::mem::take(path);
        if let Some(span) = span
            && path.len() > 1
        {
            self.paths.push(self.used(path, String::new(), span));
        }
    }
}

impl<'ast> Visit<'ast> for Collector {
    fn visit_item(&mut self, item: &'ast Item) {
        let attributes = match item {
            Item::Const(item) => &item.attrs,
            Item::Enum(item) => &item.attrs,
            Item::Fn(item) => &item.attrs,
            Item::Impl(item) => &item.attrs,
            Item::Macro(item) => &item.attrs,
            Item::Mod(item) => &item.attrs,
            Item::Static(item) => &item.attrs,
            Item::Struct(item) => &item.attrs,
            Item::Trait(item) => &item.attrs,
            Item::Type(item) => &item.attrs,
            Item::Use(item) => &item.attrs,
            _ => return visit::visit_item(self, item),
        };
        if !is_test(attributes) {
            visit::visit_item(self, item);
        }
    }

    fn visit_impl_item(&mut self, item: &'ast ImplItem) {
        let is_test = match item {
            ImplItem::Const(item) => is_test(&item.attrs),
            ImplItem::Fn(item) => is_test(&item.attrs),
            _ => false,
        };
        if !is_test {
            visit::visit_impl_item(self, item);
        }
    }

    fn visit_item_mod(&mut self, item: &'ast ItemMod) {
        self.scope.push(item.ident.to_string());
        visit::visit_item_mod(self, item);
        self.scope.pop();
    }

    fn visit_item_use(&mut self, item: &'ast ItemUse) {
        // A leading `::` refers to another crate.
        if item.leading_colon.is_none() {
            self.use_tree(&item.tree, &[]);
        }
    }

    /// `pub(in crate::a)` is not an import.
    fn visit_visibility(&mut self, _: &'ast Visibility) {}

    fn visit_path(&mut self, path: &'ast syn::Path) {
        if path.leading_colon.is_none()
            && path.segments.len() > 1
            && let Some(first) = path.segments.first()
        {
            let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
            self.paths.push(self.used(segments, String::new(), first.ident.span()));
        }
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, called: &'ast Macro) {
        self.tokens(called.tokens.clone());
        visit::visit_macro(self, called);
    }
}
