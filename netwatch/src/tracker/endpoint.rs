//! One end of a connection, and what is told of it.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::Roles;
use crate::model::{BootTime, Cookie, Payload, Socket, State};
use crate::origin::{Side, Verdict};
use crate::process::{Actor, ExeStatus};

/// Names an end, or (as a flow) a connection: unique on this host across runs, since no cookie is given
/// twice before the next boot, and a socket that is used again gets another time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId {
    /// The socket's, unless others have that too.
    pub cookie: u64,
    /// When it began or was first seen.
    pub began: BootTime,
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.cookie, self.began.nanos())
    }
}

/// How the process on an end is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessBasis {
    /// It connected.
    Connect,
    /// It took the connection off the listener.
    Accept,
    /// It called listen(), on the listener that the connection came to.
    Listener,
    /// It uses the connection, and others had it before.
    Handover,
    /// It had the socket open when netwatch looked.
    Seed,
}

/// Who ended a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClosedBy {
    /// This end sent the first FIN.
    Local,
    /// The other end did.
    Remote,
    /// This end sent an RST.
    ResetLocal,
    /// The other end did.
    ResetRemote,
    /// The other end did not answer any more.
    Timeout,
    /// Not known.
    Unknown,
}

impl ClosedBy {
    /// As it is spelled outside.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Local => "local",
            Self::Remote => "remote",
            Self::ResetLocal => "reset-local",
            Self::ResetRemote => "reset-remote",
            Self::Timeout => "timeout",
            Self::Unknown => "unknown",
        }
    }
}

/// Another end, and the process on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Which.
    pub id: EndpointId,
    /// Its process, where one is known.
    pub process: Option<Actor>,
}

/// One end of a connection as it is known at some moment; or a listener, which has no `remote`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Stable for as long as the connection lasts.
    pub id: EndpointId,
    /// The same at both ends on this host.
    pub flow: EndpointId,
    /// Its socket. `via` is how it was connected or accepted, where that is not by a plain system call.
    pub socket: Socket,
    /// TCP state.
    pub state: State,
    /// Who began it, why, how sure.
    pub verdict: Verdict,
    /// The process that began it, where it is on this host and known.
    pub originator: Option<Actor>,
    /// The socket from which the thread that began it had received last, or which it had accepted, where it began here:
    /// see [`crate::process::Birth::cause`].
    pub cause: Option<Cookie>,
    /// The process on this end.
    pub process: Option<Actor>,
    /// How that is known.
    pub process_basis: Option<ProcessBasis>,
    /// Where it came from, with who called listen() there: one for all that came from there.
    pub listener: Option<Arc<Party>>,
    /// The other end, where it is on this host.
    pub peer: Option<Party>,
    /// From SYN to the established state, nanoseconds, at the end that connected.
    pub handshake: Option<NonZeroU64>,
}

/// What is known of an end once it is over, and how much it had carried when it was first seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Why it failed or broke.
    pub errno: Option<i32>,
    /// Established, nanoseconds.
    pub duration: Option<u64>,
    /// Payload.
    pub bytes: Option<Payload>,
    /// Who ended it.
    pub closed_by: Option<ClosedBy>,
}

/// What is told of an end: the `event` of the contract.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// It was there before netwatch.
    Seed,
    /// It listens.
    Listen,
    /// It listens no more.
    Unlisten,
    /// A connection is begun.
    Attempt,
    /// It is established.
    Open,
    /// A process took it off its listener.
    Accept,
    /// Another process uses it than the one that connected or accepted it.
    Handover,
    /// It never opened.
    Fail,
    /// It is over.
    Close,
    /// Another transition.
    State,
}

impl EventKind {
    /// All, in the order of the contract.
    pub const ALL: [Self; 10] = [
        Self::Seed,
        Self::Listen,
        Self::Unlisten,
        Self::Attempt,
        Self::Open,
        Self::Accept,
        Self::Handover,
        Self::Fail,
        Self::Close,
        Self::State,
    ];

    /// As it is spelled outside.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Seed => "seed",
            Self::Listen => "listen",
            Self::Unlisten => "unlisten",
            Self::Attempt => "attempt",
            Self::Open => "open",
            Self::Accept => "accept",
            Self::Handover => "handover",
            Self::Fail => "fail",
            Self::Close => "close",
            Self::State => "state",
        }
    }
}

impl Serialize for EventKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What the stages of `enrich` add to an event. Empty until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Status of each process's executable at the time of the event.
    pub exe: Roles<Option<ExeStatus>>,
    /// Name of the responder's port in `/etc/services`.
    pub service: Option<&'static str>,
}

/// Something happened to an end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionEvent {
    /// When.
    pub at: BootTime,
    /// What.
    pub kind: EventKind,
    /// The end, with that in it.
    pub endpoint: Endpoint,
    /// How it ended, where it did.
    pub outcome: Outcome,
    /// It was not seen when it happened, because records were lost, but found out later.
    pub repaired: bool,
    /// What the host says of its processes and ports.
    pub facts: HostFacts,
}

impl Endpoint {
    /// The processes that it names.
    #[must_use]
    pub fn actors(&self) -> Roles<Option<&Actor>> {
        Roles {
            originator: self.originator.as_ref(),
            process: self.process.as_ref(),
            listener: self.listener.as_deref().and_then(|party| party.process.as_ref()),
            peer: self.peer.as_ref().and_then(|party| party.process.as_ref()),
        }
    }

    /// The side that began it; `None` for a listener, which nobody began.
    #[must_use]
    pub fn side(&self) -> Option<Side> {
        self.remote.map(|_| self.verdict.side)
    }
}

impl Deref for Endpoint {
    type Target = Socket;

    fn deref(&self) -> &Socket {
        &self.socket
    }
}

impl DerefMut for Endpoint {
    fn deref_mut(&mut self) -> &mut Socket {
        &mut self.socket
    }
}
