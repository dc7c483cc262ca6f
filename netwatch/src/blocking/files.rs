//! Looks up files: what the kernel has cached, which cannot block, and else with a path lookup, which may.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

use rustix::fs::{
    AtFlags, CWD, FileType, FsWord, Mode, OFlags, ResolveFlags, StatxFlags, fstatfs, makedev, openat,
    openat2, statx,
};
use rustix::io::Errno;
use rustix::path::Arg;
use serde::{Deserialize, Serialize};

use crate::proc;

/// `include/uapi/linux/magic.h`
const NSFS_MAGIC: FsWord = 0x6e73_6673;

/// A path as one process sees it.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The process in whose root directory `path` is; `None`: netwatch's own.
    pub root_of: Option<u32>,
    /// An absolute path.
    pub path: &'a Path,
}

/// The properties of a file that netwatch uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FileFacts {
    /// Device number as in `stat.st_dev`.
    pub device: u64,
    /// Inode number.
    pub inode: u64,
    /// Type and permissions.
    pub mode: u32,
    /// Device number of a device file, as in `stat.st_rdev`.
    pub special: u64,
}

impl FileFacts {
    /// Device and inode.
    #[must_use]
    pub fn identity(&self) -> (u64, u64) {
        (self.device, self.inode)
    }

    /// Whether it is a FIFO.
    #[must_use]
    pub fn is_fifo(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Fifo
    }

    /// Whether it is a regular file.
    #[must_use]
    pub fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::RegularFile
    }

    /// Whether it is a directory in which any user may create files.
    #[must_use]
    pub fn is_open_to_all(&self) -> bool {
        let is_directory = FileType::from_raw_mode(self.mode) == FileType::Directory;
        is_directory && Mode::from_raw_mode(self.mode).contains(Mode::WOTH)
    }
}

/// File systems that have a server answer with what they have cached: `fuse_update_get_attr` in fs/fuse/dir.c,
/// `nfs_getattr` in fs/nfs/inode.c, `cifs_getattr` in fs/smb/client/inode.c (v6.12). 9p asks its server all the same unless
/// it is mounted with a cache of metadata (`v9fs_vfs_getattr_dotl` in fs/9p/vfs_inode_dotl.c).
const FROM_CACHE: AtFlags = AtFlags::STATX_DONT_SYNC.union(AtFlags::NO_AUTOMOUNT);

/// The file that a process runs. The link leads to the open file without a path lookup, so this asks no server.
///
/// # Errors
/// If the process has ended or may not be inspected.
pub fn stat_running(pid: u32) -> io::Result<FileFacts> {
    Ok(facts(CWD, proc::of(pid).join("exe"), FROM_CACHE)?)
}

/// An open file of a process. Asks no server, as [`stat_running`].
///
/// # Errors
/// If the process has ended, may not be inspected, or has closed it.
pub fn stat_open(pid: u32, fd: u32) -> io::Result<FileFacts> {
    Ok(facts(CWD, proc::of(pid).join("fd").join(fd.to_string()), FROM_CACHE)?)
}

/// The file at `place` if the kernel has the whole path in its cache; `None`: ask.
pub(super) fn cached(place: Place<'_>) -> Option<io::Result<FileFacts>> {
    match look_up(place, ResolveFlags::CACHED) {
        Ok(facts) => Some(Ok(facts)),
        Err(error @ (Errno::NOENT | Errno::NOTDIR)) => Some(Err(error.into())),
        // EAGAIN: not cached. EINVAL: before Linux 5.12.
        Err(_) => None,
    }
}

/// The file at `place`, however long it takes.
pub(super) fn look_up(place: Place<'_>, how: ResolveFlags) -> Result<FileFacts, Errno> {
    let open = |directory, path: &Path, how| {
        openat2(directory, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), how)
    };
    let file = match place.root_of {
        None => open(CWD, place.path, how)?,
        Some(pid) => {
            let inside = place.path.strip_prefix("/").map_err(|_| Errno::INVAL)?;
            open(root(pid)?.as_fd(), inside, how | ResolveFlags::IN_ROOT)?
        }
    };
    facts(file, "", FROM_CACHE | AtFlags::EMPTY_PATH)
}

/// Opens (as `O_PATH`) the namespace with this inode number that is mounted on a path, however long that takes. Whatever
/// else is there is not returned: to open it might wait for a server, or have an effect.
pub(super) fn open_namespace(path: &Path, inode: u64) -> Result<OwnedFd, Errno> {
    let file = openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    let is_it = fstatfs(&file)?.f_type == NSFS_MAGIC
        && facts(&file, "", FROM_CACHE | AtFlags::EMPTY_PATH)?.inode == inode;
    if is_it { Ok(file) } else { Err(Errno::NOENT) }
}

/// The root directory of a process: a link that needs no path lookup.
fn root(pid: u32) -> Result<OwnedFd, Errno> {
    openat(CWD, format!("/proc/{pid}/root"), OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
}

fn facts(directory: impl AsFd, path: impl Arg, flags: AtFlags) -> Result<FileFacts, Errno> {
    let file = statx(directory, path, flags, StatxFlags::TYPE | StatxFlags::MODE | StatxFlags::INO)?;
    Ok(FileFacts {
        device: makedev(file.stx_dev_major, file.stx_dev_minor),
        inode: file.stx_ino,
        mode: file.stx_mode.into(),
        special: makedev(file.stx_rdev_major, file.stx_rdev_minor),
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt as _;

    use super::*;

    #[test]
    fn lookup_agrees_with_stat() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let expected = std::fs::metadata(&path).unwrap();
        for root_of in [None, Some(std::process::id())] {
            let place = Place { root_of, path: &path };
            let found = look_up(place, ResolveFlags::empty()).unwrap();
            assert_eq!(found.identity(), (expected.dev(), expected.ino()));
            assert_eq!(found.mode, expected.mode());
            // It was just looked up, so it is cached.
            assert!(cached(place).is_none_or(|cached| cached.unwrap() == found));
        }
        std::fs::remove_file(&path).unwrap();
        let place = Place { root_of: None, path: &path };
        assert_eq!(look_up(place, ResolveFlags::empty()), Err(Errno::NOENT));
        assert!(cached(place).is_none_or(|cached| cached.unwrap_err().kind() == io::ErrorKind::NotFound));
    }

    #[test]
    fn running_file_is_found() {
        let own = std::fs::metadata("/proc/self/exe").unwrap();
        assert_eq!(stat_running(std::process::id()).unwrap().identity(), (own.dev(), own.ino()));
        assert!(stat_running(0).is_err());
    }
}
