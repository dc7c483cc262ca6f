//! Selects the events to show. Pure. A filter does not affect tracking: it is applied last.

mod address;
mod expression;
#[cfg(test)]
mod tests;
mod values;

use std::fmt;

use globset::GlobMatcher;

use crate::alert::Alert;
use crate::model::{DeviceName, Family, NetnsId, ProcessFacts, Proto, SockAddr, Socket};
use crate::origin::{Basis, Confidence, Side, Verdict};
use crate::signs::{self, Sign};
use crate::tracker::{ConnectionEvent, EventKind};
use crate::where_it_runs;

pub use address::AddressPattern;
pub use expression::{Expression, Lookup, by_numbers};
pub use values::{Protos, glob, host, kind, protos, side};

/// Terms, combined with AND; the default has none.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    terms: Vec<Term>,
}

/// Conditions of one key, combined with OR.
#[derive(Clone, Debug)]
pub struct Term {
    is_negated: bool,
    any: Vec<Condition>,
}

/// One condition. Those on a process do not hold if it is unknown.
#[derive(Clone, Debug)]
pub enum Condition {
    /// Pid of the process on this endpoint.
    Pid(u32),
    /// Matched against its name and the path of its executable.
    Process(GlobMatcher),
    /// Matched against that path; a pattern without a slash against the file name.
    Exe(GlobMatcher),
    /// Its effective user.
    User(u32),
    /// On either side.
    Port(u16),
    /// Local address.
    Local(AddressPattern),
    /// Remote address.
    Remote(AddressPattern),
    /// The originating side.
    Origin(Side),
    /// How that is known.
    Basis(Basis),
    /// How far to trust it.
    Confidence(Confidence),
    /// Kind of event.
    Event(EventKind),
    /// An alert.
    Alert,
    /// Transport.
    Proto(Protos),
    /// IPv4-mapped is IPv4.
    Family(Family),
    /// Container id or a prefix of one, or a name.
    Container(String),
    /// Network namespace inode number.
    Netns(NetnsId),
    /// Interface that the socket is bound to, or of its link-local addresses: name or index.
    Device(String),
    /// Name of the host on either side, in lower case.
    Name(GlobMatcher),
    /// What is suspicious about the process or the listener.
    Sign(Sign),
    /// Text, in lower case, in the name or path of the process, its container, or an address; or the name of its user,
    /// as that user's id.
    Text(String, Option<u32>),
}

/// What conditions are about.
struct Subject<'a> {
    /// `None` for an alert that is about a process alone.
    socket: Option<&'a Socket>,
    /// `None` for a listener.
    verdict: Option<Verdict>,
    process: Option<&'a ProcessFacts>,
    /// Name of its interface.
    device: Option<DeviceName>,
    /// `None` for a socket of a snapshot and for an alert.
    event: Option<&'a ConnectionEvent>,
    is_alert: bool,
}

impl Filter {
    /// Of these terms; one without a condition is left out.
    #[must_use]
    pub fn new(terms: impl IntoIterator<Item = Term>) -> Self {
        Self { terms: terms.into_iter().filter(|term| !term.any.is_empty()).collect() }
    }

    /// What passes this one and another one.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.terms.extend(other.terms);
        self
    }

    /// Whether an event passes.
    #[must_use]
    pub fn shows(&self, event: &ConnectionEvent) -> bool {
        let endpoint = &event.endpoint;
        self.passes(&Subject {
            socket: Some(endpoint),
            verdict: endpoint.remote.map(|_| endpoint.verdict),
            process: endpoint.process.as_ref().map(|actor| &actor.process.facts),
            device: event.facts.device,
            event: Some(event),
            is_alert: false,
        })
    }

    /// Whether an alert passes: the endpoint and the process that it is about decide.
    #[must_use]
    pub fn shows_alert(&self, alert: &Alert) -> bool {
        let about = alert.about.as_ref();
        self.passes(&Subject {
            socket: about.map(|about| &about.socket),
            verdict: about.filter(|about| about.socket.remote.is_some()).map(|about| about.verdict),
            process: alert.process.as_ref().map(|(actor, _)| &actor.process.facts),
            device: None,
            event: None,
            is_alert: true,
        })
    }

    /// Whether a socket of a snapshot passes; none does if there are conditions on events. `verdict`: who originated
    /// it, `None` for a listener; `process`: who has it open; `device`: the name of its interface.
    #[must_use]
    pub fn shows_socket(
        &self,
        socket: &Socket,
        verdict: Option<Verdict>,
        process: Option<&ProcessFacts>,
        device: Option<DeviceName>,
    ) -> bool {
        self.passes(&Subject { socket: Some(socket), verdict, process, device, event: None, is_alert: false })
    }

    fn passes(&self, subject: &Subject<'_>) -> bool {
        self.terms.iter().all(|term| term.any.iter().any(|one| one.holds(subject)) != term.is_negated)
    }

    /// Whether events of a process may pass, by the conditions on processes.
    #[must_use]
    pub fn shows_process(&self, process: &ProcessFacts) -> bool {
        self.terms.iter().all(|term| {
            let all: Option<Vec<bool>> = term.any.iter().map(|one| one.is_met_by(process)).collect();
            all.is_none_or(|all| all.contains(&true) != term.is_negated)
        })
    }

    /// The first condition of which only events can meet it, if there is one.
    #[must_use]
    pub fn of_events(&self) -> Option<&Condition> {
        let all = self.terms.iter().flat_map(|term| &term.any);
        all.into_iter().find(|one| {
            matches!(one, Condition::Event(_) | Condition::Alert | Condition::Sign(_) | Condition::Name(_))
        })
    }

    /// The protocol, if the filter lets only one pass.
    #[must_use]
    pub fn proto(&self) -> Option<Proto> {
        let protos = self.one_of(|one| match one {
            Condition::Proto(Protos::One(proto)) => Some(*proto),
            _ => None,
        })?;
        protos.first().copied().filter(|first| protos.iter().all(|proto| proto == first))
    }

    /// Values of which whatever passes has one, if there is such a term.
    pub fn one_of<'a, T>(&'a self, value: impl Fn(&'a Condition) -> Option<T>) -> Option<Vec<T>> {
        let mut terms = self.terms.iter().filter(|term| !term.is_negated);
        terms.find_map(|term| term.any.iter().map(&value).collect::<Option<Vec<_>>>())
    }
}

impl Term {
    /// At least one of these holds.
    #[must_use]
    pub fn any(conditions: impl IntoIterator<Item = Condition>) -> Self {
        Self { is_negated: false, any: conditions.into_iter().collect() }
    }

    fn with_negation(self, is_negated: bool) -> Self {
        Self { is_negated, ..self }
    }
}

impl Condition {
    fn holds(&self, subject: &Subject<'_>) -> bool {
        let Subject { socket, verdict, process, device, event, is_alert } = subject;
        match self {
            Self::Pid(_) | Self::Process(_) | Self::Exe(_) | Self::User(_) | Self::Container(_) => {
                process.is_some_and(|process| self.is_met_by(process) == Some(true))
            }
            Self::Port(port) => socket.is_some_and(|socket| {
                socket.local.port == *port || socket.remote.is_some_and(|remote| remote.port == *port)
            }),
            Self::Local(pattern) => socket.is_some_and(|socket| pattern.fits(socket.local)),
            Self::Remote(pattern) => {
                socket.and_then(|socket| socket.remote).is_some_and(|remote| pattern.fits(remote))
            }
            Self::Origin(side) => verdict.is_some_and(|verdict| verdict.side == *side),
            Self::Basis(basis) => verdict.is_some_and(|verdict| verdict.basis == *basis),
            Self::Confidence(confidence) => verdict.is_some_and(|verdict| verdict.confidence == *confidence),
            Self::Event(kind) => event.is_some_and(|event| event.kind == *kind),
            Self::Alert => *is_alert,
            Self::Proto(proto) => socket.is_some_and(|socket| proto.have(socket.proto)),
            Self::Family(family) => socket.is_some_and(|socket| socket.family == *family),
            Self::Netns(netns) => socket.is_some_and(|socket| socket.netns == *netns),
            Self::Device(wanted) => {
                device.is_some_and(|name| name.as_str() == wanted)
                    || socket
                        .and_then(|socket| socket.device)
                        .is_some_and(|device| device.index().to_string() == *wanted)
            }
            Self::Name(glob) => {
                event.is_some_and(|event| event.endpoint.names.iter().any(|name| glob.is_match(&*name.name)))
            }
            Self::Sign(sign) => event.is_some_and(|event| has_sign(event, *sign)),
            Self::Text(text, user) => {
                let addresses =
                    socket.iter().flat_map(|socket| [Some(socket.local), socket.remote]).flatten();
                addresses.into_iter().any(|address: SockAddr| contains(&address.to_string(), text))
                    || process.is_some_and(|process| is_in_words_of(process, text, *user))
                    || event.is_some_and(|event| {
                        event.endpoint.names.iter().any(|name| contains(&name.name, text))
                    })
            }
        }
    }

    /// Whether a condition on a process holds; `None` for another one.
    fn is_met_by(&self, process: &ProcessFacts) -> Option<bool> {
        let exe = process.image.exe.as_deref();
        Some(match self {
            Self::Pid(pid) => process.key.pid == *pid,
            Self::Process(glob) => glob.is_match(&*process.comm) || exe.is_some_and(|exe| glob.is_match(exe)),
            Self::Exe(glob) => exe.is_some_and(|exe| {
                let is_name = !glob.glob().glob().contains('/');
                glob.is_match(if is_name { exe.rsplit('/').next().unwrap_or(exe) } else { exe })
            }),
            Self::User(uid) => process.uid == *uid,
            Self::Container(id) => is_in(process, id),
            Self::Port(_)
            | Self::Local(_)
            | Self::Remote(_)
            | Self::Origin(_)
            | Self::Basis(_)
            | Self::Confidence(_)
            | Self::Event(_)
            | Self::Alert
            | Self::Proto(_)
            | Self::Family(_)
            | Self::Netns(_)
            | Self::Device(_)
            | Self::Name(_)
            | Self::Sign(_)
            | Self::Text(..) => return None,
        })
    }
}

/// A prefix of an id matches, since runtimes show ids truncated to twelve digits; a name has to match completely.
fn is_in(process: &ProcessFacts, id: &str) -> bool {
    const SHORTEST: usize = 12;
    let container = where_it_runs::of_cgroup(&process.cgroup).container;
    container.is_some_and(|container| {
        container == id || (id.len() >= SHORTEST && container.len() == 64 && container.starts_with(id))
    })
}

fn has_sign(event: &ConnectionEvent, sign: Sign) -> bool {
    let endpoint = &event.endpoint;
    let of_process = endpoint.process.as_ref().is_some_and(|actor| {
        let status = event.facts.exe.process.unwrap_or_else(|| actor.process.exe_status());
        signs::of_process(&actor.process, status).any(|one| one == sign)
    });
    of_process || signs::of_end(endpoint).any(|one| one == sign)
}

fn is_in_words_of(process: &ProcessFacts, text: &str, user: Option<u32>) -> bool {
    contains(&process.comm, text)
        || process.image.exe.as_deref().is_some_and(|exe| contains(exe, text))
        || user == Some(process.uid)
        || where_it_runs::of_cgroup(&process.cgroup).container.is_some_and(|id| contains(&id, text))
}

/// Whether `text`, which is in lower case, occurs in `within` in any case.
fn contains(within: &str, text: &str) -> bool {
    if within.is_ascii() && text.is_ascii() {
        let (within, text) = (within.as_bytes(), text.as_bytes());
        return text.is_empty() || within.windows(text.len()).any(|window| window.eq_ignore_ascii_case(text));
    }
    within.to_lowercase().contains(text)
}

/// As an expression.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, term) in self.terms.iter().enumerate() {
            if nth > 0 {
                f.write_str(" ")?;
            }
            term.fmt(f)?;
        }
        Ok(())
    }
}
