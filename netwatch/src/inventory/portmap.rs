//! What the portmapper knows: which RPC program registered which port. Asked over the network, as `rpcinfo -p` does:
//! the registered port itself says nothing of that, and the program often has no other name.
//!
//! It may be anything that listens on port 111. So the time is for the whole exchange, every length is held against a
//! bound, and an answer that makes no sense is an error that says so.
//!
//! Of the crates for RPC `onc-rpc` refuses messages in fragments and takes no datagrams, `onc-rpc-wire` puts fragments
//! together without a bound, and neither has the portmapper's list: what they would save is a few words of `reply`.

mod names;
mod reply;
#[cfg(test)]
mod tests;

use std::hash::{BuildHasher as _, RandomState};
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use crate::model::Proto;
pub(super) use names::RpcNames;

/// The portmapper's, RFC 1833 section 3.1.
const PORT: u16 = 111;

/// Bytes of an answer, with the words between its fragments. A mapping has 20.
const MOST_BYTES: usize = 1 << 20;

/// A line of `rpcinfo -p`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    /// See [`RpcNames`] for its name.
    pub(super) program: u32,
    /// Of the program.
    pub(super) version: u32,
    /// What it is reached by.
    pub(super) proto: Proto,
    /// Host byte order.
    pub(super) port: u16,
}

/// Why nothing is known.
#[derive(Debug, thiserror::Error)]
pub(super) enum PortmapError {
    /// The time was up.
    #[error("the portmapper did not answer within {} s", .0.as_secs_f64())]
    Silent(Duration),
    /// There is no portmapper, or no loopback interface that is up.
    #[error("nothing listens on the portmapper's port")]
    Nothing,
    /// It speaks RPC, and does not want to.
    #[error("the portmapper refused to answer: {0}")]
    Refused(&'static str),
    /// It speaks something else.
    #[error("the answer of the portmapper made no sense: {0}")]
    Nonsense(&'static str),
    /// The connection failed otherwise.
    #[error("the portmapper cannot be asked: {0}")]
    Io(#[source] io::Error),
}

/// Asks the portmapper of the calling thread's network namespace: over TCP on 127.0.0.1 and `::1`, then over UDP, each
/// where nothing listened on the one before. `timeout` is for all of it.
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
    // Record marking, RFC 5531 section 11: one fragment, the last, of so many bytes.
    let mark = reply::LAST_FRAGMENT | u32::try_from(call.len()).unwrap_or_default();
    let mut timed = Timed { stream, deadline };
    let sent = [mark.to_be_bytes().as_slice(), call.as_slice()].concat();
    timed.stream.set_write_timeout(Some(deadline.left()?)).map_err(PortmapError::Io)?;
    timed.stream.write_all(&sent).map_err(|error| deadline.why(error))?;
    let record = record(&mut BufReader::new(timed)).map_err(|error| deadline.why(error))?;
    reply::mappings(&record?, xid)
}

/// One message out of its fragments.
fn record(from: &mut BufReader<Timed>) -> io::Result<Result<Vec<u8>, PortmapError>> {
    let mut record = Vec::new();
    let mut left = MOST_BYTES;
    loop {
        let mut mark = [0; 4];
        if from.fill_buf()?.is_empty() {
            return Ok(Err(PortmapError::Nonsense("it ends before its end")));
        }
        from.read_exact(&mut mark)?;
        let mark = u32::from_be_bytes(mark);
        let length = usize::try_from(mark & !reply::LAST_FRAGMENT).unwrap_or(usize::MAX);
        // The mark counts as well: fragments without content are no way to go on for ever.
        let Some(rest) = length.checked_add(4).and_then(|length| left.checked_sub(length)) else {
            return Ok(Err(PortmapError::Nonsense("it is longer than 1 MiB")));
        };
        left = rest;
        // Memory grows with what comes, not with what was announced.
        if from.take(length as u64).read_to_end(&mut record)? < length {
            return Ok(Err(PortmapError::Nonsense("it ends before its end")));
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
        // So that only its datagrams come, and its host can tell that nothing listens.
        socket.connect(address)?;
        Ok(socket)
    };
    let socket = ask().map_err(|error| deadline.why(error))?;
    let xid = xid();
    socket.send(&reply::call(xid)).map_err(|error| deadline.why(error))?;
    // A datagram is no longer than that.
    let mut buffer = vec![0; 1 << 16];
    loop {
        socket.set_read_timeout(Some(deadline.left()?)).map_err(PortmapError::Io)?;
        let length = match socket.recv(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            done => done.map_err(|error| deadline.why(error))?,
        };
        let answer = buffer.get(..length).unwrap_or_default();
        // What does not answer this call may be late, or false: the answer may yet come.
        if reply::answers(answer, xid) {
            return reply::mappings(answer, xid);
        }
    }
}

/// Names a call: nobody else can know it in advance.
fn xid() -> u32 {
    let [a, b, c, d, ..] = RandomState::new().hash_one(()).to_ne_bytes();
    u32::from_ne_bytes([a, b, c, d])
}

/// When the time is up.
#[derive(Clone, Copy)]
struct Deadline {
    began: Instant,
    timeout: Duration,
}

impl Deadline {
    fn new(timeout: Duration) -> Self {
        Self { began: Instant::now(), timeout }
    }

    /// Never zero, which to a socket would be for ever.
    fn left(self) -> Result<Duration, PortmapError> {
        let left = self.timeout.saturating_sub(self.began.elapsed());
        if left.is_zero() { Err(PortmapError::Silent(self.timeout)) } else { Ok(left) }
    }

    fn why(self, error: io::Error) -> PortmapError {
        use io::ErrorKind;
        match error.kind() {
            // A read that times out says that it would block, socket(7).
            ErrorKind::TimedOut | ErrorKind::WouldBlock => PortmapError::Silent(self.timeout),
            ErrorKind::ConnectionRefused
            // No loopback interface that is up; no IPv6.
            | ErrorKind::NetworkUnreachable
            | ErrorKind::HostUnreachable
            | ErrorKind::AddrNotAvailable => PortmapError::Nothing,
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset => {
                PortmapError::Nonsense("it ends before its end")
            }
            _ if error.raw_os_error() == Some(libc::EAFNOSUPPORT) => PortmapError::Nothing,
            _ => PortmapError::Io(error),
        }
    }
}

/// A stream whose every read has what is left of the time: one byte now and then does not begin it anew.
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
                // With a timeout the kernel does not go on after a signal, signal(7).
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}
