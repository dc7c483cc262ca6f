//! Converts an endpoint to the columns of a row and back. Pure. Processes are ids of rows.
//!
//! A row has the endpoint of its last event, and for each earlier event the values that differ from [`super::predict`],
//! which is nearly always none.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::words::{self, Word};
use crate::model::{
    BootTime, Cookie, Device, DeviceName, Family, Nat, NetnsId, Payload, SockAddr, Socket, State, Translation,
};
use crate::names::Names;
use crate::origin::Verdict;
use crate::process::{Actor, Cause};
use crate::tracker::{ConnectionEvent, Endpoint, EndpointId, EventKind, HostFacts, Outcome, Party, Roles};

/// A value in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cell {
    #[default]
    Null,
    Int(i64),
    Ip(IpAddr),
    Errno(i32),
    Device(DeviceName),
}

/// Columns that may differ between events of the same endpoint, in the order of the table.
pub(super) const COLUMNS: [&str; 43] = [
    "flow_cookie",
    "flow_began",
    "proto",
    "family",
    "mapped",
    "netns",
    "socket",
    "inode",
    "local_ip",
    "local_port",
    "remote_ip",
    "remote_port",
    "via",
    "state",
    "side",
    "basis",
    "confidence",
    "originator",
    "cause",
    "process",
    "process_basis",
    "listener_cookie",
    "listener_began",
    "listener_process",
    "peer_cookie",
    "peer_began",
    "peer_process",
    "errno",
    "handshake",
    "duration",
    "sent",
    "received",
    "closed_by",
    "repaired",
    "nat",
    "nat_local_ip",
    "nat_local_port",
    "nat_remote_ip",
    "nat_remote_port",
    "interface",
    "device",
    "remote_name",
    "local_name",
];

/// How many of them the first version has.
pub(super) const FIRST_COLUMNS: usize = 34;

const FLOW: usize = 0;
pub(super) const PROTO: usize = 2;
const FAMILY: usize = 3;
const MAPPED: usize = 4;
const NETNS: usize = 5;
const SOCKET: usize = 6;
pub(super) const INODE: usize = 7;
const LOCAL: usize = 8;
const REMOTE: usize = 10;
const VIA: usize = 12;
pub(super) const STATE: usize = 13;
const SIDE: usize = 14;
pub(super) const BASIS: usize = 15;
const CONFIDENCE: usize = 16;
pub(super) const ORIGINATOR: usize = 17;
const CAUSE: usize = 18;
pub(super) const PROCESS: usize = 19;
pub(super) const PROCESS_BASIS: usize = 20;
const LISTENER: usize = 21;
pub(super) const LISTENER_PROCESS: usize = 23;
pub(super) const PEER: usize = 24;
pub(super) const PEER_PROCESS: usize = 26;
pub(super) const ERRNO: usize = 27;
const HANDSHAKE: usize = 28;
pub(super) const DURATION: usize = 29;
pub(super) const SENT: usize = 30;
pub(super) const RECEIVED: usize = 31;
pub(super) const CLOSED_BY: usize = 32;
pub(super) const REPAIRED: usize = 33;
const NAT: usize = 34;
const NAT_LOCAL: usize = 35;
const NAT_REMOTE: usize = 37;
const INTERFACE: usize = 39;
const DEVICE: usize = 40;
pub(super) const REMOTE_NAME: usize = 41;
pub(super) const LOCAL_NAME: usize = 42;

/// Rows of `host_name` that a row refers to: see [`super::intern::Interner::name`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct NameRows {
    pub(super) remote: Option<i64>,
    pub(super) local: Option<i64>,
}

/// The columns of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cells(pub(super) [Cell; COLUMNS.len()]);

pub(super) fn int(value: impl Into<i64>) -> Cell {
    Cell::Int(value.into())
}

/// Unsigned numbers are stored with the same bits.
fn bits(value: u64) -> Cell {
    Cell::Int(value.cast_signed())
}

pub(super) fn maybe<T>(value: Option<T>, cell: impl Fn(T) -> Cell) -> Cell {
    value.map_or(Cell::Null, cell)
}

impl Cells {
    /// `cause` and `names`: as in [`super::intern::Interner`].
    pub(super) fn of(
        event: &ConnectionEvent,
        rows: Roles<Option<i64>>,
        cause: Option<i64>,
        names: NameRows,
    ) -> Self {
        let (endpoint, outcome) = (&event.endpoint, &event.outcome);
        let flow = Some(endpoint.flow).filter(|flow| *flow != endpoint.id);
        let listener = endpoint.listener.as_ref().map(|party| party.id);
        let peer = endpoint.peer.as_ref().map(|party| party.id);
        let cookie = |id: Option<EndpointId>| maybe(id, |id| bits(id.cookie));
        let nat = endpoint.nat.translation();
        let own = Cookie::number(endpoint.cookie);
        let began = |id: Option<EndpointId>| maybe(id, |id| bits(id.began.nanos()));
        Self([
            cookie(flow),
            began(flow),
            int(endpoint.proto.code()),
            if endpoint.family == Family::of(endpoint.local.ip) {
                Cell::Null
            } else {
                int(endpoint.family.code())
            },
            int(endpoint.mapped),
            int(endpoint.netns.number()),
            if own == endpoint.id.cookie { Cell::Null } else { bits(own) },
            bits(endpoint.inode),
            Cell::Ip(endpoint.local.ip),
            int(endpoint.local.port),
            maybe(endpoint.remote, |remote| Cell::Ip(remote.ip)),
            maybe(endpoint.remote, |remote| int(remote.port)),
            maybe(endpoint.via, |via| int(via.code())),
            int(words::state_code(endpoint.state)),
            int(endpoint.verdict.side.code()),
            int(endpoint.verdict.basis.code()),
            int(endpoint.verdict.confidence.code()),
            maybe(rows.originator, Cell::Int),
            maybe(cause, Cell::Int),
            maybe(rows.process, Cell::Int),
            maybe(endpoint.process_basis, |basis| int(basis.code())),
            cookie(listener),
            began(listener),
            maybe(rows.listener, Cell::Int),
            cookie(peer),
            began(peer),
            maybe(rows.peer, Cell::Int),
            maybe(outcome.errno, Cell::Errno),
            maybe(endpoint.handshake, |handshake| bits(handshake.get())),
            maybe(outcome.duration, bits),
            maybe(outcome.bytes, |bytes| bits(bytes.sent)),
            maybe(outcome.bytes, |bytes| bits(bytes.received)),
            maybe(outcome.closed_by, |closed_by| int(closed_by.code())),
            int(event.repaired),
            match endpoint.nat {
                Nat::Unknown => Cell::Null,
                Nat::None => int(0),
                Nat::Translated(_) => int(1),
            },
            maybe(nat, |nat| Cell::Ip(nat.local.ip)),
            maybe(nat, |nat| int(nat.local.port)),
            maybe(nat, |nat| Cell::Ip(nat.remote.ip)),
            maybe(nat, |nat| int(nat.remote.port)),
            maybe(endpoint.device, |device| int(device.code())),
            maybe(event.facts.device, Cell::Device),
            maybe(names.remote, Cell::Int),
            maybe(names.local, Cell::Int),
        ])
    }

    pub(super) fn cell(&self, column: usize) -> Cell {
        self.0.get(column).copied().unwrap_or_default()
    }

    pub(super) fn set(&mut self, column: usize, to: Cell) {
        if let Some(cell) = self.0.get_mut(column) {
            *cell = to;
        }
    }

    pub(super) fn number(&self, column: usize) -> Option<i64> {
        match self.cell(column) {
            Cell::Int(number) => Some(number),
            _ => None,
        }
    }

    fn small<T: TryFrom<i64>>(&self, column: usize) -> Option<T> {
        self.number(column)?.try_into().ok()
    }

    pub(super) fn word<T: Word>(&self, column: usize) -> Option<T> {
        T::from_code(self.number(column)?)
    }

    /// See [`super::intern::Interner::cause`].
    pub(super) fn cause(&self) -> Option<i64> {
        self.number(CAUSE)
    }

    /// Rows of the names of its hosts.
    pub(super) fn names(&self) -> NameRows {
        NameRows { remote: self.number(REMOTE_NAME), local: self.number(LOCAL_NAME) }
    }

    fn unsigned(&self, column: usize) -> Option<u64> {
        self.number(column).map(i64::cast_unsigned)
    }

    fn id(&self, column: usize) -> Option<EndpointId> {
        Some(EndpointId {
            cookie: self.unsigned(column)?,
            began: BootTime::from_nanos(self.unsigned(column + 1)?),
        })
    }

    fn endpoint(&self, column: usize) -> Option<SockAddr> {
        match self.cell(column) {
            Cell::Ip(ip) => Some(SockAddr { ip, port: self.small(column + 1)? }),
            _ => None,
        }
    }

    /// Rows of the processes.
    pub(super) fn rows(&self) -> Roles<Option<i64>> {
        Roles {
            originator: self.number(ORIGINATOR),
            process: self.number(PROCESS),
            listener: self.number(LISTENER_PROCESS),
            peer: self.number(PEER_PROCESS),
        }
    }

    /// The event; `None` if the columns are invalid.
    pub(super) fn event(
        &self,
        id: EndpointId,
        at: BootTime,
        kind: EventKind,
        actors: Roles<Option<Actor>>,
        names: Names,
    ) -> Option<ConnectionEvent> {
        let local = self.endpoint(LOCAL)?;
        let party = |column, process| self.id(column).map(|id| Party { id, process });
        let is_set = |column| self.number(column).map(|value| value != 0);
        let bytes = self.unsigned(SENT).zip(self.unsigned(RECEIVED));
        let endpoint = Endpoint {
            id,
            flow: self.id(FLOW).unwrap_or(id),
            socket: Socket {
                cookie: Cookie::new(self.unsigned(SOCKET).unwrap_or(id.cookie)),
                inode: self.unsigned(INODE)?,
                netns: NetnsId::new(self.small(NETNS)?),
                proto: self.word(PROTO)?,
                family: self.word(FAMILY).unwrap_or(Family::of(local.ip)),
                mapped: is_set(MAPPED)?,
                via: self.word(VIA),
                device: self.small(INTERFACE).and_then(Device::from_code),
                local,
                remote: self.endpoint(REMOTE),
            },
            state: State::from_kernel(self.small(STATE)?),
            verdict: Verdict {
                side: self.word(SIDE)?,
                basis: self.word(BASIS)?,
                confidence: self.word(CONFIDENCE)?,
            },
            originator: actors.originator,
            // The messages of a negative number are in another table.
            cause: Cause::of_socket(
                self.cause().filter(|cause| *cause > 0).and_then(|cause| Cookie::new(cause.cast_unsigned())),
            ),
            process: actors.process,
            process_basis: self.word(PROCESS_BASIS),
            listener: party(LISTENER, actors.listener).map(Arc::new),
            peer: party(PEER, actors.peer),
            handshake: self.unsigned(HANDSHAKE).and_then(NonZeroU64::new),
            nat: match (self.number(NAT), self.endpoint(NAT_LOCAL).zip(self.endpoint(NAT_REMOTE))) {
                (Some(0), _) => Nat::None,
                (Some(_), Some((local, remote))) => Nat::Translated(Translation { local, remote }.into()),
                _ => Nat::Unknown,
            },
            names,
        };
        let outcome = Outcome {
            errno: match self.cell(ERRNO) {
                Cell::Errno(errno) => Some(errno),
                _ => None,
            },
            duration: self.unsigned(DURATION),
            bytes: bytes.map(|(sent, received)| Payload { sent, received }),
            closed_by: self.word(CLOSED_BY),
        };
        Some(ConnectionEvent {
            at,
            kind,
            endpoint,
            outcome,
            repaired: is_set(REPAIRED)?,
            facts: HostFacts {
                device: match self.cell(DEVICE) {
                    Cell::Device(name) => Some(name),
                    _ => None,
                },
                ..HostFacts::default()
            },
        })
    }
}

#[cfg(test)]
pub(super) mod tests;
