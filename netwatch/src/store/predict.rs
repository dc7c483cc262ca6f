//! Predicts the values of the earlier events of a row from its last one, so that they need not be stored. Pure.

use super::rows::{
    BASIS, CLOSED_BY, Cell, Cells, DURATION, ERRNO, INODE, LISTENER_PROCESS, LOCAL_NAME, PEER, PEER_PROCESS,
    PROCESS, PROCESS_BASIS, PROTO, RECEIVED, REMOTE_NAME, REPAIRED, SENT, STATE, int, maybe,
};
use super::words::{self, Word as _};
use crate::model::{Proto, State};
use crate::origin::Verdict;
use crate::tracker::{EventKind, ProcessBasis};

/// Replaces `later` by, for each event of a row, the kinds of the events after it.
pub(super) fn find_later(kinds: &[EventKind], later: &mut Vec<Kinds>) {
    later.clear();
    let mut so_far = Kinds::default();
    for kind in kinds.iter().rev() {
        later.push(so_far);
        so_far.0 |= Kinds::bit(*kind);
    }
    later.reverse();
}

/// A set of kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Kinds(u16);

impl Kinds {
    fn bit(kind: EventKind) -> u16 {
        1 << kind as u16
    }

    fn contains(self, kind: EventKind) -> bool {
        self.0 & Self::bit(kind) != 0
    }

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// Predicts the values of an event from the last one of the row and the kinds of the events after it: `later`,
/// including the last. A change requires a new version of the store.
pub(super) fn predicted(kind: EventKind, later: Kinds, last: &Cells) -> Cells {
    let mut cells = *last;
    let over = [EventKind::Close, EventKind::Fail, EventKind::Unlisten]
        .into_iter()
        .find(|kind| later.contains(*kind));
    if let Some(over) = over {
        let before = match over {
            EventKind::Unlisten => State::Listen,
            EventKind::Fail => State::SynSent,
            _ => State::Established,
        };
        cells.set(STATE, int(words::state_code(before)));
        for column in [ERRNO, DURATION, SENT, RECEIVED, CLOSED_BY] {
            cells.set(column, Cell::Null);
        }
    }
    if later.contains(EventKind::Accept) {
        // Before accept() it has no file, and its process is the owner of the listener.
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
    if kind == EventKind::Open && connected && last.word::<Proto>(PROTO) == Some(Proto::Tcp) {
        // The connecting endpoint is open before its peer.
        for column in [PEER, PEER + 1, PEER_PROCESS] {
            cells.set(column, Cell::Null);
        }
    }
    if matches!(kind, EventKind::Open | EventKind::Accept) {
        for column in [REMOTE_NAME, LOCAL_NAME] {
            // A TLS client says it later.
            if cells.number(column).is_some_and(i64::is_negative) {
                cells.set(column, Cell::Null);
            }
        }
    }
    cells.set(REPAIRED, int(0));
    cells
}
