//! Holders of sockets: by an iterator, or by the links in `/proc/PID/fd`.

use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;

use super::tables::{Tables, descriptors};
use super::{Note, SnapshotError, parse, processes};
use crate::blocking;
use crate::decode::listed;
use crate::hash::Set;
use crate::model::{Holder, Holders, Lister, Listing, ProcessRow};
use crate::proc;

/// Whether any socket has a holder, apart from those to netwatch's helper, and from sockets that this process had open
/// for the snapshot and has closed since.
#[must_use]
pub fn any_socket(holders: &Holders) -> bool {
    let own = std::process::id();
    let is_open = |inode, fd| {
        let link = fs::read_link(format!("/proc/self/fd/{fd}"));
        link.is_ok_and(|link| parse::socket_link(link.as_os_str().as_bytes()) == Some(inode))
    };
    let counts = |inode, holder: Holder| holder.pid != own || is_open(inode, holder.fd);
    holders.all().any(|(inode, holder)| !blocking::is_own_socket(inode) && counts(inode, holder))
}

/// A note about processes whose descriptors could not be read.
#[must_use]
pub fn note(holders: &Holders) -> Option<Note> {
    let text = match holders.refused() {
        0 => return None,
        1 => "1 process's descriptors could not be read".into(),
        n => format!("{n} processes' descriptors could not be read"),
    };
    Some(Note { netns: None, text, hides: false })
}

/// Holders of network sockets, by the kernel's iterator.
///
/// # Errors
/// If the iterator cannot be read.
pub fn listed_by(lister: &dyn Lister) -> io::Result<Holders> {
    Ok(Holders::of_each(listed::held(&lister.list(Listing::Files)?)))
}

/// Holders of all sockets: by the kernel's iterator, else by `/proc`. A process that ends meanwhile is left out.
///
/// # Errors
/// If neither can be read.
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

/// Holders of all sockets, and all processes. The name of each holder is from a time when it had the socket open.
///
/// # Errors
/// If either cannot be read.
pub fn named(lister: Option<&dyn Lister>) -> Result<(Holders, Vec<ProcessRow>), SnapshotError> {
    let mut holders = all(lister)?;
    let processes = processes::with_exact_start(lister)?;
    remove_former(&mut holders);
    Ok((holders, processes))
}

/// Removes holders of a shared socket that have closed it since. Between fork and exec a child has its parent's
/// sockets; a later read of its name would give that of the new program.
fn remove_former(holders: &mut Holders) {
    let mut tables = Tables::default();
    holders.retain_shared(|holder, inode| has_open(holder, inode, &mut tables));
}

fn by_proc() -> Result<Holders, SnapshotError> {
    let pids = processes::pids()?;
    let mut held = Vec::new();
    let (mut complete, mut refused) = (Set::default(), Set::default());
    for pid in pids {
        match read(pid, &mut held) {
            Ok(()) => _ = complete.insert(pid),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => _ = refused.insert(pid),
            // The process has ended.
            Err(_) => {}
        }
    }
    Ok(Holders::of_asked(held, complete, refused))
}

/// Whether a descriptor still refers to this socket. True if the process has ended or may not be read.
fn has_open(Holder { pid, fd }: Holder, inode: u64, tables: &mut Tables) -> bool {
    let link = fs::read_link(proc::of(pid).join("fd").join(fd.to_string()));
    if link.is_ok_and(|link| parse::socket_link(link.as_os_str().as_bytes()) == Some(inode)) {
        return true;
    }
    // The first thread may have ended while others still have the socket open.
    tables.have(pid, inode).unwrap_or(true)
}

fn read(pid: u32, held: &mut Vec<(u64, Holder)>) -> io::Result<()> {
    if !descriptors(pid, proc::of(pid).join("fd"), held)? {
        // No descriptors: a kernel thread, or the first thread has ended and the others still have theirs.
        for task in fs::read_dir(proc::of(pid).join("task"))? {
            if descriptors(pid, task?.path().join("fd"), held)? {
                break;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsRawFd as _;
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_that_closed_a_shared_socket_is_no_holder() {
        let shared = TcpListener::bind("127.0.0.1:0").unwrap();
        let fd = u32::try_from(shared.as_raw_fd()).unwrap();
        let own = Holder { pid: std::process::id(), fd };
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let others = Holder { pid: child.id(), fd };
        let mut held = Vec::new();
        read(own.pid, &mut held).unwrap();
        let inode = held.iter().find(|(_, holder)| *holder == own).unwrap().0;

        let mut holders = Holders::of_each([(inode, own), (inode, others)]);
        remove_former(&mut holders);
        assert_eq!(holders.of(inode), [own]);

        child.stdin.take();
        child.wait().unwrap();
        // Its descriptors can no longer be read.
        let mut holders = Holders::of_each([(inode, own), (inode, others)]);
        remove_former(&mut holders);
        assert_eq!(holders.of(inode).len(), 2);
    }
}
