//! Descriptors that are pipes, terminals or UNIX sockets, from `/proc/PID/fd`.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use super::sock_diag::SockDiag;
use super::{netns, parse, processes};
use crate::blocking::{self, FileFacts, Patience, Place, Subject};
use crate::hash::Map;
use crate::relays::{End, To};
use crate::{bounded, limits, proc};

/// `Documentation/admin-guide/devices.txt`: Unix98 pseudoterminals.
const PSEUDOTERMINALS: std::ops::Range<u32> = 136..144;

/// Whether stdin of a process may lead to another process. Costs one link.
#[must_use]
pub fn leads_away(pid: u32) -> bool {
    let link = fs::read_link(proc::of(pid).join("fd/0"));
    link.is_ok_and(|link| {
        link.as_os_str() != "/dev/null" && !link.as_os_str().as_bytes().starts_with(b"anon_inode:")
    })
}

/// The descriptors of all processes that lead to other processes. A process that ends meanwhile is left out, and so are
/// descriptors beyond the limit.
#[must_use]
pub fn all() -> Vec<End> {
    within(limits::MOST_STREAMS)
}

fn within(most: usize) -> Vec<End> {
    let mut ends = Vec::new();
    let peers = unix_peers();
    for pid in processes::pids().unwrap_or_default() {
        // The process may have ended, or may not be inspected.
        let _ = read(pid, &peers, &mut ends);
        if ends.len() >= most {
            ends.truncate(most);
            break;
        }
    }
    ends
}

fn read(pid: u32, peers: &Map<u64, u64>, ends: &mut Vec<End>) -> io::Result<()> {
    for entry in fs::read_dir(proc::of(pid).join("fd"))? {
        let path = entry?.path();
        let Some(fd) = path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok()) else { continue };
        let (Ok(link), Ok(own)) = (fs::read_link(&path), fs::symlink_metadata(&path)) else { continue };
        let Some(to) = what(pid, fd, link.as_os_str().as_bytes(), peers) else { continue };
        // The permissions of the link are the mode in which the file was opened (fs/proc/fd.c, tid_fd_update_inode(),
        // v6.12).
        let mode = own.permissions().mode();
        ends.push(End { pid, fd, to, reads: mode & 0o400 != 0, writes: mode & 0o200 != 0 });
    }
    Ok(())
}

fn what(pid: u32, fd: u32, link: &[u8], peers: &Map<u64, u64>) -> Option<To> {
    if let Some(inode) = parse::pipe_link(link) {
        return Some(To::Pipe(0, inode));
    }
    if let Some(inode) = parse::socket_link(link) {
        return peers.contains_key(&inode).then(|| To::Unix(inode, peers.get(&inode).copied()));
    }
    if !link.starts_with(b"/") {
        return None;
    }
    let file = blocking::stat_open(pid, fd, Patience::Command).ok()?;
    if file.is_fifo() {
        return Some(To::Pipe(file.device, file.inode));
    }
    let (major, minor) = (libc::major(file.special), libc::minor(file.special));
    match (major, minor) {
        // The number of the terminal is in fdinfo (drivers/tty/tty_io.c, tty_show_fdinfo(), v6.12).
        (5, 2) => {
            let path = proc::of(pid).join("fdinfo").join(fd.to_string());
            let info = bounded::text(path, limits::PROC_FILE).ok()?;
            let number = info.lines().find_map(|line| line.strip_prefix("tty-index:"))?;
            Some(To::Master(devpts(pid, link, &file), number.trim().parse().ok()?))
        }
        _ if PSEUDOTERMINALS.contains(&major) => {
            Some(To::Terminal(file.device, (major - PSEUDOTERMINALS.start) << 20 | minor))
        }
        _ => None,
    }
}

/// The device number of the devpts that a multiplexer belongs to, since each numbers its terminals by itself: that which
/// is mounted on `pts` beside it, or else the one that it is in (fs/devpts/inode.c, devpts_mntget(), v6.12).
fn devpts(pid: u32, link: &[u8], multiplexer: &FileFacts) -> Option<u64> {
    let folder = Path::new(OsStr::from_bytes(link)).parent()?;
    let path = folder.join("pts");
    let place = Place { root_of: Some(pid), path: &path };
    match blocking::stat(place, || Subject::Folder(folder.to_owned()), Patience::Command) {
        Some(Ok(beside)) => Some(beside.device),
        // With another root directory, the link is not as the process sees it.
        _ => folder.ends_with("pts").then_some(multiplexer.device),
    }
}

/// The other end of each connected UNIX socket, in every network namespace that can be entered.
fn unix_peers() -> Map<u64, u64> {
    let Ok(namespaces) = netns::all() else { return Map::default() };
    let listed = netns::inside_each(&namespaces, |_, entered| {
        let dump = entered.and_then(|()| SockDiag::open()?.unix_peers());
        dump.inspect_err(|error| log::info!("UNIX sockets cannot be listed: {error}")).ok()
    });
    listed.into_iter().flatten().flatten().flat_map(|dump| dump.peers).collect()
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd as _;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn own_pipe_and_pair_of_sockets_are_listed() {
        let (reader, writer) = io::pipe().unwrap();
        let (one, other) = UnixStream::pair().unwrap();
        let ends = all();
        let own = |fd: i32| {
            let fd = u32::try_from(fd).unwrap();
            *ends.iter().find(|end| end.pid == std::process::id() && end.fd == fd).unwrap()
        };
        let (reader, writer) = (own(reader.as_raw_fd()), own(writer.as_raw_fd()));
        assert_eq!(reader.to, writer.to);
        assert_eq!((reader.reads, reader.writes, writer.reads, writer.writes), (true, false, false, true));
        let (To::Unix(inode, peer), To::Unix(other_inode, other_peer)) =
            (own(one.as_raw_fd()).to, own(other.as_raw_fd()).to)
        else {
            panic!("not UNIX sockets");
        };
        assert_eq!((Some(inode), peer), (other_peer, Some(other_inode)));
    }

    #[test]
    fn number_of_descriptors_is_bounded() {
        let _pipes: Vec<_> = (0..4).map(|_| io::pipe().unwrap()).collect();
        assert!(all().len() > 3);
        assert_eq!(within(3).len(), 3);
    }
}
