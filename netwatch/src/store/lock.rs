//! Allows one writer: a lock on the database file itself, so that it is the same for every path to the file.

use std::fs::File;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use libc::{major, minor};
use rustix::fs::{FlockOperation, flock};

use super::StoreError;
use crate::{bounded, limits};

/// Takes the lock (flock(2)), held while `file` is open. SQLite uses POSIX locks, which are dropped when any descriptor
/// of the file is closed, so this one must outlive the connection.
pub(super) fn take(file: &File, path: &Path) -> Result<(), StoreError> {
    match flock(file.as_fd(), FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(rustix::io::Errno::WOULDBLOCK) => {
            let holder = holder(file).unwrap_or_else(|| "another process".into());
            Err(StoreError::Held { path: path.to_owned(), holder })
        }
        Err(error) => Err(StoreError::Open { path: path.to_owned(), source: error.into() }),
    }
}

/// The process that has the lock, as `comm[pid]`. `None` if unknown, for example in another pid namespace.
fn holder(file: &File) -> Option<String> {
    let file = file.metadata().ok()?;
    let pid = bounded::find_line("/proc/locks", limits::LOCKS_READ, |line| {
        pid_of(std::str::from_utf8(line).ok()?, file.dev(), file.ino())
    });
    let pid = pid.ok()??;
    let comm = bounded::read(format!("/proc/{pid}/comm"), limits::PROC_FILE).ok()?.bytes;
    let comm = crate::escape::utf8(comm.strip_suffix(b"\n").unwrap_or(&comm));
    Some(format!("{}[{pid}]", crate::escape::terminal(&comm)))
}

/// `1: FLOCK  ADVISORY  WRITE 708 fd:01:1234 0 EOF`, as in proc_locks(5).
fn pid_of(line: &str, dev: u64, ino: u64) -> Option<u32> {
    let mut words = line.split_ascii_whitespace().skip(1);
    if words.next()? != "FLOCK" {
        return None;
    }
    let pid = words.nth(2)?;
    let file = format!("{:02x}:{:02x}:{ino}", major(dev), minor(dev));
    if words.next()? != file { None } else { pid.parse().ok() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_the_lock_is_parsed() {
        let line = "1: FLOCK  ADVISORY  WRITE 708 fd:01:1234 0 EOF";
        let dev = libc::makedev(0xfd, 1);
        assert_eq!(pid_of(line, dev, 1234), Some(708));
        assert_eq!(pid_of(line, dev, 1235), None);
        assert_eq!(pid_of("2: POSIX  ADVISORY  WRITE 708 fd:01:1234 0 EOF", dev, 1234), None);
        assert_eq!(pid_of("3: -> FLOCK", dev, 1234), None);
        assert_eq!(pid_of("", dev, 1234), None);
    }

    #[test]
    fn a_second_writer_gets_the_name_of_the_first() {
        let path = std::env::temp_dir().join(format!("netwatch-lock-{}", std::process::id()));
        let (first, second) = (File::create(&path).unwrap(), File::open(&path).unwrap());
        take(&first, &path).unwrap();
        let error = take(&second, &path).unwrap_err().to_string();
        std::fs::remove_file(&path).unwrap();
        assert!(error.contains(&format!("[{}]", std::process::id())), "{error}");
    }
}
