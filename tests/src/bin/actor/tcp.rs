//! TCP: listeners, connections, and calls on them.

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, MsgFlags, SockFlag, SockType, SockaddrStorage, bind, connect, getsockopt, listen,
    sendto, setsockopt, socket, sockopt,
};

use crate::Actor;

/// How long `finish` waits for a handshake, in milliseconds.
const HANDSHAKE_MS: u16 = 20_000;

/// `TCP_REPAIR_OFF_NO_WP` of the kernel's uapi tcp.h, -1: without a window probe to a peer that does not exist.
const REPAIR_OFF_NO_WP: u32 = u32::MAX;

/// Connections with data in the SYN that are not confirmed yet.
const FASTOPEN_QUEUE: libc::c_int = 16;

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    Some(match words {
        ["listen", "-", backlog] => listen_unbound(actor, backlog),
        ["listen", local, backlog, how @ ..] => do_listen(actor, local, backlog, how),
        ["unlisten"] => actor.listeners.pop().context("no listener").map(|_| String::new()),
        ["pending"] => pending(actor),
        ["accept"] => accept(actor),
        ["connect", local, remote, how @ ..] => do_connect(actor, local, remote, how),
        ["socket", local] => unconnected(actor, local),
        ["fastopen", local, remote, bytes] => fastopen(actor, local, remote, bytes),
        ["repair", local, remote] => repair(actor, local, remote),
        ["close"] => actor.streams.pop().context("no connection").map(|_| String::new()),
        _ => match actor.streams.last_mut() {
            Some(stream) => return on_stream(stream, words),
            None => return None,
        },
    })
}

fn do_listen(actor: &mut Actor, local: &str, backlog: &str, how: &[&str]) -> Result<String> {
    let local = local.parse()?;
    let fd = tcp_socket(Some(local), local, how)?;
    if how.contains(&"fastopen") {
        set(&fd, libc::TCP_FASTOPEN, FASTOPEN_QUEUE)?;
    }
    listen(&fd, Backlog::new(backlog.parse::<i32>()?)?)?;
    let listener = TcpListener::from(fd);
    let local = listener.local_addr()?.to_string();
    actor.listeners.push(listener);
    Ok(local)
}

/// Without bind(): the kernel chooses the port.
fn listen_unbound(actor: &mut Actor, backlog: &str) -> Result<String> {
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    listen(&fd, Backlog::new(backlog.parse::<i32>()?)?)?;
    actor.listeners.push(fd.into());
    Ok(actor.listener()?.local_addr()?.to_string())
}

/// Whether a connection waits to be accepted.
fn pending(actor: &Actor) -> Result<String> {
    let mut waiting = [PollFd::new(actor.listener()?.as_fd(), PollFlags::POLLIN)];
    Ok((poll(&mut waiting, PollTimeout::ZERO)? == 1).to_string())
}

fn accept(actor: &mut Actor) -> Result<String> {
    let (stream, remote) = actor.listener()?.accept()?;
    actor.streams.push(stream);
    Ok(remote.to_string())
}

fn do_connect(actor: &mut Actor, local: &str, remote: &str, how: &[&str]) -> Result<String> {
    let local = if local == "-" { None } else { Some(local.parse()?) };
    let remote: SocketAddr = remote.parse()?;
    let nonblocking = how.contains(&"nonblocking");
    let fd = tcp_socket(local, remote, how)?;
    if how.contains(&"fastopen") {
        set(&fd, libc::TCP_FASTOPEN_CONNECT, 1)?;
    }
    if nonblocking {
        fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    }
    match connect(fd.as_raw_fd(), &SockaddrStorage::from(remote)) {
        Err(Errno::EINPROGRESS) if nonblocking => {}
        other => other?,
    }
    actor.streams.push(fd.into());
    Ok(actor.streams.last().context("just pushed")?.local_addr()?.to_string())
}

/// A send that connects: `MSG_FASTOPEN` of sendto(2).
fn fastopen(actor: &mut Actor, local: &str, remote: &str, bytes: &str) -> Result<String> {
    let remote: SocketAddr = remote.parse()?;
    let fd = tcp_socket(Some(local.parse()?), remote, &[])?;
    let flags = MsgFlags::from_bits_retain(libc::MSG_FASTOPEN);
    sendto(fd.as_raw_fd(), &vec![b'x'; bytes.parse()?], &SockaddrStorage::from(remote), flags)?;
    Ok(actor.push(fd))
}

/// An option of TCP that nix does not know.
fn set(fd: &OwnedFd, option: libc::c_int, value: libc::c_int) -> Result<()> {
    let level = libc::IPPROTO_TCP;
    let length = size_of_val(&value).try_into()?;
    // SAFETY: the pointer is to a live integer of the given length.
    let status =
        unsafe { libc::setsockopt(fd.as_raw_fd(), level, option, (&raw const value).cast(), length) };
    Errno::result(status)?;
    Ok(())
}

/// A socket for `reconnect`.
fn unconnected(actor: &mut Actor, local: &str) -> Result<String> {
    let local: SocketAddr = local.parse()?;
    let fd = tcp_socket(Some(local), local, &[])?;
    Ok(actor.push(fd))
}

/// An established connection whose peer never existed, tcp(7) on `TCP_REPAIR`: no packet is sent.
fn repair(actor: &mut Actor, local: &str, remote: &str) -> Result<String> {
    let remote: SocketAddr = remote.parse()?;
    let fd = tcp_socket(Some(local.parse()?), remote, &[])?;
    setsockopt(&fd, sockopt::TcpRepair, &1)?;
    connect(fd.as_raw_fd(), &SockaddrStorage::from(remote))?;
    setsockopt(&fd, sockopt::TcpRepair, &REPAIR_OFF_NO_WP)?;
    actor.streams.push(fd.into());
    Ok(String::new())
}

fn on_stream(stream: &mut TcpStream, words: &[&str]) -> Option<Result<String>> {
    Some(match words {
        ["finish"] => finish(stream),
        ["send", bytes] => send(stream, bytes),
        ["recv", bytes] => recv(stream, bytes),
        ["line"] => done(stream.write_all(b"a line\n")),
        // Reads until the peer's FIN.
        ["eof"] => stream.read_to_end(&mut Vec::new()).map(|read| read.to_string()).map_err(Into::into),
        ["shutdown"] => done(stream.shutdown(Shutdown::Write)),
        ["linger0"] => done(setsockopt(stream, sockopt::Linger, &libc::linger { l_onoff: 1, l_linger: 0 })),
        ["cookie"] => cookie(stream),
        ["user-timeout", milliseconds] => user_timeout(stream, milliseconds),
        ["reconnect", remote] => reconnect(stream, remote),
        ["disconnect"] => disconnect(stream),
        _ => return None,
    })
}

fn done<E: Into<anyhow::Error>>(result: Result<(), E>) -> Result<String> {
    result.map(|()| String::new()).map_err(Into::into)
}

fn finish(stream: &TcpStream) -> Result<String> {
    let mut waiting = [PollFd::new(stream.as_fd(), PollFlags::POLLOUT)];
    poll(&mut waiting, PollTimeout::from(HANDSHAKE_MS))?;
    match getsockopt(stream, sockopt::SocketError)? {
        0 => Ok(stream.peer_addr()?.to_string()),
        errno => Err(Errno::from_raw(errno).into()),
    }
}

fn send(stream: &mut TcpStream, bytes: &str) -> Result<String> {
    done(stream.write_all(&vec![b'x'; bytes.parse()?]))
}

fn recv(stream: &mut TcpStream, bytes: &str) -> Result<String> {
    done(stream.read_exact(&mut vec![0; bytes.parse()?]))
}

fn user_timeout(stream: &TcpStream, milliseconds: &str) -> Result<String> {
    done(setsockopt(stream, sockopt::TcpUserTimeout, &milliseconds.parse()?))
}

/// The socket cookie, by which netwatch identifies it.
fn cookie(stream: &TcpStream) -> Result<String> {
    let mut cookie = 0_u64;
    let mut length: libc::socklen_t = size_of_val(&cookie).try_into()?;
    let (fd, out) = (stream.as_raw_fd(), (&raw mut cookie).cast());
    // SAFETY: both pointers are to live variables, and the length is that of the first.
    let status = unsafe { libc::getsockopt(fd, libc::SOL_SOCKET, libc::SO_COOKIE, out, &raw mut length) };
    Errno::result(status)?;
    Ok(cookie.to_string())
}

fn reconnect(stream: &TcpStream, remote: &str) -> Result<String> {
    let remote: SocketAddr = remote.parse()?;
    done(connect(stream.as_raw_fd(), &SockaddrStorage::from(remote)))
}

fn disconnect(stream: &TcpStream) -> Result<String> {
    let nowhere = libc::sockaddr { sa_family: 0, sa_data: [0; 14] };
    // SAFETY: the pointer is to a whole address, AF_UNSPEC, of the given length.
    let status = unsafe { libc::connect(stream.as_raw_fd(), &raw const nowhere, 16) };
    done(Errno::result(status).map(drop))
}

/// A socket of the family of `of_family`, bound if `local` is given.
pub(crate) fn tcp_socket(local: Option<SocketAddr>, of_family: SocketAddr, how: &[&str]) -> Result<OwnedFd> {
    let family = if of_family.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = if how.contains(&"mptcp") {
        tests::mptcp_socket(family)?
    } else {
        socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?
    };
    if let Some(device) = how.iter().find_map(|word| word.strip_prefix("device=")) {
        setsockopt(&fd, sockopt::BindToDevice, &device.into())?;
    }
    if let Some(local) = local {
        // A test's port may be in TIME_WAIT from the step before.
        setsockopt(&fd, sockopt::ReuseAddr, &true)?;
        if how.contains(&"reuseport") {
            setsockopt(&fd, sockopt::ReusePort, &true)?;
        }
        bind(fd.as_raw_fd(), &SockaddrStorage::from(local))?;
    }
    Ok(fd)
}
