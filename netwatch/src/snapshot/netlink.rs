//! One `sock_diag` dump: sends the request and reads all answers.

use std::io;

use netlink_packet_core::{
    NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NetlinkBuffer, NetlinkHeader, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_sock_diag::SockDiagMessage;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetRequest, InetResponse, SocketId, StateFlags};
use netlink_packet_sock_diag::unix::nlas::Nla as UnixAttribute;
use netlink_packet_sock_diag::unix::{self, ShowFlags, UnixRequest};
use netlink_sys::protocols::NETLINK_SOCK_DIAG;
use netlink_sys::{Socket, SocketAddr};

/// The kernel fills up to 32 KiB per message if the buffer is large enough (net/netlink/af_netlink.c, netlink_dump(),
/// v6.12). With fewer messages fewer sockets move between hash buckets meanwhile, and are listed twice or missed.
const BUFFER: usize = 64 * 1024;

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
pub(super) struct SockDiag {
    socket: Socket,
    sequence: u32,
}

impl SockDiag {
    pub(super) fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_SOCK_DIAG)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket, sequence: 0 })
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
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | NLM_F_DUMP;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, request.clone().into());
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        if let Some(protocol) = wide {
            append_protocol(&mut bytes, protocol);
        }
        self.socket.send(&bytes, 0)?;

        let mut dump = Dump { responses: Vec::new(), peers: Vec::new(), damaged: 0, interrupted: false };
        let mut buffer = Vec::with_capacity(BUFFER);
        loop {
            buffer.clear();
            match self.socket.recv(&mut buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if self.take(&buffer, &mut dump)? {
                return Ok(dump);
            }
        }
    }

    /// Parses one datagram of several messages; returns true after the last message of the dump.
    fn take(&self, datagram: &[u8], dump: &mut Dump) -> io::Result<bool> {
        let mut rest = datagram;
        while !rest.is_empty() {
            // An invalid length ends the datagram.
            let Ok(header) = NetlinkBuffer::new_checked(rest) else {
                dump.damaged += 1;
                break;
            };
            let (length, flags) = (header.length() as usize, header.flags());
            // The rest of an earlier dump that failed.
            if header.sequence_number() == self.sequence {
                dump.interrupted |= flags & NLM_F_DUMP_INTR != 0;
                match NetlinkMessage::<SockDiagMessage>::deserialize(rest).map(|message| message.payload) {
                    Ok(NetlinkPayload::InnerMessage(SockDiagMessage::InetResponse(response))) => {
                        dump.responses.push(*response);
                    }
                    Ok(NetlinkPayload::InnerMessage(SockDiagMessage::UnixResponse(response))) => {
                        let peer = response.nlas.iter().find_map(|attribute| match attribute {
                            UnixAttribute::Peer(peer) => Some(u64::from(*peer)),
                            _ => None,
                        });
                        dump.peers.extend(peer.map(|peer| (response.header.inode.into(), peer)));
                    }
                    Ok(NetlinkPayload::Done(done)) if done.code < 0 => {
                        return Err(io::Error::from_raw_os_error(-done.code));
                    }
                    Ok(NetlinkPayload::Done(_)) => return Ok(true),
                    Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                    Ok(NetlinkPayload::Overrun(_)) => return Err(io::Error::other("netlink overrun")),
                    Ok(_) => {}
                    Err(_) => dump.damaged += 1,
                }
            }
            // Messages start on multiples of four: NLMSG_ALIGN of include/uapi/linux/netlink.h.
            rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
        }
        Ok(false)
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
