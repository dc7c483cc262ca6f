//! Sockets of every kind in a new network namespace, so that rows are few and do not change.

use std::io::Write as _;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsRawFd as _, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockProtocol, SockType, SockaddrStorage, bind, connect, listen,
    setsockopt, socket, sockopt,
};
use tests::Running;

fn tcp_socket(local: SocketAddr) -> OwnedFd {
    let family = if local.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    setsockopt(&fd, sockopt::ReuseAddr, &true).unwrap();
    bind(fd.as_raw_fd(), &SockaddrStorage::from(local)).unwrap();
    fd
}

pub(super) fn listen_on(local: &str, backlog: i32) -> TcpListener {
    let fd = tcp_socket(local.parse().unwrap());
    listen(&fd, Backlog::new(backlog).unwrap()).unwrap();
    fd.into()
}

/// Connects from a chosen port; with port 0 the kernel chooses.
pub(super) fn connect_from(local: &str, remote: &str) -> TcpStream {
    let remote: SocketAddr = remote.parse().unwrap();
    let fd = tcp_socket(local.parse().unwrap());
    connect(fd.as_raw_fd(), &SockaddrStorage::from(remote)).unwrap();
    fd.into()
}

/// Begins a connection and does not wait for it.
pub(super) fn begin_from(local: &str, remote: &str) -> TcpStream {
    let remote: SocketAddr = remote.parse().unwrap();
    let fd = tcp_socket(local.parse().unwrap());
    fcntl(&fd, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
    let begun = connect(fd.as_raw_fd(), &SockaddrStorage::from(remote));
    assert!(matches!(begun, Ok(()) | Err(nix::Error::EINPROGRESS)), "{begun:?}");
    fd.into()
}

/// A connection on loopback, its client's endpoint first.
pub(super) fn pair(client: &str, server: &str) -> (TcpStream, TcpStream, TcpListener) {
    let listener = listen_on(server, 16);
    let local = connect_from(client, server);
    let (remote, _) = listener.accept().unwrap();
    (local, remote, listener)
}

/// Everything that must stay open.
pub(super) struct Scene {
    _streams: Vec<TcpStream>,
    _listeners: Vec<TcpListener>,
    _datagrams: Vec<UdpSocket>,
    _raw: Vec<OwnedFd>,
    pub(super) holders: Vec<Running>,
}

fn raw_socket(family: AddressFamily, protocol: SockProtocol, remote: Option<&str>) -> OwnedFd {
    let fd = socket(family, SockType::Raw, SockFlag::SOCK_CLOEXEC, protocol).unwrap();
    if let Some(remote) = remote {
        let remote: SocketAddr = remote.parse().unwrap();
        connect(fd.as_raw_fd(), &SockaddrStorage::from(remote)).unwrap();
    }
    fd
}

/// One of each. Addresses are short, so that netstat's columns are as wide as they always are.
pub(super) fn one_of_each() -> Scene {
    let mut streams = Vec::new();
    let mut listeners = Vec::new();

    // A display server: the responder's port is above 1024, and the client's is below it.
    let (client, server, x11) = pair("127.0.0.1:2000", "127.0.0.1:6000");
    let mut holders = vec![Running::holding(x11.try_clone().unwrap()), Running::holding(client)];
    streams.push(server);
    listeners.push(x11);

    // IPv6; unread bytes at both endpoints.
    let (mut client, mut server, listener) = pair("[::1]:2001", "[::1]:7001");
    client.write_all(b"unread").unwrap();
    server.write_all(b"unread as well").unwrap();
    streams.extend([client, server]);
    listeners.push(listener);

    // IPv4 on an IPv6 socket, at both endpoints.
    let (client, server, listener) = pair("[::ffff:127.0.0.1]:2002", "[::ffff:127.0.0.1]:7002");
    streams.extend([client, server]);
    listeners.push(listener);
    // Only at the listener's.
    let listener = listen_on("[::]:7003", 16);
    streams.push(connect_from("127.0.0.1:2003", "127.0.0.1:7003"));
    streams.push(listener.accept().unwrap().0);
    listeners.push(listener);

    // A full queue: the second of these two is not answered.
    let listener = listen_on("127.0.0.1:7004", 0);
    streams.push(connect_from("127.0.0.1:2004", "127.0.0.1:7004"));
    streams.push(begin_from("127.0.0.1:2005", "127.0.0.1:7004"));
    listeners.push(listener);

    // FIN_WAIT2 and CLOSE_WAIT.
    let (client, server, listener) = pair("127.0.0.1:2006", "127.0.0.1:7006");
    client.shutdown(Shutdown::Write).unwrap();
    streams.extend([client, server]);
    listeners.push(listener);

    // TIME_WAIT, of both families.
    for (client, server) in [("127.0.0.1:2007", "127.0.0.1:7007"), ("[::1]:2007", "[::1]:7007")] {
        let (client, server, listener) = pair(client, server);
        drop(client);
        drop(server);
        listeners.push(listener);
    }

    // SYN_RECV: the kernel waits for data before it creates the socket.
    let deferring = listen_on("127.0.0.1:7008", 16);
    defer_accept(&deferring);
    streams.push(connect_from("127.0.0.1:2008", "127.0.0.1:7008"));
    listeners.push(deferring);

    // Not accepted, and the connector has closed: an orphan and a connection without a file.
    let listener = listen_on("127.0.0.1:7009", 16);
    drop(connect_from("127.0.0.1:2009", "127.0.0.1:7009"));
    listeners.push(listener);

    // A socket connected to itself.
    streams.push(connect_from("127.0.0.1:4000", "127.0.0.1:4000"));

    // UDP: bound, with something to read, connected, both families.
    let datagrams = ["0.0.0.0:53", "127.0.0.1:5001", "[::]:5002", "[::1]:5003", "127.0.0.1:5004"];
    let datagrams = datagrams.map(|local| UdpSocket::bind(local).unwrap());
    datagrams[1].connect("127.0.0.1:53").unwrap();
    datagrams[1].send(b"a question").unwrap();
    datagrams[3].connect("[::1]:5002").unwrap();
    holders.push(Running::holding(datagrams[0].try_clone().unwrap()));

    // Raw sockets, as ping has them; one is connected.
    let raw = [
        raw_socket(AddressFamily::Inet, SockProtocol::Icmp, None),
        raw_socket(AddressFamily::Inet, SockProtocol::Icmp, Some("127.0.0.1:0")),
        raw_socket(AddressFamily::Inet6, SockProtocol::IcmpV6, None),
    ];

    Scene {
        _streams: streams,
        _listeners: listeners,
        _datagrams: datagrams.into(),
        _raw: raw.into(),
        holders,
    }
}

fn defer_accept(listener: &TcpListener) {
    let seconds: nix::libc::c_int = 60;
    // SAFETY: the pointer is to a live integer of the given length.
    let status = unsafe {
        nix::libc::setsockopt(
            listener.as_raw_fd(),
            nix::libc::IPPROTO_TCP,
            nix::libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            4,
        )
    };
    assert_eq!(status, 0);
}
