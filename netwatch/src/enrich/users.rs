//! Names of users: of the host's own users from its file, so that no event waits for them; of others from the name
//! service, which is asked once for each user id, and again if it did not answer.

use std::path::Path;
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

    /// For an event stream: knows the users of passwd(5) beforehand, if nsswitch.conf(5) asks that file first.
    #[must_use]
    pub fn of_host() -> Self {
        let read = |path: &str| blocking::text(Path::new(path), limits::USERS_FILE, limits::COMMAND_WAIT);
        let is_first = read("/etc/nsswitch.conf").map_or(true, |text| asks_file_first(&text));
        let text = is_first.then(|| read("/etc/passwd").ok()).flatten().unwrap_or_default();
        Self { names: Arc::new(users_of(&text)), ..Self::default() }
    }

    /// All names known so far.
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

/// Whether nsswitch.conf(5) asks passwd(5) for users before it asks anything else, as it does without a line for them.
fn asks_file_first(text: &str) -> bool {
    let mut lines = text.lines().filter_map(|line| line.trim_start().strip_prefix("passwd:"));
    lines.next().is_none_or(|sources| matches!(sources.split_whitespace().next(), Some("files" | "compat")))
}

/// The names in passwd(5), of which the first of a user id counts. Lines that include others (`+`, `-`) have none.
fn users_of(text: &str) -> UserNames {
    let mut names = UserNames::default();
    for line in text.lines().filter(|line| !line.starts_with(['#', '+', '-'])) {
        let mut fields = line.split(':');
        let (name, uid) = (fields.next(), fields.nth(1).and_then(|uid| uid.parse().ok()));
        if let (Some(name), Some(uid)) = (name.filter(|name| !name.is_empty()), uid) {
            names.entry(uid).or_insert_with(|| Some(name.into()));
        }
    }
    names
}

impl Stage for Users {
    fn enrich(&mut self, batch: &mut Batch) {
        for item in &batch.items {
            match item {
                Item::Event(event) => self.ask_for_event(event),
                Item::Table(events) => events.iter().for_each(|event| self.ask_for_event(event)),
                Item::Process(process, _) => self.ask(process.uid),
                Item::Alert(alert) => alert.process.iter().for_each(|(actor, _)| self.ask(actor.process.uid)),
                Item::Exec(_, process) => self.ask(process.uid),
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
    fn users_of_the_host_are_known_without_a_question() {
        let mut users = Users::of_host();
        users.ask_by(0, Instant::now(), |_, _| unreachable!("root is in the file"));
        assert_eq!(users.names().get(&0).unwrap().as_deref(), Some("root"));
    }

    #[test]
    fn file_of_users_is_read_as_it_is_written() {
        let names = users_of(
            "root:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n+nis::7:::\n:x:8:\nbad:x:-1:\na:x:9:1\n\nshort\n",
        );
        let known = |uid| names.get(&uid).cloned().flatten();
        assert_eq!((known(0).as_deref(), known(9).as_deref()), (Some("root"), Some("a")));
        assert_eq!(names.len(), 2);
    }

    #[test]
    fn file_is_believed_only_where_it_is_asked_first() {
        for (text, is_first) in [
            ("", true),
            ("group: sss\n", true),
            ("passwd:         files systemd\n", true),
            (" passwd: compat\n", true),
            ("passwd: sss files\n", false),
            ("passwd:\n", false),
        ] {
            assert_eq!(asks_file_first(text), is_first, "{text}");
        }
    }

    proptest::proptest! {
        #[test]
        fn any_file_is_read(text: String) {
            let _ = (asks_file_first(&text), users_of(&text));
        }
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
