//! Which processes have which socket open, by the links in `/proc/PID/fd`.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::{Note, SnapshotError, parse, processes};
use crate::decode::listed;
use crate::hash::Set;
use crate::model::{Holder, Holders, Lister, Listing, ProcessRow};

/// Whether anybody holds a socket, but for those that this process had open for the snapshot itself and has closed
/// since.
#[must_use]
pub fn any_socket(holders: &Holders) -> bool {
    let own = std::process::id();
    let is_open = |inode, fd| {
        let link = fs::read_link(format!("/proc/self/fd/{fd}"));
        link.is_ok_and(|link| parse::socket_link(link.as_os_str().as_bytes()) == Some(inode))
    };
    holders.all().any(|(inode, holder)| holder.pid != own || is_open(inode, holder.fd))
}

/// What is missing, for a reader.
#[must_use]
pub fn note(holders: &Holders) -> Option<Note> {
    let text = match holders.refused() {
        0 => return None,
        1 => "1 process's descriptors could not be read".into(),
        n => format!("{n} processes' descriptors could not be read"),
    };
    Some(Note { netns: None, text })
}

/// Network sockets' by the kernel's iterators alone.
///
/// # Errors
/// Where the kernel does not let us.
pub fn listed_by(lister: &dyn Lister) -> io::Result<Holders> {
    Ok(Holders::of_each(listed::held(&lister.list(Listing::Files)?)))
}

/// All of them: by the kernel's iterators, else by `/proc`. A process that ends meanwhile is left out.
///
/// # Errors
/// Where neither can be read.
pub fn all(lister: Option<&dyn Lister>) -> Result<Holders, SnapshotError> {
    match lister.map(listed_by) {
        Some(Ok(holders)) => Ok(holders),
        Some(Err(error)) => {
            log::info!("descriptors cannot be listed by an iterator: {error}");
            by_proc()
        }
        None => by_proc(),
    }
}

/// The same, and all processes. Each is named as what it was while it had the socket, or later where it has it still.
///
/// # Errors
/// Where either cannot be read.
pub fn named(lister: Option<&dyn Lister>) -> Result<(Holders, Vec<ProcessRow>), SnapshotError> {
    let mut holders = all(lister)?;
    let processes = processes::all()?;
    drop_let_go(&mut holders);
    Ok((holders, processes))
}

/// Drops those of a shared socket that have it no more. Between its fork and its exec a child has all that its parent
/// has, and whoever reads its name a moment later calls it by what it became.
fn drop_let_go(holders: &mut Holders) {
    holders.retain_shared(has_still);
}

fn by_proc() -> Result<Holders, SnapshotError> {
    let pids = processes::pids()?;
    let mut found = Vec::new();
    let (mut whole, mut refused) = (Set::default(), Set::default());
    for pid in pids {
        match read(pid, &mut found) {
            Ok(()) => _ = whole.insert(pid),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => _ = refused.insert(pid),
            // It ended meanwhile.
            Err(_) => {}
        }
    }
    Ok(Holders::of_asked(found, whole, refused))
}

/// Sockets that a process's threads have open, each with descriptors of its own perhaps.
///
/// # Errors
/// Where they cannot be read: it ended, say.
pub fn of_threads(pid: u32) -> io::Result<Vec<u64>> {
    let mut found = Vec::new();
    for task in fs::read_dir(format!("/proc/{pid}/task"))? {
        descriptors(pid, task?.path().join("fd"), &mut found)?;
    }
    Ok(found.into_iter().map(|(inode, _)| inode).collect())
}

/// Whether a descriptor is this socket. Of a process that is gone, or not to be read, what was seen stands.
fn has_still(Holder { pid, fd }: Holder, inode: u64) -> bool {
    let link = fs::read_link(format!("/proc/{pid}/fd/{fd}"));
    if link.is_ok_and(|link| parse::socket_link(link.as_os_str().as_bytes()) == Some(inode)) {
        return true;
    }
    // The first thread may be gone, and the others still have theirs.
    of_threads(pid).map_or(true, |sockets| sockets.contains(&inode))
}

fn read(pid: u32, found: &mut Vec<(u64, Holder)>) -> io::Result<()> {
    if !descriptors(pid, format!("/proc/{pid}/fd"), found)? {
        // None at all: a kernel thread's, or the first thread is gone, and the others still have theirs.
        for task in fs::read_dir(format!("/proc/{pid}/task"))? {
            if descriptors(pid, task?.path().join("fd"), found)? {
                break;
            }
        }
    }
    Ok(())
}

/// Whether there are any, of a socket or not.
fn descriptors(pid: u32, directory: impl AsRef<Path>, found: &mut Vec<(u64, Holder)>) -> io::Result<bool> {
    let mut any = false;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        any = true;
        // One may be allowed to list them and not to read them.
        let link = match fs::read_link(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => continue,
            Ok(link) => link,
        };
        let Some(inode) = parse::socket_link(link.as_os_str().as_bytes()) else { continue };
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        found.push((inode, Holder { pid, fd }));
    }
    Ok(any)
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn who_has_let_go_of_a_shared_socket_is_no_holder() {
        let shared = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = u32::try_from(shared.as_raw_fd()).unwrap();
        let own = Holder { pid: std::process::id(), fd };
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let others = Holder { pid: child.id(), fd };
        let mut found = Vec::new();
        read(own.pid, &mut found).unwrap();
        let inode = found.iter().find(|(_, holder)| *holder == own).unwrap().0;

        let mut holders = Holders::of_each([(inode, own), (inode, others)]);
        drop_let_go(&mut holders);
        assert_eq!(holders.of(inode), [own]);

        child.stdin.take();
        child.wait().unwrap();
        // Nobody can tell any more what it had.
        let mut holders = Holders::of_each([(inode, own), (inode, others)]);
        drop_let_go(&mut holders);
        assert_eq!(holders.of(inode).len(), 2);
    }
}
