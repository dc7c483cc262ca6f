//! Connections to servers.

use std::fmt;
use std::io::{self, Write as _};
use std::net::{IpAddr, TcpStream, ToSocketAddrs as _, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::{Duration, Instant};

/// A server: name or address, and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Its name or address, without brackets.
    pub name: String,
    /// The port.
    pub port: u16,
}

impl Host {
    /// Parses `NAME:PORT`, `ADDRESS:PORT` or `[IPV6]:PORT`.
    ///
    /// # Errors
    /// If it has another form.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("`{text}`: expected HOST:PORT");
        let (name, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(wrong)?;
        let bare = name.strip_prefix('[').and_then(|name| name.strip_suffix(']'));
        let is_ipv6 = |name: &str| name.parse::<IpAddr>().is_ok_and(|ip| ip.is_ipv6());
        let is_valid = match bare {
            Some(name) => is_ipv6(name),
            None => !name.is_empty() && name.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c)),
        };
        if !is_valid {
            return Err(wrong());
        }
        Ok(Self { name: bare.unwrap_or(name).to_owned(), port })
    }

    fn addresses(&self) -> io::Result<impl Iterator<Item = std::net::SocketAddr>> {
        (&*self.name, self.port).to_socket_addrs()
    }

    /// Connects to one of its addresses.
    pub(super) fn connect(&self, patience: Duration) -> io::Result<TcpStream> {
        let mut last = io::Error::other("the name has no address");
        for address in self.addresses()? {
            match TcpStream::connect_timeout(&address, patience) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// A socket that sends to one of its addresses.
    pub(super) fn datagrams(&self) -> io::Result<UdpSocket> {
        let mut last = io::Error::other("the name has no address");
        for address in self.addresses()? {
            let any: IpAddr = if address.is_ipv6() { [0_u16; 8].into() } else { [0_u8; 4].into() };
            match UdpSocket::bind((any, 0)).and_then(|socket| socket.connect(address).map(|()| socket)) {
                Ok(socket) => return Ok(socket),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, port } = self;
        if name.contains(':') { write!(f, "[{name}]:{port}") } else { write!(f, "{name}:{port}") }
    }
}

/// Pause between two questions whether everything arrived: of the order of a round trip.
const PAUSE: Duration = Duration::from_millis(1);

/// Writes all, and waits until the kernel of the other side has acknowledged it: what it has not may be lost when the
/// connection ends.
pub(super) fn send_acknowledged(stream: &mut TcpStream, bytes: &[u8], patience: Duration) -> io::Result<()> {
    let deadline = Instant::now() + patience;
    stream.set_write_timeout(Some(patience))?;
    is_open(stream)?;
    stream.write_all(bytes)?;
    while unacknowledged(stream)? > 0 {
        is_open(stream)?;
        if Instant::now() >= deadline {
            return Err(io::ErrorKind::TimedOut.into());
        }
        std::thread::sleep(PAUSE);
    }
    is_open(stream)
}

/// An error if the other side has ended the connection. It is not expected to send anything.
fn is_open(stream: &TcpStream) -> io::Result<()> {
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    stream.set_nonblocking(true)?;
    let peeked = stream.peek(&mut [0]);
    stream.set_nonblocking(false)?;
    match peeked {
        Ok(0) => Err(io::ErrorKind::ConnectionReset.into()),
        Ok(_) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(()),
        Err(error) => Err(error),
    }
}

/// Bytes that are not acknowledged: SIOCOUTQ, tcp(7), which is TIOCOUTQ.
fn unacknowledged(stream: &TcpStream) -> io::Result<libc::c_int> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one integer.
    let done = unsafe { libc::ioctl(stream.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if done < 0 { Err(io::Error::last_os_error()) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;

    const SOON: Duration = Duration::from_millis(30);
    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn hosts_are_parsed() {
        for (text, name, port) in [
            ("127.0.0.1:514", "127.0.0.1", 514),
            ("[::1]:6514", "::1", 6514),
            ("logs.example.com:1", "logs.example.com", 1),
        ] {
            let host = Host::parse(text).unwrap();
            assert_eq!((&*host.name, host.port, &*host.to_string()), (name, port, text));
        }
        for text in [
            "",
            "x",
            ":1",
            "x:",
            "x:0",
            "x:99999",
            "::1:514",
            "[x]:1",
            "[127.0.0.1]:1",
            "a b:1",
            "a/b:1",
            "u@h:1",
        ] {
            assert!(Host::parse(text).is_err(), "{text}");
        }
    }

    fn here(listener: &TcpListener) -> Host {
        Host { name: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() }
    }

    #[test]
    fn a_server_that_does_not_answer_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        // Its queue holds one connection more than this says, and then the SYN gets no answer.
        rustix::net::listen(&listener, 0).unwrap();
        let all: Vec<_> = (0..3).map(|_| here(&listener).connect(SOON)).collect();
        assert!(all[0].is_ok() && all[2].is_err(), "{all:?}");
        drop(listener);
        assert!(Host { name: "127.0.0.1".into(), port: 1 }.connect(PATIENCE).is_err());
    }

    #[test]
    fn a_server_that_does_not_read_is_given_up() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = here(&listener).connect(PATIENCE).unwrap();
        let (_unread, _) = listener.accept().unwrap();
        let much = vec![0; 64 << 20];
        assert!(send_acknowledged(&mut stream, &much, SOON).is_err());
    }

    #[test]
    fn a_connection_that_the_server_ended_is_not_used() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = here(&listener).connect(PATIENCE).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        send_acknowledged(&mut stream, b"abc", PATIENCE).unwrap();
        let mut read = [0; 3];
        server.read_exact(&mut read).unwrap();
        drop(server);
        let deadline = Instant::now() + PATIENCE;
        // Its FIN may take a moment.
        while send_acknowledged(&mut stream, b"x", PATIENCE).is_ok() {
            assert!(Instant::now() < deadline);
        }
    }
}
