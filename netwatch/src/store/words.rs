//! Words as the small numbers that stand for them in rows: a word in each of a million rows would be most of the store.
//! The views spell them. A number never changes its meaning.

use std::borrow::Cow;

use crate::model::{ExeState, Family, Proto, State, Stream, StreamKind, Via};
use crate::origin::{Basis, Confidence, Side};
use crate::tracker::{ClosedBy, ProcessBasis};

/// Something that has a number in the store.
pub(super) trait Word: Copy + PartialEq + 'static {
    /// All of them, with their numbers.
    const CODES: &'static [(Self, u16)];

    /// The number of a word that is not among them.
    fn other_code(self) -> Option<u16> {
        None
    }

    /// The word of such a number.
    fn of_other_code(_code: i64) -> Option<Self> {
        None
    }

    /// Its number.
    fn code(self) -> u16 {
        let listed = Self::CODES.iter().find(|(word, _)| *word == self).map(|(_, code)| *code);
        listed.or_else(|| self.other_code()).unwrap_or(0)
    }

    /// `None` for a number that means nothing.
    fn from_code(code: i64) -> Option<Self> {
        let listed = Self::CODES.iter().find(|(_, known)| i64::from(*known) == code).map(|(word, _)| *word);
        listed.or_else(|| Self::of_other_code(code))
    }
}

/// What is added to the IP protocol of a raw socket.
const RAW: u16 = 256;

impl Word for Proto {
    const CODES: &'static [(Self, u16)] = &[
        (Self::Icmp, 1),
        (Self::Tcp, 6),
        (Self::Udp, 17),
        (Self::Icmpv6, 58),
        (Self::UdpLite, 136),
        (Self::Packet, 512),
    ];

    fn other_code(self) -> Option<u16> {
        if let Self::Raw(number) = self { Some(RAW + u16::from(number)) } else { None }
    }

    fn of_other_code(code: i64) -> Option<Self> {
        Some(Self::Raw(code.checked_sub(RAW.into())?.try_into().ok()?))
    }
}

impl Word for Family {
    const CODES: &'static [(Self, u16)] = &[(Self::Ipv4, 4), (Self::Ipv6, 6)];
}

impl Word for Via {
    const CODES: &'static [(Self, u16)] = &[
        (Self::IoUring, 1),
        (Self::Socketcall, 2),
        (Self::Kernel, 3),
        (Self::Fastopen, 4),
        (Self::Mptcp, 5),
    ];
}

impl Word for Side {
    const CODES: &'static [(Self, u16)] =
        &[(Self::Unknown, 0), (Self::Local, 1), (Self::Remote, 2), (Self::Both, 3)];
}

impl Word for Basis {
    const CODES: &'static [(Self, u16)] = &[
        (Self::None, 0),
        (Self::Connect, 1),
        (Self::Accept, 2),
        (Self::Handshake, 3),
        (Self::Peer, 4),
        (Self::Listener, 5),
        (Self::PortRange, 6),
        (Self::Repair, 7),
        (Self::Idle, 8),
    ];
}

impl Word for Confidence {
    const CODES: &'static [(Self, u16)] =
        &[(Self::Unknown, 0), (Self::Observed, 1), (Self::Inferred, 2), (Self::Guessed, 3)];
}

impl Word for ProcessBasis {
    const CODES: &'static [(Self, u16)] =
        &[(Self::Connect, 1), (Self::Accept, 2), (Self::Listener, 3), (Self::Handover, 4), (Self::Seed, 5)];
}

impl Word for ClosedBy {
    const CODES: &'static [(Self, u16)] = &[
        (Self::Unknown, 0),
        (Self::Local, 1),
        (Self::Remote, 2),
        (Self::ResetLocal, 3),
        (Self::ResetRemote, 4),
        (Self::Timeout, 5),
    ];
}

/// As the kernel numbers states.
pub(super) const fn state_code(state: State) -> u8 {
    match state {
        State::Established => 1,
        State::SynSent => 2,
        State::SynRecv => 3,
        State::FinWait1 => 4,
        State::FinWait2 => 5,
        State::TimeWait => 6,
        State::Close => 7,
        State::CloseWait => 8,
        State::LastAck => 9,
        State::Listen => 10,
        State::Closing => 11,
        State::Unknown(number) => number,
    }
}

/// A column of numbers that stand for words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    /// Protocols.
    Proto,
    /// How a call came.
    Via,
    /// Originating sides.
    Side,
    /// Evidence.
    Basis,
    /// Reliability.
    Confidence,
    /// How a process got an endpoint.
    ProcessBasis,
    /// Who closed.
    ClosedBy,
    /// States of sockets.
    State,
}

/// No word has a higher number.
const LAST_CODE: i64 = 512;

const fn process_basis(basis: ProcessBasis) -> &'static str {
    match basis {
        ProcessBasis::Connect => "connect",
        ProcessBasis::Accept => "accept",
        ProcessBasis::Listener => "listener",
        ProcessBasis::Handover => "handover",
        ProcessBasis::Seed => "seed",
    }
}

impl Words {
    /// The word of a number; a number without a word as digits.
    #[must_use]
    pub fn word(self, code: i64) -> Cow<'static, str> {
        fn name<W: Word>(code: i64, name: fn(W) -> &'static str) -> Option<&'static str> {
            W::from_code(code).map(name)
        }
        let known = match self {
            Self::Proto => name(code, Proto::name),
            Self::Via => name(code, Via::name),
            Self::Side => name(code, Side::name),
            Self::Basis => name(code, Basis::name),
            Self::Confidence => name(code, Confidence::name),
            Self::ProcessBasis => name(code, process_basis),
            Self::ClosedBy => name(code, ClosedBy::name),
            Self::State => u8::try_from(code).ok().map(State::from_kernel).and_then(|state| match state {
                State::Unknown(_) => None,
                // The kernel has two numbers for a state; the store writes one.
                known => (i64::from(state_code(known)) == code).then(|| known.name()),
            }),
        };
        known.map_or_else(|| code.to_string().into(), Cow::Borrowed)
    }

    /// The number of a word.
    #[must_use]
    pub fn code(self, word: &str) -> Option<i64> {
        (0..=LAST_CODE).find(|code| self.word(*code) == word)
    }
}

const EXE_STATES: [(ExeState, &str); 5] = [
    (ExeState::Ok, "ok"),
    (ExeState::Deleted, "deleted"),
    (ExeState::Memfd, "memfd"),
    (ExeState::Replaced, "replaced"),
    (ExeState::Unknown, "unknown"),
];

/// Its word.
pub(super) fn exe_state_word(state: ExeState) -> &'static str {
    EXE_STATES.iter().find(|(known, _)| *known == state).map_or("unknown", |(_, word)| word)
}

/// `None` for a word that means nothing.
pub(super) fn exe_state(word: &str) -> Option<ExeState> {
    EXE_STATES.iter().find(|(_, known)| *known == word).map(|(state, _)| *state)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_come_back() {
        for number in 0..=255 {
            let state = State::from_kernel(number);
            assert_eq!(State::from_kernel(state_code(state)), state);
        }
        for (state, word) in EXE_STATES {
            assert_eq!((exe_state(word), exe_state_word(state)), (Some(state), word));
            assert_eq!(serde_json::to_string(&state).unwrap(), format!("\"{word}\""));
        }
    }

    #[test]
    fn words_of_columns_come_back() {
        let all = [
            Words::Proto,
            Words::Via,
            Words::Side,
            Words::Basis,
            Words::Confidence,
            Words::ProcessBasis,
            Words::ClosedBy,
            Words::State,
        ];
        for words in all {
            for code in 0..=LAST_CODE {
                assert_eq!(words.code(&words.word(code)), Some(code), "{words:?}");
            }
        }
        assert_eq!((&*Words::State.word(10), &*Words::Proto.word(17)), ("LISTEN", "udp"));
        assert_eq!((&*Words::Basis.word(200), &*Words::Proto.word(512)), ("200", "packet"));
    }

    #[test]
    fn protocols_come_back() {
        for proto in Proto::NAMED.into_iter().chain((0..=u8::MAX).map(Proto::Raw)) {
            assert_eq!(Proto::from_code(proto.code().into()), Some(proto));
        }
        assert_eq!((Proto::from_code(0), Proto::from_code(513), Proto::from_code(-1)), (None, None, None));
    }

    #[test]
    fn the_views_spell_the_same() {
        let views = include_str!("views.sql");
        let spells =
            |code: u16, name: &str| assert!(views.contains(&format!("WHEN {code} THEN '{name}'")), "{name}");
        Via::CODES.iter().for_each(|(via, code)| spells(*code, via.name()));
        ClosedBy::CODES.iter().for_each(|(by, code)| spells(*code, by.name()));
        // Views of a version do not change: those of version 2 have no words for other protocols and bases.
        [Proto::Tcp, Proto::Udp].into_iter().for_each(|proto| spells(proto.code(), proto.name()));
        for (side, code) in Side::CODES.iter().filter(|(_, code)| *code != 0) {
            spells(*code, side.name());
        }
        let is_spelled = |basis| !matches!(basis, Basis::None | Basis::Repair | Basis::Idle);
        for (basis, code) in Basis::CODES.iter().filter(|(basis, _)| is_spelled(*basis)) {
            spells(*code, basis.name());
        }
        for state in (1..=11).map(State::from_kernel) {
            spells(state_code(state).into(), state.name());
        }
    }
}

/// The number that stands for a pipe, a terminal or a UNIX socket in the columns of standard streams, where a cookie is
/// positive: the negative of the id, the kind and whether the parent has the other end.
pub(super) fn stream_number(stream: Stream) -> i64 {
    let kind = match stream.kind {
        StreamKind::Pipe => 1,
        StreamKind::Terminal => 2,
        StreamKind::Unix => 3,
    };
    let bits = stream.id << 3 & 0x7fff_ffff_ffff_fff8 | kind << 1 | u64::from(stream.at_parent);
    -bits.cast_signed()
}

/// The stream of a negative number.
pub(super) fn stream(number: i64) -> Option<Stream> {
    let bits = number.checked_neg().filter(|bits| *bits > 0)?.cast_unsigned();
    let kind = match bits >> 1 & 3 {
        1 => StreamKind::Pipe,
        2 => StreamKind::Terminal,
        3 => StreamKind::Unix,
        _ => return None,
    };
    Some(Stream { kind, id: bits >> 3, at_parent: bits & 1 == 1 })
}

#[cfg(test)]
mod stream_tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn streams_are_read_as_written(id in 0u64..1 << 60, kind in 0usize..3, at_parent: bool) {
            let kind = [StreamKind::Pipe, StreamKind::Terminal, StreamKind::Unix][kind];
            let written = Stream { kind, id, at_parent };
            prop_assert!(stream_number(written) < 0);
            prop_assert_eq!(stream(stream_number(written)), Some(written));
        }

        #[test]
        fn no_number_panics(number: i64) {
            let _ = stream(number);
        }
    }
}
