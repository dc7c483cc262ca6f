//! The side that originated a connection, the basis of that verdict, and the rules that need no live record. Pure, so
//! that the tracker and a snapshot ([`crate::commands::list`]) give the same answers.
//!
//! Observations take precedence over inferences, and port numbers come last: see [`Basis`], which is ordered by trust.

use serde::Serialize;

use crate::model::{SockAddr, State};

/// The side that originated a connection, relative to the endpoint of the record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// The local side.
    Local,
    /// The remote side.
    Remote,
    /// Both: a simultaneous open, or a socket that connected to itself.
    Both,
    /// Unknown.
    Unknown,
}

impl Side {
    /// The same side as seen from the peer endpoint.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
            Self::Both => Self::Both,
            Self::Unknown => Self::Unknown,
        }
    }

    /// Name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::Both => "both",
            Self::Unknown => "unknown",
        }
    }
}

/// The basis of a [`Side`], in order of decreasing trust. The basis of a record never gets worse.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// The connecting process was observed.
    Connect,
    /// The accepting process was observed.
    Accept,
    /// A TCP state transition proves it; no process was observed.
    Handshake,
    /// The origin is known from the peer endpoint on this host.
    Peer,
    /// A listener owned the local address and port.
    Listener,
    /// Only the port numbers indicate it.
    PortRange,
    /// The first datagram after a UDP flow was idle for so long that it counts as ended: either side may have sent it.
    Idle,
    /// The kernel was made to restore a connection (`TCP_REPAIR`): nobody was observed to originate it.
    Repair,
    /// No evidence.
    None,
}

impl Basis {
    /// All, in order of decreasing trust.
    pub const ALL: [Self; 9] = [
        Self::Connect,
        Self::Accept,
        Self::Handshake,
        Self::Peer,
        Self::Listener,
        Self::PortRange,
        Self::Idle,
        Self::Repair,
        Self::None,
    ];

    /// Name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Handshake => "handshake",
            Self::Peer => "peer",
            Self::Listener => "listener",
            Self::PortRange => "port-range",
            Self::Idle => "idle",
            Self::Repair => "repair",
            Self::None => "none",
        }
    }
}

/// Confidence of a [`Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Observed, at this or the peer endpoint.
    Observed,
    /// Inferred from the current state of the host.
    Inferred,
    /// Guessed from port numbers.
    Guessed,
    /// Unknown.
    Unknown,
}

impl Confidence {
    /// All, the most reliable first.
    pub const ALL: [Self; 4] = [Self::Observed, Self::Inferred, Self::Guessed, Self::Unknown];

    /// Name in the output.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Inferred => "inferred",
            Self::Guessed => "guessed",
            Self::Unknown => "unknown",
        }
    }
}

/// A side with its basis and confidence.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// The originating side.
    pub side: Side,
    /// The basis.
    pub basis: Basis,
    /// The confidence.
    pub confidence: Confidence,
}

impl Verdict {
    /// Unknown.
    pub const UNKNOWN: Self =
        Self { side: Side::Unknown, basis: Basis::None, confidence: Confidence::Unknown };
    /// The first datagram after an idle flow.
    pub const IDLE: Self = Self { basis: Basis::Idle, ..Self::UNKNOWN };
    /// A connection that was restored by `TCP_REPAIR`.
    pub const REPAIR: Self = Self { basis: Basis::Repair, ..Self::UNKNOWN };
    /// The connecting process was observed.
    pub const CONNECT: Self = Self::observed(Side::Local, Basis::Connect);
    /// The accepting process was observed.
    pub const ACCEPT: Self = Self::observed(Side::Remote, Basis::Accept);
    /// A listener owned the local address and port.
    pub const LISTENER: Self =
        Self { side: Side::Remote, basis: Basis::Listener, confidence: Confidence::Inferred };

    /// The originating side, unless it is unknown or guessed.
    #[must_use]
    pub fn asserted(self) -> Option<Side> {
        let is_known = self.confidence <= Confidence::Inferred && self.side != Side::Unknown;
        is_known.then_some(self.side)
    }

    const fn observed(side: Side, basis: Basis) -> Self {
        Self { side, basis, confidence: Confidence::Observed }
    }

    /// A TCP state transition proves `side`.
    #[must_use]
    pub const fn handshake(side: Side) -> Self {
        Self::observed(side, Basis::Handshake)
    }

    /// Port numbers indicate `side`.
    #[must_use]
    pub const fn port_range(side: Side) -> Self {
        Self { side, basis: Basis::PortRange, confidence: Confidence::Guessed }
    }

    /// What an endpoint may conclude from the verdict of its peer: the opposite side, with the same confidence. `None`
    /// if the peer does not know, guesses from the same port numbers, or took its verdict from this endpoint.
    #[must_use]
    pub fn from_peer(other: Self) -> Option<Self> {
        match other.basis {
            Basis::Connect | Basis::Accept | Basis::Handshake | Basis::Listener => {
                Some(Self { side: other.side.opposite(), basis: Basis::Peer, confidence: other.confidence })
            }
            Basis::Peer | Basis::PortRange | Basis::Idle | Basis::Repair | Basis::None => None,
        }
    }

    /// What a state alone proves: only an originator is ever in SYN_SENT, and a socket in SYN_RECV received a SYN.
    /// Exception: in a simultaneous open a socket goes from SYN_SENT to SYN_RECV (net/ipv4/tcp_input.c,
    /// tcp_rcv_synsent_state_process(), v6.12), which a snapshot cannot tell.
    #[must_use]
    pub const fn from_state(state: State) -> Option<Self> {
        match state {
            State::SynSent => Some(Self::handshake(Side::Local)),
            State::SynRecv => Some(Self::handshake(Side::Remote)),
            _ => None,
        }
    }
}

/// The `origin` object of a connection. `P` represents a process: a view if it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin<P> {
    /// The originating side, relative to this endpoint.
    pub side: Side,
    /// The basis.
    pub basis: Basis,
    /// How far to trust it.
    pub confidence: Confidence,
    /// The originator's address; `None` if the side is unknown.
    pub endpoint: Option<SockAddr>,
    /// The originating process, if it is on this host and known. Port numbers alone never name one.
    pub process: Option<P>,
    /// The verdict of the port rule.
    pub port_rule: Side,
}

impl<P> Origin<P> {
    /// The object for a connection between `local` and `remote`. `process` is dropped for a guess: the holder of a
    /// socket is not named as the originator by port numbers alone.
    #[must_use]
    pub fn new(verdict: Verdict, local: SockAddr, remote: SockAddr, process: Option<P>) -> Self {
        let named = verdict.confidence <= Confidence::Inferred;
        Self {
            side: verdict.side,
            basis: verdict.basis,
            confidence: verdict.confidence,
            endpoint: endpoint(verdict.side, local, remote),
            process: process.filter(|_| named),
            port_rule: port_rule(local.port, remote.port),
        }
    }
}

/// The originator's address. For a simultaneous open the local one.
#[must_use]
pub const fn endpoint(side: Side, local: SockAddr, remote: SockAddr) -> Option<SockAddr> {
    match side {
        Side::Local | Side::Both => Some(local),
        Side::Remote => Some(remote),
        Side::Unknown => None,
    }
}

/// The responder's address, whose port identifies the service. `side` is `None` for a listener. `None` if the side is
/// unknown.
#[must_use]
pub const fn responder(side: Option<Side>, local: SockAddr, remote: Option<SockAddr>) -> Option<SockAddr> {
    match side {
        None | Some(Side::Remote) => Some(local),
        Some(Side::Local | Side::Both) => remote,
        Some(Side::Unknown) => None,
    }
}

/// Ports below need a privilege to bind unless `ip_unprivileged_port_start` is changed (`PROT_SOCK` in
/// include/net/sock.h).
const FIRST_UNPRIVILEGED: u16 = 1024;

/// The port rule: the side with the higher port originated. It is only shown for comparison.
#[must_use]
pub const fn port_rule(local: u16, remote: u16) -> Side {
    match (local < FIRST_UNPRIVILEGED, remote < FIRST_UNPRIVILEGED) {
        (false, true) => Side::Local,
        (true, false) => Side::Remote,
        _ => Side::Unknown,
    }
}

/// The weakest basis: exactly one port is in `range` (the namespace's `ip_local_port_range`, inclusive), from which the
/// kernel chooses ports of connecting sockets; or exactly one is below 1024. `None` if neither holds, or the two
/// contradict each other.
#[must_use]
pub fn by_port_range(local: u16, remote: u16, range: (u16, u16)) -> Option<Side> {
    let ephemeral = |port| (range.0..=range.1).contains(&port);
    let by_range = match (ephemeral(local), ephemeral(remote)) {
        (true, false) => Some(Side::Local),
        (false, true) => Some(Side::Remote),
        _ => None,
    };
    let by_privilege = Some(port_rule(local, remote)).filter(|side| *side != Side::Unknown);
    match (by_range, by_privilege) {
        (Some(a), Some(b)) if a != b => None,
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::at;

    #[test]
    fn rule_of_thumb() {
        assert_eq!(port_rule(40000, 22), Side::Local);
        assert_eq!(port_rule(22, 40000), Side::Remote);
        assert_eq!(port_rule(1023, 1024), Side::Remote);
        assert_eq!(port_rule(40000, 6000), Side::Unknown);
        assert_eq!(port_rule(513, 22), Side::Unknown);
    }

    #[test]
    fn port_ranges() {
        const RANGE: (u16, u16) = (32768, 60999);
        assert_eq!(by_port_range(32768, 6000, RANGE), Some(Side::Local));
        assert_eq!(by_port_range(6000, 60999, RANGE), Some(Side::Remote));
        assert_eq!(by_port_range(6000, 61000, RANGE), None);
        assert_eq!(by_port_range(40000, 40001, RANGE), None);
        assert_eq!(by_port_range(61000, 22, RANGE), Some(Side::Local));
        assert_eq!(by_port_range(22, 61000, RANGE), Some(Side::Remote));
        // A host that connects from low ports: the two rules contradict each other.
        assert_eq!(by_port_range(900, 3000, (500, 1000)), None);
        // All ports are ephemeral, so only the privileged range is left.
        assert_eq!(by_port_range(2000, 80, (1, 65535)), Some(Side::Local));
    }

    #[test]
    fn peer_passes_on_only_its_own_evidence() {
        let learnt = Verdict::from_peer(Verdict::LISTENER).unwrap();
        assert_eq!(learnt.side, Side::Local);
        assert_eq!((learnt.basis, learnt.confidence), (Basis::Peer, Confidence::Inferred));
        assert_eq!(Verdict::from_peer(Verdict::CONNECT).unwrap().confidence, Confidence::Observed);
        assert_eq!(Verdict::from_peer(learnt), None);
        assert_eq!(Verdict::from_peer(Verdict::port_range(Side::Local)), None);
    }

    #[test]
    fn a_guess_names_no_process() {
        let (local, remote) = (at("1.2.3.4:40000"), at("5.6.7.8:6000"));
        let guessed = Origin::new(Verdict::port_range(Side::Local), local, remote, Some(1));
        assert_eq!((guessed.endpoint, guessed.process), (Some(local), None));
        let seen = Origin::new(Verdict::CONNECT, local, remote, Some(1));
        assert_eq!(seen.process, Some(1));
        let unknown = Origin::new(Verdict::UNKNOWN, local, remote, Some(1));
        assert_eq!((unknown.endpoint, unknown.process), (None, None));
    }

    #[test]
    fn spelling_matches_the_contract() {
        for basis in Basis::ALL {
            assert_eq!(serde_json::to_string(&basis).unwrap(), format!("\"{}\"", basis.name()));
        }
        for side in [Side::Local, Side::Remote, Side::Both, Side::Unknown] {
            assert_eq!(serde_json::to_string(&side).unwrap(), format!("\"{}\"", side.name()));
        }
    }
}
