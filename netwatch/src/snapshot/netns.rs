//! Lists network namespaces and runs code in them. The thread that enters one ends with the work, so that no other code
//! runs in a foreign namespace.

use std::collections::BTreeMap;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};

use super::{SnapshotError, parse, processes};
use crate::blocking::{self, Patience};
use crate::model::NetnsId;
use crate::proc::{self, Mounts};
use crate::{bounded, escape, limits};

/// A network namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Netns {
    /// Inode number.
    pub inum: NetnsId,
    file: Refers,
}

/// A file that refers to a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Refers {
    /// `/proc/PID/ns/net`.
    Process(PathBuf),
    /// A mount point, which may be on any file system.
    Mount(PathBuf),
}

impl Netns {
    /// That of the calling thread, whose number is `inum`.
    #[must_use]
    pub fn of_thread(inum: NetnsId) -> Self {
        Self { inum, file: Refers::Process(PathBuf::from("/proc/thread-self/ns/net")) }
    }
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
    among(&Mounts::read())
}

/// The same, of mounts that were read already.
///
/// # Errors
/// If `/proc` cannot be read.
pub fn among(mounts: &Mounts) -> Result<Vec<Netns>, SnapshotError> {
    let proc = |source| SnapshotError::Proc { path: "/proc", source };
    let own = own().map_err(proc)?;
    let mut found = BTreeMap::new();
    for pid in processes::pids()? {
        let path = proc::of(pid).join("ns/net");
        // The text of the link has the number, so the file need not be opened.
        if let Ok(link) = std::fs::read_link(&path)
            && let Some(inum) = parse::net_link(&link.into_os_string().into_vec())
        {
            found.entry(inum).or_insert(Refers::Process(path));
        }
    }
    for (inum, point) in parse::netns_mounts(mounts.lines()) {
        let point = || Refers::Mount(std::ffi::OsString::from_vec(point).into());
        found.entry(inum).or_insert_with(point);
    }
    found.remove(&own);
    let others = found.into_iter().map(|(inum, file)| Netns { inum, file });
    Ok([Netns::of_thread(own)].into_iter().chain(others).collect())
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
    let file = match &namespace.file {
        Refers::Process(path) => File::open(path)?,
        Refers::Mount(path) => {
            let inode = namespace.inum.number().into();
            let answer = blocking::open_namespace(path, inode, Patience::Command);
            let mounted = answer.ok_or_else(|| {
                let what = format!(
                    "the file system of {} does not answer",
                    escape::utf8(path.as_os_str().as_bytes())
                );
                io::Error::new(io::ErrorKind::TimedOut, what)
            })??;
            // The link leads to the namespace without a path lookup.
            File::open(format!("/proc/self/fd/{}", mounted.as_raw_fd()))?
        }
    };
    // The pid may have been reused.
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
