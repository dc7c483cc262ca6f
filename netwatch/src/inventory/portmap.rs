//! Asks the portmapper which RPC programs registered which ports, over the network as `rpcinfo -p` does.
//!
//! Any program may listen on port 111, so the timeout is for the whole exchange, every length is bounded, and an
//! invalid answer is an error.
//!
//! Crates for RPC were not used: `onc-rpc` supports neither fragments nor datagrams, `onc-rpc-wire` reassembles
//! fragments without a bound, and neither has the portmapper's list.

mod names;
mod reply;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::limits;
use crate::model::Proto;
pub(super) use names::RpcNames;

/// The portmapper's port (RFC 1833, section 3.1).
const PORT: u16 = 111;

/// A registration: a line of `rpcinfo -p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// Program number; see [`RpcNames`] for its name.
    pub(super) program: u32,
    /// Version of the program.
    pub(super) version: u32,
    /// Transport.
    pub(super) proto: Proto,
    /// Port in host byte order.
    pub(super) port: u16,
}

/// Why the query failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortmapError {
    /// The timeout expired.
    #[error("the portmapper did not answer within {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// There is no portmapper, or the loopback interface is down.
    #[error("nothing listens on the port of the portmapper")]
    Nothing,
    /// It rejected the call.
    #[error("the portmapper rejected the query: {0}")]
    Refused(&'static str),
    /// The answer is invalid.
    #[error("invalid answer from the portmapper: {0}")]
    Nonsense(&'static str),
    /// Any other error.
    #[error("cannot query the portmapper: {0}")]
    Io(#[source] io::Error),
}

/// Queries the portmapper of the calling thread's network namespace: over TCP on 127.0.0.1 and `::1`, then over UDP,
/// until something listens. `timeout` is for all of it.
///
/// # Errors
///
/// See [`PortmapError`].
pub(super) fn dump(timeout: Duration) -> Result<Vec<Mapping>, PortmapError> {
    let deadline = Deadline::new(timeout);
    let hosts = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    for ask in [by_tcp, by_udp] {
        for host in hosts {
            match ask(SocketAddr::new(host, PORT), deadline) {
                Err(PortmapError::Nothing) => {}
                answer => return answer,
            }
        }
    }
    Err(PortmapError::Nothing)
}

fn by_tcp(address: SocketAddr, deadline: Deadline) -> Result<Vec<Mapping>, PortmapError> {
    let stream =
        TcpStream::connect_timeout(&address, deadline.left()?).map_err(|error| deadline.why(error))?;
    let xid = xid();
    let call = reply::call(xid);
    // Record marking (RFC 5531, section 11): one fragment, which is the last.
    let mark = reply::LAST_FRAGMENT | u32::try_from(call.len()).unwrap_or_default();
    let mut timed = Timed { stream, deadline };
    let sent = [mark.to_be_bytes().as_slice(), call.as_slice()].concat();
    timed.stream.set_write_timeout(Some(deadline.left()?)).map_err(PortmapError::Io)?;
    timed.stream.write_all(&sent).map_err(|error| deadline.why(error))?;
    let record = record(&mut BufReader::new(timed)).map_err(|error| deadline.why(error))?;
    reply::mappings(&record?, xid)
}

/// Reassembles one message from its fragments.
fn record(from: &mut BufReader<Timed>) -> io::Result<Result<Vec<u8>, PortmapError>> {
    let mut record = Vec::new();
    let mut left = limits::PORTMAP_BYTES;
    loop {
        let mut mark = [0; 4];
        if from.fill_buf()?.is_empty() {
            return Ok(Err(PortmapError::Nonsense("truncated")));
        }
        from.read_exact(&mut mark)?;
        let mark = u32::from_be_bytes(mark);
        let length = usize::try_from(mark & !reply::LAST_FRAGMENT).unwrap_or(usize::MAX);
        // The header counts as well, so that empty fragments are bounded too.
        let Some(rest) = length.checked_add(4).and_then(|length| left.checked_sub(length)) else {
            return Ok(Err(PortmapError::Nonsense("longer than 1 MiB")));
        };
        left = rest;
        // Memory is allocated for the bytes received, not for the announced length.
        if from.take(length as u64).read_to_end(&mut record)? < length {
            return Ok(Err(PortmapError::Nonsense("truncated")));
        }
        if mark & reply::LAST_FRAGMENT != 0 {
            return Ok(Ok(record));
        }
    }
}

fn by_udp(address: SocketAddr, deadline: Deadline) -> Result<Vec<Mapping>, PortmapError> {
    let ask = || -> io::Result<UdpSocket> {
        let any: IpAddr = match address {
            SocketAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            SocketAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let socket = UdpSocket::bind((any, 0))?;
        // Receives only from this address, and ICMP errors are reported.
        socket.connect(address)?;
        Ok(socket)
    };
    let socket = ask().map_err(|error| deadline.why(error))?;
    let xid = xid();
    socket.send(&reply::call(xid)).map_err(|error| deadline.why(error))?;
    // The maximum size of a datagram.
    let mut buffer = vec![0; 1 << 16];
    loop {
        socket.set_read_timeout(Some(deadline.left()?)).map_err(PortmapError::Io)?;
        let length = match socket.recv(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            done => done.map_err(|error| deadline.why(error))?,
        };
        let answer = buffer.get(..length).unwrap_or_default();
        // Ignore datagrams that do not answer this call; they may be late or forged.
        if reply::answers(answer, xid) {
            return reply::mappings(answer, xid);
        }
    }
}

/// An unpredictable id for a call.
fn xid() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(()).to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// The timeout of the whole exchange.
#[derive(Clone, Copy)]
struct Deadline {
    began: Instant,
    timeout: Duration,
}

impl Deadline {
    fn new(timeout: Duration) -> Self {
        Self { began: Instant::now(), timeout }
    }

    /// Time left; never zero, which would mean no timeout.
    fn left(self) -> Result<Duration, PortmapError> {
        let left = self.timeout.saturating_sub(self.began.elapsed());
        if left.is_zero() { Err(PortmapError::Silent(self.timeout)) } else { Ok(left) }
    }

    fn why(self, error: io::Error) -> PortmapError {
        use io::ErrorKind;
        match error.kind() {
            // A read that times out fails with EAGAIN, socket(7).
            ErrorKind::TimedOut | ErrorKind::WouldBlock => PortmapError::Silent(self.timeout),
            ErrorKind::ConnectionRefused
            // Loopback is down, or no IPv6.
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable => PortmapError::Nothing,
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                PortmapError::Nonsense("truncated")
            }
            _ if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => PortmapError::Nothing,
            _ => PortmapError::Io(error),
        }
    }
}

/// A stream whose reads share one timeout, so that a slow sender cannot extend it.
struct Timed {
    stream: TcpStream,
    deadline: Deadline,
}

impl Read for Timed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let left = self.deadline.left().map_err(|_| io::ErrorKind::TimedOut)?;
            self.stream.set_read_timeout(Some(left))?;
            match self.stream.read(buffer) {
                // With a timeout the kernel does not restart the call after a signal, signal(7).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}
