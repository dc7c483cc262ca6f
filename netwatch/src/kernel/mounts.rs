//! File systems that attaching needs, where nobody mounted them: a bare host has no tracefs, and `ip netns
//! exec` and some containers hide both under a `/sys` of their own. They are mounted where nobody else sees
//! it, in the mount namespace of a thread that ends with the work.

use std::fs::File;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use procfs::process::Process;

/// A directory that any kernel with tracefs has in its sysfs (`fs/tracefs/inode.c`, tracefs_init).
const TRACEFS: &str = "/sys/kernel/tracing";

/// One that any kernel with debugfs has there (`fs/debugfs/inode.c`, debugfs_init).
const DEBUGFS: &str = "/sys/kernel/debug";

/// One that any kernel with cgroups has there (`kernel/cgroup/cgroup.c`, cgroup_init).
const CGROUP: &str = "/sys/fs/cgroup";

const NONE: Option<&str> = None;

/// Does `work` where tracefs is mounted.
pub(super) fn with_tracefs<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    let mounted =
        [TRACEFS, "/sys/kernel/debug/tracing"].iter().any(|at| Path::new(at).join("events").exists());
    if mounted { work() } else { privately("tracefs", TRACEFS, work) }
}

/// Does `work` where debugfs is mounted.
pub(super) fn with_debugfs<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    if Path::new(DEBUGFS).join("sched").exists() { work() } else { privately("debugfs", DEBUGFS, work) }
}

/// The root of the cgroup v2 tree.
pub(super) fn cgroup2_root() -> Result<File, String> {
    if let Some(root) = mounted_cgroup2() {
        return Ok(root);
    }
    let open = || File::open(CGROUP).map_err(|error| format!("{CGROUP}: {error}"));
    privately("cgroup2", CGROUP, open)
}

/// Of several mounts of the tree, one whose root is the tree's own, and that is not hidden by another mount.
fn mounted_cgroup2() -> Option<File> {
    let mounts = Process::myself().ok()?.mountinfo().ok()?;
    let mut found: Vec<_> = mounts.0.into_iter().filter(|mount| mount.fs_type == "cgroup2").collect();
    found.sort_by_key(|mount| mount.root != "/");
    found.into_iter().find_map(|mount| {
        let shown = mount.mount_point.join("cgroup.procs").exists();
        shown.then(|| File::open(mount.mount_point).ok())?
    })
}

fn privately<T: Send>(
    kind: &str,
    at: &str,
    work: impl FnOnce() -> Result<T, String> + Send,
) -> Result<T, String> {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            let what = |error| format!("{kind} is not mounted, and cannot be: {error}");
            unshare(CloneFlags::CLONE_NEWNS).map_err(what)?;
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(what)?;
            mount(Some(kind), at, Some(kind), MsFlags::empty(), NONE).map_err(what)?;
            work()
        });
        thread.join().map_err(|_| "the thread that mounts panicked".to_owned())?
    })
}
