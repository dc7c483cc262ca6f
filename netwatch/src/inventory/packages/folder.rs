//! A directory whose owner is not trusted: opening a path never leaves it, never blocks and never opens a device, and
//! reads are bounded.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

/// openat2(2) fails with EAGAIN if a component was renamed meanwhile, and should be retried a few times.
const TRIES: usize = 8;

/// Why something was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// An error of the kernel.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A directory, a FIFO or a device.
    #[error("not a regular file")]
    Irregular,
    /// The limit in MiB.
    #[error("larger than {0} MiB")]
    Large(u64),
}

impl Unread {
    /// Whether the file does not exist.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }
}

impl From<Errno> for Unread {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// An open directory, which is the root of all paths that are opened in it.
pub(super) struct Folder(OwnedFd);

impl Folder {
    /// Opens `path`, which is trusted; symbolic links in it are followed.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Opens a subdirectory. Symbolic links are resolved inside the root.
    pub(super) fn folder(&self, path: &str) -> Result<Self, Unread> {
        Ok(Self(self.inside(path, OFlags::PATH | OFlags::DIRECTORY)?))
    }

    /// Opens a regular file for reading.
    pub(super) fn file(&self, path: &str) -> Result<File, Unread> {
        // First with O_PATH, to check the type: opening a device may have side effects.
        let found = self.inside(path, OFlags::PATH)?;
        if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
            return Err(Unread::Irregular);
        }
        // Opens that same file through its magic link. O_NONBLOCK: a lease on the file would block open(), fcntl(2).
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(CWD, format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty())?;
        Ok(File::from(file))
    }

    /// Replaces the content of `buffer` with that of a file.
    pub(super) fn read(&self, path: &str, most: u64, buffer: &mut Vec<u8>) -> Result<(), Unread> {
        buffer.clear();
        let file = self.file(path)?;
        if file.metadata()?.len() > most {
            return Err(Unread::Large(most >> 20));
        }
        // The file may grow meanwhile.
        file.take(most).read_to_end(buffer)?;
        Ok(())
    }

    /// The target of the symbolic link at `path`; `None` if it is not a link.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let link = self.inside(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        readlinkat(link.as_fd(), "", Vec::new()).ok()?.into_string().ok()
    }

    /// Sorted names of its entries, and whether there are more than `most`. Names that are not UTF-8 are skipped.
    pub(super) fn names(&self, most: usize) -> Result<(Vec<String>, bool), Unread> {
        let folder = self.inside(".", OFlags::RDONLY | OFlags::DIRECTORY)?;
        let mut entries = Dir::new(folder)?;
        let mut names = Vec::new();
        for entry in entries.by_ref().take(most) {
            names.extend(entry?.file_name().to_str().ok().map(str::to_owned));
        }
        names.sort_unstable();
        Ok((names, entries.next().is_some()))
    }

    fn inside(&self, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
        // Magic links (of a /proc mounted inside) would lead out of the root.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        tried(|| openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve))
    }
}

fn tried<T>(mut open: impl FnMut() -> rustix::io::Result<T>) -> rustix::io::Result<T> {
    for _ in 0..TRIES {
        match open() {
            Err(Errno::AGAIN) => {}
            done => return done,
        }
    }
    Err(Errno::AGAIN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn file_that_is_renamed_all_the_time_is_given_up() {
        let tries = |until: usize| {
            let mut tries = 0;
            let opened = tried(|| {
                tries += 1;
                if tries < until { Err(Errno::AGAIN) } else { Ok(()) }
            });
            (tries, opened)
        };
        assert_eq!(tries(1), (1, Ok(())));
        assert_eq!(tries(TRIES), (TRIES, Ok(())));
        assert_eq!(tries(TRIES + 1), (TRIES, Err(Errno::AGAIN)));
    }
}
