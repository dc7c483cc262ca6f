//! A syslog server (RFC 5424) over a UNIX socket, UDP (RFC 5426), or TCP with octet counting (RFC 6587, section 3.4.1).
//! TCP has no acknowledgement by the server: what its kernel acknowledged counts as delivered.

use std::io::{self, Write as _};
use std::net::{TcpStream, UdpSocket};
use std::os::unix::net::UnixDatagram;

use super::net::send_acknowledged;
use super::spool::{Payload, Spool};
use super::{Output, Transport, Undelivered};
use crate::limits;
use crate::output::LogOptions;
use crate::output::delivery::{self, Facility};
use crate::stream::{Context, Item};

pub(super) struct Syslog {
    over: Transport,
    render: delivery::Syslog,
    /// `None` before the first message, and after a failure.
    socket: Option<Socket>,
    buffer: Vec<u8>,
}

enum Socket {
    Unix(UnixDatagram),
    Udp(UdpSocket),
    Tcp(TcpStream),
}

impl Syslog {
    pub(super) fn new(over: &Transport, facility: Facility, log: &LogOptions, run: &str) -> Self {
        let host = rustix::system::uname();
        let render = delivery::Syslog::new(log, facility, &host.nodename().to_string_lossy(), run);
        Self { over: over.clone(), render, socket: None, buffer: Vec::new() }
    }

    fn connect(&self) -> io::Result<Socket> {
        Ok(match &self.over {
            Transport::Unix(path) => {
                let socket = UnixDatagram::unbound()?;
                // A receiver that does not read would block it.
                socket.set_write_timeout(Some(limits::OUTPUT_DELIVERY_WAIT))?;
                socket.connect(path)?;
                Socket::Unix(socket)
            }
            Transport::Udp(host) => Socket::Udp(host.datagrams()?),
            Transport::Tcp(host) => Socket::Tcp(host.connect(limits::OUTPUT_CONNECT_WAIT)?),
        })
    }
}

impl Output for Syslog {
    fn encode(&mut self, item: &Item, context: &Context, spool: &mut Spool) -> io::Result<()> {
        self.buffer.clear();
        if self.render.item(item, context, &mut self.buffer)? {
            spool.push(item.kind(), &self.buffer);
        }
        Ok(())
    }

    fn deliver(&mut self, payload: &mut Payload) -> Result<(), Undelivered> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => self.connect().map_err(|error| Undelivered::down("cannot connect", error))?,
        };
        let socket = self.socket.insert(socket);
        let sent = match socket {
            Socket::Unix(socket) => datagrams(payload, |message| socket.send(message)),
            Socket::Udp(socket) => datagrams(payload, |message| socket.send(message)),
            Socket::Tcp(stream) => {
                self.buffer.clear();
                for message in payload.messages() {
                    // Writing to a Vec cannot fail.
                    let _ = write!(self.buffer, "{} ", message.len());
                    self.buffer.extend_from_slice(message);
                }
                send_acknowledged(stream, &self.buffer, limits::OUTPUT_DELIVERY_WAIT)
                    .map_err(|error| Undelivered::down("cannot send", error))
            }
        };
        if matches!(sent, Err(Undelivered::Down { .. })) {
            self.socket = None;
        }
        sent
    }

    fn leaves_out_own(&self) -> bool {
        !matches!(self.over, Transport::Unix(_))
    }
}

/// Sends each message as a datagram.
fn datagrams(payload: &mut Payload, send: impl Fn(&[u8]) -> io::Result<usize>) -> Result<(), Undelivered> {
    loop {
        let Some(sent) = payload.messages().next().map(&send) else { return Ok(()) };
        match sent {
            Ok(_) => payload.advance(1).for_each(drop),
            Err(error) if error.raw_os_error() == Some(libc::EMSGSIZE) => {
                let why = "a message is too long for a datagram".to_owned();
                return Err(Undelivered::Refused { why, count: 1 });
            }
            Err(error) => return Err(Undelivered::down("cannot send", error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;
    use std::net::TcpListener;

    use super::*;
    use crate::sinks::outputs::Host;

    fn payload(spool: &mut Spool, messages: &[&str]) {
        messages.iter().for_each(|message| spool.push("open", message.as_bytes()));
    }

    fn syslog(over: &Transport) -> Syslog {
        Syslog::new(over, Facility::DAEMON, &LogOptions::default(), "run")
    }

    #[test]
    fn messages_on_a_connection_begin_with_their_length() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let host = Host { name: "127.0.0.1".into(), port: listener.local_addr().unwrap().port() };
        let (mut output, mut spool) = (syslog(&Transport::Tcp(host)), Spool::default());
        payload(&mut spool, &["abc", "de\nfghijklm"]);
        assert!(output.deliver(spool.front().unwrap()).is_ok());
        let mut text = String::new();
        drop(output);
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        assert_eq!(text, "3 abc11 de\nfghijklm");
    }

    #[test]
    fn a_message_that_is_too_long_for_a_datagram_is_refused_alone() {
        let receiver = UdpSocket::bind("127.0.0.1:0").unwrap();
        let host = Host { name: "127.0.0.1".into(), port: receiver.local_addr().unwrap().port() };
        let (mut output, mut spool) = (syslog(&Transport::Udp(host)), Spool::default());
        let long = "x".repeat(70_000);
        payload(&mut spool, &["a", &long, "b"]);
        let payload = spool.front().unwrap();
        assert!(matches!(output.deliver(payload), Err(Undelivered::Refused { count: 1, .. })));
        payload.advance(1).for_each(drop);
        assert!(output.deliver(payload).is_ok());
        for text in ["a", "b"] {
            let mut buffer = [0; 10];
            let length = receiver.recv(&mut buffer).unwrap();
            assert_eq!(&buffer[..length], text.as_bytes());
        }
    }

    #[test]
    fn a_socket_that_is_made_again_is_connected_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        let (mut output, mut spool) = (syslog(&Transport::Unix(path.clone())), Spool::default());
        payload(&mut spool, &["a"]);
        let payload = spool.front().unwrap();
        assert!(matches!(output.deliver(payload), Err(Undelivered::Down { .. })));
        for _ in 0..2 {
            let receiver = UnixDatagram::bind(&path).unwrap();
            let mut again = Spool::default();
            again.push("open", b"b");
            // The old socket is found to be dead by the first try.
            let payload = again.front().unwrap();
            assert!(output.deliver(payload).is_ok() || output.deliver(payload).is_ok());
            let mut buffer = [0; 10];
            assert_eq!(receiver.recv(&mut buffer).unwrap(), 1);
            std::fs::remove_file(&path).unwrap();
        }
    }
}
