//! Sockets and their holders as the kernel's iterators list them: bytes to rows. Total: any bytes give rows, or are
//! counted as damaged.

use std::io;
use std::mem::offset_of;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use netwatch_common::{Held, Listed, Sock, listed_flags};

use super::{Bytes, Holder, SocketRow};
use crate::model::{Endpoint, Family, Proto, State, unmap};

/// What there is to list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listing {
    /// TCP sockets of the calling thread's network namespace.
    Tcp,
    /// UDP sockets there.
    Udp,
    /// Descriptors of sockets, of every process.
    Files,
}

/// Whoever can list them: [`crate::kernel::Iterators`].
pub trait Lister: Send + Sync {
    /// The records that the kernel side writes (`netwatch_common::Listed`, `Held`), one behind the other.
    ///
    /// # Errors
    /// Where the kernel does not let us.
    fn list(&self, what: Listing) -> io::Result<Vec<u8>>;
}

/// `include/linux/socket.h`
const AF_INET: u16 = 2;
const AF_INET6: u16 = 10;

/// Rows of `proto` in namespace `netns`, IPv4 sockets first, and how many records made no sense.
pub(super) fn rows(bytes: &[u8], proto: Proto, netns: u32) -> (Vec<SocketRow>, usize) {
    let mut rows = Vec::with_capacity(bytes.len() / size_of::<Listed>());
    let records = bytes.chunks_exact(size_of::<Listed>());
    let mut damaged = usize::from(!records.remainder().is_empty());
    for record in records {
        match row(record, proto, netns) {
            Some(row) => rows.push(row),
            None => damaged += 1,
        }
    }
    rows.sort_by_key(|row| row.mapped || row.local.ip.is_ipv6());
    (rows, damaged)
}

/// Descriptors, each with the inode of what it holds.
pub(super) fn held(bytes: &[u8]) -> impl Iterator<Item = (u64, Holder)> {
    bytes.chunks_exact(size_of::<Held>()).filter_map(|record| {
        let inode = u64::from_ne_bytes(array(record, offset_of!(Held, inode))?);
        let pid = u32::from_ne_bytes(array(record, offset_of!(Held, tgid))?);
        Some((inode, Holder { pid, fd: u32::from_ne_bytes(array(record, offset_of!(Held, fd))?) }))
    })
}

fn array<const N: usize>(record: &[u8], offset: usize) -> Option<[u8; N]> {
    record.get(offset..offset.checked_add(N)?)?.try_into().ok()
}

fn row(record: &[u8], proto: Proto, netns: u32) -> Option<SocketRow> {
    let at = |offset: usize| offset_of!(Listed, sock) + offset;
    let u16_at = |offset| Some(u16::from_ne_bytes(array(record, offset)?));
    let u32_at = |offset| Some(u32::from_ne_bytes(array(record, offset)?));
    let u64_at = |offset| Some(u64::from_ne_bytes(array(record, offset)?));
    let family = u16_at(at(offset_of!(Sock, family)))?;
    let address = |offset| {
        let octets: [u8; 16] = array(record, at(offset))?;
        match (family, octets) {
            (AF_INET, [a, b, c, d, ..]) => Some(IpAddr::from(Ipv4Addr::new(a, b, c, d))),
            (AF_INET6, octets) => Some(Ipv6Addr::from(octets).into()),
            _ => None,
        }
    };
    let (local_ip, local_mapped) = unmap(address(offset_of!(Sock, local))?);
    let (remote_ip, remote_mapped) = unmap(address(offset_of!(Sock, remote))?);
    let remote_port = u16_at(at(offset_of!(Sock, remote_port)))?;
    let [state] = array(record, offset_of!(Listed, state))?;
    let [flags] = array(record, offset_of!(Listed, flags))?;
    let state = State::from_kernel(state);
    let connected = state != State::Listen && (remote_port != 0 || !remote_ip.is_unspecified());
    // sock_diag tells it of IPv6 listeners, and of what is not connected.
    let tells_v6only = family == AF_INET6 && matches!(state, State::Listen | State::Close);
    // See `sockets::bytes`.
    let fin = matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
    let inode = u64_at(at(offset_of!(Sock, inode)))?;
    let bytes = Bytes {
        sent: u64_at(offset_of!(Listed, sent))?,
        received: u64_at(offset_of!(Listed, received))?.saturating_sub(fin.into()),
    };
    let whole = proto == Proto::Tcp && connected && !matches!(state, State::TimeWait | State::SynRecv);
    Some(SocketRow {
        proto,
        family: Family::of(local_ip),
        mapped: local_mapped || (connected && remote_mapped),
        netns,
        cookie: u64_at(at(offset_of!(Sock, cookie)))?,
        inode,
        uid: u32_at(offset_of!(Listed, uid))?,
        local: Endpoint { ip: local_ip, port: u16_at(at(offset_of!(Sock, local_port)))? },
        remote: connected.then_some(Endpoint { ip: remote_ip, port: remote_port }),
        state,
        recv_q: u32_at(offset_of!(Listed, recv_queue))?,
        send_q: u32_at(offset_of!(Listed, send_queue))?,
        v6only: tells_v6only.then_some(flags & listed_flags::V6ONLY != 0),
        subflow: flags & listed_flags::SUBFLOW != 0,
        mptcp: false,
        bytes: whole.then_some(bytes),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_rows_or_damage(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let (rows, damaged) = rows(&bytes, Proto::Tcp, 1);
            let whole = bytes.len() / size_of::<Listed>();
            prop_assert!(rows.len() <= whole && rows.len() + damaged >= whole);
            prop_assert_eq!(held(&bytes).count(), bytes.len() / size_of::<Held>());
        }
    }
}
