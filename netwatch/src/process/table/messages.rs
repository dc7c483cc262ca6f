//! Messages between processes, until the records of what they caused arrive.

use std::collections::VecDeque;
use std::sync::Arc;

use super::ProcessTable;
use crate::decode::{self, Messages, PairEvent, Task};
use crate::hash::Map;
use crate::limits;
use crate::model::{BootTime, ProcessKey, Way};
use crate::process::{Cause, Message, Process};

impl ProcessTable {
    /// What a task acted upon in the record of this time. `reader`: its process; for a fork, the process that forked.
    #[must_use]
    pub fn cause(&self, at: BootTime, task: &Task, reader: ProcessKey) -> Cause {
        if !task.by_message {
            return Cause::of_socket(task.cause);
        }
        // Without the messages it is not known who had read from the socket.
        let Some(messages) = self.messages.announced(at, task.tid) else { return Cause::default() };
        let readers = messages.iter().skip(1).map(|message| message.writer).chain([reader]);
        let known = messages.iter().zip(readers).map(|(message, reader)| Message {
            writer: self.find(message.writer).cloned().unwrap_or_else(|| unnamed(message.writer)),
            at: message.at,
            way: message.way,
            inode: message.inode,
            path: self.messages.path(message.writer, reader).filter(|_| message.way == Way::Unix),
        });
        Cause::new(task.cause, known.collect())
    }
}

/// A process of which only the key is known.
fn unnamed(key: ProcessKey) -> Arc<Process> {
    Arc::new(Process::bare(key, "?".into()))
}

/// Messages that led to a record, and the names of the sockets between processes.
#[derive(Debug, Default)]
pub(super) struct MessageTable {
    /// The oldest first.
    announced: VecDeque<(BootTime, Messages)>,
    /// By writer and reader.
    paths: Map<(ProcessKey, ProcessKey), Option<Arc<str>>>,
    order: VecDeque<(ProcessKey, ProcessKey)>,
}

/// Records of causes whose own record has not arrived. That is the next one of the thread, so there is about one a CPU;
/// more remain only where records are lost.
const WAITING: usize = 256;

impl MessageTable {
    /// Notes the messages that led to the record of this time.
    pub(super) fn announce(&mut self, at: BootTime, messages: Messages) {
        if self.announced.len() >= WAITING {
            self.announced.pop_front();
        }
        self.announced.push_back((at, messages));
    }

    /// The messages that led to the record of this time about a thread.
    pub(super) fn announced(&self, at: BootTime, tid: u32) -> Option<&[decode::Message]> {
        let is = |(when, messages): &&(BootTime, Messages)| *when == at && messages.tid == tid;
        self.announced.iter().rev().find(is).map(|(_, messages)| &messages.messages[..])
    }

    /// Notes the socket between two processes.
    pub(super) fn learn(&mut self, pair: &PairEvent) {
        let key = (pair.writer, pair.reader);
        if self.paths.insert(key, pair.path.clone()).is_some() {
            return;
        }
        self.order.push_back(key);
        if self.order.len() > limits::MOST_MESSAGE_PATHS
            && let Some(oldest) = self.order.pop_front()
        {
            self.paths.remove(&oldest);
        }
    }

    /// The name of the socket over which the messages between two processes go.
    pub(super) fn path(&self, writer: ProcessKey, reader: ProcessKey) -> Option<Arc<str>> {
        self.paths.get(&(writer, reader)).or_else(|| self.paths.get(&(reader, writer)))?.clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::ns;

    #[test]
    fn number_of_paths_and_of_announced_messages_is_bounded() {
        let key = |pid| ProcessKey::from_ticks(pid, 1);
        let mut table = MessageTable::default();
        let path: Option<Arc<str>> = Some("/run/s".into());
        for pid in 0..10_000 {
            table.learn(&PairEvent { writer: key(pid), reader: key(1), path: path.clone() });
            table.announce(ns(pid.into()), Messages { tid: pid, messages: Vec::new() });
        }
        assert_eq!(
            (table.paths.len(), table.order.len()),
            (limits::MOST_MESSAGE_PATHS, limits::MOST_MESSAGE_PATHS)
        );
        assert_eq!(table.announced.len(), WAITING);
        assert_eq!(table.path(key(1), key(9_999)), path, "either may write");
        assert_eq!(table.path(key(3), key(1)), None, "the oldest is forgotten");
        assert!(table.announced(ns(9_999), 9_999).is_some() && table.announced(ns(9_999), 1).is_none());
    }
}
