//! The side of netwatch: asks, waits within the limits, and keeps count of what was not answered.

use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use nix::sys::prctl;
use nix::unistd::{ForkResult, dup2_stderr, dup2_stdin, dup2_stdout, fork};
use rustix::fs::fstat;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};

use super::accounts::Accounts;
use super::helper::{self, Host, receive, transmit};
use super::message::{Answer, Packet, Question};
use super::{Patience, Subject};
use crate::hash::Map;
use crate::limits;
use crate::rights::{self, Stage};

/// The socket to the helper, until the first question.
static HELPER: Mutex<Option<OwnedFd>> = Mutex::new(None);

static HOST: OnceLock<Option<Client>> = OnceLock::new();

/// See [`is_own_socket`].
static SOCKETS: OnceLock<[u64; 2]> = OnceLock::new();

/// Whether this is the inode of a socket between netwatch and the helper.
#[must_use]
pub fn is_own_socket(inode: u64) -> bool {
    SOCKETS.get().is_some_and(|own| own.contains(&inode))
}

/// Asks the helper.
pub(super) struct Client {
    socket: Arc<OwnedFd>,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    next: u64,
    /// Questions that somebody waits for.
    waiting: Map<u64, SyncSender<Answer>>,
    /// Questions that nobody waits for any more.
    stuck: Map<u64, (Subject, Question)>,
    accounts: Accounts,
    /// Names of users that came too late.
    late: Map<u32, Option<String>>,
    /// The helper has ended.
    is_over: bool,
}

/// Forks the helper. To be called once, before the first thread is started: the child of a process with threads may
/// find locks taken for ever. `rights`: what the helper keeps.
///
/// # Errors
/// If there is no memory for another process, or too many processes. Then threads of this process ask.
pub fn fork_helper(rights: &Stage) -> io::Result<()> {
    let (ours, theirs) = pair()?;
    // SAFETY: this process has no other thread, so the child may do what any process may.
    match unsafe { fork() }? {
        ForkResult::Parent { .. } => {
            *locked(&HELPER) = Some(ours);
            Ok(())
        }
        ForkResult::Child => {
            drop(ours);
            be_helper(theirs, rights);
            // SAFETY: ends the process; without the parent's exit handlers, which would write its buffers.
            unsafe { libc::_exit(0) }
        }
    }
}

/// Releases everything that others could wait for, and serves.
fn be_helper(socket: OwnedFd, rights: &Stage) {
    // A service manager and a terminal signal the whole group; the helper ends when netwatch does.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: to ignore a signal runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    let _ = prctl::set_name(c"netwatch-host");
    let _ = std::env::set_current_dir("/");
    if release_files(socket.as_raw_fd()).is_ok() {
        rights::give_up(rights, &[], None);
        // Loading the name service takes longer than an event waits for a name, so it is loaded beforehand. Without a
        // thread the first question loads it.
        let load = || drop(helper::answer(&Question::UserName(0)));
        let _ = std::thread::Builder::new().name("netwatch-host".into()).spawn(load);
        helper::serve(socket, Arc::new(helper::answer));
    }
}

/// Closes all descriptors but `kept`: a pipe that stays open here would never end for its reader.
fn release_files(kept: i32) -> io::Result<()> {
    let null = std::fs::File::options().read(true).write(true).open("/dev/null")?;
    dup2_stdin(&null)?;
    dup2_stdout(&null)?;
    dup2_stderr(&null)?;
    let kept = kept.unsigned_abs();
    for (first, last) in [(libc::STDERR_FILENO.unsigned_abs() + 1, kept - 1), (kept + 1, u32::MAX)] {
        if first <= last {
            // Fails before Linux 5.9; then what netwatch inherited stays open here.
            // SAFETY: nothing in this process uses these descriptors; `null`, which is one of them, is forgotten.
            unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) };
        }
    }
    std::mem::forget(null);
    Ok(())
}

fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
    // Of two pairs, which only tests have, one is enough.
    let _ = SOCKETS.set([fstat(&ours)?.st_ino, fstat(&theirs)?.st_ino]);
    Ok((ours, theirs))
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Client {
    /// The one for this host: the helper's, or threads of this process if none was forked. `None`: neither can be had.
    pub(super) fn of_host() -> Option<&'static Self> {
        let start = || {
            let forked = locked(&HELPER).take().map(Self::new);
            forked.unwrap_or_else(|| Self::of_threads(Arc::new(helper::answer)))
        };
        HOST.get_or_init(|| start().inspect_err(|error| log::warn!("cannot ask the host: {error}")).ok())
            .as_ref()
    }

    /// Threads of this process answer.
    fn of_threads(host: Host) -> io::Result<Self> {
        let (ours, theirs) = pair()?;
        let thread = std::thread::Builder::new().name("netwatch-host".into());
        thread.spawn(move || helper::serve(theirs, host))?;
        Self::new(ours)
    }

    fn new(socket: OwnedFd) -> io::Result<Self> {
        let (socket, state) = (Arc::new(socket), Arc::new(Mutex::new(State::default())));
        let (from, to) = (socket.clone(), state.clone());
        let thread = std::thread::Builder::new().name("netwatch-answer".into());
        thread.spawn(move || {
            while let Some(Packet { id, body }) = receive(&from) {
                locked(&to).take_answer(id, body);
            }
            let mut state = locked(&to);
            state.is_over = true;
            state.waiting.clear();
        })?;
        Ok(Self { socket, state })
    }

    /// The answer, unless it does not come in time or is not to be waited for.
    pub(super) fn ask(&self, question: &Question, subject: Subject, patience: Patience) -> Option<Answer> {
        let began = Instant::now();
        let mut state = locked(&self.state);
        let is_stuck = state.stuck.values().any(|(stuck, _)| *stuck == subject);
        if state.is_over || is_stuck || state.stuck.len() >= limits::MOST_STUCK {
            return None;
        }
        let left = state.accounts.left(&subject, patience, began)?;
        let id = state.next;
        state.next += 1;
        let (sender, receiver) = sync_channel(1);
        state.waiting.insert(id, sender);
        drop(state);

        let sent = transmit(&self.socket, Packet { id, body: question.clone() });
        let answer = if sent { receiver.recv_timeout(left).ok() } else { None };
        let ended = Instant::now();
        let mut state = locked(&self.state);
        state.accounts.spend(&subject, patience, ended.saturating_duration_since(began), ended);
        answer.or_else(|| state.give_up(id, sent, &receiver, subject, question))
    }

    /// The name of a user that came after the deadline of whoever asked for it.
    pub(super) fn late_name(&self, uid: u32) -> Option<Option<String>> {
        locked(&self.state).late.remove(&uid)
    }
}

impl State {
    fn take_answer(&mut self, id: u64, answer: Answer) {
        if let Some(waiting) = self.waiting.remove(&id) {
            // It has room for one, and its receiver is dropped under the lock only.
            let _ = waiting.try_send(answer);
        } else if let Some((_, Question::UserName(uid))) = self.stuck.remove(&id)
            && let Answer::UserName(name) = answer
            && self.late.len() < limits::MOST_LATE_NAMES
        {
            self.late.insert(uid, name);
        }
    }

    /// Stops waiting; the answer may have come at the last moment.
    fn give_up(
        &mut self,
        id: u64,
        sent: bool,
        receiver: &Receiver<Answer>,
        subject: Subject,
        question: &Question,
    ) -> Option<Answer> {
        if let Ok(answer) = receiver.try_recv() {
            return Some(answer);
        }
        if self.waiting.remove(&id).is_some() && sent {
            self.stuck.insert(id, (subject, question.clone()));
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Sender, channel};
    use std::time::Duration;

    use super::*;

    /// A host that answers a question for a user only when told to, and any other at once.
    fn slow() -> (Client, Sender<Option<String>>) {
        let (sender, receiver) = channel();
        let receiver = Mutex::new(receiver);
        let host = Arc::new(move |question: &Question| match question {
            Question::UserName(_) => Answer::UserName(locked(&receiver).recv().unwrap_or_default()),
            _ => Answer::RealPath(Some("/real".into())),
        });
        (Client::of_threads(host).unwrap(), sender)
    }

    fn until(what: &str, done: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !done() {
            assert!(Instant::now() < deadline, "{what}");
            std::thread::yield_now();
        }
    }

    const OTHER: Question = Question::UserName(2);

    fn asked(client: &Client, question: &Question, folder: &str) -> Option<Answer> {
        client.ask(question, Subject::Folder(folder.into()), Patience::Live)
    }

    #[test]
    fn late_answer_is_returned_to_the_next_caller() {
        let (client, host) = slow();
        assert_eq!(client.ask(&Question::UserName(1), Subject::Users, Patience::Live), None);
        assert_eq!(client.late_name(1), None);
        host.send(Some("one".into())).unwrap();
        until("the name is there", || locked(&client.state).late.contains_key(&1));
        assert_eq!(client.late_name(1), Some(Some("one".into())));
        assert_eq!(client.late_name(1), None);
    }

    #[test]
    fn stuck_subject_is_not_asked_again() {
        let (client, host) = slow();
        assert_eq!(asked(&client, &Question::UserName(1), "/stuck"), None);
        let path = Question::RealPath("/any".into());
        let before = locked(&client.state).next;
        assert_eq!(asked(&client, &path, "/stuck"), None);
        assert_eq!(locked(&client.state).next, before);
        assert_eq!(asked(&client, &path, "/other"), Some(Answer::RealPath(Some("/real".into()))));
        // When it answers it is asked again: at once by a command, whose limit is not used up.
        host.send(None).unwrap();
        until("nothing is stuck", || locked(&client.state).stuck.is_empty());
        assert!(client.ask(&path, Subject::Folder("/stuck".into()), Patience::Command).is_some());
    }

    #[test]
    fn stuck_questions_are_limited() {
        let (client, host) = slow();
        for n in 0..limits::MOST_STUCK {
            let folder = Subject::Folder(n.to_string().into());
            // The stream may be out of time before the last.
            until("it is asked", || {
                client.ask(&OTHER, folder.clone(), Patience::Live);
                locked(&client.state).stuck.len() > n
            });
        }
        let path = Question::RealPath("/any".into());
        let ask = || client.ask(&path, Subject::Folder("/other".into()), Patience::Command);
        assert_eq!(ask(), None);
        host.send(None).unwrap();
        until("one returns", || locked(&client.state).stuck.len() < limits::MOST_STUCK);
        assert!(ask().is_some());
    }

    #[test]
    fn ended_helper_answers_nothing() {
        let (ours, theirs) = pair().unwrap();
        let client = Client::new(ours).unwrap();
        drop(theirs);
        assert_eq!(asked(&client, &OTHER, "/any"), None);
        until("it is over", || locked(&client.state).is_over);
        assert_eq!(asked(&client, &OTHER, "/any"), None);
        assert!(locked(&client.state).stuck.is_empty());
    }

    #[test]
    fn late_names_are_limited() {
        let mut state = State::default();
        for id in 0..limits::MOST_LATE_NAMES as u64 + 2 {
            let question = Question::UserName(id.try_into().unwrap());
            state.stuck.insert(id, (Subject::Users, question));
            state.take_answer(id, Answer::UserName(None));
        }
        assert_eq!((state.late.len(), state.stuck.len()), (limits::MOST_LATE_NAMES, 0));
    }
}
