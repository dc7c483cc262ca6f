//! Lists sockets by `sock_diag`.

use std::io;

use netlink_packet_core::{NLM_F_DUMP, NLM_F_DUMP_INTR};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_packet_sock_diag::unix::nlas::Nla as UnixAttribute;
use netlink_packet_sock_diag::unix::{self, ShowFlags, UnixRequest};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;

use super::netlink::{Message, Netlink};

/// Number of retries of a dump that the kernel marks as interrupted; then it is used as it is.
const ATTEMPTS: usize = 5;

/// ESTABLISHED (1) to NEW_SYN_RECV (12). Not 13, BOUND_INACTIVE, which is no connection and which netstat
/// does not show either: include/net/tcp_states.h.
const STATES: u32 = 0x1ffe;

/// Result of a dump.
pub(super) struct Dump {
    pub(super) responses: Vec<InetResponse>,
    /// Of UNIX sockets: inode number, and that of the other end.
    pub(super) peers: Vec<(u64, u64)>,
    /// Number of answers that could not be decoded.
    pub(super) damaged: usize,
    /// The kernel marked every try as interrupted.
    pub(super) interrupted: bool,
}

/// `include/uapi/linux/inet_diag.h`; a number of 32 bits.
const INET_DIAG_REQ_PROTOCOL: u16 = 3;

/// Appends an attribute to a message and updates its length.
fn append_protocol(message: &mut Vec<u8>, protocol: u16) {
    const LENGTH: u16 = 8;
    message.extend(LENGTH.to_ne_bytes());
    message.extend(INET_DIAG_REQ_PROTOCOL.to_ne_bytes());
    message.extend(u32::from(protocol).to_ne_bytes());
    let length = u32::try_from(message.len()).unwrap_or(u32::MAX);
    if let Some(field) = message.first_chunk_mut() {
        *field = length.to_ne_bytes();
    }
}

/// A netlink socket for `sock_diag` in the network namespace in which it was opened.
pub(super) struct SockDiag(Netlink);

impl SockDiag {
    pub(super) fn open() -> io::Result<Self> {
        Netlink::open(NETLINK_SOCK_DIAG).map(Self)
    }

    /// All sockets of an address family and protocol (`AF_*`, `IPPROTO_*`).
    pub(super) fn dump(&mut self, family: u8, protocol: u16, extensions: ExtensionFlags) -> io::Result<Dump> {
        // A protocol number that does not fit in the request is sent as an attribute.
        let (protocol, wide) = match u8::try_from(protocol) {
            Ok(narrow) => (narrow, None),
            Err(_) => (u8::MAX, Some(protocol)),
        };
        let request = InetRequest {
            family,
            protocol,
            extensions,
            states: StateFlags::from_bits_retain(STATES),
            // Ignored in a dump.
            socket_id: SocketId::new_v4(),
        };
        self.repeated(&SockDiagMessage::InetRequest(request), wide)
    }

    /// All UNIX sockets with their other ends.
    pub(super) fn unix_peers(&mut self) -> io::Result<Dump> {
        let request = UnixRequest {
            state_flags: unix::StateFlags::all(),
            inode: 0,
            show_flags: ShowFlags::PEER,
            cookie: [0xff; 8],
        };
        self.repeated(&SockDiagMessage::UnixRequest(request), None)
    }

    fn repeated(&mut self, request: &SockDiagMessage, wide: Option<u16>) -> io::Result<Dump> {
        until_whole(|| self.attempt(request, wide))
    }

    fn attempt(&mut self, request: &SockDiagMessage, wide: Option<u16>) -> io::Result<Dump> {
        let mut bytes = self.0.request(NLM_F_DUMP, request.clone());
        if let Some(protocol) = wide {
            append_protocol(&mut bytes, protocol);
        }
        let mut dump = Dump { responses: Vec::new(), peers: Vec::new(), damaged: 0, interrupted: false };
        self.0.ask(&bytes, |message| {
            dump.take(message);
            false
        })?;
        Ok(dump)
    }
}

impl Dump {
    fn take(&mut self, message: Message<SockDiagMessage>) {
        self.interrupted |= message.flags & NLM_F_DUMP_INTR != 0;
        match message.payload {
            Some(SockDiagMessage::InetResponse(response)) => self.responses.push(*response),
            Some(SockDiagMessage::UnixResponse(response)) => {
                let peer = response.nlas.iter().find_map(|attribute| match attribute {
                    UnixAttribute::Peer(peer) => Some(u64::from(*peer)),
                    _ => None,
                });
                self.peers.extend(peer.map(|peer| (response.header.inode.into(), peer)));
            }
            Some(_) => {}
            None => self.damaged += 1,
        }
    }
}

/// A dump during which nothing changed, or the last one.
fn until_whole(mut attempt: impl FnMut() -> io::Result<Dump>) -> io::Result<Dump> {
    for _ in 1..ATTEMPTS {
        let dump = attempt()?;
        if !dump.interrupted {
            return Ok(dump);
        }
    }
    attempt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn interrupted_dump_is_repeated_a_few_times() {
        let of = |whole_from: usize| {
            let mut attempts = 0;
            let dump = until_whole(|| {
                attempts += 1;
                let interrupted = attempts < whole_from;
                Ok(Dump { responses: Vec::new(), peers: Vec::new(), damaged: attempts, interrupted })
            });
            let dump = dump.unwrap();
            assert_eq!(dump.damaged, attempts, "the last is used");
            (attempts, dump.interrupted)
        };
        assert_eq!(of(1), (1, false));
        assert_eq!(of(3), (3, false));
        assert_eq!(of(usize::MAX), (ATTEMPTS, true));
    }
}
