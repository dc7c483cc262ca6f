//! The same calls through io_uring(7).
//!
//! `plain`: the calling thread does it, in io_uring_enter(2). `async`: one of the ring's workers does it. `sqpoll`: the
//! ring's own thread does it, which polls shared memory, without a call.

use std::net::SocketAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use io_uring::opcode::{Accept, AcceptMulti, Connect, Recv, Send};
use io_uring::squeue::{Entry, Flags};
use io_uring::{IoUring, types};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{SockaddrLike as _, SockaddrStorage};

use crate::{Actor, tcp};

/// More than is ever submitted at once.
const ENTRIES: u32 = 8;

/// How long the ring's own thread polls before it sleeps, in milliseconds.
const IDLE_MS: u32 = 100;

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    let ["uring", how, command @ ..] = words else { return None };
    Some(match command {
        ["connect", local, remote] => connect(actor, how, local, remote),
        ["accept"] => accept(actor, how),
        // It is accepted while the actor waits for the next command.
        ["accept", "later"] => accept_later(actor, how),
        ["reap"] => reap(actor),
        ["send", bytes] => transfer(actor, how, bytes, true),
        ["recv", bytes] => transfer(actor, how, bytes, false),
        _ => return None,
    })
}

fn ring(how: &str) -> Result<IoUring> {
    Ok(match how {
        "sqpoll" => IoUring::builder().setup_sqpoll(IDLE_MS).build(ENTRIES)?,
        _ => IoUring::new(ENTRIES)?,
    })
}

fn push(ring: &mut IoUring, how: &str, entry: Entry) -> Result<()> {
    let entry = if how == "async" { entry.flags(Flags::ASYNC) } else { entry };
    // SAFETY: callers keep what the entry points to until it is complete.
    unsafe { ring.submission().push(&entry) }?;
    Ok(())
}

/// Waits for the entry that was pushed.
fn result(ring: &mut IoUring) -> Result<i32> {
    loop {
        match ring.submit_and_wait(1) {
            Err(error) if error.raw_os_error() == Some(libc::EINTR) => {}
            other => {
                other?;
                break;
            }
        };
    }
    let result = ring.completion().next().context("no result")?.result();
    if result < 0 { Err(Errno::from_raw(-result).into()) } else { Ok(result) }
}

fn one(how: &str, entry: Entry) -> Result<i32> {
    let mut ring = ring(how)?;
    push(&mut ring, how, entry)?;
    result(&mut ring)
}

fn connect(actor: &mut Actor, how: &str, local: &str, remote: &str) -> Result<String> {
    let remote: SocketAddr = remote.parse()?;
    let fd = tcp::tcp_socket(Some(local.parse()?), remote, &[])?;
    let address = SockaddrStorage::from(remote);
    one(how, Connect::new(types::Fd(fd.as_raw_fd()), address.as_ptr(), address.len()).build())?;
    Ok(actor.push(fd))
}

fn accept_entry(actor: &Actor, how: &str) -> Result<Entry> {
    let listener = types::Fd(actor.listener()?.as_raw_fd());
    Ok(if how == "multishot" {
        AcceptMulti::new(listener).flags(libc::SOCK_CLOEXEC).build()
    } else {
        Accept::new(listener, std::ptr::null_mut(), std::ptr::null_mut()).flags(libc::SOCK_CLOEXEC).build()
    })
}

fn accept(actor: &mut Actor, how: &str) -> Result<String> {
    let fd = one(how, accept_entry(actor, how)?)?;
    // SAFETY: the kernel has just made it for this process.
    Ok(actor.push(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn accept_later(actor: &mut Actor, how: &str) -> Result<String> {
    let mut ring = ring(how)?;
    push(&mut ring, how, accept_entry(actor, how)?)?;
    ring.submit()?;
    actor.ring = Some(ring);
    Ok(String::new())
}

fn reap(actor: &mut Actor) -> Result<String> {
    let mut ring = actor.ring.take().context("no ring")?;
    let fd = result(&mut ring)?;
    // SAFETY: the kernel has just made it for this process.
    Ok(actor.push(unsafe { OwnedFd::from_raw_fd(fd) }))
}

fn transfer(actor: &Actor, how: &str, bytes: &str, sends: bool) -> Result<String> {
    let stream = types::Fd(actor.stream()?.as_raw_fd());
    let mut buffer = vec![b'x'; bytes.parse()?];
    let length: u32 = buffer.len().try_into()?;
    let entry = if sends {
        Send::new(stream, buffer.as_ptr(), length).build()
    } else {
        Recv::new(stream, buffer.as_mut_ptr(), length).flags(libc::MSG_WAITALL).build()
    };
    let done = one(how, entry)?;
    if usize::try_from(done)? != buffer.len() {
        bail!("{done} bytes of {}", buffer.len());
    }
    Ok(String::new())
}
