//! Names of users, from the name service: it is asked once for each user id, and again if it did not answer.

use std::sync::Arc;
use std::time::Instant;

use super::Stage;
use crate::blocking::{self, Patience};
use crate::hash::Map;
use crate::limits;
use crate::stream::{Batch, Item, UserNames};
use crate::tracker::ConnectionEvent;

/// Completes the user names that a batch carries.
#[derive(Debug, Default)]
pub struct Users {
    /// Shared with the batches; copied when a user appears that no batch had before.
    names: Arc<UserNames>,
    /// Users without a name because the name service did not answer, and when it is asked again.
    unanswered: Map<u32, Instant>,
    patience: Patience,
}

impl Users {
    /// For a command that prints once.
    #[must_use]
    pub fn patient() -> Self {
        Self { patience: Patience::Command, ..Self::default() }
    }

    /// All names asked for so far.
    #[must_use]
    pub fn names(&self) -> Arc<UserNames> {
        self.names.clone()
    }

    /// The name of a user, if it has one.
    #[must_use]
    pub fn name(&mut self, uid: u32) -> Option<Arc<str>> {
        self.ask(uid);
        self.names.get(&uid).cloned().flatten()
    }

    /// Asks for the name of a user.
    pub fn ask(&mut self, uid: u32) {
        if self.names.contains_key(&uid) && self.unanswered.is_empty() {
            return;
        }
        self.ask_by(uid, Instant::now(), blocking::user_name);
    }

    fn ask_by(&mut self, uid: u32, now: Instant, name: impl FnOnce(u32, Patience) -> Option<Option<String>>) {
        let is_due = match self.unanswered.get(&uid) {
            Some(due) => *due <= now,
            None => !self.names.contains_key(&uid),
        };
        if !is_due {
            return;
        }
        let answer = name(uid, self.patience);
        if answer.is_some() {
            self.unanswered.remove(&uid);
        } else {
            self.unanswered.insert(uid, now + limits::NAME_RETRY);
        }
        Arc::make_mut(&mut self.names).insert(uid, answer.flatten().map(Into::into));
    }

    /// Asks for the names of all users in an event.
    pub fn ask_for_event(&mut self, event: &ConnectionEvent) {
        event.endpoint.actors().map(|actor| self.ask(actor.process.uid));
    }
}

impl Stage for Users {
    fn enrich(&mut self, batch: &mut Batch) {
        for item in &batch.items {
            match item {
                Item::Event(event) => self.ask_for_event(event),
                Item::Table(events) => events.iter().for_each(|event| self.ask_for_event(event)),
                Item::Process(process, _) => self.ask(process.uid),
                Item::Ready(_) | Item::Loss(..) => {}
            }
        }
        batch.context.users = self.names();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_name_is_used() {
        let (mut users, start) = (Users::default(), Instant::now());
        let asked = std::cell::Cell::new(0);
        let mut ask = |at, answer: Option<&str>| {
            users.ask_by(7, at, |_, _| {
                asked.set(asked.get() + 1);
                answer.map(|name| Some(name.to_owned()))
            });
            users.names().get(&7).cloned().flatten()
        };
        assert_eq!(ask(start, None), None);
        assert_eq!(ask(start, Some("early")), None);
        assert_eq!(asked.get(), 1);
        let later = start + limits::NAME_RETRY;
        assert_eq!(ask(later, Some("late")).as_deref(), Some("late"));
        assert_eq!(ask(later + limits::NAME_RETRY, None).as_deref(), Some("late"));
        assert_eq!(asked.get(), 2);
    }

    #[test]
    fn root_has_a_name_and_a_number_without_a_user_has_none() {
        let mut users = Users::patient();
        users.ask(0);
        users.ask(u32::MAX - 7);
        assert_eq!(users.names().get(&0).unwrap().as_deref(), Some("root"));
        assert_eq!(users.names().get(&(u32::MAX - 7)), Some(&None));
    }
}
