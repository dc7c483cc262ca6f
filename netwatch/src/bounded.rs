//! Reads files within a limit: their size is chosen by whoever wrote them, and some, such as a FIFO, have no end.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader, ErrorKind, Read};
use std::os::unix::fs::FileExt as _;
use std::path::Path;

/// Room for most files of `/proc`, so that one read gets them.
const FIRST_ROOM: usize = 4096;

/// The beginning of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Beginning {
    /// No more than the limit.
    pub bytes: Vec<u8>,
    /// The file goes on.
    pub more: bool,
}

/// Reads at most `most` bytes of a file.
///
/// # Errors
/// If it cannot be opened or read.
pub fn read(path: impl AsRef<Path>, most: usize) -> io::Result<Beginning> {
    beginning(&File::open(path)?, most)
}

/// Reads a file of at most `most` bytes.
///
/// # Errors
/// If it cannot be opened or read, or is longer.
pub fn whole(path: impl AsRef<Path>, most: usize) -> io::Result<Vec<u8>> {
    let Beginning { bytes, more } = read(path, most)?;
    if more {
        let what = format!("larger than {} MiB", most >> 20);
        return Err(io::Error::new(ErrorKind::FileTooLarge, what));
    }
    Ok(bytes)
}

/// The same for a text file.
///
/// # Errors
/// If it cannot be opened or read, is longer, or is not UTF-8.
pub fn text(path: impl AsRef<Path>, most: usize) -> io::Result<String> {
    String::from_utf8(whole(path, most)?)
        .map_err(|_| io::Error::new(ErrorKind::InvalidData, "not valid UTF-8"))
}

/// The first lines of a file that are complete within `most` bytes, without their ends. `find` sees one after the other
/// until it returns something. Only for files of the kernel, which makes no long lines: one line is in memory at a
/// time.
///
/// # Errors
/// If the file cannot be opened or read.
pub fn find_line<T>(
    path: impl AsRef<Path>,
    most: usize,
    mut find: impl FnMut(&[u8]) -> Option<T>,
) -> io::Result<Option<T>> {
    let mut file = BufReader::new(File::open(path)?.take(most as u64));
    let mut line = Vec::new();
    loop {
        line.clear();
        file.read_until(b'\n', &mut line)?;
        let Some(complete) = line.strip_suffix(b"\n") else { return Ok(None) };
        if let Some(found) = find(complete) {
            return Ok(Some(found));
        }
    }
}

/// A file, or its beginning and its end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ends {
    /// What was read, no more than the limit.
    pub bytes: Vec<u8>,
    /// What is missing in it; `None`: nothing.
    pub gap: Option<Gap>,
}

/// What is missing between beginning and end of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Where in the bytes that were read.
    pub at: usize,
    /// Length of the file; `None` if its end was not found. Then the bytes after the gap are the last that were seen.
    pub length: Option<u64>,
}

/// Reads a file of at most `most` bytes, or as much of a longer one: a half from its beginning, and a half from its
/// end. `length` is asked for its length then. If it does not know it, the end is searched in the first `searched`
/// bytes.
///
/// # Errors
/// If the file cannot be read. If only the end cannot be read, it is left out.
pub fn ends(
    file: &File,
    most: usize,
    searched: u64,
    length: impl FnOnce() -> Option<u64>,
) -> io::Result<Ends> {
    let Beginning { mut bytes, more } = beginning(file, most)?;
    if !more {
        return Ok(Ends { bytes, gap: None });
    }
    let at = most / 2;
    let tail = bytes.get_mut(at..).unwrap_or_default();
    let is_longer = |length: &u64| *length > most as u64;
    let (end, length) = match length().filter(is_longer) {
        Some(length) => (length, Some(length)),
        None => search(file, tail, searched),
    };
    let read = fill(file, tail, end.saturating_sub(tail.len() as u64));
    bytes.truncate(at + read);
    Ok(Ends { bytes, gap: Some(Gap { at, length }) })
}

fn beginning(file: impl Read, most: usize) -> io::Result<Beginning> {
    let mut bytes = Vec::with_capacity(FIRST_ROOM.min(most + 1));
    file.take(most as u64 + 1).read_to_end(&mut bytes)?;
    let more = bytes.len() > most;
    bytes.truncate(most);
    Ok(Beginning { bytes, more })
}

/// How far the file could be read, which is its length if that is less than `most`.
fn search(file: &File, room: &mut [u8], most: u64) -> (u64, Option<u64>) {
    let mut at = 0;
    while at < most {
        match fill(file, room, at) {
            0 => return (at, Some(at)),
            read => at += read as u64,
        }
    }
    (at, None)
}

/// Reads at `at` until the room is full or nothing more can be read; returns how many bytes that were.
fn fill(file: &File, room: &mut [u8], at: u64) -> usize {
    let mut read = 0;
    while let Some(rest) = room.get_mut(read..).filter(|rest| !rest.is_empty()) {
        match file.read_at(rest, at.saturating_add(read as u64)) {
            Ok(0) => break,
            Ok(count) => read += count,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    read
}

#[cfg(test)]
mod tests {
    use std::io::{Seek as _, Write as _};

    use proptest::prelude::*;

    use super::*;

    fn file(bytes: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(bytes).unwrap();
        file.rewind().unwrap();
        file
    }

    #[test]
    fn no_more_than_the_limit_is_read() {
        let endless = read("/dev/zero", 100_000).unwrap();
        assert_eq!((endless.bytes.len(), endless.more), (100_000, true));
        assert!(endless.bytes.capacity() < 400_000);
        for (most, length, more) in [(4, 4, true), (5, 5, false), (6, 5, false), (0, 0, true)] {
            let read = beginning(&b"12345"[..], most).unwrap();
            assert_eq!((read.bytes.len(), read.more), (length, more), "{most}");
        }
    }

    #[test]
    fn text_over_the_limit_is_an_error() {
        let error = text("/dev/zero", 1 << 20).unwrap_err();
        assert_eq!(error.to_string(), "larger than 1 MiB");
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"x\xff").unwrap();
        assert_eq!(text(file.path(), 9).unwrap_err().to_string(), "not valid UTF-8");
    }

    #[test]
    fn lines_end_at_the_limit() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(b"first\nsecond\nthird").unwrap();
        let lines = |most| {
            let mut lines = Vec::new();
            let found = find_line(file.path(), most, |line| {
                lines.push(String::from_utf8(line.to_vec()).unwrap());
                None::<()>
            });
            assert_eq!(found.unwrap(), None);
            lines
        };
        assert_eq!(lines(100), ["first", "second"]);
        assert_eq!(lines(12), ["first"]);
        let found = find_line(file.path(), 100, |line| line.starts_with(b"s").then_some(7));
        assert_eq!(found.unwrap(), Some(7));
    }

    #[test]
    fn line_end_beyond_the_limit_is_not_searched() {
        let read = ends(&file(&[b'x'; 1000]), 10, 500, || None).unwrap();
        assert_eq!(read, Ends { bytes: vec![b'x'; 10], gap: Some(Gap { at: 5, length: None }) });
    }

    #[test]
    fn wrong_length_costs_only_the_end() {
        let read = ends(&file(&[b'x'; 1000]), 10, 5000, || Some(u64::MAX)).unwrap();
        assert_eq!(read.bytes, b"xxxxx");
        // Shorter than the file: the end is searched.
        let read = ends(&file(&[b'x'; 1000]), 10, 5000, || Some(3)).unwrap();
        assert_eq!(read.gap, Some(Gap { at: 5, length: Some(1000) }));
    }

    proptest! {
        #[test]
        fn both_ends_are_kept(
            bytes in prop::collection::vec(any::<u8>(), 0..300),
            most in 1_usize..200,
            is_known: bool,
        ) {
            let length = bytes.len() as u64;
            let read = ends(&file(&bytes), most, 1000, || is_known.then_some(length)).unwrap();
            prop_assert!(read.bytes.len() <= most);
            match read.gap {
                None => prop_assert_eq!(read.bytes, bytes),
                Some(gap) => {
                    prop_assert!(bytes.len() > most);
                    prop_assert_eq!(gap, Gap { at: most / 2, length: Some(length) });
                    prop_assert_eq!(read.bytes.len(), most);
                    prop_assert!(bytes.starts_with(&read.bytes[..gap.at]));
                    prop_assert!(bytes.ends_with(&read.bytes[gap.at..]));
                }
            }
        }
    }
}
