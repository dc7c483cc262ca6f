//! Names of users, from the name service: it is asked once for each user id.

use std::sync::Arc;

use nix::unistd::{Uid, User};

use super::Stage;
use crate::stream::{Batch, Item, UserNames};
use crate::tracker::ConnectionEvent;

/// Completes the user names that a batch carries.
#[derive(Debug, Default)]
pub struct Users {
    /// Shared with the batches; copied when a user appears that no batch had before.
    names: Arc<UserNames>,
}

impl Users {
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
        if !self.names.contains_key(&uid) {
            let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
            Arc::make_mut(&mut self.names).insert(uid, user.map(|user| user.name.into()));
        }
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
    fn root_has_a_name_and_a_number_without_a_user_has_none() {
        let mut users = Users::default();
        users.ask(0);
        users.ask(u32::MAX - 7);
        assert_eq!(users.names().get(&0).unwrap().as_deref(), Some("root"));
        assert_eq!(users.names().get(&(u32::MAX - 7)), Some(&None));
    }
}
