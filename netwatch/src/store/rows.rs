//! An end as the columns of a row, and back. Pure. Processes stand there as ids of rows.
//!
//! A row has the end as it was last, and for each earlier event of the row what it had otherwise than
//! [`predicted`], which is nearly always nothing.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::Arc;

use super::words::{self, Word};
use crate::model::{BootTime, Cookie, Endpoint, Family, Payload, Proto, Socket, State};
use crate::origin::Verdict;
use crate::process::Actor;
use crate::tracker::{ConnectionEvent, End, EndId, Ending, HostFacts, Kind, Party, ProcessBasis, Roles};

/// A value in a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Cell {
    #[default]
    Null,
    Int(i64),
    Ip(IpAddr),
    Errno(i32),
}

/// Columns that an event can have otherwise than another of the same end, in the order of the table.
pub(super) const COLUMNS: [&str; 34] = [
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
];

const FLOW: usize = 0;
pub(super) const PROTO: usize = 2;
const FAMILY: usize = 3;
const MAPPED: usize = 4;
const NETNS: usize = 5;
const SOCKET: usize = 6;
const INODE: usize = 7;
const LOCAL: usize = 8;
const REMOTE: usize = 10;
const VIA: usize = 12;
const STATE: usize = 13;
const SIDE: usize = 14;
const BASIS: usize = 15;
const CONFIDENCE: usize = 16;
pub(super) const ORIGINATOR: usize = 17;
const CAUSE: usize = 18;
pub(super) const PROCESS: usize = 19;
const PROCESS_BASIS: usize = 20;
const LISTENER: usize = 21;
pub(super) const LISTENER_PROCESS: usize = 23;
const PEER: usize = 24;
pub(super) const PEER_PROCESS: usize = 26;
const ERRNO: usize = 27;
const HANDSHAKE: usize = 28;
const DURATION: usize = 29;
const SENT: usize = 30;
const RECEIVED: usize = 31;
const CLOSED_BY: usize = 32;
const REPAIRED: usize = 33;

/// An event's columns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cells(pub(super) [Cell; COLUMNS.len()]);

fn int(value: impl Into<i64>) -> Cell {
    Cell::Int(value.into())
}

/// Unsigned numbers keep their bits.
fn bits(value: u64) -> Cell {
    Cell::Int(value.cast_signed())
}

fn maybe<T>(value: Option<T>, cell: impl Fn(T) -> Cell) -> Cell {
    value.map_or(Cell::Null, cell)
}

impl Cells {
    pub(super) fn of(event: &ConnectionEvent, rows: Roles<Option<i64>>) -> Self {
        let (end, ending) = (&event.end, &event.ending);
        let flow = Some(end.flow).filter(|flow| *flow != end.id);
        let listener = end.listener.as_ref().map(|party| party.id);
        let peer = end.peer.as_ref().map(|party| party.id);
        let cookie = |id: Option<EndId>| maybe(id, |id| bits(id.cookie));
        let own = Cookie::number(end.cookie);
        let began = |id: Option<EndId>| maybe(id, |id| bits(id.began.nanos()));
        Self([
            cookie(flow),
            began(flow),
            int(end.proto.code()),
            if end.family == Family::of(end.local.ip) { Cell::Null } else { int(end.family.code()) },
            int(end.mapped),
            int(end.netns),
            if own == end.id.cookie { Cell::Null } else { bits(own) },
            bits(end.inode),
            Cell::Ip(end.local.ip),
            int(end.local.port),
            maybe(end.remote, |remote| Cell::Ip(remote.ip)),
            maybe(end.remote, |remote| int(remote.port)),
            maybe(end.via, |via| int(via.code())),
            int(words::state_code(end.state)),
            int(end.verdict.side.code()),
            int(end.verdict.basis.code()),
            int(end.verdict.confidence.code()),
            maybe(rows.originator, Cell::Int),
            maybe(end.cause, |cause| bits(cause.get())),
            maybe(rows.process, Cell::Int),
            maybe(end.process_basis, |basis| int(basis.code())),
            cookie(listener),
            began(listener),
            maybe(rows.listener, Cell::Int),
            cookie(peer),
            began(peer),
            maybe(rows.peer, Cell::Int),
            maybe(ending.errno, Cell::Errno),
            maybe(end.handshake, |handshake| bits(handshake.get())),
            maybe(ending.duration, bits),
            maybe(ending.bytes, |bytes| bits(bytes.sent)),
            maybe(ending.bytes, |bytes| bits(bytes.received)),
            maybe(ending.closed_by, |closed_by| int(closed_by.code())),
            int(event.repaired),
        ])
    }

    fn cell(&self, column: usize) -> Cell {
        self.0.get(column).copied().unwrap_or_default()
    }

    fn set(&mut self, column: usize, to: Cell) {
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

    fn word<T: Word>(&self, column: usize) -> Option<T> {
        T::from_code(self.number(column)?)
    }

    fn unsigned(&self, column: usize) -> Option<u64> {
        self.number(column).map(i64::cast_unsigned)
    }

    fn id(&self, column: usize) -> Option<EndId> {
        Some(EndId {
            cookie: self.unsigned(column)?,
            began: BootTime::from_nanos(self.unsigned(column + 1)?),
        })
    }

    fn endpoint(&self, column: usize) -> Option<Endpoint> {
        match self.cell(column) {
            Cell::Ip(ip) => Some(Endpoint { ip, port: self.small(column + 1)? }),
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

    /// The event; `None` where the columns make no sense.
    pub(super) fn event(
        &self,
        id: EndId,
        at: BootTime,
        kind: Kind,
        actors: Roles<Option<Actor>>,
    ) -> Option<ConnectionEvent> {
        let local = self.endpoint(LOCAL)?;
        let party = |column, process| self.id(column).map(|id| Party { id, process });
        let is_set = |column| self.number(column).map(|value| value != 0);
        let bytes = self.unsigned(SENT).zip(self.unsigned(RECEIVED));
        let end = End {
            id,
            flow: self.id(FLOW).unwrap_or(id),
            socket: Socket {
                cookie: Cookie::new(self.unsigned(SOCKET).unwrap_or(id.cookie)),
                inode: self.unsigned(INODE)?,
                netns: self.small(NETNS)?,
                proto: self.word(PROTO)?,
                family: self.word(FAMILY).unwrap_or(Family::of(local.ip)),
                mapped: is_set(MAPPED)?,
                via: self.word(VIA),
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
            cause: self.unsigned(CAUSE).and_then(Cookie::new),
            process: actors.process,
            process_basis: self.word(PROCESS_BASIS),
            listener: party(LISTENER, actors.listener).map(Arc::new),
            peer: party(PEER, actors.peer),
            handshake: self.unsigned(HANDSHAKE).and_then(NonZeroU64::new),
        };
        let ending = Ending {
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
            end,
            ending,
            repaired: is_set(REPAIRED)?,
            facts: HostFacts::default(),
        })
    }
}

/// What an event most likely had, told from the last one of the row and from what came in between: `later`, the last
/// included. Changing this makes another version of the store.
pub(super) fn predicted(kind: Kind, later: &[Kind], last: &Cells) -> Cells {
    let mut cells = *last;
    let over = [Kind::Close, Kind::Fail, Kind::Unlisten].into_iter().find(|kind| later.contains(kind));
    if let Some(over) = over {
        let before = match over {
            Kind::Unlisten => State::Listen,
            Kind::Fail => State::SynSent,
            _ => State::Established,
        };
        cells.set(STATE, int(words::state_code(before)));
        for column in [ERRNO, DURATION, SENT, RECEIVED, CLOSED_BY] {
            cells.set(column, Cell::Null);
        }
    }
    if later.contains(&Kind::Accept) {
        // Until it is accepted it has no file, and the listener's owner stands for it.
        cells.set(INODE, int(0));
        cells.set(PROCESS, last.cell(LISTENER_PROCESS));
        let basis = last.number(LISTENER_PROCESS).map(|_| ProcessBasis::Listener);
        cells.set(PROCESS_BASIS, maybe(basis, |basis| int(basis.code())));
        if last.word(BASIS) == Some(Verdict::ACCEPT.basis) {
            let handshake = Verdict::handshake(Verdict::ACCEPT.side);
            cells.set(BASIS, int(handshake.basis.code()));
        }
    }
    let connected = last.word(BASIS) == Some(Verdict::CONNECT.basis);
    if kind == Kind::Open && connected && last.word::<Proto>(PROTO) == Some(Proto::Tcp) {
        // The end that connects is open before the other end is.
        for column in [PEER, PEER + 1, PEER_PROCESS] {
            cells.set(column, Cell::Null);
        }
    }
    cells.set(REPAIRED, int(0));
    cells
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::tracker::tests::event;

    fn some_actor(pid: u32) -> Actor {
        Actor::leader(crate::process::tests::process(pid, None))
    }

    #[test]
    fn columns_are_where_they_are_said_to_be() {
        for (column, name) in [
            (FLOW, "flow_cookie"),
            (LOCAL, "local_ip"),
            (REMOTE, "remote_ip"),
            (STATE, "state"),
            (BASIS, "basis"),
            (ORIGINATOR, "originator"),
            (PROCESS, "process"),
            (LISTENER_PROCESS, "listener_process"),
            (PEER, "peer_cookie"),
            (PEER_PROCESS, "peer_process"),
            (ERRNO, "errno"),
            (CLOSED_BY, "closed_by"),
            (REPAIRED, "repaired"),
        ] {
            assert_eq!(COLUMNS[column], name);
        }
    }

    /// An event with everything in it that the numbers ask for.
    pub(crate) fn any_event() -> impl Strategy<Value = ConnectionEvent> {
        let numbers = prop::array::uniform12(any::<u64>());
        (numbers, prop::array::uniform16(any::<u8>()), any::<[bool; 16]>()).prop_map(|(n, b, has)| {
            let remote = has[0].then_some("[2001:db8::1]:65535");
            let mut event = event(Kind::ALL[usize::from(b[0]) % 10], "10.0.0.1:40000", remote);
            event.at = BootTime::from_nanos(n[11] >> 2);
            event.repaired = has[1];
            let id = |cookie, began| EndId { cookie, began: BootTime::from_nanos(began) };
            let actor = |has: bool, pid: u8| has.then(|| some_actor(u32::from(pid)));
            let end = &mut event.end;
            end.id = id(u64::from(b[15] % 4), n[1] >> 2);
            end.flow = if has[2] { end.id } else { id(n[2], n[3]) };
            end.proto = if has[3] { Proto::Tcp } else { Proto::Udp };
            end.family = if has[4] { Family::Ipv4 } else { Family::Ipv6 };
            end.mapped = has[5];
            end.netns = n[4] as u32;
            end.cookie = Cookie::new(if has[6] { end.id.cookie } else { n[5] });
            end.inode = n[6];
            end.local.port = n[7] as u16;
            end.state = State::from_kernel(b[1]);
            end.via = Word::from_code(i64::from(b[2] % 8));
            end.verdict = Verdict {
                side: Word::from_code(i64::from(b[3] % 4)).unwrap(),
                basis: Word::from_code(i64::from(b[4] % 7)).unwrap(),
                confidence: Word::from_code(i64::from(b[5] % 4)).unwrap(),
            };
            end.originator = actor(has[7], b[6]);
            end.process = actor(has[8], b[7]);
            end.process_basis = Word::from_code(i64::from(b[8] % 8));
            let listener = || Party { id: id(n[8], n[9]), process: actor(has[10], b[9]) };
            end.listener = has[9].then(|| Arc::new(listener()));
            end.peer = has[11].then(|| Party { id: id(n[9], n[8]), process: actor(has[12], b[10]) });
            end.cause = has[14].then_some(n[10]).and_then(Cookie::new);
            end.handshake = NonZeroU64::new(n[10]).filter(|_| has[15]);
            event.ending = Ending {
                errno: has[13].then_some(i32::from(b[11])),
                duration: has[13].then_some(n[9]),
                bytes: has[12].then_some(Payload { sent: n[0], received: n[1] }),
                closed_by: Word::from_code(i64::from(b[12] % 8)),
            };
            event
        })
    }

    fn pids(event: &ConnectionEvent) -> Roles<Option<i64>> {
        event.end.actors().map(|actor| i64::from(actor.process.key.pid))
    }

    proptest! {
        #[test]
        fn an_event_comes_back_as_it_was(event in any_event()) {
            let cells = Cells::of(&event, pids(&event));
            let back = cells.event(event.end.id, event.at, event.kind, cells.rows().map(|row| some_actor(row as u32)));
            prop_assert_eq!(back, Some(event));
        }
    }
}
