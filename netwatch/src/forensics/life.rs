//! One end of a connection through its life: all that was told of it.

use std::sync::Arc;

use crate::clock::BootClock;
use crate::model::{BootTime, ProcessKey};
use crate::origin::Side;
use crate::process::Actor;
use crate::tracker::{ConnectionEvent, Endpoint, EndpointId, EventKind, ProcessBasis};

/// An end, from its first event to its last. Has at least one event.
#[derive(Clone, Debug)]
pub struct Life {
    /// The boot that its times and ids are of.
    pub boot: Arc<str>,
    /// Turns its times into times of day.
    pub clock: BootClock,
    events: Vec<ConnectionEvent>,
    last: ConnectionEvent,
}

/// A process that had the connection.
#[derive(Clone, Debug)]
pub struct Use<'a> {
    /// Which.
    pub actor: &'a Actor,
    /// How it came by it.
    pub basis: ProcessBasis,
    /// When that was seen.
    pub at: BootTime,
}

impl Life {
    /// `None` without any event.
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

    /// What was told last, with all that was known by then.
    #[must_use]
    pub fn last(&self) -> &ConnectionEvent {
        &self.last
    }

    /// The last event, to be completed with facts about the host.
    pub fn last_mut(&mut self) -> &mut ConnectionEvent {
        &mut self.last
    }

    /// The end as it was last.
    #[must_use]
    pub fn end(&self) -> &Endpoint {
        &self.last.endpoint
    }

    /// Which end it is.
    #[must_use]
    pub fn id(&self) -> EndpointId {
        self.last.endpoint.id
    }

    /// When it began or was first seen.
    #[must_use]
    pub fn began(&self) -> BootTime {
        self.last.endpoint.id.began
    }

    /// When it ended, as far as was told.
    #[must_use]
    pub fn ended(&self) -> Option<BootTime> {
        let ends = |event: &&ConnectionEvent| {
            matches!(event.kind, EventKind::Close | EventKind::Fail | EventKind::Unlisten)
        };
        self.events.iter().find(ends).map(|event| event.at)
    }

    /// Whether it was there at `at`. One that netwatch found when it began may have been there for ages.
    #[must_use]
    pub fn was_there(&self, at: BootTime) -> bool {
        let seeded = self.events.first().is_some_and(|event| event.kind == EventKind::Seed);
        (seeded || self.began() <= at) && self.ended().is_none_or(|ended| at <= ended)
    }

    /// The other end began it.
    #[must_use]
    pub fn is_inbound(&self) -> bool {
        self.end().side() == Some(Side::Remote)
    }

    /// Who connected it, on this end.
    #[must_use]
    pub fn connector(&self) -> Option<&Actor> {
        self.uses()
            .find(|used| matches!(used.basis, ProcessBasis::Connect | ProcessBasis::Seed))
            .map(|used| used.actor)
    }

    /// Processes that had it, in the order in which that was seen. Who merely owned its listener is not among them.
    pub fn uses(&self) -> impl Iterator<Item = Use<'_>> {
        self.events.iter().filter_map(|event| {
            let basis = event.endpoint.process_basis.filter(|basis| *basis != ProcessBasis::Listener)?;
            Some(Use { actor: event.endpoint.process.as_ref()?, basis, at: event.at })
        })
    }

    /// How and when a process came by it first.
    #[must_use]
    pub fn used_by(&self, key: ProcessKey) -> Option<Use<'_>> {
        self.uses().find(|used| used.actor.process.key == key)
    }
}
