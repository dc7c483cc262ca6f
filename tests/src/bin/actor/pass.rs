//! Sockets that are passed to a process that is not a child.

use std::io::{IoSlice, IoSliceMut};
use std::net::TcpListener;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::net::UnixDatagram;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, UnixAddr, recvmsg, sendmsg};

use crate::Actor;

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    Some(match words {
        ["mailbox", path] => mailbox(actor, path),
        ["give", path] => actor.stream().and_then(|stream| give(stream.as_raw_fd(), path)),
        ["give-listener", path] => actor.listener().and_then(|listener| give(listener.as_raw_fd(), path)),
        ["take"] => take(actor).map(|fd| actor.push(fd)),
        ["take-listener"] => take(actor).map(|fd| {
            actor.listeners.push(TcpListener::from(fd));
            String::new()
        }),
        ["adopt-listener"] => {
            std::os::fd::AsFd::as_fd(&std::io::stdin()).try_clone_to_owned().map_err(Into::into).map(|fd| {
                actor.listeners.push(TcpListener::from(fd));
                String::new()
            })
        }
        ["fd"] => actor.stream().map(|stream| stream.as_raw_fd().to_string()),
        ["steal", pid, fd] => steal(pid, fd).map(|fd| actor.push(fd)),
        _ => return None,
    })
}

fn mailbox(actor: &mut Actor, path: &str) -> Result<String> {
    actor.mailbox = Some(UnixDatagram::bind(path)?);
    Ok(String::new())
}

fn give(fd: RawFd, path: &str) -> Result<String> {
    let letter = [IoSlice::new(b"a socket")];
    let sender = UnixDatagram::unbound()?;
    let address = UnixAddr::new(path)?;
    let rights = [ControlMessage::ScmRights(&[fd])];
    sendmsg(sender.as_raw_fd(), &letter, &rights, MsgFlags::empty(), Some(&address))?;
    Ok(String::new())
}

fn take(actor: &Actor) -> Result<OwnedFd> {
    let mailbox = actor.mailbox.as_ref().context("no mailbox")?;
    let mut space = nix::cmsg_space!(RawFd);
    let mut bytes = [0; 16];
    let mut letter = [IoSliceMut::new(&mut bytes)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let received = recvmsg::<UnixAddr>(mailbox.as_raw_fd(), &mut letter, Some(&mut space), flags)?;
    for message in received.cmsgs()? {
        if let ControlMessageOwned::ScmRights(fds) = message {
            let fd = *fds.first().context("no socket in the letter")?;
            // SAFETY: the kernel has just made it for this process, and nothing else refers to it.
            return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
        }
    }
    bail!("no socket in the letter")
}

/// pidfd_getfd(2).
fn steal(pid: &str, fd: &str) -> Result<OwnedFd> {
    let (pid, fd): (libc::pid_t, RawFd) = (pid.parse()?, fd.parse()?);
    // SAFETY: two integers go in, and a new descriptor comes out.
    let process = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) })?;
    // SAFETY: the kernel has just made it for this process.
    let process = unsafe { OwnedFd::from_raw_fd(process.try_into()?) };
    // SAFETY: three integers go in, and a new descriptor comes out.
    let copy = Errno::result(unsafe { libc::syscall(libc::SYS_pidfd_getfd, process.as_raw_fd(), fd, 0) })?;
    // SAFETY: the kernel has just made it for this process.
    Ok(unsafe { OwnedFd::from_raw_fd(copy.try_into()?) })
}
