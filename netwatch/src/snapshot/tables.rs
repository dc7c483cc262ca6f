//! The descriptor tables of a process: its threads share one, or have their own. Whoever starts ten thousand threads
//! and opens ten thousand sockets must not make netwatch read a hundred million links, so each table is read once.

use std::cmp::Ordering;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use super::parse;
use crate::blocking::{self, Patience};
use crate::hash::{Map, Set};
use crate::model::Holder;
use crate::proc;

/// Sockets by process, each read when it is first asked for.
#[derive(Default)]
pub struct Tables {
    by_pid: Map<u32, Option<Set<u64>>>,
}

impl Tables {
    /// Whether any thread of a process has this socket open. `None` if that cannot be read, for example because the
    /// process has ended.
    pub fn have(&mut self, pid: u32, inode: u64) -> Option<bool> {
        self.have_by(pid, inode, |pid| sockets_of(pid).ok())
    }

    fn have_by(&mut self, pid: u32, inode: u64, read: impl FnOnce(u32) -> Option<Set<u64>>) -> Option<bool> {
        let sockets = self.by_pid.entry(pid).or_insert_with(|| read(pid));
        sockets.as_ref().map(|sockets| sockets.contains(&inode))
    }
}

/// Inode numbers of the sockets that the threads of a process have open.
fn sockets_of(pid: u32) -> io::Result<Set<u64>> {
    let tasks = fs::read_dir(proc::of(pid).join("task"))?;
    let mut threads = Vec::new();
    for task in tasks {
        threads.extend(task?.file_name().to_str().and_then(|name| name.parse::<u32>().ok()));
    }
    let mut held = Vec::new();
    let user = fs::metadata(proc::of(pid))?.uid();
    let compared = blocking::of_memory(pid, user, Patience::Command, move || one_of_each(&threads, compare));
    for thread in compared.ok_or(io::ErrorKind::TimedOut)? {
        descriptors(pid, proc::of(pid).join("task").join(thread.to_string()).join("fd"), &mut held)?;
    }
    Ok(held.into_iter().map(|(inode, _)| inode).collect())
}

/// Appends the descriptors of sockets in a directory. Returns whether it has any descriptor.
pub(super) fn descriptors(
    pid: u32,
    directory: impl AsRef<Path>,
    held: &mut Vec<(u64, Holder)>,
) -> io::Result<bool> {
    let mut any = false;
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        any = true;
        // Listing the directory may be permitted while reading the links is not.
        let link = match fs::read_link(entry.path()) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return Err(error),
            Err(_) => continue,
            Ok(link) => link,
        };
        let Some(inode) = parse::socket_link(link.as_os_str().as_bytes()) else { continue };
        let Some(fd) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        held.push((inode, Holder { pid, fd }));
    }
    Ok(any)
}

/// One thread of each table: n log n comparisons. Those that cannot be compared are all kept.
fn one_of_each(threads: &[u32], mut compare: impl FnMut(u32, u32) -> Option<Ordering>) -> Vec<u32> {
    let mut sorted: Vec<u32> = Vec::new();
    let mut others = Vec::new();
    for thread in threads {
        let mut failed = false;
        let place = sorted.binary_search_by(|other| {
            compare(*other, *thread).unwrap_or_else(|| {
                failed = true;
                Ordering::Equal
            })
        });
        match place {
            _ if failed => others.push(*thread),
            Ok(_) => {}
            Err(place) => sorted.insert(place, *thread),
        }
    }
    sorted.append(&mut others);
    sorted
}

/// The order of the descriptor tables of two threads, by kcmp(2); `None` if the kernel does not have it, or one has
/// ended. May wait for both ([`blocking::of_memory`]).
fn compare(one: u32, other: u32) -> Option<Ordering> {
    /// `include/uapi/linux/kcmp.h`
    const KCMP_FILES: libc::c_int = 2;
    // SAFETY: kcmp() takes five integers and writes to no memory.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, one, other, KCMP_FILES, 0, 0) };
    match order {
        0 => Some(Ordering::Equal),
        1 => Some(Ordering::Less),
        2 => Some(Ordering::Greater),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn process_is_read_once_for_all_its_sockets() {
        let mut tables = Tables::default();
        let mut reads = 0;
        for inode in 0..1000 {
            let has = tables.have_by(7, inode, |_| {
                reads += 1;
                Some((0..500).collect())
            });
            assert_eq!(has, Some(inode < 500));
        }
        assert_eq!(reads, 1);
    }

    #[test]
    fn threads_that_share_a_table_are_read_once() {
        let threads: Vec<u32> = (0..20_000).collect();
        let mut compared = 0;
        // Two tables.
        let mut by_table = |one: u32, other: u32| {
            compared += 1;
            Some((one % 2).cmp(&(other % 2)))
        };
        assert_eq!(one_of_each(&threads, &mut by_table), [0, 1]);
        assert!(compared < 3 * threads.len(), "{compared}");
        let mut compared = 0;
        let mut all = |one: u32, other: u32| {
            compared += 1;
            Some(one.cmp(&other))
        };
        assert_eq!(one_of_each(&threads, &mut all).len(), threads.len());
        assert!(compared < 16 * threads.len(), "{compared}");
        assert_eq!(one_of_each(&[3, 1, 2], |_, _| None).len(), 3);
    }

    #[test]
    fn table_of_a_thread_is_read_too() {
        let shared = TcpListener::bind("127.0.0.1:0").unwrap();
        let inode_of = |socket: &TcpListener| {
            let fd = std::os::fd::AsRawFd::as_raw_fd(socket);
            let link = fs::read_link(format!("/proc/thread-self/fd/{fd}")).unwrap();
            parse::socket_link(link.as_os_str().as_encoded_bytes()).unwrap()
        };
        let shared = inode_of(&shared);
        let (send, own) = channel();
        let (done, wait) = channel::<()>();
        let thread = std::thread::spawn(move || {
            // SAFETY: this thread gets a copy of the table, and ends before the test does.
            assert_eq!(unsafe { libc::unshare(libc::CLONE_FILES) }, 0);
            let socket = TcpListener::bind("127.0.0.1:0").unwrap();
            send.send(inode_of(&socket)).unwrap();
            let _ = wait.recv();
        });
        let own = own.recv().unwrap();
        let mut tables = Tables::default();
        let pid = std::process::id();
        assert_eq!((tables.have(pid, shared), tables.have(pid, own)), (Some(true), Some(true)));
        drop(done);
        thread.join().unwrap();
        assert_eq!(Tables::default().have(u32::MAX, own), None);
    }
}
