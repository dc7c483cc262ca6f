//! What was seen of each endpoint in this run, as far as detections and the walk back need it.

use std::collections::VecDeque;

use crate::hash::Map;
use crate::limits;
use crate::model::{Cookie, ProcessKey};
use crate::tracker::{ConnectionEvent, EndpointId, EventKind};

/// Events of an endpoint that are kept: with more, the later ones replace each other.
const MOST_EVENTS: usize = 8;

/// The endpoints of this run: those that exist, and the last that ended.
#[derive(Debug, Default)]
pub struct Memory {
    endpoints: Map<EndpointId, Vec<ConnectionEvent>>,
    by_cookie: Map<u64, EndpointId>,
    /// Endpoints in the order in which they are forgotten, once there are too many.
    order: VecDeque<EndpointId>,
    /// How many open connections each process has.
    open: Map<u32, u32>,
}

impl Memory {
    /// Notes an event.
    pub fn note(&mut self, event: &ConnectionEvent) {
        let endpoint = &event.endpoint;
        let id = endpoint.id;
        let before = self.endpoints.get(&id).and_then(|events| events.last()).and_then(holder);
        let known = self.endpoints.entry(id).or_default();
        if known.is_empty() {
            self.order.push_back(id);
            self.by_cookie.insert(endpoint.cookie.map_or(id.cookie, Cookie::get), id);
        }
        if known.len() >= MOST_EVENTS {
            known.pop();
        }
        known.push(event.clone());
        let after = holder(event);
        if before != after {
            if let Some(pid) = before {
                self.leave(pid);
            }
            if let Some(pid) = after {
                *self.open.entry(pid).or_default() += 1;
            }
        }
        while self.order.len() > limits::RULE_ENDPOINTS {
            self.forget_oldest();
        }
    }

    fn forget_oldest(&mut self) {
        let Some(oldest) = self.order.pop_front() else { return };
        let Some(events) = self.endpoints.remove(&oldest) else { return };
        let Some(last) = events.last() else { return };
        let cookie = last.endpoint.cookie.map_or(oldest.cookie, Cookie::get);
        if self.by_cookie.get(&cookie) == Some(&oldest) {
            self.by_cookie.remove(&cookie);
        }
        if let Some(pid) = holder(last) {
            self.leave(pid);
        }
    }

    fn leave(&mut self, pid: u32) {
        if let Some(count) = self.open.get_mut(&pid) {
            *count -= 1;
            if *count == 0 {
                self.open.remove(&pid);
            }
        }
    }

    /// Whether a process has an open connection.
    #[must_use]
    pub fn holds(&self, pid: u32) -> bool {
        self.open.contains_key(&pid)
    }

    /// The events of an endpoint.
    #[must_use]
    pub fn events(&self, id: EndpointId) -> Option<&[ConnectionEvent]> {
        self.endpoints.get(&id).map(Vec::as_slice)
    }

    /// The last event of the newest endpoint of a socket.
    #[must_use]
    pub fn of_socket(&self, cookie: Cookie) -> Option<&ConnectionEvent> {
        self.endpoints.get(self.by_cookie.get(&cookie.get())?)?.last()
    }

    /// The events of every endpoint.
    pub fn all(&self) -> impl Iterator<Item = &[ConnectionEvent]> {
        self.endpoints.values().map(Vec::as_slice)
    }

    /// The last event of the newest open connection of a process.
    #[must_use]
    pub fn connection_of(&self, key: ProcessKey) -> Option<&ConnectionEvent> {
        let last = self.endpoints.values().filter_map(|events| events.last());
        let own = last.filter(|event| {
            holder(event).is_some()
                && event.endpoint.process.as_ref().is_some_and(|actor| actor.process.key.may_be(key))
        });
        own.max_by_key(|event| event.endpoint.id.began)
    }
}

/// The process of an open connection. Terminal emulators have one to an X server.
fn holder(event: &ConnectionEvent) -> Option<u32> {
    const X11_PORTS: std::ops::Range<u16> = 6000..6100;
    let is_over = matches!(event.kind, EventKind::Close | EventKind::Fail | EventKind::Unlisten);
    let remote = event.endpoint.remote?;
    let is_display = X11_PORTS.contains(&remote.port) && remote.ip.is_loopback();
    let actor = event.endpoint.process.as_ref().filter(|_| !is_over && !is_display)?;
    Some(actor.process.key.pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::tests::ns;
    use crate::process::Actor;
    use crate::tracker::tests::event;

    fn of(cookie: u64, kind: EventKind, pid: u32) -> ConnectionEvent {
        let mut event = event(kind, "10.0.0.1:1", Some("10.0.0.2:2"));
        event.endpoint.id = EndpointId { cookie, began: ns(cookie) };
        event.endpoint.cookie = Cookie::new(cookie);
        event.endpoint.process = Some(Actor::leader(crate::process::tests::process(pid, None)));
        event
    }

    #[test]
    fn open_connections_of_a_process_are_known() {
        let mut memory = Memory::default();
        memory.note(&of(1, EventKind::Open, 5));
        memory.note(&of(2, EventKind::Open, 5));
        memory.note(&of(1, EventKind::Close, 5));
        assert!(memory.holds(5));
        // Another process takes it over.
        memory.note(&of(2, EventKind::Handover, 6));
        assert!(memory.holds(6) && !memory.holds(5));
        memory.note(&of(2, EventKind::Close, 6));
        assert!(!memory.holds(6));
    }

    #[test]
    fn endpoints_are_limited() {
        let mut memory = Memory::default();
        let most = limits::RULE_ENDPOINTS as u64;
        (1..=most + 2).for_each(|cookie| memory.note(&of(cookie, EventKind::Open, cookie as u32)));
        let known = |cookie| memory.of_socket(Cookie::new(cookie).unwrap()).is_some();
        assert!(!known(1) && !known(2) && known(3) && known(most + 2) && !memory.holds(1) && memory.holds(3));
        assert_eq!((memory.endpoints.len(), memory.order.len()), (most as usize, most as usize));
        for _ in 0..MOST_EVENTS + 3 {
            memory.note(&of(3, EventKind::Handover, 3));
        }
        assert_eq!(
            memory.of_socket(Cookie::new(3).unwrap()).map(|event| event.kind),
            Some(EventKind::Handover)
        );
        assert_eq!(memory.events(EndpointId { cookie: 3, began: ns(3) }).unwrap().len(), MOST_EVENTS);
    }
}
