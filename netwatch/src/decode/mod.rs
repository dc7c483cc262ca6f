//! Decodes records of the ring. Total and safe: any bytes give an [`Event`] or a [`DecodeError`], and the caller counts
//! the errors. One file per family of records, as in `netwatch-common`.

mod cause;
pub(crate) mod listed;
mod name;
mod process;
mod sock;
mod udp;

use std::mem::offset_of;

use crate::model::{BootTime, NetnsId};
use netwatch_common::{Header, kind};
use thiserror::Error;

pub use cause::{Message, Messages, PairEvent};
pub use name::{NameEvent, NameSource};
pub use process::{CgroupEvent, ExecEvent, ForkEvent, Name, ProcessEvent, Task};
pub use sock::{Act, Born, Owner, SocketEvent, SocketRecord, StateChange};

/// Content of a record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// About a socket.
    Socket(SocketEvent),
    /// About a process or a cgroup.
    Process(Box<ProcessEvent>),
    /// About the name of a host.
    Name(Box<NameEvent>),
    /// The network namespace with this number is another one than before.
    Netns(NetnsId),
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// When it happened.
    pub at: BootTime,
    /// If it differs from that of the previous record, something was lost between the two: see
    /// [`netwatch_common::Header::loss`].
    pub loss: u32,
    /// The same for records that say which UDP sockets and flows exist.
    pub udp_loss: u16,
    /// What happened.
    pub event: Event,
}

/// Why bytes are not a valid record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// The record ends before one of its fields.
    #[error("a record of {0} bytes is too short")]
    Short(usize),
    /// A kind that this version does not know.
    #[error("unknown kind of record {0}")]
    Kind(u16),
    /// An address family that is neither IPv4 nor IPv6.
    #[error("unknown address family {0}")]
    Family(u16),
    /// Not one of [`netwatch_common::name_source`].
    #[error("unknown source of a name {0}")]
    Source(u16),
}

/// Decodes one record.
///
/// # Errors
/// See [`DecodeError`].
pub fn decode(bytes: &[u8]) -> Result<Record, DecodeError> {
    let bytes = Bytes(bytes);
    let kind = bytes.u16(offset_of!(Header, kind))?;
    let event = match kind {
        kind::CONNECT | kind::LISTEN | kind::ACCEPT | kind::USE | kind::BORN | kind::FAIL => {
            Event::Socket(sock::begin(bytes, kind)?)
        }
        kind::CHANGE => Event::Socket(sock::change(bytes)?),
        kind::FLOW => Event::Socket(udp::flow(bytes)?),
        kind::RELEASE => Event::Socket(udp::release(bytes)?),
        kind::FORK => Event::Process(Box::new(process::fork(bytes)?)),
        kind::EXEC => Event::Process(Box::new(process::exec(bytes)?)),
        kind::EXIT => Event::Process(Box::new(process::exit(bytes)?)),
        kind::CGROUP => Event::Process(Box::new(process::cgroup(bytes)?)),
        kind::CAUSE => Event::Process(Box::new(ProcessEvent::Messages(cause::messages(bytes)?))),
        kind::PAIR => Event::Process(Box::new(ProcessEvent::Pair(cause::pair(bytes)?))),
        kind::NETNS => Event::Netns(NetnsId::new(bytes.u32(offset_of!(netwatch_common::Netns, inum))?)),
        kind::NAME => Event::Name(Box::new(name::name(bytes)?)),
        other => return Err(DecodeError::Kind(other)),
    };
    Ok(Record {
        at: bytes.time(offset_of!(Header, ts))?,
        loss: bytes.u32(offset_of!(Header, loss))?,
        udp_loss: bytes.u16(offset_of!(Header, udp_loss))?,
        event,
    })
}

/// Bytes of a record, read at the offsets of the wire format.
#[derive(Clone, Copy)]
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn array<const N: usize>(self, offset: usize) -> Result<[u8; N], DecodeError> {
        let end = offset.saturating_add(N);
        let slice = self.0.get(offset..end).ok_or(DecodeError::Short(self.0.len()))?;
        slice.try_into().map_err(|_| DecodeError::Short(self.0.len()))
    }

    fn u8(self, offset: usize) -> Result<u8, DecodeError> {
        self.array::<1>(offset).map(|[byte]| byte)
    }

    fn u16(self, offset: usize) -> Result<u16, DecodeError> {
        self.array(offset).map(u16::from_ne_bytes)
    }

    fn u32(self, offset: usize) -> Result<u32, DecodeError> {
        self.array(offset).map(u32::from_ne_bytes)
    }

    fn i32(self, offset: usize) -> Result<i32, DecodeError> {
        self.array(offset).map(i32::from_ne_bytes)
    }

    /// Nanoseconds since boot.
    fn time(self, offset: usize) -> Result<BootTime, DecodeError> {
        self.u64(offset).map(BootTime::from_nanos)
    }

    fn u64(self, offset: usize) -> Result<u64, DecodeError> {
        self.array(offset).map(u64::from_ne_bytes)
    }

    /// `len` bytes that follow the fixed part.
    fn tail(self, offset: usize, len: usize) -> Result<&'a [u8], DecodeError> {
        self.0.get(offset..offset.saturating_add(len)).ok_or(DecodeError::Short(self.0.len()))
    }
}

#[cfg(test)]
mod tests {
    use netwatch_common::{Begin, Change, Exec, Fork, Sock};
    use proptest::prelude::*;

    use super::*;
    use crate::model::tests::ns;
    use crate::model::{Family, ProcessKey, SockAddr, State};

    /// The bytes of a record as the kernel side writes them.
    fn bytes_of<T: Copy>(record: &T) -> Vec<u8> {
        // SAFETY: types of the wire format are integers and byte arrays without hidden padding.
        unsafe { std::slice::from_raw_parts(std::ptr::from_ref(record).cast::<u8>(), size_of::<T>()) }
            .to_vec()
    }

    fn header(kind: u16) -> Header {
        Header { kind, ts: 17, loss: 3, ..Header::default() }
    }

    fn sock() -> Sock {
        let mut local = [0; 16];
        local[..4].copy_from_slice(&[127, 0, 0, 1]);
        let remote = "::ffff:10.0.0.2".parse::<std::net::Ipv6Addr>().unwrap().octets();
        Sock {
            cookie: 5,
            inode: 6,
            netns: 7,
            family: 10,
            local_port: 40000,
            remote_port: 443,
            protocol: 6,
            local,
            remote,
            ..Sock::default()
        }
    }

    #[test]
    fn a_connect_is_read() {
        let mut begin = Begin { header: header(kind::CONNECT), sock: sock(), ..Begin::default() };
        begin.sock.family = 2;
        begin.task.tgid = 11;
        begin.task.tid = 12;
        begin.task.start = 30_000_001;
        begin.task.auid = u32::MAX;
        begin.task.comm[..4].copy_from_slice(b"curl");
        begin.task.thread[..2].copy_from_slice(b"\xffw");
        let record = decode(&bytes_of(&begin)).unwrap();
        assert_eq!((record.at, record.loss), (ns(17), 3));
        let Event::Socket(event) = record.event else { panic!() };
        let Act::Connect(task) = event.act else { panic!() };
        assert_eq!((task.key, task.tid), (ProcessKey::new(11, ns(30_000_001)), 12));
        assert_eq!((&*task.comm.text(), task.auid), ("curl", None));
        assert_eq!(task.thread.unwrap().text(), "\\xffw");
        assert_eq!(event.socket.local, SockAddr { ip: [127, 0, 0, 1].into(), port: 40000 });
        assert_eq!((event.socket.family, event.socket.mapped), (Family::Ipv4, false));
    }

    #[test]
    fn kernel_socket_is_marked_whichever_process_requested_it() {
        let mut begin = Begin { header: header(kind::CONNECT), sock: sock(), ..Begin::default() };
        begin.sock.flags = netwatch_common::sock_flags::KERNEL;
        let Event::Socket(event) = decode(&bytes_of(&begin)).unwrap().event else { panic!() };
        assert_eq!(event.socket.via, Some(crate::model::Via::Kernel));
    }

    #[test]
    fn a_mapped_socket_is_ipv4() {
        let mut begin = Begin { header: header(kind::ACCEPT), sock: sock(), ..Begin::default() };
        begin.sock.local = "::ffff:127.0.0.1".parse::<std::net::Ipv6Addr>().unwrap().octets();
        let Event::Socket(event) = decode(&bytes_of(&begin)).unwrap().event else { panic!() };
        assert_eq!((event.socket.family, event.socket.mapped), (Family::Ipv4, true));
        assert_eq!(event.socket.remote(), SockAddr { ip: [10, 0, 0, 2].into(), port: 443 });
        begin.sock.local = [0; 16];
        begin.sock.remote = [0; 16];
        begin.header.kind = kind::LISTEN;
        let Event::Socket(event) = decode(&bytes_of(&begin)).unwrap().event else { panic!() };
        assert_eq!((event.socket.family, event.socket.mapped), (Family::Ipv6, false));
    }

    #[test]
    fn a_change_is_read() {
        let change = Change {
            header: header(kind::CHANGE),
            sock: sock(),
            owner_tgid: 9,
            owner_start: 20_000_000,
            old: 3,
            new: 1,
            flags: netwatch_common::change_flags::CHILD,
            listener: 77,
            ..Change::default()
        };
        let Event::Socket(event) = decode(&bytes_of(&change)).unwrap().event else { panic!() };
        let Act::Change(change) = event.act else { panic!() };
        assert_eq!((change.old, change.new), (State::SynRecv, State::Established));
        assert_eq!((change.born, change.listener), (Born::Child, crate::model::Cookie::new(77)));
        assert_eq!(change.owner.unwrap().key.pid, 9);
    }

    #[test]
    fn an_exec_is_put_the_right_way_round() {
        let (path, args) = (b"sh\0bin\0usr\0", b"sh\0-c\0\xfe\0");
        let exec_record = Exec {
            header: header(kind::EXEC),
            nlink: 1,
            path_len: path.len() as u16,
            args_len: args.len() as u16,
            ..Exec::default()
        };
        let bytes = [&bytes_of(&exec_record)[..], path, args].concat();
        let Event::Process(event) = decode(&bytes).unwrap().event else { panic!() };
        let ProcessEvent::Exec(exec) = *event else { panic!() };
        assert_eq!(exec.image.exe.as_deref(), Some("/usr/bin/sh"));
        assert_eq!(exec.image.args.iter().collect::<Vec<_>>(), ["sh", "-c", "\\xfe"]);
        assert_eq!(exec.image.args.cut(), None);
        // Renamed while the kernel side read it.
        let unsure = Exec { flags: netwatch_common::exec_flags::PATH_UNSURE, ..exec_record };
        let unsure = [&bytes_of(&unsure)[..], path, args].concat();
        let Event::Process(event) = decode(&unsure).unwrap().event else { panic!() };
        let ProcessEvent::Exec(exec) = *event else { panic!() };
        assert_eq!(
            (exec.image.exe.as_deref(), exec.image.exe_state),
            (None, crate::model::ExeState::Unknown)
        );
        // A wrong length.
        assert_eq!(decode(&bytes[..bytes.len() - 1]), Err(DecodeError::Short(bytes.len() - 1)));
    }

    proptest! {
        #[test]
        fn any_bytes_are_an_event_or_an_error(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = decode(&bytes);
        }

        /// Of a known kind, so that the fields are reached.
        #[test]
        fn any_fields_are_an_event_or_an_error(
            kind in 0_u16..19,
            mut bytes in prop::collection::vec(any::<u8>(), 16..400),
            family in prop::sample::select(vec![2_u16, 10, 3]),
        ) {
            bytes[..2].copy_from_slice(&kind.to_ne_bytes());
            let offset = offset_of!(Begin, sock) + offset_of!(Sock, family);
            if let Some(field) = bytes.get_mut(offset..offset + 2) {
                field.copy_from_slice(&family.to_ne_bytes());
            }
            let _ = decode(&bytes);
        }

        #[test]
        fn a_whole_record_cut_anywhere_is_an_error(cut in 0_usize..104) {
            let fork = bytes_of(&Fork { header: header(kind::FORK), ..Fork::default() });
            prop_assert!(decode(&fork).is_ok());
            prop_assert!(decode(&fork[..cut.min(fork.len() - 8)]).is_err());
        }
    }
}
