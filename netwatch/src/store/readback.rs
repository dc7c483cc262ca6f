//! Whether the log is on the disk, after a sync of it failed.
//!
//! Linux reports a write that failed once, to the next fsync(); the pages count as clean then, and the next fsync() succeeds
//! although they were never written (<https://lwn.net/Articles/752063/>). So after a failure the log is written again, synced,
//! and read back past the page cache. That proves what the device returns; the device may have a cache of its own.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileExt as _, OpenOptionsExt as _};
use std::path::Path;

use memmap2::MmapMut;
use rustix::fs::{Advice, fadvise};

const HEADER: usize = 32;
const FRAME_HEADER: usize = 24;

/// Bytes that are read at once; a multiple of any block size.
const PIECE: usize = 1 << 20;

/// Writes the log again up to `end`, with the content that it has, and syncs it.
pub(super) fn write_again(log: &File, end: u64) -> io::Result<()> {
    let mut piece = vec![0; PIECE];
    let mut at = 0;
    while at < end {
        let length = usize::try_from(end - at).unwrap_or(PIECE).min(PIECE);
        let Some(piece) = piece.get_mut(..length) else { break };
        log.read_exact_at(piece, at)?;
        log.write_all_at(piece, at)?;
        at += length as u64;
    }
    log.sync_data()
}

/// Whether the log has valid frames up to `end` on the disk.
pub(super) fn is_on_disk(path: &Path, log: &File, end: u64) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    let direct = options.read(true).custom_flags(libc::O_DIRECT | libc::O_NOFOLLOW).open(path);
    // Closing this descriptor drops no lock: those are on the other files.
    match direct {
        Ok(direct) => is_valid(&direct, end),
        // A file system without direct access. Clean pages are dropped from the page cache, so they are read again.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            fadvise(log.as_fd(), 0, None, Advice::DontNeed)?;
            is_valid(log, end)
        }
        Err(error) => Err(error),
    }
}

/// Whether all frames up to `end` are valid: each has a checksum over itself and those before it.
/// <https://www.sqlite.org/fileformat2.html#walformat>
pub(super) fn is_valid(log: &File, end: u64) -> io::Result<bool> {
    // Aligned to a page, as O_DIRECT requires.
    let mut piece = MmapMut::map_anon(PIECE)?;
    let mut frames = Frames::default();
    let mut at = 0;
    while at < end {
        let length = log.read_at(&mut piece, at)?;
        let wanted = usize::try_from(end - at).unwrap_or(PIECE).min(length);
        let Some(bytes) = piece.get(..wanted).filter(|bytes| !bytes.is_empty()) else { return Ok(false) };
        if !frames.take(bytes) {
            return Ok(false);
        }
        at += length as u64;
    }
    Ok(frames.rest.is_empty())
}

/// Checks the frames of a log that is read piece by piece.
#[derive(Default)]
struct Frames {
    /// What is no whole frame yet.
    rest: Vec<u8>,
    head: Option<Head>,
    sum: (u32, u32),
}

#[derive(Clone, Copy)]
struct Head {
    page: usize,
    is_big: bool,
    salts: [u8; 8],
}

impl Frames {
    /// Returns whether all frames so far are valid.
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.rest.extend_from_slice(bytes);
        let rest = std::mem::take(&mut self.rest);
        let mut left = &rest[..];
        loop {
            let length = self.head.map_or(HEADER, |head| FRAME_HEADER + head.page);
            let Some((one, more)) = left.split_at_checked(length) else { break };
            if self.one(one).is_none() {
                return false;
            }
            left = more;
        }
        self.rest = left.to_vec();
        true
    }

    /// The header of the log, or a frame. `None`: it is not valid.
    fn one(&mut self, bytes: &[u8]) -> Option<()> {
        let word = |at: usize| Some(u32::from_be_bytes(*bytes.get(at..)?.first_chunk()?));
        let Some(head) = self.head else {
            let is_big = match word(0)? {
                0x377f_0682 => false,
                0x377f_0683 => true,
                _ => return None,
            };
            let page =
                usize::try_from(word(8)?).ok().filter(|page| page.is_power_of_two() && *page <= 65_536)?;
            self.add(is_big, bytes.get(..24)?);
            self.head = Some(Head { page, is_big, salts: *bytes.get(16..)?.first_chunk()? });
            return (self.sum == (word(24)?, word(28)?)).then_some(());
        };
        self.add(head.is_big, bytes.get(..8)?);
        self.add(head.is_big, bytes.get(FRAME_HEADER..)?);
        let is_valid = bytes.get(8..16)? == head.salts && self.sum == (word(16)?, word(20)?);
        is_valid.then_some(())
    }

    fn add(&mut self, is_big: bool, bytes: &[u8]) {
        let (mut one, mut two) = self.sum;
        for pair in bytes.chunks_exact(8) {
            let word = |bytes: Option<&[u8; 4]>| {
                let bytes = bytes.copied().unwrap_or_default();
                if is_big { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) }
            };
            one = one.wrapping_add(word(pair.first_chunk())).wrapping_add(two);
            two = two.wrapping_add(word(pair.last_chunk())).wrapping_add(one);
        }
        self.sum = (one, two);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A log with some frames, and its length.
    fn log(folder: &Path) -> (std::path::PathBuf, u64, rusqlite::Connection) {
        let db = rusqlite::Connection::open(folder.join("x.db")).unwrap();
        db.execute_batch(
            "PRAGMA journal_mode = WAL; PRAGMA wal_autocheckpoint = 0; CREATE TABLE t (x); \
             WITH RECURSIVE n(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < 500) \
             INSERT INTO t SELECT randomblob(4000) FROM n",
        )
        .unwrap();
        let path = folder.join("x.db-wal");
        let end = std::fs::metadata(&path).unwrap().len();
        (path, end, db)
    }

    #[test]
    fn a_log_is_valid_until_it_is_changed() {
        let folder = tempfile::tempdir().unwrap();
        let (path, end, db) = log(folder.path());
        assert!(end > 2 * PIECE as u64 - 100_000, "{end}");
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        assert!(is_valid(&file, end).unwrap());
        let before = std::fs::read(&path).unwrap();
        write_again(&file, end).unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert!(is_on_disk(&path, &file, end).unwrap());
        for at in [9, HEADER as u64 + 3, end / 2, end - 1] {
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).unwrap();
            file.write_all_at(&[byte[0] ^ 1], at).unwrap();
            assert!(!is_valid(&file, end).unwrap(), "{at}");
            file.write_all_at(&byte, at).unwrap();
        }
        assert!(is_valid(&file, end).unwrap() && !is_valid(&file, end + 1).unwrap());
        drop(db);
    }
}
