//! The header of a package in the database. It has the format of a package file (lib/header.c of rpm) without the
//! magic: the number of index entries and the number of data bytes, both big-endian; the entries, each with a tag, a
//! type, an offset into the data and a count; the data. Any bytes are accepted: entries that do not fit are ignored.

use std::collections::HashSet;

/// Tags, from rpm's rpmtag.h.
mod tag {
    pub(super) const NAME: u32 = 1000;
    pub(super) const VERSION: u32 = 1001;
    pub(super) const RELEASE: u32 = 1002;
    pub(super) const EPOCH: u32 = 1003;
    pub(super) const FILESTATES: u32 = 1029;
    pub(super) const DIRINDEXES: u32 = 1116;
    pub(super) const BASENAMES: u32 = 1117;
    pub(super) const DIRNAMES: u32 = 1118;
}

/// Types, from the same file.
const CHAR: u32 = 1;
const INT32: u32 = 4;
const STRING: u32 = 6;
const STRING_ARRAY: u32 = 8;

/// States of files that are not installed, from rpm's rpmfiles.h: replaced by another package, not installed, and wrong
/// colour (another architecture).
const NOT_THERE: [u8; 3] = [1, 2, 4];

/// Size of an index entry, in bytes.
const ENTRY: usize = 16;

/// A header of which both parts are complete.
pub(super) struct Header<'a> {
    index: &'a [u8],
    data: &'a [u8],
}

impl<'a> Header<'a> {
    /// `None` if the lengths do not fit.
    pub(super) fn parse(blob: &'a [u8]) -> Option<Self> {
        let (entries, rest) = number(blob)?;
        let (bytes, rest) = number(rest)?;
        let (index, rest) = rest.split_at_checked(usize::try_from(entries).ok()?.checked_mul(ENTRY)?)?;
        let data = rest.get(..usize::try_from(bytes).ok()?)?;
        Some(Self { index, data })
    }

    /// Name of the package.
    pub(super) fn name(&self) -> Option<&'a [u8]> {
        self.text(tag::NAME)
    }

    /// Epoch, version and release.
    pub(super) fn version(&self) -> (Option<u32>, Option<&'a [u8]>, Option<&'a [u8]>) {
        let epoch = self.numbers(tag::EPOCH).next();
        (epoch, self.text(tag::VERSION), self.text(tag::RELEASE))
    }

    /// Folder and name of each installed file whose name is one of `names`. The folder ends with a slash.
    pub(super) fn files<'n>(
        &self,
        names: &'n HashSet<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + use<'a, 'n> {
        let folders: Vec<&[u8]> = self.texts(tag::DIRNAMES).collect();
        // Some tools write headers without states; then every file is installed.
        let states = self
            .values(CHAR, tag::FILESTATES)
            .map_or(&[][..], |(data, count)| data.get(..count).unwrap_or(data));
        let states = states.iter().copied().chain(std::iter::repeat(0));
        let files = self.texts(tag::BASENAMES).zip(self.numbers(tag::DIRINDEXES)).zip(states);
        files.filter_map(move |((name, folder), state)| {
            let folder = *folders.get(usize::try_from(folder).ok()?)?;
            (names.contains(name) && !NOT_THERE.contains(&state)).then_some((folder, name))
        })
    }

    /// Data of the first entry with this tag and type, up to the end of all data, and its count.
    fn values(&self, kind: u32, tag: u32) -> Option<(&'a [u8], usize)> {
        for entry in self.index.chunks_exact(ENTRY) {
            let (first, rest) = number(entry)?;
            let (type_, rest) = number(rest)?;
            if (first, type_) == (tag, kind) {
                let (offset, rest) = number(rest)?;
                let (count, _) = number(rest)?;
                let data = self.data.get(usize::try_from(offset).ok()?..)?;
                return Some((data, usize::try_from(count).ok()?));
            }
        }
        None
    }

    fn text(&self, tag: u32) -> Option<&'a [u8]> {
        let (data, _) = self.values(STRING, tag)?;
        strings(data, 1).next()
    }

    fn texts(&self, tag: u32) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let (data, count) = self.values(STRING_ARRAY, tag).unwrap_or_default();
        strings(data, count)
    }

    fn numbers(&self, tag: u32) -> impl Iterator<Item = u32> + use<'a> {
        let (data, count) = self.values(INT32, tag).unwrap_or_default();
        data.chunks_exact(4).take(count).filter_map(|bytes| Some(number(bytes)?.0))
    }
}

/// The first big-endian number, and the bytes after it.
fn number(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let (first, rest) = bytes.split_first_chunk()?;
    Some((u32::from_be_bytes(*first), rest))
}

/// Strings that end with a NUL. An incomplete one at the end is ignored.
fn strings(data: &[u8], count: usize) -> impl Iterator<Item = &[u8]> {
    data.split_inclusive(|b| *b == 0).take(count).map_while(|text| text.strip_suffix(&[0]))
}

/// Headers for tests.
#[cfg(test)]
pub(in crate::inventory::packages) mod made {
    use super::{CHAR, INT32, STRING, STRING_ARRAY, tag};

    /// Content of a header. `files`: folder, name and state of each file.
    pub(in crate::inventory::packages) struct Made<'a> {
        pub(in crate::inventory::packages) name: &'a str,
        pub(in crate::inventory::packages) epoch: Option<u32>,
        pub(in crate::inventory::packages) files: &'a [(&'a str, &'a str, u8)],
    }

    impl Made<'_> {
        /// Version 1.2, release 3.
        pub(in crate::inventory::packages) fn blob(&self) -> Vec<u8> {
            let text = |texts: &[&str]| {
                texts.iter().flat_map(|text| [text.as_bytes(), b"\0"].concat()).collect::<Vec<u8>>()
            };
            let count = u32::try_from(self.files.len()).unwrap();
            let folders: Vec<&str> = self.files.iter().map(|(folder, ..)| *folder).collect();
            let names: Vec<&str> = self.files.iter().map(|(_, name, _)| *name).collect();
            let mut parts = vec![
                (tag::NAME, STRING, 1, text(&[self.name])),
                (tag::VERSION, STRING, 1, text(&["1.2"])),
                (tag::RELEASE, STRING, 1, text(&["3"])),
                (tag::FILESTATES, CHAR, count, self.files.iter().map(|(_, _, state)| *state).collect()),
                (tag::DIRINDEXES, INT32, count, (0..count).flat_map(u32::to_be_bytes).collect()),
                (tag::BASENAMES, STRING_ARRAY, count, text(&names)),
                (tag::DIRNAMES, STRING_ARRAY, count, text(&folders)),
            ];
            parts.extend(self.epoch.map(|epoch| (tag::EPOCH, INT32, 1, epoch.to_be_bytes().to_vec())));
            let (mut index, mut data) = (Vec::new(), Vec::new());
            for (tag, kind, count, bytes) in &parts {
                let offset = u32::try_from(data.len()).unwrap();
                index.extend([*tag, *kind, offset, *count].iter().flat_map(|n| n.to_be_bytes()));
                data.extend(bytes);
            }
            let lengths = [parts.len(), data.len()].map(|n| u32::try_from(n).unwrap().to_be_bytes());
            [lengths.concat(), index, data].concat()
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::made::Made;
    use super::*;

    fn all(header: &Header<'_>, names: &[&[u8]]) -> Vec<(String, String)> {
        let names = names.iter().copied().collect();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        header.files(&names).map(|(folder, name)| (text(folder), text(name))).collect()
    }

    #[test]
    fn only_installed_files_are_returned() {
        let files = [
            ("/usr/bin/", "x", 0),
            ("/bin/", "x", 1),
            ("/sbin/", "x", 2),
            ("/opt/", "y", 3),
            ("/lib/", "x", 4),
        ];
        let blob = Made { name: "tiny", epoch: Some(7), files: &files }.blob();
        let header = Header::parse(&blob).unwrap();
        assert_eq!(header.name(), Some(&b"tiny"[..]));
        assert_eq!(header.version(), (Some(7), Some(&b"1.2"[..]), Some(&b"3"[..])));
        let installed = [("/usr/bin/".into(), "x".into()), ("/opt/".into(), "y".into())];
        assert_eq!(all(&header, &[b"x", b"y"]), installed);
        assert_eq!(all(&header, &[b"y"]), installed[1..]);
    }

    #[test]
    fn lengths_must_fit() {
        let blob = Made { name: "tiny", epoch: None, files: &[] }.blob();
        assert!(Header::parse(&blob[..blob.len() - 1]).is_none());
        assert!(Header::parse(&[0xff; 24]).is_none());
        assert!(Header::parse(&[]).is_none());
        assert!(Header::parse(&[0; 8]).is_some());
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            if let Some(header) = Header::parse(&bytes) {
                let _ = (header.name(), header.version(), all(&header, &[b"x"]));
            }
        }

        /// A damaged header reaches code that random bytes do not reach.
        #[test]
        fn damage_does_not_panic(at in any::<prop::sample::Index>(), byte: u8, cut in any::<prop::sample::Index>()) {
            let files = [("/usr/bin/", "x", 0), ("/bin/", "x", 1)];
            let mut blob = Made { name: "tiny", epoch: Some(7), files: &files }.blob();
            let at = at.index(blob.len());
            blob[at] = byte;
            for blob in [&blob[..], &blob[..cut.index(blob.len())]] {
                if let Some(header) = Header::parse(blob) {
                    let _ = (header.name(), header.version(), all(&header, &[b"x"]));
                }
            }
        }
    }
}
