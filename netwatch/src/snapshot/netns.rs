//! Lists network namespaces and runs code in them. The thread that enters one ends with the work, so that no other code
//! runs in a foreign namespace.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use super::{SnapshotError, parse, processes};
use crate::model::NetnsId;
use crate::{bounded, limits, proc};

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    /// Inode number.
    pub inum: NetnsId,
    /// A file that refers to it: `/proc/PID/ns/net`, or a mount point.
    pub path: PathBuf,
}

/// The network namespace of the calling thread.
///
/// # Errors
/// If `/proc` is not mounted.
pub fn own() -> io::Result<NetnsId> {
    inum_of(Path::new("/proc/thread-self/ns/net"))
}

/// All namespaces of processes and mounts: that of the calling thread first, then by inode number. Those that may not
/// be read (of another user's process) are left out; entering them needs the same privilege.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn all() -> Result<Vec<Netns>, SnapshotError> {
    let proc = |source| SnapshotError::Proc { path: "/proc", source };
    let own = own().map_err(proc)?;
    let mut found = BTreeMap::new();
    for pid in processes::pids()? {
        let path = proc::of(pid).join("ns/net");
        // The text of the link has the number, so the file need not be opened.
        if let Ok(link) = std::fs::read_link(&path)
            && let Some(inum) = parse::net_link(&link.into_os_string().into_vec())
        {
            found.entry(inum).or_insert(path);
        }
    }
    // If mountinfo cannot be read, only namespaces without a process are missed.
    let mounts = bounded::read("/proc/self/mountinfo", limits::MOUNTS_FILE).map(|file| file.bytes);
    for (inum, point) in parse::netns_mounts(&mounts.unwrap_or_default()) {
        found.entry(inum).or_insert_with(|| std::ffi::OsString::from_vec(point).into());
    }
    found.remove(&own);
    let own = (own, PathBuf::from("/proc/thread-self/ns/net"));
    Ok([own].into_iter().chain(found).map(|(inum, path)| Netns { inum, path }).collect())
}

/// Calls `work` inside each namespace, on a new thread; the calling thread does not change its namespace. `work` gets
/// an error if the namespace is gone or may not be entered.
///
/// # Errors
/// If the thread cannot be started, or `work` panicked.
pub fn inside_each<T: Send>(
    namespaces: &[Netns],
    work: impl Fn(&Netns, io::Result<()>) -> T + Send + Sync,
) -> io::Result<Vec<T>> {
    let own = own()?;
    std::thread::scope(|scope| {
        let worker = std::thread::Builder::new().name("netwatch-netns".into()).spawn_scoped(scope, || {
            let mut here = own;
            namespaces
                .iter()
                .map(|namespace| {
                    // The current namespace is not entered, since setns(2) needs a privilege.
                    let entered = if namespace.inum == here { Ok(()) } else { enter(namespace) };
                    if entered.is_ok() {
                        here = namespace.inum;
                    }
                    work(namespace, entered)
                })
                .collect()
        })?;
        worker.join().map_err(|_| io::Error::other("the thread that enters network namespaces panicked"))
    })
}

fn enter(namespace: &Netns) -> io::Result<()> {
    let file = File::open(&namespace.path)?;
    // The pid may have been reused, and a mount may be covered by another.
    if inum(&file.metadata()?) != Some(namespace.inum) {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

fn inum_of(path: &Path) -> io::Result<NetnsId> {
    inum(&std::fs::metadata(path)?).ok_or_else(|| io::Error::other("not a namespace"))
}

/// `ns_common.inum` is an unsigned int: include/linux/ns_common.h.
fn inum(metadata: &std::fs::Metadata) -> Option<NetnsId> {
    metadata.ino().try_into().ok().map(NetnsId::new)
}

/// The ephemeral port range of the calling thread's namespace, inclusive; `/proc/sys/net` shows that of the reader.
#[must_use]
pub fn port_range() -> Option<(u16, u16)> {
    parse::port_range(&bounded::text("/proc/sys/net/ipv4/ip_local_port_range", limits::PROC_FILE).ok()?)
}
