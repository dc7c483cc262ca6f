//! Records about sockets.

use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, DerefMut};

use netwatch_common::{Begin, Change, Sock, begin_flags, change_flags, kind, sock_flags};

use super::process::{Task, cookie, task};
use super::{Bytes, DecodeError};
use crate::model::{
    BootTime, Cookie, Device, Family, NetnsId, Payload, ProcessKey, Proto, SockAddr, Socket, State, Via,
    unmap,
};
use crate::origin::Side;

/// An event about a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketEvent {
    /// The socket.
    pub socket: SocketRecord,
    /// What happened.
    pub act: Act,
}

/// A socket at the time of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketRecord {
    /// Key in tables: the cookie, unless several sockets share it.
    pub key: u64,
    /// Its identity. `remote` is always set: unspecified if not connected.
    pub socket: Socket,
    /// A process restores a connection with it (`TCP_REPAIR`); nobody connects.
    pub restored: bool,
}

impl SocketRecord {
    /// Remote address; unspecified for a listener.
    #[must_use]
    pub fn remote(&self) -> SockAddr {
        const NOWHERE: SockAddr = SockAddr { ip: IpAddr::V4(Ipv4Addr::UNSPECIFIED), port: 0 };
        self.socket.remote.unwrap_or(NOWHERE)
    }
}

impl Deref for SocketRecord {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl DerefMut for SocketRecord {
    fn deref_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Act {
    /// A task connected.
    Connect(Task),
    /// A task called listen().
    Listen(Task),
    /// A task accepted it.
    Accept(Task),
    /// connect() failed without a transition that shows it.
    Fail {
        /// The task that called it.
        task: Task,
        /// Positive errno of the call.
        errno: i32,
    },
    /// A task reads or writes, and is not one of the last users.
    Use(Task),
    /// A task sent the first datagram of a flow. It may also be a new user.
    Sent(Task),
    /// A task created it (UDP).
    Born(Task),
    /// The first datagram between it and a remote address.
    Datagram {
        /// Received; otherwise sent.
        received: bool,
        /// The creation of the socket was not observed.
        old_socket: bool,
        /// It answers another datagram or reports an error about one.
        answers: bool,
        /// The thread in whose context it was sent, until [`Act::Sent`] confirms it.
        thread: Option<u32>,
    },
    /// It was closed (a socket with flows).
    Release,
    /// TCP state transition, by an unknown task.
    Change(StateChange),
}

/// A TCP state transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// State before.
    pub old: State,
    /// State after.
    pub new: State,
    /// How the socket was created, as far as known.
    pub born: Born,
    /// Cookie of its listener.
    pub listener: Option<Cookie>,
    /// The process that connected; for a child, that called listen().
    pub owner: Option<Owner>,
    /// Which side sent the first FIN, if observed.
    pub first_fin: Option<Side>,
    /// The FIN of the peer was received; set on a transition to CLOSE.
    pub done: bool,
    /// No process had the socket any more; set on a transition to CLOSE.
    pub dead: bool,
    /// Payload, on a transition to CLOSE; `None` if the kernel does not count it.
    pub payload: Option<Payload>,
    /// `sk_err` on a transition to CLOSE; 0 if none.
    pub errno: i32,
}

impl Act {
    /// The acting task, if the record has one.
    #[must_use]
    pub fn task(&self) -> Option<&Task> {
        match self {
            Self::Connect(task)
            | Self::Listen(task)
            | Self::Accept(task)
            | Self::Use(task)
            | Self::Sent(task)
            | Self::Born(task)
            | Self::Fail { task, .. } => Some(task),
            Self::Change(_) | Self::Datagram { .. } | Self::Release => None,
        }
    }
}

/// How a socket was created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Born {
    /// connect() was called on it.
    Connected,
    /// By a listener.
    Child,
    /// listen() was called on it.
    Listener,
    /// A process restored a connection with it (`TCP_REPAIR`).
    Restored,
    /// A subflow of the MPTCP socket with this cookie; only its addresses are new.
    Subflow,
    /// Before the probes were attached.
    Unseen,
}

/// The process that connected a socket or called listen().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process.
    pub key: ProcessKey,
    /// The thread.
    pub tid: u32,
    /// When it did.
    pub at: BootTime,
}

pub(super) fn begin(bytes: Bytes<'_>, kind: u16) -> Result<SocketEvent, DecodeError> {
    let socket = socket(bytes, offset_of!(Begin, sock))?;
    let flags = bytes.u32(offset_of!(Begin, flags))?;
    let task = Task {
        cause: cookie(bytes, offset_of!(Begin, cause))?.filter(|cause| Some(*cause) != socket.cookie),
        by_message: flags & begin_flags::BY_MESSAGE != 0,
        ..task(bytes, offset_of!(Begin, task))?
    };
    let act = match kind {
        kind::CONNECT => Act::Connect(task),
        kind::LISTEN => Act::Listen(task),
        kind::ACCEPT => Act::Accept(task),
        kind::USE if flags & begin_flags::FIRST_DATAGRAM != 0 => Act::Sent(task),
        kind::USE => Act::Use(task),
        kind::BORN => Act::Born(task),
        _ => Act::Fail { task, errno: bytes.i32(offset_of!(Begin, result))?.saturating_neg() },
    };
    Ok(SocketEvent { socket, act })
}

pub(super) fn change(bytes: Bytes<'_>) -> Result<SocketEvent, DecodeError> {
    let flags = bytes.u32(offset_of!(Change, flags))?;
    let has = |flag| flags & flag != 0;
    let tgid = bytes.u32(offset_of!(Change, owner_tgid))?;
    let owner = Owner {
        key: ProcessKey::new(tgid, bytes.time(offset_of!(Change, owner_start))?),
        tid: bytes.u32(offset_of!(Change, owner_tid))?,
        at: bytes.time(offset_of!(Change, began))?,
    };
    let change = StateChange {
        old: State::from_kernel(bytes.u8(offset_of!(Change, old))?),
        new: State::from_kernel(bytes.u8(offset_of!(Change, new))?),
        born: match flags {
            _ if has(change_flags::SUBFLOW) => Born::Subflow,
            _ if has(change_flags::CONNECTED) => Born::Connected,
            _ if has(change_flags::CHILD) => Born::Child,
            _ if has(change_flags::LISTENER) => Born::Listener,
            _ if has(change_flags::RESTORED) => Born::Restored,
            _ => Born::Unseen,
        },
        listener: cookie(bytes, offset_of!(Change, listener))?,
        owner: (tgid != 0).then_some(owner),
        first_fin: match (has(change_flags::FIN_LOCAL), has(change_flags::FIN_REMOTE)) {
            (true, _) => Some(Side::Local),
            (_, true) => Some(Side::Remote),
            _ => None,
        },
        done: has(change_flags::DONE),
        dead: has(change_flags::DEAD),
        payload: (!has(change_flags::UNCOUNTED)).then_some(Payload {
            sent: bytes.u64(offset_of!(Change, sent))?,
            received: bytes.u64(offset_of!(Change, received))?,
        }),
        errno: bytes.u16(offset_of!(Change, error))?.into(),
    };
    Ok(SocketEvent { socket: socket(bytes, offset_of!(Change, sock))?, act: Act::Change(change) })
}

/// `include/linux/socket.h`
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;
const AF_PACKET: u16 = 17;

pub(super) fn socket(bytes: Bytes<'_>, at: usize) -> Result<SocketRecord, DecodeError> {
    let family = bytes.u16(at + offset_of!(Sock, family))?;
    let address = |offset: usize| -> Result<IpAddr, DecodeError> {
        let octets: [u8; 16] = bytes.array(at + offset)?;
        match (family, octets) {
            (AF_INET, [a, b, c, d, ..]) => Ok(Ipv4Addr::new(a, b, c, d).into()),
            (AF_INET6, octets) => Ok(Ipv6Addr::from(octets).into()),
            // Frames have no addresses.
            (AF_PACKET, _) => Ok(Ipv4Addr::UNSPECIFIED.into()),
            (other, _) => Err(DecodeError::Family(other)),
        }
    };
    let (local_ip, local_mapped) = unmap(address(offset_of!(Sock, local))?);
    let (remote_ip, remote_mapped) = unmap(address(offset_of!(Sock, remote))?);
    let flags = bytes.u8(at + offset_of!(Sock, flags))?;
    let mapped = local_mapped || remote_mapped || flags & sock_flags::MAPPED != 0;
    let proto = match bytes.u8(at + offset_of!(Sock, protocol))? {
        _ if flags & sock_flags::PACKET != 0 => Proto::Packet,
        protocol if flags & sock_flags::RAW != 0 => Proto::of_raw(protocol),
        protocol => Proto::with_ports(protocol),
    };
    // In the places of the ports raw sockets have their protocol, ping sockets an identifier, and both what connect() was
    // given (net/ipv4/raw.c, raw_sk_init(); net/ipv4/ping.c, ping_get_port(), v6.12).
    let port = |offset: usize| if proto.has_ports() { bytes.u16(at + offset) } else { Ok(0) };
    let socket = Socket {
        cookie: cookie(bytes, at + offset_of!(Sock, cookie))?,
        inode: bytes.u64(at + offset_of!(Sock, inode))?,
        netns: NetnsId::new(bytes.u32(at + offset_of!(Sock, netns))?),
        proto,
        family: if mapped { Family::Ipv4 } else { Family::of(local_ip) },
        mapped,
        via: match flags {
            flags if flags & sock_flags::FASTOPEN != 0 => Some(Via::Fastopen),
            flags if flags & sock_flags::MPTCP != 0 => Some(Via::Mptcp),
            flags if flags & sock_flags::KERNEL != 0 => Some(Via::Kernel),
            _ => None,
        },
        device: Device::bound(bytes.u32(at + offset_of!(Sock, device))?),
        local: SockAddr { ip: local_ip, port: port(offset_of!(Sock, local_port))? },
        remote: Some(SockAddr { ip: remote_ip, port: port(offset_of!(Sock, remote_port))? }),
    };
    let restored = flags & sock_flags::REPAIR != 0;
    Ok(SocketRecord { key: Cookie::number(socket.cookie), socket, restored })
}
