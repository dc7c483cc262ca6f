//! File systems that attaching needs. If they are not mounted (`ip netns exec` and some containers mount a `/sys` of
//! their own over them) they are mounted in the private mount namespace of a temporary thread.

use std::fs::File;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use procfs::process::Process;

/// Mount point that the kernel creates (fs/tracefs/inode.c, tracefs_init(), v6.12).
const TRACEFS: &str = "/sys/kernel/tracing";

/// Mount point that the kernel creates (fs/debugfs/inode.c, debugfs_init(), v6.12).
const DEBUGFS: &str = "/sys/kernel/debug";

/// Mount point that the kernel creates (kernel/cgroup/cgroup.c, cgroup_init(), v6.12).
const CGROUP: &str = "/sys/fs/cgroup";

const NONE: Option<&str> = None;

/// Runs `work` with tracefs mounted.
pub(super) fn with_tracefs<T: Send>(work: impl FnOnce() -> Result<T, String> + Send) -> Result<T, String> {
    let mounted =
        [TRACEFS, "/sys/kernel/debug/tracing"].iter().any(|at| Path::new(at).join("events").exists());
    if mounted { work() } else { privately("tracefs", TRACEFS, work) }
}

/// Runs `work` with debugfs mounted.
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

/// A mount of the tree that is not covered by another mount; preferably one of its root.
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
            let what = |error| format!("{kind} is not mounted, and mounting it failed: {error}");
            unshare(CloneFlags::CLONE_NEWNS).map_err(what)?;
            mount(NONE, "/", NONE, MsFlags::MS_REC | MsFlags::MS_PRIVATE, NONE).map_err(what)?;
            mount(Some(kind), at, Some(kind), MsFlags::empty(), NONE).map_err(what)?;
            work()
        });
        thread.join().map_err(|_| "the mount thread panicked".to_owned())?
    })
}
