//! What a declaration of a key says beyond its name.

use std::fmt::Debug;

use crate::alert::Level;
use crate::loss::LossReason;
use crate::model::{ExeState, Family, Nat, State, Via, Way};
use crate::names::NameBasis;
use crate::origin::{Basis, Confidence, Side};
use crate::signs::Sign;
use crate::tracker::{ClosedBy, EventKind, ProcessBasis};

/// A key, for the documentation.
pub(in crate::output) struct Described {
    pub(in crate::output) name: &'static str,
    /// The kinds of events that have it; the last list counts.
    pub(in crate::output) on: &'static [&'static [&'static str]],
    pub(in crate::output) is: Is,
    pub(in crate::output) null: Null,
    pub(in crate::output) meaning: &'static str,
}

/// The type of a value.
pub(in crate::output) enum Is {
    /// An integer between these, both included.
    Integer(u64, u64),
    Text,
    /// A string that matches the regular expression.
    Matching(&'static str),
    Address,
    Boolean,
    True,
    Word(fn() -> Vec<String>),
    Words(fn() -> Vec<String>),
    Texts,
    /// An object: names to numbers.
    Counts,
    /// An object: names to strings or null.
    Names,
    /// An object that the schema defines under this name.
    Object(&'static str),
    /// An array of those.
    Objects(&'static str),
    /// An object that another page describes.
    Opaque,
    /// A process object, or a process key as `--processes once` and `key` write it.
    Process,
}

/// When a key has no value.
#[derive(Clone, Copy, PartialEq, Eq)]
#[expect(clippy::enum_variant_names, reason = "what they mean, in the words of the page")]
pub(in crate::output) enum Null {
    Never,
    /// Null where the value is not known or there is none.
    Maybe,
    /// Likewise; on kinds of events other than these it is always null.
    Except(&'static [&'static str]),
    /// The key is absent where there is no value.
    Absent,
    /// The key is absent, or null.
    AbsentOrNull,
}

impl Described {
    /// Whether events of this kind have it.
    pub(in crate::output) fn is_on(&self, kind: &str) -> bool {
        self.on.last().is_some_and(|kinds| kinds.contains(&kind))
    }
}

pub(in crate::output) const U16: Is = Is::Integer(0, u16::MAX as u64);
pub(in crate::output) const U32: Is = Is::Integer(0, u32::MAX as u64);
pub(in crate::output) const U64: Is = Is::Integer(0, u64::MAX);

/// RFC 3339 in UTC, with nine digits of a second.
pub(in crate::output) const TIME: Is = Is::Matching(r"^-?\d{4,6}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{9}Z$");
/// Boot, cookie and time.
pub(in crate::output) const ID: Is = Is::Matching("^.*-[0-9a-f]+-[0-9a-f]+$");
pub(in crate::output) const PROCESS_KEY: Is = Is::Matching("^[0-9]+@[0-9]+~?$");
pub(in crate::output) const ERRNO: Is = Is::Matching("^(E[A-Z0-9]+|[0-9]+)$");

/// Every kind of event, in the order of the reference page.
pub(in crate::output) const EVERY: &[&str] = &[
    "ready", "seed", "listen", "unlisten", "attempt", "open", "accept", "handover", "fail", "close", "state",
    "loss", "process", "alert",
];

/// Kinds of events about a connection or a listener.
pub(in crate::output) const SOCKETS: &[&str] =
    &["seed", "listen", "unlisten", "attempt", "open", "accept", "handover", "fail", "close", "state"];

/// Those of [`SOCKETS`] that can be about a connection.
pub(in crate::output) const CONNECTIONS: &[&str] =
    &["seed", "attempt", "open", "accept", "handover", "fail", "close", "state"];

/// Every word of an enum, as `$spell` spells it. A variant that is missing here does not compile.
macro_rules! words {
    ($type:ident, $spell:expr, $($variant:ident $(($value:literal))?),+) => {
        || {
            const fn _is_complete(word: $type) {
                match word {
                    $($type::$variant { .. } => {})+
                }
            }
            [$($type::$variant $(($value))?),+].into_iter().map($spell).collect()
        }
    };
}

/// The word by which serde spells it.
fn by_serde(word: impl serde::Serialize + Debug) -> String {
    let word = serde_json::to_value(word).unwrap();
    word.as_str().unwrap().to_owned()
}

pub(in crate::output) const KINDS: fn() -> Vec<String> =
    || EVERY.iter().map(|kind| (*kind).to_owned()).collect();
/// A test compares them with their names.
pub(in crate::output) const PROTOS: Is =
    Is::Matching("^(tcp|udp|udplite|icmp|icmpv6|packet|raw:[0-9]{1,3})$");
pub(in crate::output) const WAYS: fn() -> Vec<String> =
    || [Way::Unix, Way::Pipe].into_iter().map(|way| way.name().to_owned()).collect();
/// How translations are known.
pub(in crate::output) const NAT_BASES: fn() -> Vec<String> = || vec![Nat::BASIS.to_owned()];
pub(in crate::output) const NAME_BASES: fn() -> Vec<String> = words!(NameBasis, by_serde, DnsAnswer, TlsSni);
pub(in crate::output) const FAMILIES: fn() -> Vec<String> = words!(Family, by_serde, Ipv4, Ipv6);
pub(in crate::output) const SIDES: fn() -> Vec<String> = words!(Side, by_serde, Local, Remote, Both, Unknown);
/// What port numbers can say of the side.
pub(in crate::output) const PORT_RULES: fn() -> Vec<String> =
    || SIDES().into_iter().filter(|side| side != "both").collect();
pub(in crate::output) const BASES: fn() -> Vec<String> =
    words!(Basis, by_serde, Connect, Accept, Handshake, Peer, Listener, PortRange, Idle, Repair, None);
pub(in crate::output) const CONFIDENCES: fn() -> Vec<String> =
    words!(Confidence, by_serde, Observed, Inferred, Guessed, Unknown);
pub(in crate::output) const PROCESS_BASES: fn() -> Vec<String> =
    words!(ProcessBasis, by_serde, Connect, Accept, Listener, Handover, Seed);
pub(in crate::output) const CLOSED_BY: fn() -> Vec<String> =
    words!(ClosedBy, by_serde, Local, Remote, ResetLocal, ResetRemote, Timeout, Unknown);
pub(in crate::output) const VIAS: fn() -> Vec<String> =
    words!(Via, by_serde, IoUring, Socketcall, Kernel, Fastopen, Mptcp);
pub(in crate::output) const EXE_STATES: fn() -> Vec<String> =
    words!(ExeState, by_serde, Ok, Deleted, Memfd, Replaced, Unknown);
pub(in crate::output) const SIGNS: fn() -> Vec<String> =
    words!(Sign, by_serde, ShellOnSocket, ExeDeleted, ExeMemfd, ExeWorldWritable, ShellListens);
pub(in crate::output) const LOSS_REASONS: fn() -> Vec<String> =
    || LossReason::ALL.map(|reason| reason.name().to_owned()).into();
pub(in crate::output) const LEVELS: fn() -> Vec<String> =
    words!(Level, by_serde, Informational, Low, Medium, High, Critical);
pub(in crate::output) const STATES: fn() -> Vec<String> = words!(
    State,
    |state| state.name().to_owned(),
    Established,
    SynSent,
    SynRecv,
    FinWait1,
    FinWait2,
    TimeWait,
    Close,
    CloseWait,
    LastAck,
    Listen,
    Closing,
    Unknown(0)
);

#[test]
fn kinds_are_the_tracker_s_and_those_of_lines_about_no_socket() {
    assert_eq!(SOCKETS, EventKind::ALL.map(EventKind::name));
    let others: Vec<_> = EVERY.iter().filter(|kind| !SOCKETS.contains(kind)).collect();
    assert_eq!(others, [&"ready", &"loss", &"process", &"alert"]);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Proto;

    #[test]
    fn protocols_match_their_pattern() {
        let Is::Matching(pattern) = PROTOS else { panic!("a pattern") };
        let (words, raw) = pattern.trim_matches(['^', '(', ')', '$']).rsplit_once('|').unwrap();
        assert_eq!(raw, "raw:[0-9]{1,3}");
        let named: Vec<_> = Proto::NAMED.map(Proto::name).into();
        assert_eq!(
            {
                let mut words: Vec<_> = words.split('|').collect();
                words.sort_unstable();
                words
            },
            {
                let mut named = named;
                named.sort_unstable();
                named
            }
        );
        assert_eq!(Proto::of_raw(255).name(), "raw:255");
    }
}
