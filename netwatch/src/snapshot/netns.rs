//! Which network namespaces there are, and how to work inside of them. A thread that entered one never
//! returns to its caller: it does the work and ends, so no other code ever runs in a foreign namespace.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use super::{SnapshotError, parse, processes};

use crate::model::NetnsId;

/// A namespace, and something that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    /// Inode number.
    pub inum: NetnsId,
    /// A file that is it: `/proc/PID/ns/net`, or a mount point.
    pub path: PathBuf,
}

/// The calling thread's namespace.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn own() -> io::Result<NetnsId> {
    inum_of(Path::new("/proc/thread-self/ns/net"))
}

/// All that processes live in or mounts name: the calling thread's own first, then by inode number. What may not be looked at (another user's
/// process) is left out: without the privilege to look it could not be entered either.
///
/// # Errors
/// Where `/proc` cannot be read.
pub fn all() -> Result<Vec<Netns>, SnapshotError> {
    let proc = |source| SnapshotError::Proc { path: "/proc", source };
    let own = own().map_err(proc)?;
    let mut found = BTreeMap::new();
    for pid in processes::pids()? {
        let path = PathBuf::from(format!("/proc/{pid}/ns/net"));
        // The link's text is the number: no need to open what it names.
        if let Ok(link) = std::fs::read_link(&path)
            && let Some(inum) = parse::net_link(&link.into_os_string().into_vec())
        {
            found.entry(inum).or_insert(path);
        }
    }
    // Where mountinfo cannot be read, namespaces that hold no process are not found; the rest stands.
    for (inum, point) in parse::netns_mounts(&std::fs::read("/proc/self/mountinfo").unwrap_or_default()) {
        found.entry(inum).or_insert_with(|| std::ffi::OsString::from_vec(point).into());
    }
    found.remove(&own);
    let own = (own, PathBuf::from("/proc/thread-self/ns/net"));
    Ok([own].into_iter().chain(found).map(|(inum, path)| Netns { inum, path }).collect())
}

/// Calls `work` for each namespace, inside of it, on a thread of its own; the calling thread stays where
/// it is. `work` gets an error in place of the number where the namespace is gone or may not be entered.
///
/// # Errors
/// Where no thread could be started, or `work` panicked.
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
                    // One's own is not entered: that would need a privilege for nothing.
                    let entered = if namespace.inum == here { Ok(()) } else { enter(namespace) };
                    if entered.is_ok() {
                        here = namespace.inum;
                    }
                    work(namespace, entered)
                })
                .collect()
        })?;
        worker.join().map_err(|_| io::Error::other("the thread that looks into namespaces panicked"))
    })
}

fn enter(namespace: &Netns) -> io::Result<()> {
    let file = File::open(&namespace.path)?;
    // The pid may belong to another process by now, and something may be mounted on top of a mount.
    if inum(&file.metadata()?) != Some(namespace.inum) {
        return Err(io::Error::from(io::ErrorKind::NotFound));
    }
    Ok(setns(file, CloneFlags::CLONE_NEWNET)?)
}

fn inum_of(path: &Path) -> io::Result<NetnsId> {
    inum(&std::fs::metadata(path)?).ok_or_else(|| io::Error::other("no namespace"))
}

/// `ns_common.inum` is an unsigned int: include/linux/ns_common.h.
fn inum(metadata: &std::fs::Metadata) -> Option<NetnsId> {
    metadata.ino().try_into().ok().map(NetnsId::new)
}

/// The ports from which the kernel takes one for whoever connects without binding, in the calling
/// thread's namespace: `/proc/sys/net` shows the reader's own.
#[must_use]
pub fn port_range() -> Option<(u16, u16)> {
    parse::port_range(&std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").ok()?)
}
