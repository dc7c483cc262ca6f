//! Looks up files: what the kernel has cached, which cannot block, and else with a path lookup, which may.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FileType, FsWord, Mode, OFlags, ResolveFlags, StatxFlags, fstatfs, makedev, openat,
    openat2, statx,
};
use rustix::io::Errno;
use rustix::path::Arg;
use serde::{Deserialize, Serialize};

use crate::{bounded, limits, proc};

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

/// The file that a process runs, or an open one. The link leads to it without a path lookup, so this asks no server, unless
/// [`may_ask`] says so.
pub(super) fn of_process(pid: u32, fd: Option<u32>) -> Result<FileFacts, Errno> {
    let base = proc::of(pid);
    let link = fd.map_or_else(|| base.join("exe"), |fd| base.join("fd").join(fd.to_string()));
    facts(CWD, link, FROM_CACHE)
}

/// Whether this kernel has a file system that asks its server in spite of [`FROM_CACHE`]. The module may be loaded at any
/// time, so this is asked again every second.
pub(super) fn may_ask() -> bool {
    const OFTEN: Duration = Duration::from_secs(1);
    static LAST: Mutex<Option<(Instant, bool)>> = Mutex::new(None);
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, known)) = *last
        && at.elapsed() < OFTEN
    {
        return known;
    }
    let file = bounded::text("/proc/filesystems", limits::PROC_FILE);
    let may = file.map_or(true, |file| has_9p(&file));
    *last = Some((Instant::now(), may));
    may
}

/// In `/proc/filesystems` the name is the second word, after `nodev` or nothing.
fn has_9p(file_systems: &str) -> bool {
    file_systems.lines().any(|line| line.split('\t').nth(1) == Some("9p"))
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
        assert_eq!(of_process(std::process::id(), None).unwrap().identity(), (own.dev(), own.ino()));
        assert!(of_process(0, None).is_err());
    }

    #[test]
    fn file_system_that_asks_its_server_is_found() {
        assert!(has_9p("nodev\tsysfs\n\text4\nnodev\t9p\n"));
        assert!(!has_9p("nodev\tsysfs\n\text4\nnodev\t9pnot\n") && !has_9p(""));
        assert_eq!(may_ask(), has_9p(&std::fs::read_to_string("/proc/filesystems").unwrap()));
    }
}
