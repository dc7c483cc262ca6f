//! A folder that whoever owns it may have filled with traps: opening never leaves it, never waits, never opens a
//! device, and reading has an end.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;

use rustix::fs::{CWD, Dir, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2, readlinkat};
use rustix::io::Errno;

/// openat2(2): EAGAIN where something was renamed meanwhile; "retry a few times".
const TRIES: usize = 8;

/// Why something was not read.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unread {
    /// By the kernel's word.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// A folder, a FIFO, a device.
    #[error("it is no regular file")]
    Irregular,
    /// MiB that would have been read.
    #[error("it is larger than {0} MiB")]
    Large(u64),
}

impl Unread {
    /// Whether there is no such file.
    pub(super) fn is_missing(&self) -> bool {
        matches!(self, Self::Io(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory))
    }
}

impl From<Errno> for Unread {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

/// An open folder, which is a root to all paths inside of it.
pub(super) struct Folder(OwnedFd);

impl Folder {
    /// Symbolic links in `path` itself are followed: it is the caller's.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?))
    }

    /// Links on the way are followed as a process would whose root this is.
    pub(super) fn folder(&self, path: &str) -> Result<Self, Unread> {
        Ok(Self(self.inside(path, OFlags::PATH | OFlags::DIRECTORY)?))
    }

    /// A regular file for reading.
    pub(super) fn file(&self, path: &str) -> Result<File, Unread> {
        // Not opened before it is known what it is: opening alone can make a device do something.
        let found = self.inside(path, OFlags::PATH)?;
        if FileType::from_raw_mode(fstat(&found)?.st_mode) != FileType::RegularFile {
            return Err(Unread::Irregular);
        }
        // This link is followed by the kernel to that very file, whatever the path leads to by now. NONBLOCK: else
        // somebody who has a lease on it can keep an open() waiting, fcntl(2).
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = openat(CWD, format!("/proc/self/fd/{}", found.as_raw_fd()), flags, Mode::empty())?;
        Ok(File::from(file))
    }

    /// Puts a file's content into `buffer`, in place of what was there.
    pub(super) fn read(&self, path: &str, most: u64, buffer: &mut Vec<u8>) -> Result<(), Unread> {
        buffer.clear();
        let file = self.file(path)?;
        if file.metadata()?.len() > most {
            return Err(Unread::Large(most >> 20));
        }
        // It may grow while it is read.
        file.take(most).read_to_end(buffer)?;
        Ok(())
    }

    /// Where a symbolic link at `path` leads, by its own words. `None` where there is none.
    pub(super) fn link(&self, path: &str) -> Option<String> {
        let link = self.inside(path, OFlags::PATH | OFlags::NOFOLLOW).ok()?;
        readlinkat(link.as_fd(), "", Vec::new()).ok()?.into_string().ok()
    }

    /// Names of what is in it, in order, and whether there are more than `most`; those that are no UTF-8 are left out.
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
        // Magic links, those of a /proc that is mounted in there, would lead out.
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        for _ in 0..TRIES {
            match openat2(&self.0, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve) {
                Err(Errno::AGAIN) => {}
                done => return done,
            }
        }
        Err(Errno::AGAIN)
    }
}
