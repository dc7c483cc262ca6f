//! Does to sockets what it is told, a command a line on stdin, and answers each with a line on stdout:
//! `ok …`, or `error ERRNO`. Arguments are commands too: with them it does those and ends, silently.
//!
//! Commands about a connection are about the one that was connected or accepted last and not closed yet;
//! likewise for listeners.

use std::io::{BufRead as _, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, listen,
    setsockopt, socket, sockopt,
};
use nix::sys::wait::waitpid;
use nix::unistd::{ForkResult, alarm, fork};

/// No test takes this long: what a failed one leaves behind ends by itself.
const LIFETIME_S: u32 = 300;

/// How long `busy` keeps the processors so.
const BUSY: Duration = Duration::from_secs(30);

/// How long `finish` waits for a handshake, in milliseconds.
const HANDSHAKE_MS: u16 = 20_000;

/// `TCP_REPAIR_OFF_NO_WP` of the kernel's uapi tcp.h, -1: without a window probe to a peer that is not.
const REPAIR_OFF_NO_WP: u32 = u32::MAX;

#[derive(Default)]
struct Actor {
    listeners: Vec<TcpListener>,
    streams: Vec<TcpStream>,
}

fn main() -> Result<()> {
    alarm::set(LIFETIME_S);
    let mut actor = Actor::default();
    // The program's own name may be anything: args() would panic.
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    for command in &arguments {
        // An attempt that is to fail is as good as one that is not.
        let _ = actor.obey(&command.to_string_lossy());
    }
    if !arguments.is_empty() {
        return Ok(());
    }
    for command in std::io::stdin().lock().lines() {
        let command = command?;
        if command == "exit" {
            break;
        }
        match actor.obey(&command) {
            Ok(answer) => println!("ok {answer}"),
            Err(error) => println!("error {}", errno(&error)),
        }
    }
    Ok(())
}

/// The name that an error has in C, or what is wrong with the command.
fn errno(error: &anyhow::Error) -> String {
    let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    let errno = error.downcast_ref::<Errno>().copied().or_else(|| io.map(Errno::from_raw));
    errno.map_or_else(|| format!("{error:#}"), |errno| format!("{errno:?}"))
}

impl Actor {
    fn obey(&mut self, command: &str) -> Result<String> {
        let words: Vec<_> = command.split(' ').collect();
        let done = || Ok(String::new());
        match words.as_slice() {
            ["listen", local, backlog] => {
                let fd = tcp_socket(Some(local.parse()?), local.parse()?)?;
                listen(&fd, Backlog::new(backlog.parse::<i32>()?)?)?;
                let listener = TcpListener::from(fd);
                let local = listener.local_addr()?.to_string();
                self.listeners.push(listener);
                Ok(local)
            }
            ["unlisten"] => {
                drop(self.listeners.pop().context("no listener")?);
                done()
            }
            ["accept"] => {
                let (stream, remote) = self.listeners.last().context("no listener")?.accept()?;
                self.streams.push(stream);
                Ok(remote.to_string())
            }
            ["connect", local, remote, how @ ..] => self.connect(local, remote, how == ["nonblocking"]),
            ["repair", local, remote] => self.repair(local.parse()?, remote.parse()?),
            ["pid"] => Ok(std::process::id().to_string()),
            ["fork"] => self.fork(true),
            ["fork", "leave"] => self.fork(false),
            ["busy"] => {
                let until = Instant::now() + BUSY;
                for _ in 0..std::thread::available_parallelism()?.get() {
                    std::thread::spawn(move || while Instant::now() < until {});
                }
                done()
            }
            ["close"] => {
                drop(self.streams.pop().context("no connection")?);
                done()
            }
            _ => on_stream(self.streams.last_mut().context("no connection")?, &words),
        }
    }

    fn connect(&mut self, local: &str, remote: &str, nonblocking: bool) -> Result<String> {
        let local = if local == "-" { None } else { Some(local.parse()?) };
        let remote: SocketAddr = remote.parse()?;
        let fd = tcp_socket(local, remote)?;
        if nonblocking {
            fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        match connect(fd.as_raw_fd(), &SockaddrStorage::from(remote)) {
            Err(Errno::EINPROGRESS) if nonblocking => {}
            other => other?,
        }
        self.streams.push(fd.into());
        Ok(self.streams.last().context("just pushed")?.local_addr()?.to_string())
    }

    /// An established connection of which the other end never existed, tcp(7) on `TCP_REPAIR`: no packet
    /// leaves.
    fn repair(&mut self, local: SocketAddr, remote: SocketAddr) -> Result<String> {
        let fd = tcp_socket(Some(local), remote)?;
        setsockopt(&fd, sockopt::TcpRepair, &1)?;
        connect(fd.as_raw_fd(), &SockaddrStorage::from(remote))?;
        setsockopt(&fd, sockopt::TcpRepair, &REPAIR_OFF_NO_WP)?;
        self.streams.push(fd.into());
        Ok(String::new())
    }

    /// The child goes on and answers. The parent has nothing to say any more.
    fn fork(&mut self, wait: bool) -> Result<String> {
        // SAFETY: no other thread was started, so nothing in the child is locked for ever.
        match unsafe { fork() }? {
            ForkResult::Child => {
                alarm::set(LIFETIME_S);
                Ok(std::process::id().to_string())
            }
            ForkResult::Parent { child } => {
                self.listeners.clear();
                self.streams.clear();
                if wait {
                    waitpid(child, None)?;
                }
                std::process::exit(0)
            }
        }
    }
}

fn on_stream(stream: &mut TcpStream, words: &[&str]) -> Result<String> {
    match words {
        ["finish"] => {
            let mut waiting = [PollFd::new(std::os::fd::AsFd::as_fd(stream), PollFlags::POLLOUT)];
            poll(&mut waiting, PollTimeout::from(HANDSHAKE_MS))?;
            match getsockopt(stream, sockopt::SocketError)? {
                0 => Ok(stream.peer_addr()?.to_string()),
                errno => Err(Errno::from_raw(errno).into()),
            }
        }
        ["send", bytes] => {
            stream.write_all(&vec![b'x'; bytes.parse()?])?;
            Ok(String::new())
        }
        ["recv", bytes] => {
            stream.read_exact(&mut vec![0; bytes.parse()?])?;
            Ok(String::new())
        }
        // To the end of what the other side sends: its FIN has come.
        ["eof"] => Ok(stream.read_to_end(&mut Vec::new())?.to_string()),
        ["shutdown"] => {
            stream.shutdown(Shutdown::Write)?;
            Ok(String::new())
        }
        ["linger0"] => {
            setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })?;
            Ok(String::new())
        }
        ["user-timeout", milliseconds] => {
            setsockopt(stream, sockopt::TcpUserTimeout, &milliseconds.parse()?)?;
            Ok(String::new())
        }
        ["reconnect", remote] => {
            let remote: SocketAddr = remote.parse()?;
            connect(stream.as_raw_fd(), &SockaddrStorage::from(remote))?;
            Ok(String::new())
        }
        ["disconnect"] => {
            let nowhere = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
            // SAFETY: the pointer is to a whole address, AF_UNSPEC, of the told length.
            let status = unsafe { libc::connect(stream.as_raw_fd(), &raw const nowhere, 16) };
            Errno::result(status)?;
            Ok(String::new())
        }
        _ => bail!("no such command: {}", words.join(" ")),
    }
}

fn tcp_socket(local: Option<SocketAddr>, of_family: SocketAddr) -> Result<OwnedFd> {
    let family = if of_family.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    if let Some(local) = local {
        // A test's port may be in TIME_WAIT from the step before.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
    }
    Ok(fd)
}
