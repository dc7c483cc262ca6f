//! UDP, by each of its calls. Commands refer to the socket that was made last and not closed yet.

use std::io::{IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{
    AddressFamily, ControlMessage, MsgFlags, MultiHeaders, SockFlag, SockType, SockaddrIn, SockaddrIn6,
    SockaddrStorage, recv, recvfrom, recvmmsg, recvmsg, send, sendmmsg, sendmsg, sendto, setsockopt, socket,
    sockopt,
};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, fork, pipe};

use crate::Actor;

/// The longest possible datagram.
const LONGEST: usize = 65_536;

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    let ["udp", command @ ..] = words else { return None };
    Some(match command {
        ["bind", local] => open(actor, UdpSocket::bind(local).map_err(Into::into)),
        ["extended", headers, from, to] => extended(headers, from, to),
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
        ["send", "from", local, bytes, remote] => send_from(socket, local, bytes, remote),
        ["extend"] => extend(socket),
        ["flood", count, a_second] => flood(socket, count, a_second),
        ["race", rounds] => race(socket, rounds, |second, [c, d]| SockaddrIn::new(127, second, c, d, 9)),
        // Both send to the same address.
        ["together", rounds] => race(socket, rounds, |_, _| SockaddrIn::new(127, 0, 0, 1, 9)),
        ["connect", remote] => socket.connect(remote).map(|()| String::new()).map_err(Into::into),
        // Segmentation offload: the network card, or the kernel in its place, divides it.
        ["segment", bytes] => segment(socket, bytes),
        ["send", how, bytes] => sends(socket, how, bytes, None),
        ["send", how, bytes, remote] => sends(socket, how, bytes, Some(remote)),
        ["recv", how] => receive(socket.as_raw_fd(), how),
        _ => return None,
    })
}

/// Sends from an address to which the socket is not bound.
fn send_from(socket: &UdpSocket, local: &str, bytes: &str, remote: &str) -> Result<String> {
    let buffer = vec![b'x'; bytes.parse()?];
    let remote: SocketAddrV4 = remote.parse()?;
    let source = libc::in_addr { s_addr: u32::from_ne_bytes(local.parse::<Ipv4Addr>()?.octets()) };
    let info =
        libc::in_pktinfo { ipi_ifindex: 0, ipi_spec_dst: source, ipi_addr: libc::in_addr { s_addr: 0 } };
    let remote = SockaddrIn::from(remote);
    let control = [ControlMessage::Ipv4PacketInfo(&info)];
    sendmsg(socket.as_raw_fd(), &[IoSlice::new(&buffer)], &control, MsgFlags::empty(), Some(&remote))?;
    Ok(String::new())
}

/// IPv6 extension headers in front of every datagram: hop-by-hop options and destination options of eight bytes each.
fn extend(socket: &UdpSocket) -> Result<String> {
    // Next header and length, which the kernel fills in, and padding (RFC 8200, section 4.2).
    const OPTIONS: [u8; 8] = [0, 0, 1, 4, 0, 0, 0, 0];
    for option in [libc::IPV6_HOPOPTS, libc::IPV6_DSTOPTS] {
        let (fd, len) = (socket.as_raw_fd(), OPTIONS.len() as libc::socklen_t);
        // SAFETY: the option is as long as it is said to be.
        let result =
            unsafe { libc::setsockopt(fd, libc::IPPROTO_IPV6, option, OPTIONS.as_ptr().cast(), len) };
        Errno::result(result)?;
    }
    Ok(String::new())
}

/// Sends an empty datagram from one port of loopback to another, with so many headers of destination options.
fn extended(headers: &str, from: &str, to: &str) -> Result<String> {
    const UDP: u8 = libc::IPPROTO_UDP as u8;
    const OPTIONS: u8 = libc::IPPROTO_DSTOPTS as u8;
    let (headers, from, to): (u8, u16, u16) = (headers.parse()?, from.parse()?, to.parse()?);
    let address = std::net::Ipv6Addr::LOCALHOST.octets();
    let length = u16::from(headers) * 8 + 8;
    let next = |left: u8| if left == 0 { UDP } else { OPTIONS };
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next(headers), 64]);
    packet.extend([address, address].concat());
    // Padding (RFC 8200, section 4.2).
    (0..headers).for_each(|nth| packet.extend([next(headers - nth - 1), 0, 1, 4, 0, 0, 0, 0]));
    // Of the pseudo-header, both addresses have one bit each (RFC 8200, section 8.1).
    let sum = [1, 1, 8, u32::from(UDP), from.into(), to.into(), 8].iter().sum::<u32>();
    let checksum = !u16::try_from((sum & 0xffff) + (sum >> 16))?;
    [from, to, 8, checksum].iter().for_each(|word| packet.extend(word.to_be_bytes()));
    // SAFETY: creates a socket.
    let raw = Errno::result(unsafe { libc::socket(libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_RAW) })?;
    // SAFETY: it was just created.
    let raw = unsafe { OwnedFd::from_raw_fd(raw) };
    let remote = SockaddrIn6::from(std::net::SocketAddrV6::new(std::net::Ipv6Addr::LOCALHOST, 0, 0, 0));
    sendto(raw.as_raw_fd(), &packet, &remote, MsgFlags::empty())?;
    Ok(String::new())
}

/// Sends a datagram to each of `count` addresses on loopback, no more than `a_second` a second.
fn flood(socket: &UdpSocket, count: &str, a_second: &str) -> Result<String> {
    const PIECE: u32 = 256;
    let (count, a_second): (u32, u32) = (count.parse()?, a_second.parse()?);
    let begun = Instant::now();
    for number in 0..count {
        let [_, a, b, c] = number.to_be_bytes();
        let remote = SockaddrIn::new(127, 64 + a, b, c, 9);
        sendto(socket.as_raw_fd(), b"x", &remote, MsgFlags::empty())?;
        if number % PIECE == 0 {
            let due = Duration::from_secs_f64(f64::from(number) / f64::from(a_second));
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
        }
    }
    Ok(String::new())
}

/// This process and a child send on the same socket at once, a byte to the address that `to` gives for 1 or 2 and the
/// number of the round: for `race` each to addresses of its own, in 127.1.0.0/16 and 127.2.0.0/16. Answers with the pid
/// of the child.
fn race(socket: &UdpSocket, rounds: &str, to: impl Fn(u8, [u8; 2]) -> SockaddrIn) -> Result<String> {
    let rounds: u16 = rounds.parse()?;
    let send = |second: u8| -> Result<()> {
        for round in 0..rounds {
            sendto(socket.as_raw_fd(), b"x", &to(second, round.to_be_bytes()), MsgFlags::empty())?;
        }
        Ok(())
    };
    let (started, starting) = pipe()?;
    // SAFETY: no other thread is running, so nothing in the child is locked for ever.
    match unsafe { fork() }? {
        ForkResult::Child => {
            drop((started, starting));
            std::process::exit(i32::from(send(2).is_err()))
        }
        ForkResult::Parent { child } => {
            drop(starting);
            // Returns as soon as the child has closed its side.
            nix::unistd::read(&started, &mut [0])?;
            send(1)?;
            match waitpid(child, None)? {
                WaitStatus::Exited(_, 0) => Ok(child.to_string()),
                status => bail!("{status:?}"),
            }
        }
    }
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
