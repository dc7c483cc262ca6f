//! Who has a log: most tests run beside others, a few may not.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::shared;

#[derive(Debug)]
enum Room {
    /// So many are there.
    Shared(usize),
    Alone,
}

static ROOM: Mutex<Room> = Mutex::new(Room::Shared(0));
static CHANGED: Condvar = Condvar::new();

/// A log's, for as long as there is one.
#[derive(Debug)]
pub struct Presence(());

impl Presence {
    /// Beside others, once nobody is alone. Who waits to be alone is passed by: a test may have two logs.
    #[must_use]
    pub fn shared() -> Self {
        enter(|room| match room {
            Room::Shared(others) => Some(Room::Shared(*others + 1)),
            Room::Alone => None,
        })
    }

    /// Once nobody else is there. The log that tests share ends: it would be about whatever this test does.
    #[must_use]
    pub fn alone() -> Self {
        let presence = enter(|room| matches!(room, Room::Shared(0)).then_some(Room::Alone));
        shared::end();
        presence
    }
}

impl Drop for Presence {
    fn drop(&mut self) {
        let mut room = room();
        *room = match *room {
            Room::Shared(others) => Room::Shared(others.saturating_sub(1)),
            Room::Alone => Room::Shared(0),
        };
        CHANGED.notify_all();
    }
}

fn enter(with_me: impl Fn(&Room) -> Option<Room>) -> Presence {
    let mut room = room();
    loop {
        if let Some(new) = with_me(&room) {
            *room = new;
            return Presence(());
        }
        room = CHANGED.wait(room).unwrap_or_else(PoisonError::into_inner);
    }
}

fn room() -> MutexGuard<'static, Room> {
    ROOM.lock().unwrap_or_else(PoisonError::into_inner)
}
