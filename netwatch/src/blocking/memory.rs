//! Reads that take the lock of a process's memory map. Whoever owns the process can hold it for as long as he likes: a
//! page fault holds it while a file system reads the page (filemap_fault() in mm/filemap.c, once the fault was tried
//! before), and from the moment another thread waits to write the map, nobody else gets it.
//!
//! - `/proc/PID/cmdline`: proc_pid_cmdline_read() in fs/proc/base.c, __access_remote_vm() in mm/memory.c.
//! - kcmp(2), where the process is in execve(2) and shares its memory with another that holds the lock: kcmp_lock() in
//!   kernel/kcmp.c, exec_mmap() in fs/exec.c.
//!
//! What else netwatch reads in `/proc/PID` does not take it: `stat` and `status` read counters, and the links `exe`, `cwd`,
//! `root`, `fd` and `ns` are behind locks of the task (all v6.12).
//!
//! Threads of netwatch read, not the helper, since a signal ends this wait (mmap_read_lock_killable()): a thread that is
//! stuck does not keep netwatch from ending.

use std::io;
use std::sync::mpsc::{Sender, channel, sync_channel};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::accounts::Accounts;
use super::{Patience, Subject};
use crate::hash::Map;
use crate::limits;

type Work = Box<dyn FnOnce() + Send>;

/// Threads that read, and what is known about processes that hold them up.
#[derive(Default)]
struct Readers(Mutex<State>);

#[derive(Default)]
struct State {
    /// Threads that wait for work. There are as many as callers ever waited at once.
    idle: Vec<Sender<Work>>,
    /// Processes that a thread still waits for, with their users.
    stuck: Map<u32, u32>,
    accounts: Accounts,
}

static READERS: LazyLock<Readers> = LazyLock::new(Readers::default);

/// What `read` returns, which may wait for the memory map of process `pid` of this user. `None`: no answer in time.
///
/// A process that did not answer is not asked again until it does. Other processes of the user are, for a short time
/// each.
pub fn of_memory<T: Send + 'static>(
    pid: u32,
    user: u32,
    patience: Patience,
    read: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    READERS.ask(pid, user, patience, read)
}

impl Readers {
    fn locked(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ask<T: Send + 'static>(
        &'static self,
        pid: u32,
        user: u32,
        patience: Patience,
        read: impl FnOnce() -> T + Send + 'static,
    ) -> Option<T> {
        let subject = Subject::Memory { user };
        let began = Instant::now();
        let (left, idle) = {
            let mut state = self.locked();
            if !state.may_ask(pid, user) {
                return None;
            }
            let left = state.accounts.left(&subject, patience, began).unwrap_or_default();
            (left.max(limits::LEAST_WAIT), state.idle.pop())
        };
        let reader =
            idle.map_or_else(start, Ok).inspect_err(|error| log::warn!("no thread: {error}")).ok()?;
        let (sender, receiver) = sync_channel(1);
        let work = move || {
            let read = read();
            let mut state = self.locked();
            // It has room for one, and its receiver is dropped under the lock only.
            if sender.try_send(read).is_err() {
                state.stuck.remove(&pid);
            }
        };
        reader.send(Box::new(work)).ok()?;
        let answer = receiver.recv_timeout(left).ok();
        let ended = Instant::now();
        let mut state = self.locked();
        state.accounts.spend(&subject, patience, ended.saturating_duration_since(began), ended);
        // It may have come at the last moment.
        let answer = answer.or_else(|| receiver.try_recv().ok());
        if answer.is_some() {
            state.idle.push(reader);
        } else {
            // The thread ends when it returns, since nobody has the other end of its channel.
            state.stuck.insert(pid, user);
        }
        drop(receiver);
        answer
    }
}

impl State {
    fn may_ask(&self, pid: u32, user: u32) -> bool {
        let of_user = self.stuck.values().filter(|of| **of == user).count();
        !self.stuck.contains_key(&pid)
            && self.stuck.len() < limits::MOST_STUCK_READS
            && of_user < limits::MOST_STUCK_OF_USER
    }
}

fn start() -> io::Result<Sender<Work>> {
    let (sender, receiver) = channel::<Work>();
    let thread = std::thread::Builder::new().name("netwatch-memory".into());
    thread.spawn(move || receiver.iter().for_each(|work| work()))?;
    Ok(sender)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn readers() -> &'static Readers {
        Box::leak(Box::default())
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    /// Asks as often as it takes on a busy host.
    fn answers(readers: &'static Readers, pid: u32, user: u32) -> bool {
        (0..100).any(|_| readers.ask(pid, user, Patience::Command, || 7) == Some(7))
    }

    #[test]
    fn process_that_does_not_answer_is_not_asked_again() {
        let readers = readers();
        let (end, ended) = channel::<()>();
        assert_eq!(readers.ask(1, 9, Patience::Live, move || ended.recv().is_ok()), None);
        assert_eq!(readers.ask(1, 9, Patience::Command, || 7), None);
        assert!(answers(readers, 2, 9), "another process of the user");
        drop(end);
        until("it returns", || readers.locked().stuck.is_empty());
        assert!(answers(readers, 1, 9));
        // One thread was enough for all that answered.
        until("it is idle", || readers.locked().idle.len() == 1);
    }

    #[test]
    fn threads_that_are_stuck_are_limited() {
        let readers = readers();
        let mut state = readers.locked();
        let first = 1..=u32::try_from(limits::MOST_STUCK_OF_USER).unwrap();
        state.stuck.extend(first.map(|pid| (pid, 1)));
        assert!(!state.may_ask(1000, 1) && state.may_ask(1000, 2));
        state.stuck.remove(&1);
        assert!(state.may_ask(1000, 1));
        let others = 2000..2000 + u32::try_from(limits::MOST_STUCK_READS - state.stuck.len()).unwrap();
        state.stuck.extend(others.map(|pid| (pid, pid)));
        assert!(!state.may_ask(1000, 2));
        drop(state);
        assert_eq!(readers.ask(1000, 2, Patience::Command, || 7), None);
    }
}
