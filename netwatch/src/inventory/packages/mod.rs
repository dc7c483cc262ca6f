//! Which package owns an executable, by the databases of dpkg and rpm. The files are read directly: no package manager
//! is run, so it works for containers too and nothing is written.
//!
//! A container is not trusted: its database may be a symbolic link to a file of the host, a FIFO, gigabytes, or
//! invalid. `folder` opens files without leaving the root, all parsers are total, and read errors become notes. A file
//! system that blocks (FUSE, NFS) blocks the read, so the caller has a deadline.

mod dpkg;
mod folder;
mod rpm;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::path::Path;

use crate::audit::facts::Owner;
use crate::escape;
use folder::Folder;

/// Result of a lookup in one root.
#[derive(Clone, Debug, Default)]
pub(super) struct Answer {
    /// Owners by requested path. A path that is missing belongs to no package, or to none that could be read.
    pub(super) owners: HashMap<String, Owner>,
    /// There is a database that could be read. Otherwise it is not known whether a path belongs to a package.
    pub(super) is_known: bool,
    /// What could not be read, and why: one line each, fit for a terminal.
    pub(super) notes: Vec<String>,
}

/// Looks up all of `wanted` in one pass over the databases in `root`: `/`, or `/proc/PID/root` of a process in another
/// mount namespace. `wanted` are absolute paths inside that root without symbolic links, as `/proc/PID/exe` shows them,
/// escaped by [`escape::utf8`].
#[must_use]
pub(super) fn owners(root: &Path, wanted: &HashSet<String>) -> Answer {
    let mut found = Answer::default();
    if wanted.is_empty() {
        return found;
    }
    let shown = text(root.as_os_str().as_encoded_bytes());
    let folder = match Folder::open(root) {
        Ok(folder) => folder,
        Err(error) => {
            found.notes.push(format!("cannot read the package databases in {shown}: {error}"));
            return found;
        }
    };
    let wanted = Wanted::new(&folder, wanted);
    let by_dpkg = dpkg::search(&folder, &shown, &wanted, &mut found);
    let by_rpm = rpm::search(&folder, &shown, &wanted, &mut found);
    if !by_dpkg && !by_rpm {
        found.notes.push(format!("no dpkg or rpm database in {shown}"));
    }
    found
}

/// Where the databases are, in a root directory.
pub(super) const DATABASES: [&str; 3] = ["/var/lib/dpkg/status", "/var/lib/rpm", "/usr/lib/sysimage/rpm"];

/// The paths to look up.
struct Wanted<'a> {
    /// Requested paths by path without aliases: `/bin/x` and `/usr/bin/x` may be one file.
    paths: HashMap<String, Vec<&'a str>, foldhash::fast::RandomState>,
    aliases: Aliases,
}

impl<'a> Wanted<'a> {
    fn new(root: &Folder, wanted: &'a HashSet<String>) -> Self {
        let aliases = Aliases::of(root);
        let mut paths: HashMap<String, Vec<&str>, _> = HashMap::default();
        for path in wanted {
            paths.entry(aliases.resolve(path)).or_default().push(path);
        }
        Self { paths, aliases }
    }

    /// The last components of all paths.
    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.paths.values().flatten().filter_map(|path| path.rsplit('/').next())
    }

    /// What was asked for by `path`, a name that a database has.
    fn asked(&self, path: &str) -> &[&'a str] {
        self.paths.get(&self.aliases.resolve(path)).map_or(&[], Vec::as_slice)
    }

    /// Writes an owner down, where there is none yet.
    fn own(&self, found: &mut Answer, path: &str, owner: &Owner) {
        for asked in self.asked(path) {
            found.owners.entry((*asked).to_owned()).or_insert_with(|| owner.clone());
        }
    }
}

/// Folders that may be symbolic links into `/usr` or inside of it. Packages still list files by these names.
const ALIASED: [&str; 8] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32", "usr/sbin", "usr/lib64"];

/// How often an alias may lead to another: `/sbin` to `/usr/sbin` to `/usr/bin`.
const ALIAS_DEPTH: usize = 3;

/// What the links of a merged `/usr` are in this root. Learned and not assumed: where `/bin` is a folder of its own,
/// `/bin/x` and `/usr/bin/x` are two files.
struct Aliases(Vec<(String, String)>);

impl Aliases {
    fn of(root: &Folder) -> Self {
        let alias = |name: &&str| {
            let to = root.link(name)?;
            let to = to.trim_end_matches('/');
            let to = match (to.strip_prefix('/'), name.rsplit_once('/')) {
                (Some(absolute), _) => format!("/{absolute}/"),
                (None, Some((parent, _))) => format!("/{parent}/{to}/"),
                (None, None) => format!("/{to}/"),
            };
            // Of `..` and the like a merged /usr has none.
            let plain = to.split('/').all(|part| part != "." && part != "..");
            plain.then(|| (format!("/{name}/"), to))
        };
        Self(ALIASED.iter().filter_map(alias).collect())
    }

    fn resolve(&self, path: &str) -> String {
        let mut path = path.to_owned();
        for _ in 0..ALIAS_DEPTH {
            let next = self
                .0
                .iter()
                .find_map(|(from, to)| Some(format!("{to}{}", path.strip_prefix(from.as_str())?)));
            match next {
                Some(next) => path = next,
                None => break,
            }
        }
        path
    }
}

/// A name out of a database, fit for a line of text.
fn text(bytes: &[u8]) -> String {
    escape::terminal(&escape::utf8(bytes)).into_owned()
}
