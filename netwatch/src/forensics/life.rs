//! All events of one endpoint.

use std::sync::Arc;

use crate::clock::BootClock;
use crate::model::{BootTime, ProcessKey};
use crate::origin::Side;
use crate::process::Actor;
use crate::tracker::{ConnectionEvent, Endpoint, EndpointId, EventKind, ProcessBasis};

/// An endpoint with its events. It has at least one.
#[derive(Clone, Debug)]
pub struct Life {
    /// The boot of its times and ids.
    pub boot: Arc<str>,
    /// Converts its times to times of day.
    pub clock: BootClock,
    events: Vec<ConnectionEvent>,
    last: ConnectionEvent,
}

/// A process that had the connection.
#[derive(Clone, Debug)]
pub struct Use<'a> {
    /// The process.
    pub actor: &'a Actor,
    /// How it got the connection.
    pub basis: ProcessBasis,
    /// When that was observed.
    pub at: BootTime,
}

impl Life {
    /// `None` if there is no event.
    #[must_use]
    pub fn new(boot: Arc<str>, clock: BootClock, events: Vec<ConnectionEvent>) -> Option<Self> {
        let last = events.last()?.clone();
        Some(Self { boot, clock, events, last })
    }

    /// Oldest first.
    #[must_use]
    pub fn events(&self) -> &[ConnectionEvent] {
        &self.events
    }

    /// The last event, with all that was known by then.
    #[must_use]
    pub fn last(&self) -> &ConnectionEvent {
        &self.last
    }

    /// The last event, to be completed with facts about the host.
    pub fn last_mut(&mut self) -> &mut ConnectionEvent {
        &mut self.last
    }

    /// The endpoint in the last event.
    #[must_use]
    pub fn end(&self) -> &Endpoint {
        &self.last.endpoint
    }

    /// Id of the endpoint.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.last.endpoint.id
    }

    /// When the connection began or was first seen.
    #[must_use]
    pub fn began(&self) -> BootTime {
        self.last.endpoint.id.began
    }

    /// When the connection ended; `None` if no such event is known.
    #[must_use]
    pub fn ended(&self) -> Option<BootTime> {
        let ends = |event: &&ConnectionEvent| {
            matches!(event.kind, EventKind::Close | EventKind::Fail | EventKind::Unlisten)
        };
        self.events.iter().find(ends).map(|event| event.at)
    }

    /// Whether it existed at `at`. A seeded endpoint is assumed to have existed at any time before.
    #[must_use]
    pub fn was_there(&self, at: BootTime) -> bool {
        let seeded = self.events.first().is_some_and(|event| event.kind == EventKind::Seed);
        (seeded || self.began() <= at) && self.ended().is_none_or(|ended| at <= ended)
    }

    /// Whether the remote side originated it.
    #[must_use]
    pub fn is_inbound(&self) -> bool {
        self.end().side() == Some(Side::Remote)
    }

    /// The process that connected it on this host.
    #[must_use]
    pub fn connector(&self) -> Option<&Actor> {
        self.uses()
            .find(|used| matches!(used.basis, ProcessBasis::Connect | ProcessBasis::Seed))
            .map(|used| used.actor)
    }

    /// Processes that had the connection, in the order observed. The owner of its listener is not included.
    pub fn uses(&self) -> impl Iterator<Item = Use<'_>> {
        self.events.iter().filter_map(|event| {
            let basis = event.endpoint.process_basis.filter(|basis| *basis != ProcessBasis::Listener)?;
            Some(Use { actor: event.endpoint.process.as_ref()?, basis, at: event.at })
        })
    }

    /// How and when a process first had it.
    #[must_use]
    pub fn used_by(&self, key: ProcessKey) -> Option<Use<'_>> {
        self.uses().find(|used| used.actor.process.key.may_be(key))
    }
}
