//! Flows whose events are held back until it is known who sent their first datagram.

use std::collections::VecDeque;

use crate::hash::Map;
use crate::model::{BootTime, Cookie};

/// A flow whose first datagram was sent, and flows that wait for it: the peer has the same originator.
#[derive(Debug)]
struct Sending {
    began: BootTime,
    /// The socket, and the thread that probably sent it.
    by: Option<(Cookie, u32)>,
    followers: Vec<u64>,
}

/// Flows by their keys in the table of the tracker.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    sending: Map<u64, Sending>,
    by_thread: Map<(Cookie, u32), u64>,
    /// For a follower the flow that it waits for.
    follows: Map<u64, u64>,
    /// Keys of `sending` in the order in which they were added. May have some that are gone.
    order: VecDeque<u64>,
}

impl Waiting {
    /// Adds a flow that `thread` probably sent the first datagram of.
    pub(super) fn add(&mut self, key: u64, began: BootTime, cookie: Cookie, thread: Option<u32>) {
        let by = thread.map(|thread| (cookie, thread));
        if let Some(by) = by {
            self.by_thread.insert(by, key);
        }
        self.sending.insert(key, Sending { began, by, followers: Vec::new() });
        self.order.push_back(key);
    }

    /// Makes `key` wait for `sender`, if that waits. Returns whether it does.
    pub(super) fn follow(&mut self, key: u64, sender: u64) -> bool {
        let Some(sending) = self.sending.get_mut(&sender) else { return false };
        sending.followers.push(key);
        self.follows.insert(key, sender);
        true
    }

    /// The flow of which this thread sent the first datagram on this socket.
    pub(super) fn sent_by(&self, cookie: Cookie, thread: u32) -> Option<u64> {
        self.by_thread.get(&(cookie, thread)).copied()
    }

    /// The flow for which this one waits: itself or its peer.
    pub(super) fn awaited_by(&self, key: u64) -> Option<u64> {
        if self.sending.contains_key(&key) { Some(key) } else { self.follows.get(&key).copied() }
    }

    /// Removes a flow that waits for its own sender, and those that wait for it; returns all of them, it first.
    pub(super) fn release(&mut self, sender: u64) -> Vec<u64> {
        let Some(sending) = self.sending.remove(&sender) else { return Vec::new() };
        if let Some(by) = sending.by
            && self.by_thread.get(&by) == Some(&sender)
        {
            self.by_thread.remove(&by);
        }
        for follower in &sending.followers {
            self.follows.remove(follower);
        }
        std::iter::once(sender).chain(sending.followers).collect()
    }

    /// The oldest flow that waits for its own sender, if it began before `time`.
    pub(super) fn older_than(&mut self, time: BootTime) -> Option<u64> {
        loop {
            let oldest = *self.order.front()?;
            match self.sending.get(&oldest) {
                Some(sending) if sending.began >= time => return None,
                Some(_) => return Some(oldest),
                None => _ = self.order.pop_front(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::ns;

    #[test]
    fn flows_are_released_with_those_that_wait_for_them() {
        let mut waiting = Waiting::default();
        let cookie = Cookie::new(7).unwrap();
        waiting.add(1, ns(10), cookie, Some(100));
        waiting.add(2, ns(20), cookie, Some(101));
        assert!(waiting.follow(3, 1));
        assert!(!waiting.follow(4, 9));
        assert_eq!((waiting.sent_by(cookie, 100), waiting.sent_by(cookie, 102)), (Some(1), None));
        assert_eq!([1, 2, 3, 4].map(|key| waiting.awaited_by(key)), [Some(1), Some(2), Some(1), None]);
        assert_eq!((waiting.older_than(ns(10)), waiting.older_than(ns(11))), (None, Some(1)));
        assert_eq!(waiting.release(1), [1, 3]);
        assert_eq!((waiting.awaited_by(3), waiting.sent_by(cookie, 100)), (None, None));
        assert_eq!((waiting.older_than(ns(20)), waiting.older_than(ns(21))), (None, Some(2)));
        assert!(waiting.release(1).is_empty());
    }

    /// Each is looked at once, however many there are.
    #[test]
    fn flows_that_were_released_are_not_searched_again() {
        const MANY: u64 = 10_000;
        let mut waiting = Waiting::default();
        let cookie = Cookie::new(7).unwrap();
        (0..MANY).for_each(|key| waiting.add(key, ns(key), cookie, Some(5)));
        (0..MANY - 1).for_each(|key| assert_eq!(waiting.release(key), [key]));
        assert_eq!(waiting.order.len() as u64, MANY);
        assert_eq!(waiting.older_than(ns(0)), None);
        assert_eq!((waiting.order.len(), waiting.by_thread.len(), waiting.sending.len()), (1, 1, 1));
    }

    #[test]
    fn a_thread_that_sends_again_is_the_sender_of_the_later_flow() {
        let mut waiting = Waiting::default();
        let cookie = Cookie::new(7).unwrap();
        waiting.add(1, ns(10), cookie, Some(100));
        waiting.add(2, ns(20), cookie, Some(100));
        assert_eq!(waiting.release(1), [1]);
        assert_eq!(waiting.sent_by(cookie, 100), Some(2));
    }
}
