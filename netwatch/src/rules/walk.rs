//! The walk back from the connection of an alert, in the memory of this run.

use std::convert::Infallible;
use std::sync::Arc;

use serde_json::value::RawValue;

use super::Memory;
use crate::forensics::{self, Gap, Life, Past, Selector};
use crate::model::{BootTime, Cookie, ProcessKey};
use crate::output::trace;
use crate::stream::Context;
use crate::tracker::{ConnectionEvent, EndpointId};

/// The endpoints that a run has seen.
struct Seen<'a> {
    memory: &'a Memory,
    context: &'a Context,
    began: BootTime,
    /// When records were lost, and how many.
    gaps: &'a [Gap],
}

impl Seen<'_> {
    fn life(&self, events: &[ConnectionEvent]) -> Option<Life> {
        Life::new(self.context.boot.clone(), self.context.clock, events.to_vec())
    }

    fn all(&self, is: impl Fn(&[ConnectionEvent]) -> bool) -> Vec<Life> {
        let found = self.memory.all().filter(|events| is(events));
        let mut lives: Vec<_> = found.filter_map(|events| self.life(events)).collect();
        lives.sort_by_key(Life::began);
        lives
    }
}

impl Past for Seen<'_> {
    type Error = Infallible;

    fn select(&self, selector: &Selector, most: usize) -> Result<(Vec<Life>, bool), Infallible> {
        let mut found = self.all(|_| true);
        found.retain(|life| selector.means(life));
        found.reverse();
        let more = found.len() > most;
        found.truncate(most);
        Ok((found, more))
    }

    fn end(&self, _: &Arc<str>, id: EndpointId) -> Result<Option<Life>, Infallible> {
        Ok(self.memory.events(id).and_then(|events| self.life(events)))
    }

    fn of_socket(&self, _: &Arc<str>, cookie: Cookie) -> Result<Vec<Life>, Infallible> {
        let is = |events: &[ConnectionEvent]| {
            events.last().is_some_and(|event| event.endpoint.cookie == Some(cookie))
        };
        Ok(self.all(is))
    }

    fn of_process(&self, _: &Arc<str>, key: ProcessKey, _: BootTime) -> Result<Vec<Life>, Infallible> {
        let is = |events: &[ConnectionEvent]| {
            let actors = events.iter().filter_map(|event| event.endpoint.process.as_ref());
            actors.into_iter().any(|actor| actor.process.key.may_be(key))
        };
        let mut lives = self.all(is);
        lives.retain(|life| life.used_by(key).is_some());
        Ok(lives)
    }

    fn began(&self, _: &Arc<str>) -> Result<Option<BootTime>, Infallible> {
        Ok(Some(self.began))
    }

    fn gaps(&self, _: &Arc<str>, from: BootTime, to: BootTime) -> Result<Vec<Gap>, Infallible> {
        Ok(self.gaps.iter().filter(|gap| gap.from <= to && gap.to >= from).cloned().collect())
    }
}

/// The walk back from an endpoint, as JSON; `None` if the endpoint is not known.
pub(super) fn back(
    id: EndpointId,
    memory: &Memory,
    context: &Context,
    began: BootTime,
    gaps: &[Gap],
) -> Option<Arc<RawValue>> {
    let seen = Seen { memory, context, began, gaps };
    let life = seen.life(memory.events(id)?).filter(|life| life.end().remote.is_some())?;
    let walked = forensics::trace(&seen, life).unwrap_or_else(|never: Infallible| match never {});
    trace::matched(&walked, &context.users).ok().map(Into::into)
}
