//! A file that is rotated by size and age.

use std::fs::{self, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use super::spool::{Payload, Spool};
use super::{FileOptions, Output, Undelivered};
use crate::output::{Encoder, LogOptions, Stamp};
use crate::stream::{Context, Item};

/// Readable by the owner only: events have arguments of processes.
const MODE: u32 = 0o600;

pub(super) struct File {
    options: FileOptions,
    encoder: Encoder,
    /// `None` after a failure: it is opened again.
    open: Option<Open>,
    buffer: Vec<u8>,
}

/// The open file.
struct Open {
    file: fs::File,
    /// Its length after the last payload that was written.
    length: u64,
    began: SystemTime,
    /// Device and inode number.
    inode: (u64, u64),
}

impl Open {
    fn at(path: &Path) -> io::Result<Self> {
        // A FIFO would block, and a link could lead to any file.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
        let file = OpenOptions::new().append(true).create(true).mode(MODE).custom_flags(flags).open(path)?;
        let found = file.metadata()?;
        if !found.is_file() {
            return Err(io::Error::other("it is not a regular file"));
        }
        let began = found.created().or_else(|_| found.modified()).unwrap_or_else(|_| SystemTime::now());
        Ok(Self { file, length: found.len(), began, inode: (found.dev(), found.ino()) })
    }

    /// Whether the path still leads to it.
    fn is_at(&self, path: &Path) -> bool {
        fs::symlink_metadata(path).is_ok_and(|found| (found.dev(), found.ino()) == self.inode)
    }

    /// Writes all or nothing.
    fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        let written = self.file.write_all(bytes);
        match written {
            Ok(()) => self.length += bytes.len() as u64,
            // A full disk takes the beginning.
            Err(_) => self.file.set_len(self.length)?,
        }
        written
    }
}

impl File {
    pub(super) fn open(options: &FileOptions, log: &LogOptions) -> io::Result<Self> {
        let open = Some(Open::at(&options.path)?);
        let encoder = Encoder::new(log, Stamp::DateAndTime);
        Ok(Self { options: options.clone(), encoder, open, buffer: Vec::new() })
    }

    fn write(&mut self, bytes: &[u8], now: SystemTime) -> io::Result<()> {
        let path = &self.options.path;
        let open = match self.open.take() {
            // Whoever rotates it as well has moved it, or deleted it.
            Some(open) if open.is_at(path) => open,
            _ => Open::at(path)?,
        };
        let open = if self.is_due(&open, bytes.len(), now) { self.rotate(open)? } else { open };
        let open = self.open.insert(open);
        if open.length == 0 {
            self.buffer.clear();
            self.encoder.begin(&mut self.buffer)?;
            self.buffer.extend_from_slice(bytes);
            return open.append(&self.buffer);
        }
        open.append(bytes)
    }

    fn is_due(&self, open: &Open, more: usize, now: SystemTime) -> bool {
        let is_large = open.length + more as u64 > self.options.size;
        let age = now.duration_since(open.began).unwrap_or_default();
        open.length > 0 && (is_large || self.options.age.is_some_and(|most| age >= most))
    }

    /// Renames the file and its predecessors, and opens another.
    fn rotate(&mut self, mut open: Open) -> io::Result<Open> {
        let FileOptions { path, keep, .. } = &self.options;
        self.buffer.clear();
        self.encoder.end(&mut self.buffer)?;
        open.append(&self.buffer)?;
        let optional = |done: io::Result<()>| match done {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            done => done,
        };
        if *keep == 0 {
            optional(fs::remove_file(path))?;
        } else {
            for number in (1..*keep).rev() {
                optional(fs::rename(numbered(path, number), numbered(path, number + 1)))?;
            }
            optional(fs::rename(path, numbered(path, 1)))?;
        }
        Open::at(path)
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(format!(".{number}"));
    path.into()
}

impl Output for File {
    fn encode(&mut self, item: &Item, context: &Context, spool: &mut Spool) -> io::Result<()> {
        self.buffer.clear();
        if self.encoder.item(item, context, &mut self.buffer)? > 0 {
            spool.push(item.kind(), &self.buffer);
        }
        Ok(())
    }

    fn deliver(&mut self, payload: &mut Payload) -> Result<(), Undelivered> {
        let written = self.write(payload.bytes(), SystemTime::now());
        written.map_err(|error| Undelivered::down("cannot write to it", error))
    }

    fn gathering(&self) -> Duration {
        Duration::ZERO
    }

    fn end(&mut self) {
        self.buffer.clear();
        if let Some(open) = &mut self.open
            && self.encoder.end(&mut self.buffer).is_ok()
            && let Err(error) = open.append(&self.buffer)
        {
            log::debug!("{}: {error}", self.options.path.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Format;

    fn file(path: &Path, size: u64, age: Option<Duration>, keep: u32) -> File {
        let options = FileOptions { path: path.to_owned(), size, age, keep };
        File::open(&options, &LogOptions { format: Format::Json, ..LogOptions::default() }).unwrap()
    }

    fn names(folder: &Path) -> Vec<(String, String)> {
        let mut all: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
        all.sort();
        let name = |path: &PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        all.iter().map(|path| (name(path), fs::read_to_string(path).unwrap())).collect()
    }

    fn expected(files: &[(&str, &str)]) -> Vec<(String, String)> {
        files.iter().map(|(name, text)| ((*name).to_owned(), (*text).to_owned())).collect()
    }

    #[test]
    fn a_file_is_rotated_by_size() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = file(&folder.path().join("x"), 4, None, 2);
        for text in ["a\n", "b\n", "c\n", "0123456\n", "d\n"] {
            file.write(text.as_bytes(), SystemTime::now()).unwrap();
        }
        let all = [("x", "d\n"), ("x.1", "0123456\n"), ("x.2", "c\n")];
        assert_eq!(names(folder.path()), expected(&all));
        let mode = fs::metadata(folder.path().join("x")).unwrap().mode();
        assert_eq!(mode & 0o777, MODE);
    }

    #[test]
    fn a_file_is_rotated_by_age() {
        let folder = tempfile::tempdir().unwrap();
        let age = Duration::from_secs(3600);
        let mut file = file(&folder.path().join("x"), u64::MAX, Some(age), 1);
        let now = SystemTime::now();
        file.write(b"a\n", now).unwrap();
        file.write(b"b\n", now + age / 2).unwrap();
        file.write(b"c\n", now + 2 * age).unwrap();
        assert_eq!(names(folder.path()), expected(&[("x", "c\n"), ("x.1", "a\nb\n")]));
    }

    #[test]
    fn no_file_is_kept_if_none_is_wanted() {
        let folder = tempfile::tempdir().unwrap();
        let mut file = file(&folder.path().join("x"), 2, None, 0);
        for text in ["a\n", "b\n"] {
            file.write(text.as_bytes(), SystemTime::now()).unwrap();
        }
        assert_eq!(names(folder.path()), expected(&[("x", "b\n")]));
    }

    #[test]
    fn a_file_that_others_rotate_is_opened_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("x");
        let mut file = file(&path, u64::MAX, None, 1);
        file.write(b"a\n", SystemTime::now()).unwrap();
        fs::rename(&path, folder.path().join("moved")).unwrap();
        file.write(b"b\n", SystemTime::now()).unwrap();
        assert_eq!(names(folder.path()), expected(&[("moved", "a\n"), ("x", "b\n")]));
    }

    #[test]
    fn only_regular_files_are_opened() {
        let folder = tempfile::tempdir().unwrap();
        let log = LogOptions::default();
        let options = |path| FileOptions { path, size: 1, age: None, keep: 0 };
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/etc/passwd", &link).unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        for path in [link, fifo, folder.path().to_owned(), folder.path().join("no/such")] {
            assert!(File::open(&options(path.clone()), &log).is_err(), "{}", path.display());
        }
    }
}
