//! Which tests run a netwatch at the same time: most run beside others, a few must be alone.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use crate::shared;

#[derive(Debug)]
enum Room {
    /// Number of tests.
    Shared(usize),
    Alone,
}

static ROOM: Mutex<Room> = Mutex::new(Room::Shared(0));
static CHANGED: Condvar = Condvar::new();

/// Held as long as a test has a netwatch.
#[derive(Debug)]
pub struct Presence(());

impl Presence {
    /// Waits until no test is alone. It may pass a test that waits to be alone: a test may have two netwatches.
    #[must_use]
    pub fn shared() -> Self {
        enter(|room| match room {
            Room::Shared(others) => Some(Room::Shared(*others + 1)),
            Room::Alone => None,
        })
    }

    /// Waits until no other test has a netwatch. Stops the shared one, which would report whatever this test does.
    #[must_use]
    pub fn alone() -> Self {
        let presence = enter(|room| matches!(room, Room::Shared(0)).then_some(Room::Alone));
        shared::stop();
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
