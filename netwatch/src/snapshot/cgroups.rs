//! Paths of control groups by their ids, in the unified hierarchy. A process may be created in another group than its
//! parent's (`CLONE_INTO_CGROUP`, which systemd uses since version 255), and then no record says that it moved.

use std::fs::{self, File};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::sync::Arc;

use crate::escape;
use crate::model::CgroupId;

/// Finds groups by the file handles that the kernel gives them.
#[derive(Debug)]
pub struct CgroupPaths {
    root: File,
    mount: PathBuf,
}

/// `struct file_handle` (include/linux/exportfs.h) with the type and content that cgroup2 uses: `FILEID_KERNFS` and the
/// id of the group (fs/kernfs/mount.c, kernfs_encode_fh(), v6.12).
#[repr(C)]
struct Handle {
    bytes: u32,
    kind: i32,
    id: u64,
}

const FILEID_KERNFS: i32 = 0xfe;

impl CgroupPaths {
    /// `root`: the root of the hierarchy. `None` if it has no path in the mount namespace of netwatch.
    #[must_use]
    pub fn of(root: File) -> Option<Self> {
        let mount = path_of(root.as_raw_fd())?;
        (mount.is_absolute() && mount.exists()).then_some(Self { root, mount })
    }

    /// The path of a group as in `/proc/PID/cgroup`, escaped for JSON. `None` if the group is removed, or netwatch
    /// lacks `CAP_DAC_READ_SEARCH`.
    #[must_use]
    pub fn path(&self, id: CgroupId) -> Option<Arc<str>> {
        let handle = Handle { bytes: size_of::<u64>() as u32, kind: FILEID_KERNFS, id: id.get() };
        // SAFETY: the handle has the length that it says, and is not written to.
        let fd = unsafe {
            libc::syscall(
                libc::SYS_open_by_handle_at,
                self.root.as_raw_fd(),
                &raw const handle,
                libc::O_PATH | libc::O_CLOEXEC,
            )
        };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: a new descriptor, which nothing else owns.
        let group = unsafe { OwnedFd::from_raw_fd(fd) };
        let path = path_of(group.as_raw_fd())?;
        let below = path.strip_prefix(&self.mount).ok()?.as_os_str().as_bytes();
        (!below.ends_with(b" (deleted)")).then(|| escape::utf8(&[b"/", below].concat()).into())
    }
}

fn path_of(fd: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/self/fd/{fd}")).ok()
}
