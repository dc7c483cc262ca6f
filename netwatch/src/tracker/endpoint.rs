//! An endpoint, and the events about it.

use std::fmt;
use std::num::NonZeroU64;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use serde::{Serialize, Serializer};

use super::Roles;
use crate::model::{BootTime, DeviceName, Nat, Payload, Proto, Socket, State};
use crate::names::Names;
use crate::origin::{Side, Verdict};
use crate::process::{Actor, Cause, ExeStatus};

/// Id of an endpoint or (as a flow) of a connection. Unique within a boot, since cookies are not reused and a reused
/// socket has another start time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct EndpointId {
    /// Cookie of the socket, or another key if several share it.
    pub cookie: u64,
    /// When it began or was first seen.
    pub began: BootTime,
}

impl fmt::Display for EndpointId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:x}-{:x}", self.cookie, self.began.nanos())
    }
}

/// How the process of an endpoint is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcessBasis {
    /// It connected.
    Connect,
    /// It accepted the connection.
    Accept,
    /// It called listen() on the listener.
    Listener,
    /// It uses the connection, which another process had before.
    Handover,
    /// It had the socket open in a snapshot.
    Seed,
}

/// How a connection was closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClosedBy {
    /// The local side sent the first FIN.
    Local,
    /// The remote side did.
    Remote,
    /// The local side sent an RST.
    ResetLocal,
    /// The remote side did.
    ResetRemote,
    /// The remote side did not answer any more.
    Timeout,
    /// Not known.
    Unknown,
}

impl ClosedBy {
    /// Name in the output.
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

/// A peer endpoint and its process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Party {
    /// Its id.
    pub id: EndpointId,
    /// Its process, if known.
    pub process: Option<Actor>,
}

/// An endpoint at one time: one side of a connection, or a listener, which has no `remote`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Id, stable for the lifetime of the connection.
    pub id: EndpointId,
    /// Flow id, the same on both endpoints on this host.
    pub flow: EndpointId,
    /// Its socket. `via`: how it was connected or accepted, if not by a plain system call.
    pub socket: Socket,
    /// TCP state.
    pub state: State,
    /// The originating side, with basis and confidence.
    pub verdict: Verdict,
    /// The originating process, if it is on this host and known.
    pub originator: Option<Actor>,
    /// The socket that the connecting thread had last received from or accepted, for a connection originated here: see
    /// [`crate::process::Birth::cause`].
    pub cause: Cause,
    /// The process of this endpoint.
    pub process: Option<Actor>,
    /// How the process is known.
    pub process_basis: Option<ProcessBasis>,
    /// Its listener, with the process that called listen(); shared by all children.
    pub listener: Option<Arc<Party>>,
    /// The peer endpoint, if it is on this host.
    pub peer: Option<Party>,
    /// Duration of the handshake in nanoseconds, on the connecting side.
    pub handshake: Option<NonZeroU64>,
    /// The translation of its addresses.
    pub nat: Nat,
    /// The names of its hosts.
    pub names: Names,
}

/// Result of a closed endpoint; for a seed, the payload so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Why it failed or broke: positive errno.
    pub errno: Option<i32>,
    /// Time in the established state, in nanoseconds.
    pub duration: Option<u64>,
    /// Payload in bytes.
    pub bytes: Option<Payload>,
    /// How it was closed.
    pub closed_by: Option<ClosedBy>,
}

/// Kinds of events: the `event` of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// The endpoint existed before netwatch started.
    Seed,
    /// A listener was created.
    Listen,
    /// A listener was closed.
    Unlisten,
    /// A connection attempt began.
    Attempt,
    /// The connection was established.
    Open,
    /// A process accepted the connection.
    Accept,
    /// Another process than the connector or acceptor uses it.
    Handover,
    /// The attempt failed.
    Fail,
    /// The connection was closed.
    Close,
    /// Any other state transition.
    State,
}

impl EventKind {
    /// All kinds, in the order of the specification.
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

    /// Name in the output.
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

/// Facts that `enrich` adds to an event; empty until then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HostFacts {
    /// Status of each process's executable at the time of the event.
    pub exe: Roles<Option<ExeStatus>>,
    /// Name of the responder's port in `/etc/services`.
    pub service: Option<&'static str>,
    /// Name of its interface: see [`Socket::device`].
    pub device: Option<DeviceName>,
}

/// An event of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectionEvent {
    /// Time.
    pub at: BootTime,
    /// Kind.
    pub kind: EventKind,
    /// The endpoint after the event.
    pub endpoint: Endpoint,
    /// The result, if it closed.
    pub outcome: Outcome,
    /// The event was missed because records were lost, and found by a snapshot later.
    pub repaired: bool,
    /// Facts about its processes and ports.
    pub facts: HostFacts,
}

impl ConnectionEvent {
    /// Whether this event stands for its connection, of which there is one. A TCP connection from the other side is of
    /// the process that accepts it, which is known then; a snapshot after a loss may find one that was accepted before.
    #[must_use]
    pub fn is_the_connection(&self) -> bool {
        let endpoint = &self.endpoint;
        let is_inbound = endpoint.remote.is_some() && endpoint.verdict.asserted() == Some(Side::Remote);
        let is_accepted = endpoint.proto == Proto::Tcp && is_inbound;
        match self.kind {
            EventKind::Open => !is_accepted || self.repaired,
            EventKind::Accept => is_accepted,
            _ => false,
        }
    }
}

impl Endpoint {
    /// The processes in the event.
    #[must_use]
    pub fn actors(&self) -> Roles<Option<&Actor>> {
        Roles {
            originator: self.originator.as_ref(),
            process: self.process.as_ref(),
            listener: self.listener.as_deref().and_then(|party| party.process.as_ref()),
            peer: self.peer.as_ref().and_then(|party| party.process.as_ref()),
        }
    }

    /// The originating side; `None` for a listener.
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
