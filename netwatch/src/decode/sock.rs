//! Records about sockets.

use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ops::{Deref, DerefMut};

use netwatch_common::{Begin, Change, Sock, change_flags, kind, sock_flags};

use super::process::{Task, cookie, task};
use super::{Bytes, DecodeError};
use crate::model::{
    BootTime, Cookie, Family, NetnsId, Payload, ProcessKey, Proto, SockAddr, Socket, State, Via, unmap,
};
use crate::origin::Side;

/// Something happened to a socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketEvent {
    /// To which.
    pub socket: SocketRecord,
    /// What.
    pub act: Act,
}

/// A socket as it was then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SocketRecord {
    /// What the tables know it by: the cookie, unless others have that too.
    pub key: u64,
    /// Which. `remote` is always there: unspecified where there is no other end.
    pub socket: Socket,
}

impl SocketRecord {
    /// Where its other end is; unspecified for a listener.
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
    /// A task began a connection.
    Connect(Task),
    /// A task made it a listener.
    Listen(Task),
    /// A task took it from its listener.
    Accept(Task),
    /// connect() failed and no transition tells why.
    Fail {
        /// The caller.
        task: Task,
        /// As the caller got it, positive.
        errno: i32,
    },
    /// A task reads from it or writes to it: the first time, or not lately.
    Use(Task),
    /// A task made it: told of UDP.
    Born(Task),
    /// The first datagram between it and a remote address.
    Datagram {
        /// It came in; else it went out.
        received: bool,
        /// The socket was not seen to be made.
        old_socket: bool,
    },
    /// It is closed: told of UDP.
    Release,
    /// Its TCP state changed; whose doing that was is not said.
    Change(StateChange),
}

/// A TCP state transition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateChange {
    /// Before.
    pub old: State,
    /// After.
    pub new: State,
    /// How the socket came to be, as far as the kernel side saw it.
    pub born: Born,
    /// Cookie of the listener that it came from.
    pub listener: Option<Cookie>,
    /// Who connected it; of a child, who called listen().
    pub owner: Option<Owner>,
    /// Whose FIN came first, as far as the kernel side saw it.
    pub first_fin: Option<Side>,
    /// The peer's FIN had been taken in; told on a transition to CLOSE.
    pub done: bool,
    /// No process had the socket any more; told on a transition to CLOSE.
    pub dead: bool,
    /// Told on a transition to CLOSE; `None` where the kernel does not count.
    pub payload: Option<Payload>,
    /// `sk_err` on a transition to CLOSE; 0: none.
    pub errno: i32,
}

impl Act {
    /// Whose doing it was, where that is said.
    #[must_use]
    pub fn task(&self) -> Option<&Task> {
        match self {
            Self::Connect(task)
            | Self::Listen(task)
            | Self::Accept(task)
            | Self::Use(task)
            | Self::Born(task)
            | Self::Fail { task, .. } => Some(task),
            Self::Change(_) | Self::Datagram { .. } | Self::Release => None,
        }
    }
}

/// How a socket came to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Born {
    /// connect() was called on it.
    Connected,
    /// Of a listener.
    Child,
    /// listen() was called on it.
    Listener,
    /// Below an MPTCP socket, which is the one that the cookie is of: only the addresses are news.
    Subflow,
    /// Before the probes were there.
    Unseen,
}

/// Who connected a socket, or called listen().
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The process.
    pub key: ProcessKey,
    /// The thread.
    pub tid: u32,
    /// When.
    pub at: BootTime,
}

pub(super) fn begin(bytes: Bytes<'_>, kind: u16) -> Result<SocketEvent, DecodeError> {
    let socket = socket(bytes, offset_of!(Begin, sock))?;
    let task = Task {
        cause: cookie(bytes, offset_of!(Begin, cause))?.filter(|cause| Some(*cause) != socket.cookie),
        ..task(bytes, offset_of!(Begin, task))?
    };
    let act = match kind {
        kind::CONNECT => Act::Connect(task),
        kind::LISTEN => Act::Listen(task),
        kind::ACCEPT => Act::Accept(task),
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

/// `include/uapi/linux/in.h`
const IPPROTO_UDP: u8 = 17;

pub(super) fn socket(bytes: Bytes<'_>, at: usize) -> Result<SocketRecord, DecodeError> {
    let family = bytes.u16(at + offset_of!(Sock, family))?;
    let address = |offset: usize| -> Result<IpAddr, DecodeError> {
        let octets: [u8; 16] = bytes.array(at + offset)?;
        match (family, octets) {
            (AF_INET, [a, b, c, d, ..]) => Ok(Ipv4Addr::new(a, b, c, d).into()),
            (AF_INET6, octets) => Ok(Ipv6Addr::from(octets).into()),
            (other, _) => Err(DecodeError::Family(other)),
        }
    };
    let (local_ip, local_mapped) = unmap(address(offset_of!(Sock, local))?);
    let (remote_ip, remote_mapped) = unmap(address(offset_of!(Sock, remote))?);
    let flags = bytes.u8(at + offset_of!(Sock, flags))?;
    let mapped = local_mapped || remote_mapped || flags & sock_flags::MAPPED != 0;
    let proto = match bytes.u8(at + offset_of!(Sock, protocol))? {
        IPPROTO_UDP => Proto::Udp,
        _ => Proto::Tcp,
    };
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
        local: SockAddr { ip: local_ip, port: bytes.u16(at + offset_of!(Sock, local_port))? },
        remote: Some(SockAddr { ip: remote_ip, port: bytes.u16(at + offset_of!(Sock, remote_port))? }),
    };
    Ok(SocketRecord { key: Cookie::number(socket.cookie), socket })
}
