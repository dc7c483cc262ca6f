//! Raw, ping, packet and UDP-Lite sockets. Commands refer to the socket that was made last and not closed yet.

use std::net::IpAddr;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{LinkAddr, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrLike, bind, recv, sendto};

use crate::Actor;

/// Every frame: `include/uapi/linux/if_ether.h`.
const ETH_P_ALL: u16 = 3;
/// For local experiments (IEEE 802).
const ETH_P_EXPERIMENT: u16 = 0x88b5;

const HEADER: usize = 8;

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    let ["raw", command @ ..] = words else { return None };
    Some(match command {
        ["open", what] => open(what).map(|socket| {
            actor.raw.push(socket);
            String::new()
        }),
        ["close"] => actor.raw.pop().context("no socket").map(|_| String::new()),
        _ => match actor.raw.last() {
            Some(socket) => on_socket(socket, command),
            None => Err(anyhow::anyhow!("no socket")),
        },
    })
}

fn open(what: &str) -> Result<OwnedFd> {
    let (family, kind, protocol) = match what {
        "icmp" => (libc::AF_INET, libc::SOCK_RAW, libc::IPPROTO_ICMP),
        "icmpv6" => (libc::AF_INET6, libc::SOCK_RAW, libc::IPPROTO_ICMPV6),
        "ping" => (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_ICMP),
        "ping6" => (libc::AF_INET6, libc::SOCK_DGRAM, libc::IPPROTO_ICMPV6),
        "udplite" => (libc::AF_INET, libc::SOCK_DGRAM, libc::IPPROTO_UDPLITE),
        "packet" => (libc::AF_PACKET, libc::SOCK_RAW, ETH_P_ALL.to_be().into()),
        number => (libc::AF_INET, libc::SOCK_RAW, number.parse()?),
    };
    // SAFETY: a system call without pointers.
    let fd = unsafe { libc::socket(family, kind | libc::SOCK_CLOEXEC, protocol) };
    let fd = Errno::result(fd)?;
    // SAFETY: a new descriptor.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

fn on_socket(socket: &OwnedFd, command: &[&str]) -> Result<String> {
    let fd = socket.as_raw_fd();
    let mut buffer = [0; 2048];
    Ok(match command {
        ["bind", local] => {
            bind(fd, address(local)?.as_ref())?;
            String::new()
        }
        ["local"] => {
            let local: SockaddrIn = nix::sys::socket::getsockname(fd)?;
            local.to_string()
        }
        // An echo request, or its answer, with this many bytes after the header.
        [what @ ("ask" | "answer"), bytes, remote] => {
            let kind = match (*what, remote.contains(':')) {
                ("ask", false) => 8,
                ("answer", false) => 0,
                ("ask", true) => 128,
                (_, _) => 129,
            };
            let message = echo(kind, bytes.parse()?);
            sendto(fd, &message, address(remote)?.as_ref(), MsgFlags::empty())?.to_string()
        }
        ["send", bytes, remote] => {
            let payload = vec![b'x'; bytes.parse()?];
            sendto(fd, &payload, address(remote)?.as_ref(), MsgFlags::empty())?.to_string()
        }
        // A packet with a header of its own, and this many bytes after it. The kernel adds length, checksum and source.
        ["headed", protocol, bytes, remote] => {
            let Ok(IpAddr::V4(to)) = remote.parse() else { bail!("not an IPv4 address: {remote}") };
            let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, protocol.parse()?, 0, 0, 0, 0, 0, 0];
            packet.extend(to.octets());
            packet.resize(packet.len() + bytes.parse::<usize>()?, b'x');
            sendto(fd, &packet, address(remote)?.as_ref(), MsgFlags::empty())?.to_string()
        }
        // A frame with this many bytes after its header.
        ["frame", bytes] => {
            let mut frame = vec![0; 12];
            frame.extend(ETH_P_EXPERIMENT.to_be_bytes());
            frame.resize(frame.len() + bytes.parse::<usize>()?, b'x');
            nix::unistd::write(socket, &frame)?.to_string()
        }
        ["recv"] => recv(fd, &mut buffer, MsgFlags::empty())?.to_string(),
        _ => bail!("no such command: {command:?}"),
    })
}

/// An IP address, with a port or without, or the name of an interface.
fn address(text: &str) -> Result<Box<dyn SockaddrLike>> {
    if let Ok(address) = text.parse::<std::net::SocketAddrV4>() {
        return Ok(Box::new(SockaddrIn::from(address)));
    }
    Ok(match text.parse() {
        Ok(IpAddr::V4(ip)) => Box::new(SockaddrIn::from(std::net::SocketAddrV4::new(ip, 0))),
        Ok(IpAddr::V6(ip)) => Box::new(SockaddrIn6::from(std::net::SocketAddrV6::new(ip, 0, 0, 0))),
        Err(_) => Box::new(interface(text)?),
    })
}

fn interface(name: &str) -> Result<LinkAddr> {
    let index = nix::net::if_::if_nametoindex(name)?;
    let link = libc::sockaddr_ll {
        sll_family: libc::AF_PACKET.try_into()?,
        sll_protocol: ETH_P_ALL.to_be(),
        sll_ifindex: index.try_into()?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    // SAFETY: a complete address of this family and length.
    let link = unsafe {
        LinkAddr::from_raw((&raw const link).cast(), Some(size_of::<libc::sockaddr_ll>().try_into()?))
    };
    link.context("not an address of a link")
}

/// An ICMP or ICMPv6 echo message. The kernel computes the checksum of ICMPv6.
fn echo(kind: u8, bytes: usize) -> Vec<u8> {
    // The payload is zeros, so the checksum is that of the type.
    let [high, low] = (!(u16::from(kind) << 8)).to_be_bytes();
    let mut message = vec![kind, 0, high, low];
    message.resize(HEADER + bytes, 0);
    message
}
