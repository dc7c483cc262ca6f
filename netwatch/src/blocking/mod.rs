//! Questions about the host whose answer may never come: a file system waits for its server (FUSE, NFS), and the name
//! service for a directory server. Each has a deadline, and "unknown" is an answer.
//!
//! A helper process asks, since a thread that waits for a file system cannot always be ended: once a FUSE server has
//! read a request, its task is in state D until the server answers (fs/fuse/dev.c, `request_wait_answer`, v6.12), and a
//! process with such a thread stays after SIGKILL. The helper has nothing open except the socket to netwatch, so it
//! keeps nobody waiting while it is stuck.
//!
//! What the kernel has in its caches cannot block, and is read directly ([`stat`], and [`stat_running`] unless there may be a
//! file system that asks its server all the same).

mod accounts;
mod client;
mod files;
mod helper;
mod memory;
mod message;

use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

pub use client::{fork_helper, is_own_socket};
pub use files::{FileFacts, Place};
pub use memory::of_memory;

use crate::{bounded, limits, proc};
use client::Client;
use message::{Answer, Question};

/// What may fail to answer. While one question about it is unanswered no other is asked.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// Files of the programs that a user runs from one device. By user, so that nobody makes the files of another one
    /// unknown with a link or a mount that leads away from the device.
    Files {
        /// As in `stat.st_dev`.
        device: u64,
        /// The user whose program it is.
        user: u32,
    },
    /// Files in one directory.
    Folder(PathBuf),
    /// Files that one process has open.
    Process(u32),
    /// The name service.
    Users,
    /// Memory maps of the processes of a user.
    Memory {
        /// The user.
        user: u32,
    },
}

/// How long the caller may wait.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Patience {
    /// The caller holds up the event stream.
    #[default]
    Live,
    /// A command that prints once, or a snapshot.
    Command,
}

impl Patience {
    /// The most that one subject may cost at once.
    fn most(self) -> Duration {
        match self {
            Self::Live => limits::LIVE_WAIT,
            Self::Command => limits::COMMAND_WAIT,
        }
    }
}

/// The file at a path, or the error of the system call. `None`: no answer.
#[must_use]
pub fn stat(
    place: Place<'_>,
    subject: impl FnOnce() -> Subject,
    patience: Patience,
) -> Option<std::io::Result<FileFacts>> {
    if let Some(known) = files::cached(place) {
        return Some(known);
    }
    let question = Question::Stat { root_of: place.root_of, path: place.path.into() };
    match Client::of_host()?.ask(&question, subject(), patience)? {
        Answer::Stat(Ok(facts)) => Some(Ok(facts)),
        Answer::Stat(Err(errno)) => Some(Err(std::io::Error::from_raw_os_error(errno))),
        Answer::RealPath(_) | Answer::UserName(_) | Answer::Namespace(_) => None,
    }
}

/// The file that a process runs.
///
/// # Errors
/// If the process has ended or may not be inspected; `TimedOut` if there is no answer.
pub fn stat_running(pid: u32, patience: Patience) -> std::io::Result<FileFacts> {
    of_process(pid, None, patience)
}

/// An open file of a process.
///
/// # Errors
/// As [`stat_running`], and if the process has closed it.
pub fn stat_open(pid: u32, fd: u32, patience: Patience) -> std::io::Result<FileFacts> {
    of_process(pid, Some(fd), patience)
}

fn of_process(pid: u32, fd: Option<u32>, patience: Patience) -> std::io::Result<FileFacts> {
    // The helper has no procfs of its own.
    if !files::may_ask() || proc::root() != Path::new("/proc") {
        return Ok(files::of_process(pid, fd)?);
    }
    let client = Client::of_host();
    match client
        .and_then(|client| client.ask(&Question::OfProcess { pid, fd }, Subject::Process(pid), patience))
    {
        Some(Answer::Stat(Ok(facts))) => Ok(facts),
        Some(Answer::Stat(Err(errno))) => Err(std::io::Error::from_raw_os_error(errno)),
        _ => Err(std::io::ErrorKind::TimedOut.into()),
    }
}

/// The path with symbolic links resolved; `None` also if there is no such file.
#[must_use]
pub fn real_path(path: &Path, patience: Patience) -> Option<PathBuf> {
    let subject = Subject::Folder(path.parent().unwrap_or(path).to_owned());
    match Client::of_host()?.ask(&Question::RealPath(path.into()), subject, patience)? {
        Answer::RealPath(real) => real.map(PathBuf::from),
        Answer::Stat(_) | Answer::UserName(_) | Answer::Namespace(_) => None,
    }
}

/// The name of a user by the name service; `Some(None)` if it has none. An answer that is late is returned to the next
/// caller.
#[must_use]
pub fn user_name(uid: u32, patience: Patience) -> Option<Option<String>> {
    let client = Client::of_host()?;
    if let Some(late) = client.late_name(uid) {
        return Some(late);
    }
    match client.ask(&Question::UserName(uid), Subject::Users, patience)? {
        Answer::UserName(name) => Some(name),
        Answer::Stat(_) | Answer::RealPath(_) | Answer::Namespace(_) => None,
    }
}

/// The namespace with this inode number that is mounted on a path, as an `O_PATH` descriptor. `NotFound` if there is
/// something else. `None`: no answer.
#[must_use]
pub fn open_namespace(path: &Path, inode: u64, patience: Patience) -> Option<std::io::Result<OwnedFd>> {
    let subject = Subject::Folder(path.parent().unwrap_or(path).to_owned());
    match Client::of_host()?.ask(&Question::Namespace { path: path.into(), inode }, subject, patience)? {
        Answer::Namespace(Ok(opened)) => opened.file.map(Ok),
        Answer::Namespace(Err(errno)) => Some(Err(std::io::Error::from_raw_os_error(errno))),
        Answer::Stat(_) | Answer::RealPath(_) | Answer::UserName(_) => None,
    }
}

/// Calls `read` on a thread, which is abandoned at the deadline. For reads too long for the helper, of files that it
/// found to answer: a thread that hangs in one may keep the process from ending.
#[must_use]
pub fn within<T: Send + 'static>(deadline: Duration, read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    let (sender, receiver) = sync_channel(1);
    let thread = std::thread::Builder::new().name("netwatch-read".into());
    // Nobody receives after the deadline.
    thread.spawn(move || _ = sender.send(read())).ok()?;
    receiver.recv_timeout(deadline).ok()
}

/// A text file that the user names, of at most `most` bytes: a FIFO may have no writer.
///
/// # Errors
/// If it cannot be opened or read, is longer, or is not UTF-8; `TimedOut` at the deadline.
pub fn text(path: &Path, most: usize, deadline: Duration) -> std::io::Result<String> {
    let read = path.to_owned();
    within(deadline, move || bounded::text(read, most)).unwrap_or_else(|| {
        let what = format!("no answer within {} s", deadline.as_secs());
        Err(std::io::Error::new(std::io::ErrorKind::TimedOut, what))
    })
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn read_is_abandoned_at_the_deadline() {
        let (sender, receiver) = channel::<()>();
        assert_eq!(within(Duration::from_millis(1), move || receiver.recv()), None);
        drop(sender);
        assert_eq!(within(limits::READ_WAIT, || 7), Some(7));
    }

    #[test]
    fn fifo_without_a_writer_is_not_waited_for() {
        let folder = tempfile::tempdir().unwrap();
        let fifo = folder.path().join("fifo");
        nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).unwrap();
        let error = text(&fifo, 10, Duration::from_millis(1)).unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
        // Ends the thread that waits.
        drop(std::fs::OpenOptions::new().write(true).open(&fifo).unwrap());
        let file = folder.path().join("file");
        std::fs::write(&file, "0123456789").unwrap();
        assert_eq!(text(&file, 10, limits::READ_WAIT).unwrap(), "0123456789");
        assert!(text(&file, 9, limits::READ_WAIT).is_err());
    }

    #[test]
    fn host_answers() {
        let subject = || Subject::Folder("/".into());
        let place = Place { root_of: None, path: Path::new("/proc/self/status") };
        // A process may have opened the path meanwhile, or not.
        let file = stat(place, subject, Patience::Command).unwrap().unwrap();
        assert_ne!(file.inode, 0);
        let place = Place { root_of: None, path: Path::new("/no/such/file") };
        let error = stat(place, subject, Patience::Command).unwrap().unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
        assert_eq!(real_path(Path::new("/proc/../no/such"), Patience::Command), None);
        assert_eq!(real_path(Path::new("/proc/../"), Patience::Command), Some("/".into()));
        assert_eq!(user_name(0, Patience::Command), Some(Some("root".into())));
        assert_eq!(user_name(u32::MAX - 7, Patience::Command), Some(None));
    }
}
