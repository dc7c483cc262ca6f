//! Decodes the output of iterators: sockets, descriptors and processes.

use std::mem::offset_of;

use netwatch_common::{Held, Listed, Running, listed_flags};

use super::{Bytes, DecodeError, sock};
use crate::model::{
    Family, Holder, Nat, NetnsId, Payload, ProcessKey, Proto, Socket, SocketRow, State, is_connected,
};

/// Rows of `proto` in namespace `netns`, IPv4 first, and the number of records that could not be decoded.
pub(crate) fn rows(bytes: &[u8], proto: Proto, netns: NetnsId) -> (Vec<SocketRow>, usize) {
    let mut rows = Vec::with_capacity(bytes.len() / size_of::<Listed>());
    let records = bytes.chunks_exact(size_of::<Listed>());
    let mut damaged = usize::from(!records.remainder().is_empty());
    for record in records {
        match row(Bytes(record), proto, netns) {
            Ok(row) => rows.push(row),
            Err(error) => {
                log::debug!("{error}");
                damaged += 1;
            }
        }
    }
    rows.sort_by_key(|row| row.is_on_ipv6());
    (rows, damaged)
}

/// Descriptors, each with the inode number of its socket.
pub(crate) fn held(bytes: &[u8]) -> impl Iterator<Item = (u64, Holder)> {
    bytes.chunks_exact(size_of::<Held>()).filter_map(|record| {
        let record = Bytes(record);
        let pid = record.u32(offset_of!(Held, tgid)).ok()?;
        let fd = record.u32(offset_of!(Held, fd)).ok()?;
        Some((record.u64(offset_of!(Held, inode)).ok()?, Holder { pid, fd }))
    })
}

/// Processes, with their exact starts.
pub(crate) fn running(bytes: &[u8]) -> impl Iterator<Item = ProcessKey> {
    bytes.chunks_exact(size_of::<Running>()).filter_map(|record| {
        let record = Bytes(record);
        let pid = record.u32(offset_of!(Running, tgid)).ok()?;
        Some(ProcessKey::new(pid, record.time(offset_of!(Running, start)).ok()?))
    })
}

fn row(record: Bytes<'_>, proto: Proto, netns: NetnsId) -> Result<SocketRow, DecodeError> {
    let socket = sock::socket(record, offset_of!(Listed, sock))?;
    let flags = record.u8(offset_of!(Listed, flags))?;
    let state = State::from_kernel(record.u8(offset_of!(Listed, state))?);
    let connected = is_connected(state, socket.remote());
    let counted = proto == Proto::Tcp && connected && !matches!(state, State::TimeWait | State::SynRecv);
    let (sent, received) = (record.u64(offset_of!(Listed, sent))?, record.u64(offset_of!(Listed, received))?);
    let row = SocketRow {
        socket: Socket {
            netns,
            proto,
            family: Family::of(socket.local.ip),
            // Iterators do not report how the socket was created.
            via: None,
            remote: connected.then_some(socket.remote()),
            ..socket.socket
        },
        uid: record.u32(offset_of!(Listed, uid))?,
        state,
        recv_q: record.u32(offset_of!(Listed, recv_queue))?,
        send_q: record.u32(offset_of!(Listed, send_queue))?,
        v6only: None,
        reuseport: Some(flags & listed_flags::REUSEPORT != 0),
        kernel: Some(flags & listed_flags::KERNEL != 0),
        subflow: flags & listed_flags::SUBFLOW != 0,
        nat: Nat::Unknown,
        bytes: counted.then(|| Payload::without_fin(sent, received, state)),
    };
    // Reported for listening and unconnected IPv6 sockets, as by sock_diag.
    let tells_v6only = row.is_on_ipv6() && matches!(state, State::Listen | State::Close);
    let v6only = flags & listed_flags::V6ONLY != 0;
    Ok(SocketRow { v6only: tells_v6only.then_some(v6only), ..row })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_bytes_are_rows_or_damage(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
            let (rows, damaged) = rows(&bytes, Proto::Tcp, NetnsId::new(1));
            let whole = bytes.len() / size_of::<Listed>();
            prop_assert!(rows.len() <= whole && rows.len() + damaged >= whole);
            prop_assert_eq!(held(&bytes).count(), bytes.len() / size_of::<Held>());
            prop_assert_eq!(running(&bytes).count(), bytes.len() / size_of::<Running>());
        }
    }
}
