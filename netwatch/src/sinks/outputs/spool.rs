//! What is encoded and not delivered yet, in order.

use std::collections::VecDeque;

use crate::limits;

/// Messages that are delivered at once.
#[derive(Debug, Default)]
pub(super) struct Payload {
    /// Its place in the stream, from 1. A payload that is sent again has the same messages and number.
    pub(super) number: u64,
    bytes: Vec<u8>,
    /// The end of each message in `bytes`, and the kind of its event.
    messages: Vec<(usize, &'static str)>,
    /// Number of messages that are delivered or given up.
    done: usize,
    /// It was sent, so nothing is added any more.
    is_sealed: bool,
}

impl Payload {
    /// The messages that are left.
    pub(super) fn messages(&self) -> impl Iterator<Item = &[u8]> {
        let begins = std::iter::once(0).chain(self.messages.iter().map(|(end, _)| *end));
        let ends = self.messages.iter().map(|(end, _)| *end);
        begins.zip(ends).skip(self.done).filter_map(|(begin, end)| self.bytes.get(begin..end))
    }

    /// The same as one run of bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        let begin =
            self.done.checked_sub(1).and_then(|last| self.messages.get(last)).map_or(0, |(end, _)| *end);
        self.bytes.get(begin..).unwrap_or_default()
    }

    /// The next `count` messages are delivered or given up. Returns their kinds.
    pub(super) fn advance(&mut self, count: usize) -> impl Iterator<Item = &'static str> {
        let begin = self.done;
        self.done = begin.saturating_add(count).min(self.messages.len());
        self.messages.get(begin..self.done).unwrap_or_default().iter().map(|(_, kind)| *kind)
    }

    /// Number of messages that are left.
    pub(super) fn left(&self) -> usize {
        self.messages.len() - self.done
    }

    fn has_room(&self, bytes: usize) -> bool {
        let fits = self.bytes.len() + bytes <= limits::OUTPUT_PAYLOAD;
        !self.is_sealed && fits && self.messages.len() < limits::OUTPUT_MESSAGES
    }
}

/// Payloads in order.
#[derive(Debug, Default)]
pub(super) struct Spool {
    payloads: VecDeque<Payload>,
    bytes: usize,
    number: u64,
}

impl Spool {
    /// Appends a message.
    pub(super) fn push(&mut self, kind: &'static str, message: &[u8]) {
        if !self.payloads.back().is_some_and(|last| last.has_room(message.len())) {
            self.number += 1;
            self.payloads.push_back(Payload { number: self.number, ..Payload::default() });
        }
        if let Some(last) = self.payloads.back_mut() {
            last.bytes.extend_from_slice(message);
            last.messages.push((last.bytes.len(), kind));
            self.bytes += message.len();
        }
    }

    /// The payload to deliver next, to which nothing is added from now on.
    pub(super) fn front(&mut self) -> Option<&mut Payload> {
        let front = self.payloads.front_mut()?;
        front.is_sealed = true;
        Some(front)
    }

    /// Removes the first payload.
    pub(super) fn pop(&mut self) {
        if let Some(payload) = self.payloads.pop_front() {
            self.bytes -= payload.bytes.len();
        }
    }

    /// Whether more may be encoded.
    pub(super) fn has_room(&self) -> bool {
        self.bytes < limits::OUTPUT_SPOOL
    }

    pub(super) fn is_empty(&self) -> bool {
        self.payloads.is_empty()
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Number of messages that are not delivered.
    pub(super) fn left(&self) -> usize {
        self.payloads.iter().map(Payload::left).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(payload: &Payload) -> Vec<&str> {
        payload.messages().map(|message| str::from_utf8(message).unwrap()).collect()
    }

    #[test]
    fn what_was_sent_stays_as_it_is() {
        let mut spool = Spool::default();
        ["a", "bc"].iter().for_each(|text| spool.push("open", text.as_bytes()));
        let first = spool.front().unwrap();
        assert_eq!((first.number, texts(first)), (1, vec!["a", "bc"]));
        spool.push("close", b"d");
        let first = spool.front().unwrap();
        assert_eq!((first.number, texts(first)), (1, vec!["a", "bc"]));
        assert_eq!(first.advance(1).collect::<Vec<_>>(), ["open"]);
        assert_eq!((texts(first), first.bytes(), first.left()), (vec!["bc"], &b"bc"[..], 1));
        assert_eq!((spool.left(), spool.bytes()), (2, 4));
        assert_eq!(spool.front().unwrap().advance(9).count(), 1);
        spool.pop();
        let second = spool.front().unwrap();
        assert_eq!((second.number, texts(second), second.bytes()), (2, vec!["d"], &b"d"[..]));
        spool.pop();
        assert!(spool.is_empty() && spool.front().is_none());
        assert_eq!((spool.left(), spool.bytes()), (0, 0));
    }

    #[test]
    fn payloads_are_limited() {
        let mut spool = Spool::default();
        let half = vec![b'x'; limits::OUTPUT_PAYLOAD / 2];
        for message in [&half[..], &half, b"y", &vec![b'z'; 2 * limits::OUTPUT_PAYLOAD], b"y"] {
            spool.push("open", message);
        }
        let counts = |spool: &Spool| spool.payloads.iter().map(Payload::left).collect::<Vec<_>>();
        assert_eq!(counts(&spool), [2, 1, 1, 1]);
        let mut spool = Spool::default();
        (0..=limits::OUTPUT_MESSAGES).for_each(|_| spool.push("open", b"x"));
        assert_eq!(counts(&spool), [limits::OUTPUT_MESSAGES, 1]);
    }
}
