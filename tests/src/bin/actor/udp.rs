//! UDP, by each of its calls. Commands refer to the socket that was made last and not closed yet.

use std::io::{IoSlice, IoSliceMut};
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::{AsRawFd as _, RawFd};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrStorage, recv, recvfrom, recvmmsg,
    recvmsg, send, sendmmsg, sendmsg, sendto, setsockopt, socket, sockopt,
};

use crate::Actor;

/// The longest possible datagram.
const LONGEST: usize = 65_536;

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    let ["udp", command @ ..] = words else { return None };
    Some(match command {
        ["bind", local] => open(actor, UdpSocket::bind(local).map_err(Into::into)),
        ["unbound", of_family] => open(actor, unbound(of_family)),
        ["close"] => actor.datagrams.pop().context("no socket").map(|_| String::new()),
        _ => match actor.datagrams.last() {
            Some(socket) => return on_socket(socket, command),
            None => Err(anyhow::anyhow!("no socket")),
        },
    })
}

fn open(actor: &mut Actor, socket: Result<UdpSocket>) -> Result<String> {
    actor.datagrams.push(socket?);
    local(actor.datagrams.last().context("just pushed")?)
}

fn local(socket: &UdpSocket) -> Result<String> {
    Ok(socket.local_addr()?.to_string())
}

fn unbound(of_family: &str) -> Result<UdpSocket> {
    let family = if of_family.contains('[') { AddressFamily::Inet6 } else { AddressFamily::Inet };
    Ok(socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?.into())
}

fn on_socket(socket: &UdpSocket, command: &[&str]) -> Option<Result<String>> {
    Some(match command {
        ["local"] => local(socket),
        ["connect", remote] => socket.connect(remote).map(|()| String::new()).map_err(Into::into),
        // Segmentation offload: the network card, or the kernel in its place, divides it.
        ["segment", bytes] => segment(socket, bytes),
        ["send", how, bytes] => sends(socket, how, bytes, None),
        ["send", how, bytes, remote] => sends(socket, how, bytes, Some(remote)),
        ["recv", how] => receive(socket.as_raw_fd(), how),
        _ => return None,
    })
}

fn segment(socket: &UdpSocket, bytes: &str) -> Result<String> {
    setsockopt(socket, sockopt::UdpGsoSegment, &bytes.parse()?)?;
    Ok(String::new())
}

fn sends(socket: &UdpSocket, how: &str, bytes: &str, remote: Option<&str>) -> Result<String> {
    let (fd, flags) = (socket.as_raw_fd(), MsgFlags::empty());
    let buffer = vec![b'x'; bytes.parse()?];
    let remote = match remote {
        Some(remote) => Some(SockaddrStorage::from(remote.parse::<SocketAddr>()?)),
        None => None,
    };
    let pieces = [IoSlice::new(&buffer)];
    let sent = match (how, &remote) {
        ("write", None) => nix::unistd::write(socket, &buffer)?,
        ("send", None) => send(fd, &buffer, flags)?,
        ("sendto", Some(remote)) => sendto(fd, &buffer, remote, flags)?,
        ("sendmsg", remote) => sendmsg(fd, &pieces, &[], flags, remote.as_ref())?,
        ("sendmmsg", remote) => {
            let mut headers = MultiHeaders::preallocate(1, None);
            let sent = sendmmsg(fd, &mut headers, [&pieces], [*remote], [], flags)?;
            let lengths: Vec<_> = sent.map(|message| message.bytes).collect();
            *lengths.first().context("nothing was sent")?
        }
        _ => bail!("no such way to send"),
    };
    if sent != buffer.len() {
        bail!("{sent} bytes of {}", buffer.len());
    }
    Ok(String::new())
}

/// Answers with the length, and with the sender if that was asked for.
fn receive(fd: RawFd, how: &str) -> Result<String> {
    let mut buffer = vec![0; LONGEST];
    let flags = MsgFlags::empty();
    let from = |address: Option<SockaddrStorage>| address.context("from nobody");
    let (bytes, from) = match how {
        // SAFETY: the buffer has the given length.
        "read" => (unsafe { libc::read(fd, buffer.as_mut_ptr().cast(), buffer.len()) }, None),
        "recv" => (recv(fd, &mut buffer, flags)?.try_into()?, None),
        "recvfrom" => {
            let (bytes, address) = recvfrom::<SockaddrStorage>(fd, &mut buffer)?;
            (bytes.try_into()?, Some(from(address)?))
        }
        "recvmsg" => {
            let mut pieces = [IoSliceMut::new(&mut buffer)];
            let message = recvmsg::<SockaddrStorage>(fd, &mut pieces, None, flags)?;
            (message.bytes.try_into()?, Some(from(message.address)?))
        }
        // Without room for an address: the sender is not asked for.
        "recvmsg-anonymous" => {
            let mut pieces = [IoSliceMut::new(&mut buffer)];
            let message = recvmsg::<()>(fd, &mut pieces, None, flags)?;
            (message.bytes.try_into()?, None)
        }
        "recvmmsg" => {
            let mut headers = MultiHeaders::<SockaddrStorage>::preallocate(1, None);
            let mut pieces = [[IoSliceMut::new(&mut buffer)]];
            let mut messages = recvmmsg(fd, &mut headers, pieces.iter_mut(), flags, None)?;
            let message = messages.next().context("no message")?;
            (message.bytes.try_into()?, Some(from(message.address)?))
        }
        _ => bail!("no such way to receive"),
    };
    Errno::result(bytes)?;
    Ok(format!("{bytes} {}", from.map_or_else(String::new, |address| address.to_string())))
}
