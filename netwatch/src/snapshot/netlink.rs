//! Requests to the kernel over netlink, and their answers.

use std::io;

use netlink_packet_core::{
    NLM_F_REQUEST, NetlinkBuffer, NetlinkDeserializable, NetlinkHeader, NetlinkMessage, NetlinkPayload,
    NetlinkSerializable,
};
use netlink_sys::{Socket, SocketAddr};

/// The kernel fills up to 32 KiB per message if the buffer is large enough (net/netlink/af_netlink.c, netlink_dump(),
/// v6.12). With fewer messages fewer sockets move between hash buckets meanwhile, and are listed twice or missed.
const BUFFER: usize = 64 * 1024;

/// A message of an answer.
#[derive(Debug)]
pub struct Message<M> {
    /// `NLM_F_*`
    pub flags: u16,
    /// `None` if it cannot be decoded.
    pub payload: Option<M>,
}

/// A socket in the network namespace in which it was opened, which it keeps alive.
pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
}

/// A socket that sends to the kernel and receives from it only. `protocol`: `NETLINK_*`.
///
/// # Errors
/// If the kernel does not have the protocol.
pub fn connected(protocol: isize) -> io::Result<Socket> {
    let mut socket = Socket::new(protocol)?;
    socket.bind_auto()?;
    socket.connect(&SocketAddr::new(0, 0))?;
    Ok(socket)
}

impl Netlink {
    /// See [`connected`].
    ///
    /// # Errors
    /// If the kernel does not have the protocol.
    pub fn open(protocol: isize) -> io::Result<Self> {
        Ok(Self { socket: connected(protocol)?, sequence: 0, buffer: Vec::with_capacity(BUFFER) })
    }

    /// The bytes of the next request. `flags`: besides `NLM_F_REQUEST`.
    pub fn request<M: NetlinkSerializable>(&mut self, flags: u16, message: M) -> Vec<u8> {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = NLM_F_REQUEST | flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::InnerMessage(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        bytes
    }

    /// Sends the bytes of a request, and gives each message of the answer to `each` until that returns true, or until the
    /// end of a dump.
    ///
    /// # Errors
    /// That of the kernel, or of the socket.
    pub fn ask<M: NetlinkDeserializable>(
        &mut self,
        request: &[u8],
        mut each: impl FnMut(Message<M>) -> bool,
    ) -> io::Result<()> {
        self.socket.send(request, 0)?;
        loop {
            self.buffer.clear();
            match self.socket.recv(&mut self.buffer, 0) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                other => other?,
            };
            if read(&self.buffer, self.sequence, &mut each)? {
                return Ok(());
            }
        }
    }
}

/// Gives the messages of one datagram to `each`, without those of an earlier answer. Returns true once `each` has, or after
/// the last message of a dump.
pub(super) fn read<M: NetlinkDeserializable>(
    datagram: &[u8],
    sequence: u32,
    each: &mut impl FnMut(Message<M>) -> bool,
) -> io::Result<bool> {
    let mut rest = datagram;
    while !rest.is_empty() {
        // An invalid length ends the datagram.
        let Ok(header) = NetlinkBuffer::new_checked(rest) else {
            return Ok(each(Message { flags: 0, payload: None }));
        };
        let (length, flags) = (header.length() as usize, header.flags());
        if header.sequence_number() == sequence {
            let is_enough = match NetlinkMessage::<M>::deserialize(rest).map(|message| message.payload) {
                Ok(NetlinkPayload::InnerMessage(payload)) => each(Message { flags, payload: Some(payload) }),
                Ok(NetlinkPayload::Done(done)) if done.code < 0 => {
                    return Err(io::Error::from_raw_os_error(-done.code));
                }
                Ok(NetlinkPayload::Done(_)) => true,
                Ok(NetlinkPayload::Error(error)) => return Err(error.to_io()),
                Ok(NetlinkPayload::Overrun(_)) => return Err(io::Error::other("netlink overrun")),
                Ok(_) => false,
                Err(_) => each(Message { flags, payload: None }),
            };
            if is_enough {
                return Ok(true);
            }
        }
        // Messages start on multiples of four: NLMSG_ALIGN of include/uapi/linux/netlink.h.
        rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(false)
}
