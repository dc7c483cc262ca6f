//! The modules of a crate, by its `mod` declarations. Tests are left out.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use syn::{Attribute, File, Item, Meta};

/// A file that is a module.
pub(super) struct Source {
    /// Relative to the root of the workspace.
    pub(super) file: String,
    pub(super) syntax: File,
}

/// Modules that are files, by their path from the root of the crate: `store::open`, and the empty path for `lib.rs`.
#[derive(Default)]
pub(super) struct Tree {
    pub(super) modules: BTreeMap<String, Source>,
}

/// The binary beside the library, as a module: it imports rooms, and has a row in the table.
pub(super) const MAIN: &str = "main";

impl Tree {
    /// Reads the crate in the folder `name` of the workspace.
    pub(super) fn load(workspace: &Path, name: &str) -> Result<Self> {
        let mut tree = Self::default();
        let root = format!("{name}/src");
        tree.add(workspace, "", &format!("{root}/lib.rs"), &root)?;
        let main = format!("{root}/main.rs");
        if workspace.join(&main).exists() {
            tree.add(workspace, MAIN, &main, &format!("{root}/{MAIN}"))?;
        }
        Ok(tree)
    }

    /// A file and its children, which are in `folder`.
    fn add(&mut self, workspace: &Path, module: &str, file: &str, folder: &str) -> Result<()> {
        let text = fs::read_to_string(workspace.join(file)).with_context(|| format!("cannot read {file}"))?;
        let syntax = syn::parse_file(&text).with_context(|| format!("{file} is not valid Rust"))?;
        for item in &syntax.items {
            let Item::Mod(item) = item else { continue };
            if item.content.is_some() || is_test(&item.attrs) {
                continue;
            }
            let name = item.ident.to_string();
            let beside = format!("{folder}/{name}.rs");
            let inside = format!("{folder}/{name}/mod.rs");
            let file = if workspace.join(&beside).exists() { beside } else { inside };
            self.add(workspace, &child(module, &name), &file, &format!("{folder}/{name}"))?;
        }
        self.modules.insert(module.to_owned(), Source { file: file.to_owned(), syntax });
        Ok(())
    }

    /// The longest beginning of a path that is a module, and how many segments that has.
    pub(super) fn module_of(&self, path: &[String]) -> (String, usize) {
        let lengths = (0..=path.len()).rev();
        let modules = lengths.map(|length| (path.get(..length).unwrap_or_default().join("::"), length));
        modules.into_iter().find(|(module, _)| self.modules.contains_key(module)).unwrap_or_default()
    }
}

pub(super) fn child(module: &str, name: &str) -> String {
    if module.is_empty() { name.to_owned() } else { format!("{module}::{name}") }
}

/// Whether `module` is `ancestor` or lies in it.
pub(super) fn is_within(module: &str, ancestor: &str) -> bool {
    ancestor.is_empty()
        || module.strip_prefix(ancestor).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// The room that a module is in.
pub(super) fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or(module)
}

/// Whether an item is compiled for tests only: `#[cfg(test)]`, or an `all` that contains it.
pub(super) fn is_test(attributes: &[Attribute]) -> bool {
    let tests_only = |attribute: &Attribute| {
        let Meta::List(list) = &attribute.meta else { return false };
        let condition = list.tokens.to_string().replace(' ', "");
        list.path.is_ident("cfg")
            && (condition == "test" || condition.starts_with("all(test,") || condition.ends_with(",test)"))
    };
    attributes.iter().any(tests_only)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_module_lies_in_its_ancestors_and_not_in_namesakes() {
        assert!(is_within("store::open", "store") && is_within("store", "store") && is_within("store", ""));
        assert!(!is_within("stored", "store") && !is_within("store", "store::open"));
    }
}
