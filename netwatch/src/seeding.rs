//! Infers the originator of each connection from one snapshot: by the states of both endpoints, listeners, and finally
//! port numbers. Pure; used by `list` and for the seeds of the tracker.

use crate::hash::Map;
use crate::listeners::{Listeners, Listening};
use crate::model::{NetnsId, Proto, SocketRow, State};
use crate::origin::{Basis, Confidence, Side, Verdict, by_port_range};
use crate::pairs::Pairs;

/// The result for one row; other rows are given by index.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inferred {
    /// Side, basis and confidence.
    pub verdict: Verdict,
    /// The originator's endpoint, if it is on this host.
    pub initiator: Option<usize>,
    /// The peer endpoint, if it is on this host.
    pub peer: Option<usize>,
    /// The listener that owns the local address, if the connection was made to it.
    pub listener: Option<usize>,
}

/// One result per row; `None` for listeners and unconnected UDP. `port_ranges` has the `ip_local_port_range` of each
/// namespace.
#[must_use]
pub fn infer(rows: &[SocketRow], port_ranges: &Map<NetnsId, (u16, u16)>) -> Vec<Option<Inferred>> {
    let index = Index::new(rows);
    rows.iter()
        .enumerate()
        .map(|(own, row)| {
            let remote = row.remote?;
            let (local, there) = row.nat.seen(row.local, remote);
            let peer = index.pairs.peer(row.netns, row.proto, local, there);
            let (here, there) = (index.alone(row), peer.and_then(|peer| index.alone(rows.get(peer)?)));
            // That the peer connected does not prove that this endpoint did not.
            let there = there.filter(|_| !index.may_be_of_two(row));
            let verdict = settle(here, there).unwrap_or_else(|| {
                port_ranges
                    .get(&row.netns)
                    .and_then(|range| by_port_range(row.local.port, remote.port, *range))
                    .map_or(Verdict::UNKNOWN, Verdict::port_range)
            });
            let initiator = match verdict.side {
                Side::Local | Side::Both => Some(own),
                Side::Remote => peer,
                Side::Unknown => None,
            };
            let listener = index.listener(row).filter(|_| verdict.side == Side::Remote);
            Some(Inferred { verdict, initiator, peer, listener })
        })
        .collect()
}

/// Joins the inferences of both endpoints; the better basis wins. If both have a listener they contradict each other
/// and the result is unknown: ports are not used then. `None` if neither has an inference.
fn settle(here: Option<Verdict>, there: Option<Verdict>) -> Option<Verdict> {
    match (here, there.and_then(Verdict::from_peer)) {
        (Some(Verdict { basis: Basis::Listener, .. }), Some(peer))
            if peer.confidence == Confidence::Inferred =>
        {
            Some(Verdict::UNKNOWN)
        }
        (Some(here), Some(peer)) => Some(if peer.basis < here.basis { peer } else { here }),
        (here, peer) => here.or(peer),
    }
}

struct Index {
    /// Listeners and unconnected datagram sockets.
    listeners: Listeners<usize>,
    pairs: Pairs<usize>,
}

impl Index {
    fn new(rows: &[SocketRow]) -> Self {
        let mut index = Self { listeners: Listeners::default(), pairs: Pairs::default() };
        for (i, row) in rows.iter().enumerate() {
            match row.remote {
                Some(remote) => {
                    index.pairs.insert(row.netns, row.proto, row.local, remote, i);
                    if let Some(translation) = row.nat.translation() {
                        index.pairs.insert(row.netns, row.proto, translation.local, translation.remote, i);
                    }
                }
                None => index.listeners.insert(Listening::of(row), i),
            }
        }
        index
    }

    fn listener(&self, row: &SocketRow) -> Option<usize> {
        self.listeners.find(row.netns, row.proto, row.local).copied()
    }

    /// A socket with an inode in SYN_RECV and without a listener is in a simultaneous open, or a TCP Fast Open
    /// connection whose listener is gone; a snapshot cannot tell which.
    fn may_be_of_two(&self, row: &SocketRow) -> bool {
        row.proto == Proto::Tcp
            && row.state == State::SynRecv
            && row.inode != 0
            && !self.listeners.owned(row.netns, row.proto, row.local)
    }

    /// What an endpoint implies without its peer.
    fn alone(&self, row: &SocketRow) -> Option<Verdict> {
        if row.remote == Some(row.local) {
            return Some(match row.proto {
                // It received its own SYN, which only happens in a simultaneous open.
                Proto::Tcp => Verdict::handshake(Side::Both),
                _ => Verdict { side: Side::Both, basis: Basis::Peer, confidence: Confidence::Inferred },
            });
        }
        let listened = self.listeners.owned(row.netns, row.proto, row.local);
        Verdict::from_state(row.state)
            .filter(|_| row.proto == Proto::Tcp && !self.may_be_of_two(row))
            .or(listened.then_some(Verdict::LISTENER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::at;
    use crate::model::tests::example;
    use crate::model::{Family, Socket};

    const RANGE: (u16, u16) = (32768, 60999);

    fn socket(netns: NetnsId, state: State, local: &str, remote: &str) -> SocketRow {
        SocketRow {
            socket: Socket {
                family: Family::of(at(local).ip),
                netns,
                cookie: None,
                local: at(local),
                remote: (!remote.is_empty()).then(|| at(remote)),
                ..example().socket
            },
            state,
            ..example()
        }
    }

    fn tcp(local: &str, remote: &str) -> SocketRow {
        socket(NetnsId::new(1), State::Established, local, remote)
    }

    fn listen(local: &str) -> SocketRow {
        socket(NetnsId::new(1), State::Listen, local, "")
    }

    fn udp(local: &str, remote: &str) -> SocketRow {
        let state = if remote.is_empty() { State::Close } else { State::Established };
        let mut row = socket(NetnsId::new(1), state, local, remote);
        row.socket.proto = Proto::Udp;
        row
    }

    /// Side and basis of each row, and the index of the originator.
    fn reported(rows: &[SocketRow]) -> Vec<String> {
        let found = infer(rows, &Map::from_iter([(NetnsId::new(1), RANGE), (NetnsId::new(2), RANGE)]));
        found
            .into_iter()
            .map(|found| {
                found.map_or("-".into(), |Inferred { verdict, initiator, .. }| {
                    let (side, basis) = (verdict.side.name(), verdict.basis.name());
                    let confidence = verdict.confidence.name();
                    match initiator {
                        Some(i) => format!("{side} {basis} {confidence} {i}"),
                        None => format!("{side} {basis} {confidence}"),
                    }
                })
            })
            .collect()
    }

    #[test]
    fn two_endpoints_and_a_listener() {
        // High ports on both sides, and the client's is the lower: the port rule fails.
        let rows = [
            listen("0.0.0.0:6000"),
            tcp("10.0.0.1:6000", "10.0.0.1:2000"),
            tcp("10.0.0.1:2000", "10.0.0.1:6000"),
        ];
        assert_eq!(reported(&rows), ["-", "remote listener inferred 2", "local peer inferred 2"]);
        let found = infer(&rows, &Map::default());
        let others = |i: usize| found[i].map(|found| (found.peer, found.listener));
        assert_eq!([others(1), others(2)], [Some((Some(2), Some(0))), Some((Some(1), None))]);
    }

    #[test]
    fn a_peer_that_is_elsewhere_is_not_named() {
        let rows = [listen("[::]:6000"), tcp("10.0.0.1:6000", "10.0.0.9:2000")];
        assert_eq!(reported(&rows), ["-", "remote listener inferred"]);
        let mut v6only = rows;
        v6only[0].v6only = Some(true);
        assert_eq!(reported(&v6only), ["-", "unknown none unknown"]);
    }

    #[test]
    fn two_listeners_are_no_answer() {
        let rows = [
            listen("0.0.0.0:5000"),
            listen("0.0.0.0:40000"),
            tcp("10.0.0.1:5000", "10.0.0.1:40000"),
            tcp("10.0.0.1:40000", "10.0.0.1:5000"),
        ];
        assert_eq!(reported(&rows)[2..], ["unknown none unknown", "unknown none unknown"]);
    }

    #[test]
    fn states_prove() {
        let rows = [
            listen("0.0.0.0:5000"),
            socket(NetnsId::new(1), State::SynSent, "10.0.0.1:40000", "10.0.0.9:80"),
            socket(NetnsId::new(1), State::SynRecv, "10.0.0.1:5000", "10.0.0.9:80"),
            // Bound to the port of a listener (SO_REUSEPORT), and still the originator.
            socket(NetnsId::new(1), State::SynSent, "10.0.0.1:5000", "10.0.0.9:81"),
        ];
        assert_eq!(
            reported(&rows)[1..],
            ["local handshake observed 1", "remote handshake observed", "local handshake observed 3"]
        );
    }

    #[test]
    fn state_of_the_peer_beats_a_listener() {
        let rows = [
            listen("0.0.0.0:5000"),
            tcp("10.0.0.1:5000", "10.0.0.1:40000"),
            socket(NetnsId::new(1), State::SynSent, "10.0.0.1:40000", "10.0.0.1:5000"),
        ];
        assert_eq!(reported(&rows)[1..], ["remote peer observed 2", "local handshake observed 2"]);
    }

    #[test]
    fn endpoint_of_a_simultaneous_connect_is_not_accepted() {
        let mut rows = [socket(NetnsId::new(1), State::SynRecv, "10.0.0.1:40000", "10.0.0.9:40001")];
        assert_eq!(reported(&rows), ["unknown none unknown"]);
        rows[0].inode = 0;
        assert_eq!(reported(&rows), ["remote handshake observed"]);
        // Nor if the other endpoint is known too.
        let rows = [
            socket(NetnsId::new(1), State::SynRecv, "10.0.0.1:40000", "10.0.0.9:40001"),
            socket(NetnsId::new(1), State::SynSent, "10.0.0.9:40001", "10.0.0.1:40000"),
        ];
        assert_eq!(reported(&rows), ["unknown none unknown", "local handshake observed 1"]);
    }

    #[test]
    fn a_socket_that_met_itself() {
        assert_eq!(reported(&[tcp("127.0.0.1:4000", "127.0.0.1:4000")]), ["both handshake observed 0"]);
        assert_eq!(reported(&[udp("127.0.0.1:4000", "127.0.0.1:4000")]), ["both peer inferred 0"]);
    }

    #[test]
    fn ports_come_last() {
        let rows = [
            tcp("10.0.0.1:40000", "10.0.0.9:6000"),
            tcp("10.0.0.1:6000", "10.0.0.9:40000"),
            tcp("10.0.0.1:40000", "10.0.0.9:40001"),
            tcp("10.0.0.1:2000", "10.0.0.9:80"),
        ];
        assert_eq!(
            reported(&rows),
            [
                "local port-range guessed 0",
                "remote port-range guessed",
                "unknown none unknown",
                "local port-range guessed 3"
            ]
        );
        // The range is the namespace's own.
        assert_eq!(
            infer(&rows, &Map::from_iter([(NetnsId::new(1), (2000, 6500))]))[0].unwrap().verdict,
            Verdict::port_range(Side::Remote)
        );
        assert_eq!(infer(&rows, &Map::default())[0].unwrap().verdict, Verdict::UNKNOWN);
    }

    #[test]
    fn peers_in_another_namespace() {
        let server = |netns| {
            [
                socket(netns, State::Listen, "10.0.0.2:6000", ""),
                socket(netns, State::Established, "10.0.0.2:6000", "10.0.0.1:2000"),
            ]
        };
        let client = tcp("10.0.0.1:2000", "10.0.0.2:6000");
        let mut rows = vec![client.clone()];
        rows.extend(server(NetnsId::new(2)));
        assert_eq!(reported(&rows), ["local peer inferred 0", "-", "remote listener inferred 0"]);
        // Two match: it is unknown which is the peer.
        rows.extend(server(NetnsId::new(3)));
        assert_eq!(reported(&rows)[0], "unknown none unknown");
        // Loopback does not lead out of a namespace.
        let rows = [
            tcp("127.0.0.1:2000", "127.0.0.1:6000"),
            socket(NetnsId::new(2), State::Listen, "127.0.0.1:6000", ""),
            socket(NetnsId::new(2), State::Established, "127.0.0.1:6000", "127.0.0.1:2000"),
        ];
        assert_eq!(reported(&rows), ["unknown none unknown", "-", "remote listener inferred"]);
    }

    #[test]
    fn udp_has_servers_too() {
        // A server that connects a socket to each client, besides its own.
        let rows = [
            udp("0.0.0.0:5000", ""),
            udp("10.0.0.1:5000", "10.0.0.1:2000"),
            udp("10.0.0.1:2000", "10.0.0.1:5000"),
        ];
        assert_eq!(reported(&rows), ["-", "remote listener inferred 2", "local peer inferred 2"]);
        let found = infer(&rows, &Map::default());
        let others = |i: usize| found[i].map(|found| (found.peer, found.listener));
        assert_eq!([others(1), others(2)], [Some((Some(2), Some(0))), Some((Some(1), None))]);
        // TCP listeners do not concern UDP.
        let rows = [listen("0.0.0.0:5000"), udp("10.0.0.1:5000", "10.0.0.1:2000")];
        assert_eq!(reported(&rows)[1], "unknown none unknown");
    }
}
