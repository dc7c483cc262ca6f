//! Who originated a connection, and how that is known: the words, and the rules that need no live record.
//! Pure, so that the tracker and one look at the host ([`crate::commands::list`]) answer alike.
//!
//! What was observed always goes before what is inferred, and port numbers come last: see [`Basis`],
//! whose order is the order of trust.

use serde::Serialize;

use crate::model::{SockAddr, State};

/// The end that began a connection, relative to the end that the record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Side {
    /// This end.
    Local,
    /// The other end.
    Remote,
    /// Both at once: a simultaneous open, or a socket that connected to itself.
    Both,
    /// Not known.
    Unknown,
}

impl Side {
    /// The same fact, seen from the other end.
    #[must_use]
    pub const fn opposite(self) -> Self {
        match self {
            Self::Local => Self::Remote,
            Self::Remote => Self::Local,
            Self::Both => Self::Both,
            Self::Unknown => Self::Unknown,
        }
    }

    /// As it is spelled outside.
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

/// What a [`Side`] rests on. The greater is the less to be trusted: a record never moves up this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// Begun in a process we saw.
    Connect,
    /// Taken from a listener by a process we saw.
    Accept,
    /// A TCP state transition proves it, no process seen.
    Handshake,
    /// The other end is on this host and its origin is known.
    Peer,
    /// A listening socket owned the local address and port.
    Listener,
    /// Only port numbers speak.
    PortRange,
    /// Nothing speaks.
    None,
}

impl Basis {
    /// As it is spelled outside.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Connect => "connect",
            Self::Accept => "accept",
            Self::Handshake => "handshake",
            Self::Peer => "peer",
            Self::Listener => "listener",
            Self::PortRange => "port-range",
            Self::None => "none",
        }
    }
}

/// How far to trust a [`Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Confidence {
    /// Seen to happen, here or at the other end.
    Observed,
    /// Follows from what is there now.
    Inferred,
    /// Port numbers only.
    Guessed,
    /// Not known.
    Unknown,
}

impl Confidence {
    /// As it is spelled outside.
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

/// The three words that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Who.
    pub side: Side,
    /// Why.
    pub basis: Basis,
    /// How sure.
    pub confidence: Confidence,
}

impl Verdict {
    /// Nothing is known.
    pub const UNKNOWN: Self =
        Self { side: Side::Unknown, basis: Basis::None, confidence: Confidence::Unknown };
    /// A process was seen to begin it.
    pub const CONNECT: Self = Self::observed(Side::Local, Basis::Connect);
    /// A process was seen to take it from a listener.
    pub const ACCEPT: Self = Self::observed(Side::Remote, Basis::Accept);
    /// A listening socket owned the local address and port.
    pub const LISTENER: Self =
        Self { side: Side::Remote, basis: Basis::Listener, confidence: Confidence::Inferred };

    const fn observed(side: Side, basis: Basis) -> Self {
        Self { side, basis, confidence: Confidence::Observed }
    }

    /// A TCP state transition proves `side`.
    #[must_use]
    pub const fn handshake(side: Side) -> Self {
        Self::observed(side, Basis::Handshake)
    }

    /// Port numbers say `side`.
    #[must_use]
    pub const fn port_range(side: Side) -> Self {
        Self { side, basis: Basis::PortRange, confidence: Confidence::Guessed }
    }

    /// What an end may conclude from `other`, its peer's own verdict: the opposite side, as sure as the
    /// peer is. `None` where the peer has nothing to teach: it does not know, it guesses from the same
    /// two port numbers, or it had its own answer from this end.
    #[must_use]
    pub fn from_peer(other: Self) -> Option<Self> {
        match other.basis {
            Basis::Connect | Basis::Accept | Basis::Handshake | Basis::Listener => {
                Some(Self { side: other.side.opposite(), basis: Basis::Peer, confidence: other.confidence })
            }
            Basis::Peer | Basis::PortRange | Basis::None => None,
        }
    }

    /// What a state alone proves: only an initiator is ever in `SYN_SENT`, and a socket is in `SYN_RECV`
    /// because a SYN came (`tcp_rcv_synsent_state_process` in net/ipv4/tcp_input.c is the exception: a
    /// simultaneous open; such a socket was in `SYN_SENT` before, which one look cannot see).
    #[must_use]
    pub const fn from_state(state: State) -> Option<Self> {
        match state {
            State::SynSent => Some(Self::handshake(Side::Local)),
            State::SynRecv => Some(Self::handshake(Side::Remote)),
            _ => None,
        }
    }
}

/// The `origin` object of a connection. `P` is what stands for a process: a view where it is printed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Origin<P> {
    /// Who began it, relative to this end.
    pub side: Side,
    /// What that rests on.
    pub basis: Basis,
    /// How far to trust it.
    pub confidence: Confidence,
    /// The initiator's address; `None` where the side is unknown.
    pub endpoint: Option<SockAddr>,
    /// The initiating process where it is on this host and known. Port numbers alone never name one.
    pub process: Option<P>,
    /// What the rule of thumb would have said.
    pub port_rule: Side,
}

impl<P> Origin<P> {
    /// Puts the object together for a connection between `local` and `remote`. `process` is dropped
    /// where the verdict is a guess: the holder of a socket is not called its originator on port
    /// numbers alone.
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

/// The initiator's address. Of a simultaneous open the local end is named, as this record is about it.
#[must_use]
pub const fn endpoint(side: Side, local: SockAddr, remote: SockAddr) -> Option<SockAddr> {
    match side {
        Side::Local | Side::Both => Some(local),
        Side::Remote => Some(remote),
        Side::Unknown => None,
    }
}

/// The end that the connection came to: it has the port that a service is known by. `side` is `None` for
/// a socket that waits for anybody. `None` where nobody knows.
#[must_use]
pub const fn responder(side: Option<Side>, local: SockAddr, remote: Option<SockAddr>) -> Option<SockAddr> {
    match side {
        None | Some(Side::Remote) => Some(local),
        Some(Side::Local | Side::Both) => remote,
        Some(Side::Unknown) => None,
    }
}

/// Ports below this one need a privilege to bind unless `ip_unprivileged_port_start` says otherwise:
/// `PROT_SOCK` in include/net/sock.h.
const FIRST_UNPRIVILEGED: u16 = 1024;

/// The rule of thumb that netstat's readers use: the high port originated. Shown beside the answer, so
/// that one sees where it is wrong; it decides nothing.
#[must_use]
pub const fn port_rule(local: u16, remote: u16) -> Side {
    match (local < FIRST_UNPRIVILEGED, remote < FIRST_UNPRIVILEGED) {
        (false, true) => Side::Local,
        (true, false) => Side::Remote,
        _ => Side::Unknown,
    }
}

/// The weakest ground: exactly one port lies in `range` (the namespace's `ip_local_port_range`, both ends
/// included), from which the kernel takes ports for those who connect; or exactly one is below 1024.
/// `None` where neither holds, and where the two contradict each other.
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
        // A host that connects from low ports: the grounds contradict each other.
        assert_eq!(by_port_range(900, 3000, (500, 1000)), None);
        // Everything is ephemeral: only the privilege speaks.
        assert_eq!(by_port_range(2000, 80, (1, 65535)), Some(Side::Local));
    }

    #[test]
    fn peers_teach_what_they_know_themselves() {
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
    fn spelling_is_the_contract_s() {
        for basis in [
            Basis::Connect,
            Basis::Accept,
            Basis::Handshake,
            Basis::Peer,
            Basis::Listener,
            Basis::PortRange,
            Basis::None,
        ] {
            assert_eq!(serde_json::to_string(&basis).unwrap(), format!("\"{}\"", basis.name()));
        }
        for side in [Side::Local, Side::Remote, Side::Both, Side::Unknown] {
            assert_eq!(serde_json::to_string(&side).unwrap(), format!("\"{}\"", side.name()));
        }
    }
}
