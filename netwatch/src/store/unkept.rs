//! What a run could not write, for the next one: a small file beside the store.
//!
//! Its block is allocated while there is space, and it is overwritten in place, so that it can be written to on a full
//! disk. (On a file system that copies on write it may fail even so.)

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use super::files::beside;
use super::read::kind_of;
use crate::bus::Missed;
use crate::loss::LossReason;
use crate::{escape, limits};

/// The first line of the file.
const HEAD: &str = "netwatch: events that the last run could not record\n";

/// The file, with its block allocated.
pub(super) struct Unkept {
    path: PathBuf,
    file: Option<File>,
}

impl Unkept {
    /// Opens or creates the file of the store at `path`. Returns also what an earlier run left in it. Without the file
    /// recording goes on; the number is then on stderr only.
    pub(super) fn open(path: &Path) -> (Self, Missed) {
        let path = beside(path, "-unkept");
        let mut options = OpenOptions::new();
        let file = options
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK)
            .open(&path)
            .and_then(|file| {
                if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
            });
        match file {
            Ok(file) => {
                let left = read(&file).unwrap_or_default();
                let unkept = Self { path, file: Some(file) };
                // Allocates the block, and changes nothing if there is something in it.
                if left.is_empty() {
                    unkept.write(&Missed::default());
                }
                (unkept, left)
            }
            Err(error) => {
                log::warn!("{}: {error}", escape::path(&path));
                (Self { path, file: None }, Missed::default())
            }
        }
    }

    /// Replaces the content. Returns whether it could be written.
    pub(super) fn write(&self, missed: &Missed) -> bool {
        let mut text = String::from(HEAD);
        for loss in missed.losses() {
            for (kind, count) in &loss.kinds {
                text.push_str(&format!("{} {kind} {count}\n", loss.reason.name()));
            }
        }
        let mut block = text.into_bytes();
        block.resize(limits::UNKEPT_FILE, b'\n');
        let Some(file) = &self.file else { return false };
        file.write_all_at(&block, 0).and_then(|()| file.sync_data()).is_ok()
    }

    /// Removes the file: everything was written.
    pub(super) fn remove(self) {
        if self.file.is_some()
            && let Err(error) = std::fs::remove_file(&self.path)
        {
            log::warn!("{}: {error}", escape::path(&self.path));
        }
    }
}

/// Lines of reason, kind and number. Others are skipped: whoever can write to the file can write to the store.
fn read(file: &File) -> io::Result<Missed> {
    let mut block = vec![0; limits::UNKEPT_FILE];
    let length = file.read_at(&mut block, 0)?;
    block.truncate(length);
    let text = String::from_utf8_lossy(&block);
    let mut missed = Missed::default();
    for line in text.strip_prefix(HEAD).unwrap_or_default().lines() {
        let mut words = line.split(' ');
        let (Some(reason), Some(kind), Some(count)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let reason = LossReason::ALL.into_iter().find(|known| known.name() == reason);
        if let (Some(reason), Ok(count)) = (reason, count.parse()) {
            missed.add(reason, kind_of(kind), count);
        }
    }
    Ok(missed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn next_run_reads_what_was_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netwatch.db");
        let (unkept, left) = Unkept::open(&path);
        assert!(left.is_empty());
        let mut missed = Missed::default();
        missed.add(LossReason::Store, "open", 7);
        missed.add(LossReason::Ring, "change", 2);
        assert!(unkept.write(&missed));
        let (unkept, left) = Unkept::open(&path);
        assert_eq!(left, missed);
        // Until it is in the store.
        assert_eq!(Unkept::open(&path).1, missed);
        assert!(unkept.write(&Missed::default()));
        assert!(Unkept::open(&path).1.is_empty());
        unkept.remove();
        assert!(!beside(&path, "-unkept").exists());
    }

    #[test]
    fn no_more_than_the_limit_is_read_and_nonsense_is_skipped() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("netwatch.db");
        let text = format!(
            "{HEAD}store open 1\nstore open x\n\n\u{1b}[2J\nno close 1\n{}\nstore close 9\n",
            " ".repeat(limits::UNKEPT_FILE)
        );
        std::fs::write(beside(&path, "-unkept"), text).unwrap();
        let left = Unkept::open(&path).1;
        assert_eq!((left.of(LossReason::Store), left.losses().count()), (1, 1));
        std::fs::remove_file(beside(&path, "-unkept")).unwrap();
        std::os::unix::fs::symlink("/etc/passwd", beside(&path, "-unkept")).unwrap();
        let (unkept, left) = Unkept::open(&path);
        assert!(left.is_empty() && !unkept.write(&Missed::default()));
    }
}
