//! TCP and UDP sockets of one or all network namespaces, listed by the BPF iterators or `sock_diag`.

use std::io;

use netlink_packet_sock_diag::constants::{AF_INET, AF_INET6, IPPROTO_TCP, IPPROTO_UDP};
use netlink_packet_sock_diag::inet::ExtensionFlags;

use super::answer::row;
use super::netns::{self, Netns};
use super::sock_diag::SockDiag;
use super::{Note, Scope, SnapshotError, net_files};
use crate::decode::listed;
use crate::hash::{Map, Set};
use crate::model::{Lister, Listing, NetnsId, Proto, SocketRow, Via};

/// Name, family, protocol number, and protocol.
type Dump = (&'static str, u8, u16, Proto);

/// The dumps, in netstat's order.
const DUMPS: [Dump; 4] = [
    ("tcp", AF_INET, IPPROTO_TCP as u16, Proto::Tcp),
    ("tcp6", AF_INET6, IPPROTO_TCP as u16, Proto::Tcp),
    ("udp", AF_INET, IPPROTO_UDP as u16, Proto::Udp),
    ("udp6", AF_INET6, IPPROTO_UDP as u16, Proto::Udp),
];

/// `include/uapi/linux/in.h`
const IPPROTO_MPTCP: u16 = 262;

/// Families of MPTCP sockets. netstat does not list them, but their subflows.
const MPTCP: [u8; 2] = [AF_INET, AF_INET6];

/// Sockets, and notes about those that could not be listed.
#[derive(Clone, Debug, Default)]
pub struct Sockets {
    /// In the order of the kernel: by namespace, then TCP, TCP over IPv6, UDP, UDP over IPv6.
    pub rows: Vec<SocketRow>,
    /// `ip_local_port_range` of each namespace that was listed.
    pub port_ranges: Map<NetnsId, (u16, u16)>,
    /// Inode numbers of packet sockets; not for [`Mptcp::Subflows`].
    pub packets: Set<u64>,
    /// One for each namespace or kind of socket that could not be listed.
    pub notes: Vec<Note>,
    /// Namespaces in which an iterator failed, so that sock_diag was used.
    pub unlisted: Set<NetnsId>,
}

/// Whether to list MPTCP sockets as well as their subflows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mptcp {
    /// Only subflows, as netstat.
    Subflows,
    /// Also the MPTCP sockets that applications hold.
    Whole,
}

/// Lists them.
///
/// # Errors
/// If no kind of socket could be listed in any namespace.
pub fn sockets(
    scope: Scope<'_>,
    mptcp: Mptcp,
    lister: Option<&dyn Lister>,
) -> Result<Sockets, SnapshotError> {
    let mut all = Sockets::default();
    let mut failure = None;
    match scope {
        Scope::OwnNetns => {
            let own = netns::own()
                .map_err(|source| SnapshotError::Proc { path: "/proc/thread-self/ns/net", source })?;
            all.add(own, list(own, mptcp, lister), &mut failure);
        }
        Scope::AllNetns(mounts) => {
            let all_listed = netns::inside_each(&netns::among(mounts)?, |Netns { inum, .. }, entered| {
                (*inum, entered.and_then(|()| list(*inum, mptcp, lister)))
            });
            for (inum, listed) in all_listed.map_err(SnapshotError::Thread)? {
                all.add(inum, listed, &mut failure);
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
    fn add(&mut self, netns: NetnsId, listed: io::Result<Listed>, failure: &mut Option<io::Error>) {
        match listed {
            Ok(listed) => {
                self.rows.extend(listed.rows);
                self.notes.extend(listed.notes);
                self.unlisted.extend(listed.unlisted.then_some(netns));
                self.packets.extend(listed.packets);
                self.port_ranges.extend(listed.port_range.map(|range| (netns, range)));
            }
            // The namespace ended meanwhile.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => {
                self.notes.push(note(netns, error.to_string()));
                *failure = Some(error);
            }
        }
    }
}

fn note(netns: NetnsId, text: String) -> Note {
    Note { netns: Some(netns), text, hides: false }
}

/// The sockets of one namespace.
struct Listed {
    rows: Vec<SocketRow>,
    port_range: Option<(u16, u16)>,
    packets: Vec<u64>,
    notes: Vec<Note>,
    unlisted: bool,
}

/// Lists the sockets of the network namespace of the calling thread.
fn list(netns: NetnsId, mptcp: Mptcp, lister: Option<&dyn Lister>) -> io::Result<Listed> {
    let mut listed = Listed {
        rows: Vec::new(),
        port_range: netns::port_range(),
        packets: if mptcp == Mptcp::Whole { net_files::packets() } else { Vec::new() },
        notes: Vec::new(),
        unlisted: false,
    };
    let (_, udp) = DUMPS.split_at(DUMPS.len() / 2);
    let mut dumps = DUMPS.to_vec();
    if listed.lists(netns, lister, Listing::Tcp, Proto::Tcp) {
        dumps = udp.to_vec();
        // Not for Mptcp::Subflows: the iterator's order differs from netstat's (it walks the second hash table of UDP).
        if mptcp == Mptcp::Whole && listed.lists(netns, lister, Listing::Udp, Proto::Udp) {
            dumps.clear();
        }
    }
    let failure = listed.dump(netns, &dumps);
    for family in MPTCP.into_iter().filter(|_| mptcp == Mptcp::Whole) {
        // Not every kernel has MPTCP or its diagnostics.
        let dump = SockDiag::open()
            .and_then(|mut diag| diag.dump(family, IPPROTO_MPTCP, ExtensionFlags::empty()))
            .inspect_err(|error| log::debug!("mptcp sockets: {error}"));
        let rows = dump.iter().flat_map(|dump| &dump.responses);
        listed.rows.extend(rows.map(|response| {
            let mut row = row(netns, Proto::Tcp, response);
            row.socket.via = Some(Via::Mptcp);
            row
        }));
    }
    match failure {
        Some(failure) if listed.notes.len() >= dumps.len() && listed.rows.is_empty() => Err(failure),
        _ => Ok(listed),
    }
}

impl Listed {
    /// Lists by an iterator. Returns whether that worked; if not, nothing was added.
    fn lists(&mut self, netns: NetnsId, lister: Option<&dyn Lister>, what: Listing, proto: Proto) -> bool {
        let Some(lister) = lister else { return false };
        let bytes = match lister.list(what) {
            Ok(bytes) => bytes,
            Err(error) => {
                log::info!("{} sockets cannot be listed by an iterator: {error}", proto.name());
                self.unlisted = true;
                return false;
            }
        };
        let (rows, damaged) = listed::rows(&bytes, proto, netns);
        if damaged > 0 {
            self.notes.push(note(netns, format!("{damaged} {} records could not be decoded", proto.name())));
        }
        self.extend_once(rows);
        true
    }

    /// A socket that moves to another bucket meanwhile (to TIME_WAIT, for example) may be listed twice.
    fn extend_once(&mut self, rows: Vec<SocketRow>) {
        let mut seen = Set::with_capacity_and_hasher(rows.len(), Default::default());
        self.rows.extend(rows.into_iter().filter(|row| seen.insert(row.cookie)));
    }

    /// Lists by sock_diag. Returns the last error.
    fn dump(&mut self, netns: NetnsId, dumps: &[Dump]) -> Option<io::Error> {
        let mut failure = None;
        for &(name, family, protocol, proto) in dumps {
            // One netlink socket each, so that the rest of a failed dump is not read by the next one.
            let extensions = if proto == Proto::Tcp { ExtensionFlags::INFO } else { ExtensionFlags::empty() };
            let dump = match SockDiag::open().and_then(|mut diag| diag.dump(family, protocol, extensions)) {
                Ok(dump) => dump,
                Err(error) => {
                    self.notes.push(note(netns, format!("cannot list {name} sockets: {error}")));
                    failure = Some(error);
                    continue;
                }
            };
            self.extend_once(dump.responses.iter().map(|response| row(netns, proto, response)).collect());
            if dump.damaged > 0 {
                self.notes.push(note(
                    netns,
                    format!("{} answers about {name} sockets could not be decoded", dump.damaged),
                ));
            }
            if dump.interrupted {
                self.notes.push(note(netns, format!("{name} sockets changed while they were listed")));
            }
        }
        failure
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::{Shutdown, TcpListener, TcpStream, UdpSocket};
    use std::os::fd::{AsFd, AsRawFd as _};

    use super::*;
    use crate::model::Holder;
    use crate::model::{Cookie, Family, Payload, SockAddr, State};
    use crate::snapshot::holders;

    fn row_of(socket: &impl AsFd, rows: &[SocketRow]) -> SocketRow {
        let cookie = socket_cookie(socket);
        let mut found = rows.iter().filter(|row| row.cookie == cookie);
        let row = found.next().unwrap().clone();
        assert_eq!(found.next(), None);
        row
    }

    fn socket_cookie(socket: &impl AsFd) -> Option<Cookie> {
        let mut cookie = 0u64;
        let mut length = 8;
        // SAFETY: the pointers are valid for the length passed.
        let status = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_COOKIE,
                (&raw mut cookie).cast(),
                &raw mut length,
            )
        };
        assert_eq!(status, 0);
        Cookie::new(cookie)
    }

    fn inode(socket: &impl AsFd) -> u64 {
        nix::sys::stat::fstat(socket).unwrap().st_ino
    }

    fn end(address: std::net::SocketAddr) -> SockAddr {
        SockAddr { ip: address.ip(), port: address.port() }
    }

    #[test]
    fn own_sockets_are_listed_correctly() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.write_all(b"seven by").unwrap();
        server.read_exact(&mut [0; 5]).unwrap();
        let all = sockets(Scope::OwnNetns, Mptcp::Subflows, None).unwrap();
        assert_eq!(all.notes, []);

        let row = row_of(&client, &all.rows);
        assert_eq!((row.inode, row.netns), (inode(&client), netns::own().unwrap()));
        assert_eq!((row.proto, row.family, row.mapped), (Proto::Tcp, Family::Ipv4, false));
        assert_eq!(row.state, State::Established);
        assert_eq!(row.local, end(client.local_addr().unwrap()));
        assert_eq!(row.remote, Some(end(client.peer_addr().unwrap())));
        assert_eq!(row.uid, nix::unistd::geteuid().as_raw());
        assert_eq!(row.bytes, Some(Payload { sent: 8, received: 0 }));

        let row = row_of(&server, &all.rows);
        assert_eq!(row.bytes, Some(Payload { sent: 0, received: 8 }));
        assert_eq!(row.recv_q, 3);

        let row = row_of(&listener, &all.rows);
        assert_eq!((row.state, row.remote, row.bytes), (State::Listen, None, None));
        // The backlog that std requests, or somaxconn if that is less.
        assert!(row.send_q > 0 && row.recv_q == 0);

        // A FIN is no payload.
        client.shutdown(Shutdown::Write).unwrap();
        server.read_to_end(&mut Vec::new()).unwrap();
        let row = row_of(&server, &sockets(Scope::OwnNetns, Mptcp::Subflows, None).unwrap().rows);
        assert_eq!((row.state, row.bytes), (State::CloseWait, Some(Payload { sent: 0, received: 8 })));
    }

    #[test]
    fn a_mapped_connection_is_ipv4_and_comes_once() {
        let listener = TcpListener::bind("[::]:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = TcpStream::connect(("::ffff:127.0.0.1", port)).unwrap();
        let (server, _) = listener.accept().unwrap();
        let rows = sockets(Scope::OwnNetns, Mptcp::Subflows, None).unwrap().rows;
        for socket in [&client, &server] {
            let row = row_of(socket, &rows);
            assert_eq!((row.family, row.mapped), (Family::Ipv4, true));
            assert!(row.local.ip.is_ipv4() && row.remote.unwrap().ip.is_ipv4());
        }
        let row = row_of(&listener, &rows);
        assert_eq!((row.family, row.mapped, row.v6only), (Family::Ipv6, false, Some(false)));
    }

    #[test]
    fn udp_is_connected_or_not() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.connect(server.local_addr().unwrap()).unwrap();
        let rows = sockets(Scope::OwnNetns, Mptcp::Subflows, None).unwrap().rows;
        let row = row_of(&server, &rows);
        assert_eq!((row.state, row.remote), (State::Close, None));
        let row = row_of(&client, &rows);
        assert_eq!((row.state, row.remote), (State::Established, Some(end(server.local_addr().unwrap()))));
    }

    #[test]
    fn holders_are_listed() {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        let again = socket.try_clone().unwrap();
        let pid = std::process::id();
        let fd = |socket: &UdpSocket| socket.as_raw_fd().cast_unsigned();
        let mut expected = [Holder { pid, fd: fd(&socket) }, Holder { pid, fd: fd(&again) }];
        expected.sort_unstable();
        // Another test may fork meanwhile, and the child holds it until its exec.
        let all = holders::all(None).unwrap();
        let own: Vec<_> = all.of(inode(&socket)).iter().filter(|holder| holder.pid == pid).copied().collect();
        assert_eq!(own, expected);
        assert_eq!(all.of(0), []);
    }

    #[test]
    fn the_port_range_is_read() {
        let all = sockets(Scope::OwnNetns, Mptcp::Subflows, None).unwrap();
        let (low, high) = all.port_ranges[&netns::own().unwrap()];
        assert!(low < high);
    }
}
