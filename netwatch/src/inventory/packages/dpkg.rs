//! The database of dpkg: `info/PACKAGE.list` or `info/PACKAGE:ARCH.list` lists the files of a package, `diversions`
//! those that are stored under another name, `status` the installed packages. See deb-old(5), dpkg(1) and
//! dpkg-divert(1).

use std::collections::{HashMap, HashSet};

use super::folder::{Folder, Unread};
use super::{Answer, Wanted, text};
use crate::audit::facts::Owner;
use crate::{escape, limits};

/// Returns whether there is a dpkg database; adds the owners of `wanted` to `found`.
pub(super) fn search(root: &Folder, shown: &str, wanted: &Wanted<'_>, found: &mut Answer) -> bool {
    let note = |what: &str, error: &Unread| format!("cannot read {what} of dpkg in {shown}: {error}");
    let dpkg = match root.folder("var/lib/dpkg") {
        Ok(dpkg) => dpkg,
        Err(error) if error.is_missing() => return false,
        Err(error) => {
            found.notes.push(note("the database", &error));
            return true;
        }
    };
    let info = dpkg.folder("info").and_then(|info| info.names(limits::DPKG_NAMES).map(|names| (info, names)));
    let (info, (names, are_more)) = match info {
        Ok(info) => info,
        Err(error) if error.is_missing() => return false,
        Err(error) => {
            found.notes.push(note("the lists of files", &error));
            return true;
        }
    };
    if are_more {
        found.notes.push(format!(
            "dpkg in {shown} has more than {} package files: some are skipped",
            limits::DPKG_NAMES
        ));
    }

    let mut buffer = Vec::new();
    let diversions = match dpkg.read("diversions", limits::DPKG_STATUS, &mut buffer) {
        Ok(()) => Diversions::parse(&buffer),
        Err(error) if error.is_missing() => Diversions::default(),
        Err(error) => {
            found.notes.push(note("the diversions", &error));
            Diversions::default()
        }
    };

    let Claims { claims, unread, are_more } =
        Claims::of(&info, &names, &diversions, wanted, limits::DPKG_LISTS);
    found.is_known |= unread.is_empty() && !are_more;
    for (list, error) in unread.iter().take(limits::DPKG_NAMED) {
        found.notes.push(note(&format!("the list {list}"), error));
    }
    if let Some(others @ 1..) = unread.len().checked_sub(limits::DPKG_NAMED) {
        found.notes.push(format!("cannot read {others} more lists of dpkg in {shown}"));
    }
    if are_more {
        let most = limits::DPKG_LISTS >> 20;
        found
            .notes
            .push(format!("the lists of dpkg in {shown} are longer than {most} MiB: some are skipped"));
    }
    if claims.is_empty() {
        return true;
    }
    let states = match dpkg.read("status", limits::DPKG_STATUS, &mut buffer) {
        Ok(()) => Some(states(&buffer)),
        Err(error) => {
            found.notes.push(note("the status", &error));
            None
        }
    };
    for (path, package) in claims {
        let version = match &states {
            // The version is unknown, but the owner is known.
            None => None,
            Some(states) => match states.get(package.as_str()) {
                Some(version) => version.clone(),
                // Only configuration files are left, or it was never unpacked.
                None => continue,
            },
        };
        let owner = Owner { name: text(plain(&package).as_bytes()), version, manager: "dpkg" };
        wanted.own(found, &path, &owner);
    }
    true
}

/// Result of reading the lists.
#[derive(Default)]
struct Claims {
    /// A path, and the package whose list has it.
    claims: Vec<(String, String)>,
    /// Names of lists that could not be read.
    unread: Vec<(String, Unread)>,
    /// Whether lists were skipped because of the limit.
    are_more: bool,
}

impl Claims {
    /// `left`: how many bytes of lists may be read.
    fn of(
        info: &Folder,
        names: &[String],
        diversions: &Diversions,
        wanted: &Wanted<'_>,
        mut left: usize,
    ) -> Self {
        let mut all = Self::default();
        let last: HashSet<&str, foldhash::fast::RandomState> =
            wanted.names().chain(diversions.names(wanted)).collect();
        let mut buffer = Vec::new();
        for list in names {
            let Some(package) = list.strip_suffix(".list") else { continue };
            match info.read(list, limits::DPKG_LIST, &mut buffer) {
                Ok(()) => {}
                // Removed after the directory was read.
                Err(error) if error.is_missing() => continue,
                Err(error) => {
                    all.unread.push((text(list.as_bytes()), error));
                    continue;
                }
            }
            let Some(rest) = left.checked_sub(buffer.len()) else {
                all.are_more = true;
                break;
            };
            left = rest;
            for line in buffer.split(|b| *b == b'\n') {
                let name = line.rsplit(|b| *b == b'/').next().unwrap_or_default();
                // Most lines end here. A line that is not UTF-8 is compared in escaped form.
                if str::from_utf8(name).is_ok_and(|name| !last.contains(name)) {
                    continue;
                }
                let listed = escape::utf8(line);
                if let Some(path) = diversions.actual(&listed, plain(package))
                    && !wanted.asked(path).is_empty()
                {
                    all.claims.push((path.to_owned(), package.to_owned()));
                }
            }
        }
        all
    }
}

/// The name without the architecture.
fn plain(package: &str) -> &str {
    package.split(':').next().unwrap_or_default()
}

/// Diverted files: stored under another name, so that another package can use the name.
#[derive(Default)]
struct Diversions(HashMap<String, Diversion>);

struct Diversion {
    /// Path to which the files of other packages are diverted.
    to: String,
    /// The package that keeps the name; none if an administrator diverted it.
    by: Option<String>,
}

impl Diversions {
    /// Parses entries of three lines: from, to, and the package or `:`. An incomplete entry is ignored.
    fn parse(file: &[u8]) -> Self {
        let lines: Vec<&[u8]> = file.split(|b| *b == b'\n').collect();
        let entry = |triple: &[&[u8]]| match triple {
            [from, to, by] => {
                let by = (*by != b":").then(|| escape::utf8(by));
                Some((escape::utf8(from), Diversion { to: escape::utf8(to), by }))
            }
            _ => None,
        };
        Self(lines.chunks(3).filter_map(entry).collect())
    }

    /// The path of a file that `package` lists as `listed`. Paths are compared literally, as dpkg does, which does not
    /// resolve a merged `/usr`.
    fn actual<'a>(&'a self, listed: &'a str, package: &str) -> Option<&'a str> {
        match self.0.get(listed) {
            Some(diversion) if diversion.by.as_deref() != Some(package) => Some(&diversion.to),
            _ => listed.starts_with('/').then_some(listed),
        }
    }

    /// The last components of listed paths that were diverted to wanted paths.
    fn names<'a>(&'a self, wanted: &Wanted<'_>) -> impl Iterator<Item = &'a str> {
        let diverted = self.0.iter().filter(|(_, diversion)| !wanted.asked(&diversion.to).is_empty());
        diverted.filter_map(|(from, _)| from.rsplit('/').next())
    }
}

/// Versions of installed packages, by `name` and by `name:arch`.
fn states(file: &[u8]) -> HashMap<String, Option<String>> {
    let mut states = HashMap::new();
    let mut stanza = Stanza::default();
    for line in file.split(|b| *b == b'\n') {
        if line.is_empty() {
            std::mem::take(&mut stanza).end(&mut states);
        } else {
            stanza.line(line);
        }
    }
    stanza.end(&mut states);
    states
}

/// Parses the paragraph of a package in `status`, in the format of deb822(5).
#[derive(Default)]
struct Stanza<'a> {
    package: &'a [u8],
    arch: &'a [u8],
    version: &'a [u8],
    status: &'a [u8],
}

impl<'a> Stanza<'a> {
    fn line(&mut self, line: &'a [u8]) {
        let mut halves = line.splitn(2, |b| *b == b':');
        let (Some(field), Some(value)) = (halves.next(), halves.next()) else { return };
        let into = match field.to_ascii_lowercase().as_slice() {
            b"package" => &mut self.package,
            b"architecture" => &mut self.arch,
            b"version" => &mut self.version,
            b"status" => &mut self.status,
            _ => return,
        };
        *into = value.trim_ascii();
    }

    fn end(self, states: &mut HashMap<String, Option<String>>) {
        // `want flag state`, dpkg(1). In other states there are no files, or it is not known which.
        let state = self.status.rsplit(|b| *b == b' ').next().unwrap_or_default();
        let unpacked: [&[u8]; 5] =
            [b"installed", b"unpacked", b"half-configured", b"triggers-awaited", b"triggers-pending"];
        if self.package.is_empty() || !unpacked.contains(&state) {
            return;
        }
        let version = (!self.version.is_empty()).then(|| text(self.version));
        let name = escape::utf8(self.package);
        states.insert(format!("{name}:{}", escape::utf8(self.arch)), version.clone());
        states.insert(name, version);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_are_read_up_to_the_limit() {
        let root = tempfile::tempdir().unwrap();
        let names = ["a.list", "b.list"].map(str::to_owned);
        names.iter().for_each(|name| std::fs::write(root.path().join(name), "/usr/bin/x\n").unwrap());
        let folder = Folder::open(root.path()).unwrap();
        let paths = HashSet::from(["/usr/bin/x".to_owned()]);
        let wanted = Wanted::new(&folder, &paths);
        for (most, read, are_more) in [(22, 2, false), (21, 1, true), (10, 0, true)] {
            let claims = Claims::of(&folder, &names, &Diversions::default(), &wanted, most);
            assert_eq!((claims.claims.len(), claims.are_more), (read, are_more), "{most}");
        }
    }

    #[test]
    fn only_what_is_unpacked_is_there() {
        let file = b"Package: a\nStatus: install ok installed\nArchitecture: amd64\nVersion: 1:2-3\n\
            Description: x\n Package: no\n\nPackage: b\nStatus: deinstall ok config-files\nVersion: 1\n\n\n\
            package: c\nSTATUS: install ok half-configured\n\nbad\n:\nPackage:\n\nPackage: d\nStatus: install reinstreq \
            half-installed\n\nStatus: install ok installed\n\nPackage: e\nStatus: install ok unpacked\nVersion: 5";
        let states = states(file);
        assert_eq!(states.get("a"), Some(&Some("1:2-3".into())));
        assert_eq!(states.get("a:amd64"), Some(&Some("1:2-3".into())));
        assert_eq!(states.get("c"), Some(&None));
        assert_eq!(states.get("e"), Some(&Some("5".into())));
        for missing in ["no", "b", "d", ""] {
            assert_eq!(states.get(missing), None, "{missing}");
        }
    }

    #[test]
    fn what_is_diverted_lies_elsewhere() {
        let diversions = Diversions::parse(b"/bin/x\n/bin/x.real\nwrap\n/bin/y\n/bin/y.was\n:\n/bin/z\n");
        assert_eq!(diversions.actual("/bin/x", "tool"), Some("/bin/x.real"));
        assert_eq!(diversions.actual("/bin/x", "wrap"), Some("/bin/x"));
        assert_eq!(diversions.actual("/bin/y", "tool"), Some("/bin/y.was"));
        assert_eq!(diversions.actual("/bin/z", "tool"), Some("/bin/z"));
        assert_eq!(diversions.actual("", "tool"), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(file in prop::collection::vec(any::<u8>(), 0..400), text in "[a-zS:/ \n]{0,200}") {
            for file in [file.as_slice(), text.as_bytes()] {
                let _ = Diversions::parse(file);
                let _ = states(file);
            }
        }
    }
}
