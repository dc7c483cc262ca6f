//! TCP and UDP sockets as `sock_diag` lists them, of one network namespace or of all.

use std::collections::{HashMap, HashSet};
use std::io;

use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::nlas::Nla;
use netlink_packet_sock_diag::inet::{ExtensionFlags, InetResponse};

use super::netlink::SockDiag;
use super::netns::{self, Netns};
use super::{Bytes, Note, Scope, SnapshotError, SocketRow};
use crate::model::{Endpoint, Family, Proto, State, unmap};

/// What is asked for, in netstat's order.
const DUMPS: [(&str, u8, u8, Proto); 4] = [
    ("tcp", AF_INET, IPPROTO_TCP, Proto::Tcp),
    ("tcp6", AF_INET6, IPPROTO_TCP, Proto::Tcp),
    ("udp", AF_INET, IPPROTO_UDP, Proto::Udp),
    ("udp6", AF_INET6, IPPROTO_UDP, Proto::Udp),
];

/// Sockets, and what could not be seen of them.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    /// See [`super::Snapshot::sockets`].
    pub rows: Vec<SocketRow>,
    /// See [`super::Snapshot::port_ranges`].
    pub port_ranges: HashMap<u32, (u16, u16)>,
    /// One for each namespace or kind of socket that could not be listed.
    pub notes: Vec<Note>,
}

/// Lists them.
///
/// # Errors
/// Where not even one kind of socket could be listed in any namespace.
pub fn sockets(scope: Scope) -> Result<Sockets, SnapshotError> {
    let mut all = Sockets::default();
    let mut failure = None;
    match scope {
        Scope::OwnNetns => {
            let own = netns::own()
                .map_err(|source| SnapshotError::Proc { path: "/proc/thread-self/ns/net", source })?;
            all.add(own, look(own), &mut failure);
        }
        Scope::AllNetns => {
            let looks = netns::inside_each(&netns::all()?, |Netns { inum, .. }, entered| {
                (*inum, entered.and_then(|()| look(*inum)))
            });
            for (inum, look) in looks.map_err(SnapshotError::Thread)? {
                all.add(inum, look, &mut failure);
            }
        }
    }
    match failure {
        Some(failure) if all.port_ranges.is_empty() && all.rows.is_empty() => {
            Err(SnapshotError::SockDiag(failure))
        }
        _ => Ok(all),
    }
}

impl Sockets {
    fn add(&mut self, netns: u32, look: io::Result<Look>, failure: &mut Option<io::Error>) {
        match look {
            Ok(look) => {
                self.rows.extend(look.rows);
                self.notes.extend(look.notes);
                self.port_ranges.extend(look.port_range.map(|range| (netns, range)));
            }
            // It ended while we looked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.notes.push(note(netns, error.to_string()));
                *failure = Some(error);
            }
        }
    }
}

fn note(netns: u32, text: String) -> Note {
    Note { netns: Some(netns), text }
}

/// One namespace.
struct Look {
    rows: Vec<SocketRow>,
    port_range: Option<(u16, u16)>,
    notes: Vec<Note>,
}

/// Looks into the namespace that the calling thread is in.
fn look(netns: u32) -> io::Result<Look> {
    let mut look = Look { rows: Vec::new(), port_range: netns::port_range(), notes: Vec::new() };
    let mut failure = None;
    for (name, family, protocol, proto) in DUMPS {
        // A socket each: what is left of a failed dump must not meet the next one.
        let extensions = if proto == Proto::Tcp { ExtensionFlags::INFO } else { ExtensionFlags::empty() };
        let dump = match SockDiag::open().and_then(|mut diag| diag.dump(family, protocol, extensions)) {
            Ok(dump) => dump,
            Err(error) => {
                look.notes.push(note(netns, format!("{name} sockets: {error}")));
                failure = Some(error);
                continue;
            }
        };
        // A socket that moved to another bucket meanwhile (to TIME_WAIT, say) may come twice.
        let mut seen = HashSet::with_capacity(dump.responses.len());
        for response in &dump.responses {
            let row = row(netns, proto, response);
            if seen.insert(row.cookie) {
                look.rows.push(row);
            }
        }
        if dump.damaged > 0 {
            look.notes.push(note(netns, format!("{} answers on {name} made no sense", dump.damaged)));
        }
        if dump.interrupted {
            look.notes.push(note(netns, format!("{name} sockets changed while being listed")));
        }
    }
    match failure {
        Some(failure) if look.notes.len() >= DUMPS.len() && look.rows.is_empty() => Err(failure),
        _ => Ok(look),
    }
}

fn row(netns: u32, proto: Proto, response: &InetResponse) -> SocketRow {
    let header = &response.header;
    let id = &header.socket_id;
    let (local_ip, local_mapped) = unmap(id.source_address);
    let (remote_ip, remote_mapped) = unmap(id.destination_address);
    let state = State::from_kernel(header.state);
    // UDP can be connected to an address without a port (ip4_datagram_connect in net/ipv4/datagram.c).
    let connected = state != State::Listen && (id.destination_port != 0 || !remote_ip.is_unspecified());
    let mapped = local_mapped || (connected && remote_mapped);
    let mut row = SocketRow {
        proto,
        family: Family::of(local_ip),
        mapped,
        netns,
        // Two halves, the lower first: sock_diag_save_cookie in net/core/sock_diag.c.
        cookie: u64::from_le_bytes(id.cookie),
        inode: header.inode.into(),
        uid: header.uid,
        local: Endpoint { ip: local_ip, port: id.source_port },
        remote: connected.then_some(Endpoint { ip: remote_ip, port: id.destination_port }),
        state,
        recv_q: header.recv_queue,
        send_q: header.send_queue,
        v6only: None,
        bytes: None,
    };
    for attribute in &response.nlas {
        match attribute {
            Nla::SkV6Only(v6only) => row.v6only = Some(*v6only),
            Nla::TcpInfo(info) if connected => row.bytes = bytes(info, state),
            _ => {}
        }
    }
    row
}

/// Offsets in `struct tcp_info` of include/uapi/linux/tcp.h, which only ever grows at its end.
const TCPI_BYTES_RECEIVED: usize = 128;
const TCPI_BYTES_SENT: usize = 200;
const TCPI_BYTES_RETRANS: usize = 208;

/// Payload, from a `struct tcp_info` as long as the running kernel makes it (`bytes_sent` since 4.19).
fn bytes(info: &[u8], state: State) -> Option<Bytes> {
    let number = |offset: usize| Some(u64::from_ne_bytes(info.get(offset..offset + 8)?.try_into().ok()?));
    // The peer's FIN is counted once it came (tcp_fin in net/ipv4/tcp_input.c takes a sequence number).
    // Which of these states had it: all that follow it.
    let fin = matches!(state, State::CloseWait | State::LastAck | State::Closing | State::TimeWait);
    Some(Bytes {
        sent: number(TCPI_BYTES_SENT)?.saturating_sub(number(TCPI_BYTES_RETRANS)?),
        received: number(TCPI_BYTES_RECEIVED)?.saturating_sub(fin.into()),
    })
}
