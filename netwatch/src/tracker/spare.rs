//! Recycles the memory of closed endpoints: a busy host opens and closes thousands per second.

use super::conn::Conn;
use crate::decode::SocketRecord;
use crate::model::{BootTime, State};

/// Maximum number that is kept: those closed during a batch of records.
const MOST: usize = 1024;

#[derive(Debug, Default)]
#[expect(clippy::vec_box, reason = "the memory itself is what is kept")]
pub(super) struct Spare(Vec<Box<Conn>>);

impl Spare {
    /// See [`Conn::new`].
    pub(super) fn begin(&mut self, at: BootTime, socket: &SocketRecord, state: State) -> Box<Conn> {
        let conn = Conn::new(at, socket, state);
        match self.0.pop() {
            Some(mut spare) => {
                *spare = conn;
                spare
            }
            None => Box::new(conn),
        }
    }

    /// Returns the memory of a closed endpoint.
    pub(super) fn put(&mut self, mut conn: Box<Conn>) {
        if self.0.len() < MOST {
            conn.let_go();
            self.0.push(conn);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::super::tests::{CLIENT, SERVER, key, socket};
    use super::*;
    use crate::model::tests::ns;
    use crate::process::{Actor, Process};

    fn of(cookie: u64) -> SocketRecord {
        socket(cookie, CLIENT, SERVER)
    }

    #[test]
    fn reused_memory_keeps_nothing_of_the_previous_endpoint() {
        let mut spare = Spare::default();
        let process = Arc::new(Process::bare(key(7), "p7".into()));
        let mut conn = spare.begin(ns(1), &of(1), State::Established);
        conn.connected_by(Some(Actor::leader(process.clone())));
        conn.endpoint.peer = Some(conn.party());
        conn.endpoint.listener = Some(Arc::new(conn.party()));
        conn.subflow_failed(5);
        let held = Arc::strong_count(&process);
        spare.put(conn);
        assert_eq!((held, Arc::strong_count(&process)), (5, 1));
        let next = spare.begin(ns(2), &of(2), State::Close);
        assert!(spare.0.is_empty());
        assert_eq!(format!("{next:?}"), format!("{:?}", Conn::new(ns(2), &of(2), State::Close)));
    }

    #[test]
    fn few_spares_are_kept_after_a_flood() {
        let mut spare = Spare::default();
        let all: Vec<_> = (0..2 * MOST as u64).map(|at| spare.begin(ns(at), &of(at), State::Close)).collect();
        all.into_iter().for_each(|conn| spare.put(conn));
        assert_eq!(spare.0.len(), MOST);
    }
}
