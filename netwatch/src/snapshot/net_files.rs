//! Sockets as the files in `/proc/net` list them, which netstat reads. Used for raw and packet sockets, and as a view
//! to compare with the others.

use std::io;
use std::net::SocketAddr;

use procfs::FromBufReadSI;
use procfs::net::{TcpNetEntries, TcpNetEntry};

use super::netns::{self, Netns};
use super::{Note, SnapshotError, parse};
use crate::model::{
    Family, Nat, NetnsId, Proto, RawKind, RawRow, SockAddr, Socket, SocketRow, State, Timers, is_connected,
    unmap,
};
use crate::proc::Mounts;
use crate::{bounded, limits};

/// Sockets, and notes about files that could not be read.
#[derive(Clone, Debug, Default)]
pub struct NetFiles {
    /// TCP and UDP sockets. The files have neither cookies nor attributes of only one family or protocol.
    pub rows: Vec<SocketRow>,
    /// Raw and packet sockets.
    pub raw: Vec<RawRow>,
    /// Files that could not be read, one line each.
    pub notes: Vec<Note>,
    /// Namespaces in which all TCP and UDP files were read.
    pub whole: Vec<NetnsId>,
}

/// Reads the files in every network namespace that can be entered. Protocols that the kernel lacks are skipped.
///
/// # Errors
/// If the namespaces cannot be listed, or no thread can be started.
pub fn net_files(mounts: &Mounts) -> Result<NetFiles, SnapshotError> {
    let readings = netns::inside_each(&netns::among(mounts)?, |Netns { inum, .. }, entered| {
        let mut found = NetFiles::default();
        match entered {
            Ok(()) => found.read(*inum),
            // The namespace ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => found.note(*inum, error.to_string()),
        }
        found
    });
    let mut all = NetFiles::default();
    for reading in readings.map_err(SnapshotError::Thread)? {
        all.rows.extend(reading.rows);
        all.raw.extend(reading.raw);
        all.notes.extend(reading.notes);
        all.whole.extend(reading.whole);
    }
    Ok(all)
}

/// Raw sockets in one network namespace, or in all that can be entered. What cannot be read is left out.
///
/// # Errors
/// If the namespaces cannot be listed, or no thread can be started.
pub fn raw_sockets(only: Option<NetnsId>) -> Result<Vec<SocketRow>, SnapshotError> {
    in_each(only, ["raw", "raw6"], |netns, bytes| {
        let rows = entries(bytes).unwrap_or_default();
        // The protocol is in the place of the port (net/ipv4/raw.c, raw_sock_seq_show(), v6.12).
        let proto =
            |entry: &TcpNetEntry| Proto::of_raw(u8::try_from(entry.local_address.port()).unwrap_or(u8::MAX));
        rows.iter().map(|entry| row(proto(entry), netns, entry)).collect()
    })
}

/// Inode numbers of the packet sockets in the network namespace of the calling thread. None if they cannot be read.
pub(super) fn packets() -> Vec<u64> {
    let file = bounded::whole("/proc/thread-self/net/packet", limits::NET_FILE).unwrap_or_default();
    parse::packets(&file).into_iter().map(|(_, _, inode)| inode).collect()
}

/// Timers of TCP sockets, as [`raw_sockets`].
///
/// # Errors
/// As [`raw_sockets`].
pub fn timers(only: Option<NetnsId>) -> Result<Timers, SnapshotError> {
    let timers = in_each(only, ["tcp", "tcp6"], |netns, bytes| {
        let lines = bytes.split(|byte| *byte == b'\n').skip(1).filter_map(parse::timer);
        let rows = entries(bytes).unwrap_or_default();
        let rows = rows.iter().map(|entry| row(Proto::Tcp, netns, entry));
        rows.zip(lines).map(|(row, timer)| ((netns, row.local, row.remote, row.inode), timer)).collect()
    });
    Ok(timers?.into_iter().collect())
}

/// What `parse` finds in these files of each network namespace.
fn in_each<T: Send>(
    only: Option<NetnsId>,
    files: [&str; 2],
    parse: impl Fn(NetnsId, &[u8]) -> Vec<T> + Send + Sync,
) -> Result<Vec<T>, SnapshotError> {
    let mut namespaces = netns::all()?;
    namespaces.retain(|namespace| only.is_none_or(|only| only == namespace.inum));
    let found = netns::inside_each(&namespaces, |Netns { inum, .. }, entered| {
        if entered.is_err() {
            return Vec::new();
        }
        let read =
            |name: &str| bounded::whole(format!("/proc/thread-self/net/{name}"), limits::NET_FILE).ok();
        files.into_iter().filter_map(read).flat_map(|bytes| parse(*inum, &bytes)).collect::<Vec<_>>()
    });
    Ok(found.map_err(SnapshotError::Thread)?.into_iter().flatten().collect())
}

impl NetFiles {
    /// Reads the files of the network namespace of the calling thread.
    fn read(&mut self, netns: NetnsId) {
        let mut whole = true;
        for (name, proto) in FILES {
            whole &= self.file(netns, name, |found, bytes| {
                found.rows.extend(entries(bytes)?.into_iter().map(|entry| row(proto, netns, &entry)));
                Ok(())
            });
        }
        for name in ["raw", "raw6"] {
            self.file(netns, name, |found, bytes| {
                // The protocol is in the place of the port (net/ipv4/raw.c, raw_sock_seq_show(), v6.12).
                found.raw.extend(entries(bytes)?.into_iter().map(|entry| RawRow {
                    kind: RawKind::Raw(entry.local_address.port()),
                    netns,
                    inode: entry.inode,
                    uid: entry.uid,
                }));
                Ok(())
            });
        }
        self.file(netns, "packet", |found, bytes| {
            found.raw.extend(parse::packets(bytes).into_iter().map(|(protocol, uid, inode)| RawRow {
                kind: RawKind::Packet(protocol),
                netns,
                inode,
                uid,
            }));
            Ok(())
        });
        if whole {
            self.whole.push(netns);
        }
    }

    /// Returns whether the file was read or does not exist.
    fn file(
        &mut self,
        netns: NetnsId,
        name: &str,
        take: impl FnOnce(&mut Self, &[u8]) -> Result<(), String>,
    ) -> bool {
        let taken = match bounded::whole(format!("/proc/thread-self/net/{name}"), limits::NET_FILE) {
            Ok(bytes) => take(self, &bytes),
            // For example without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound => return true,
            Err(error) => Err(error.to_string()),
        };
        if let Err(why) = &taken {
            self.note(netns, format!("/proc/net/{name}: {why}"));
        }
        taken.is_ok()
    }

    fn note(&mut self, netns: NetnsId, text: String) {
        self.notes.push(Note { netns: Some(netns), text, hides: false });
    }
}

const FILES: [(&str, Proto); 4] =
    [("tcp", Proto::Tcp), ("tcp6", Proto::Tcp), ("udp", Proto::Udp), ("udp6", Proto::Udp)];

/// Parses any of these files. Those of UDP and raw sockets have the columns of TCP and further ones, and two of its
/// states (net/ipv4/udp.c, udp4_format_sock(), v6.12).
fn entries(bytes: &[u8]) -> Result<Vec<TcpNetEntry>, String> {
    let entries = TcpNetEntries::from_buf_read(bytes, procfs::current_system_info());
    entries.map(|entries| entries.0).map_err(|error| error.to_string())
}

fn row(proto: Proto, netns: NetnsId, entry: &TcpNetEntry) -> SocketRow {
    let end = |address: SocketAddr| SockAddr { ip: unmap(address.ip()).0, port: address.port() };
    let (local, remote) = (end(entry.local_address), end(entry.remote_address));
    let state = State::from_kernel(entry.state.to_u8());
    SocketRow {
        socket: Socket {
            cookie: None,
            inode: entry.inode,
            netns,
            proto,
            family: Family::of(local.ip),
            mapped: unmap(entry.local_address.ip()).1,
            via: None,
            device: None,
            local,
            remote: is_connected(state, remote).then_some(remote),
        },
        uid: entry.uid,
        state,
        recv_q: entry.rx_queue,
        send_q: entry.tx_queue,
        v6only: None,
        kernel: None,
        reuseport: None,
        subflow: false,
        bytes: None,
        nat: Nat::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    fn rows_of(socket: &impl AsFd, all: &NetFiles) -> Vec<SocketRow> {
        let inode = nix::sys::stat::fstat(socket).unwrap().st_ino;
        all.rows.iter().filter(|row| row.inode == inode).cloned().collect()
    }

    fn end(address: SocketAddr) -> SockAddr {
        SockAddr { ip: address.ip(), port: address.port() }
    }

    #[test]
    fn own_sockets_are_listed_correctly() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let datagram = UdpSocket::bind("[::1]:0").unwrap();
        let mut all = NetFiles::default();
        all.read(netns::own().unwrap());
        assert_eq!((all.notes.len(), all.whole.len()), (0, 1));
        let uid = nix::unistd::geteuid().as_raw();

        let [row] = &rows_of(&listener, &all)[..] else { panic!() };
        assert_eq!((row.proto, row.state, row.uid), (Proto::Tcp, State::Listen, uid));
        assert_eq!((row.local, row.remote), (end(listener.local_addr().unwrap()), None));
        let [row] = &rows_of(&client, &all)[..] else { panic!() };
        assert_eq!((row.state, row.remote), (State::Established, Some(end(client.peer_addr().unwrap()))));
        let [row] = &rows_of(&datagram, &all)[..] else { panic!() };
        assert_eq!(
            (row.proto, row.local, row.remote),
            (Proto::Udp, end(datagram.local_addr().unwrap()), None)
        );
    }

    proptest! {
        #[test]
        fn no_file_panics(text in r"([0-9A-F]{0,8}:[0-9A-F]{0,4} |[0-9]{1,3}:? |\n){0,40}") {
            let _ = entries(text.as_bytes());
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = entries(&bytes);
        }
    }
}
