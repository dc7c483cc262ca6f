//! One netwatch for many tests: a start takes longer than most tests, especially on an emulated machine. Each test has
//! a view of its output: the events of the test's own network namespaces, from the start of the test.
//!
//! One thread reads the output: it checks the beginning of every line, and parses those that belong to a view. If
//! netwatch exits or prints something invalid, that thread ends and closes all views, and each test reports why.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::MetadataExt as _;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{ChildStdout, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::{AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, socket};
use serde_json::Value;

use crate::checks::{Checks, Head};
use crate::netns::netns;
use crate::program::{Running, binary};
use crate::wait::PATIENCE;
use crate::watch::{READY, forced};

/// The shared netwatch, if it runs.
static RUNNING: Mutex<Option<Arc<Shared>>> = Mutex::new(None);

/// The shared one with `--states`, if it runs.
static RUNNING_WITH_STATES: Mutex<Option<Arc<Shared>>> = Mutex::new(None);

/// Which events a view has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Detail {
    /// Those without an option.
    Events,
    /// `--states`
    EveryState,
}

#[derive(Debug)]
struct Shared {
    ready: Value,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    views: HashMap<u64, Open>,
    opened: u64,
    running: Option<Running>,
    /// Why no more events come.
    over: Option<String>,
}

/// A view, as the thread that reads has it.
#[derive(Debug)]
struct Open {
    netns: Vec<u64>,
    events: Sender<Seen>,
    /// Inode of the listener that is awaited.
    mark: Option<u64>,
}

#[derive(Debug)]
enum Seen {
    Event(Value),
    Mark,
}

/// A test's view of the output.
#[derive(Debug)]
pub(crate) struct View {
    shared: Arc<Shared>,
    number: u64,
    events: Receiver<Seen>,
}

impl View {
    /// A view of namespaces, by their inode numbers, from now on. Starts netwatch if it does not run.
    pub(crate) fn open(netns: Vec<u64>, detail: Detail) -> Self {
        let shared = running(detail);
        let (events, received) = channel();
        let mut state = lock(&shared.state);
        state.opened += 1;
        let number = state.opened;
        if state.over.is_none() {
            state.views.insert(number, Open { netns, events, mark: None });
        }
        drop(state);
        let view = Self { shared, number, events: received };
        // A removed namespace may have had the same number, and events of it may still come.
        view.until_now();
        view
    }

    /// The first line of the log.
    pub(crate) fn ready(&self) -> &Value {
        &self.shared.ready
    }

    /// The next event; `None` if none comes in time or ever.
    pub(crate) fn next(&self, deadline: Instant) -> Option<Value> {
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Seen::Event(event)) => return Some(event),
                Ok(Seen::Mark) => {}
                Err(_) => return None,
            }
        }
    }

    /// All unread events of what has happened until now. Events are emitted in order, except those of UDP flows: the
    /// event of something that begins now comes after them.
    ///
    /// # Panics
    /// If netwatch exits first, or the event does not come.
    pub(crate) fn until_now(&self) -> Vec<Value> {
        let _mark = self.mark();
        let deadline = Instant::now() + PATIENCE;
        let mut events = Vec::new();
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Seen::Event(event)) => events.push(event),
                Ok(Seen::Mark) => return events,
                Err(RecvTimeoutError::Timeout) => panic!("in vain: all until now; netwatch {}", self.how()),
                Err(RecvTimeoutError::Disconnected) => panic!("netwatch {}", self.how()),
            }
        }
    }

    /// A listener in this process's own namespace, where loopback is up and which no test changes.
    fn mark(&self) -> OwnedFd {
        let (state, number) = (&self.shared.state, self.number);
        let mark = || {
            enter_own_netns();
            let mark = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None);
            let mark = mark.expect("a socket");
            let inode =
                File::from(mark.try_clone().expect("a descriptor")).metadata().expect("a socket").ino();
            if let Some(view) = lock(state).views.get_mut(&number) {
                view.mark = Some(inode);
            }
            bind(mark.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).expect("a port");
            listen(&mark, Backlog::MAXCONN).expect("a listener");
            mark
        };
        std::thread::scope(|scope| scope.spawn(mark).join().expect("a listener"))
    }

    /// The state of netwatch, for a message.
    pub(crate) fn how(&self) -> String {
        lock(&self.shared.state).over.clone().unwrap_or_else(|| "is running".to_owned())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        lock(&self.shared.state).views.remove(&self.number);
    }
}

/// Stops both, if they run. There must be no views.
pub(crate) fn stop() {
    for running in [&RUNNING, &RUNNING_WITH_STATES] {
        if let Some(shared) = lock(running).take() {
            lock(&shared.state).running = None;
        }
    }
}

fn running(detail: Detail) -> Arc<Shared> {
    let mut running = lock(match detail {
        Detail::Events => &RUNNING,
        Detail::EveryState => &RUNNING_WITH_STATES,
    });
    // One that has failed stays: every test must report that.
    Arc::clone(running.get_or_insert_with(|| Arc::new(start(detail))))
}

fn start(detail: Detail) -> Shared {
    let state = Arc::<Mutex<State>>::default();
    let (send, ready) = channel();
    let shared = Arc::clone(&state);
    std::thread::spawn(move || {
        enter_own_netns();
        let own = netns();
        let (running, stdout, stderr) = netwatch(detail);
        lock(&shared).running = Some(running);
        let read = catch_unwind(AssertUnwindSafe(|| {
            let mut lines = BufReader::new(stdout).lines().map(|line| line.expect("lines are UTF-8"));
            let mut checks = Checks::default();
            let first = lines.next().map(|line| checks.line(&line));
            // The thread that started this one waits for it.
            let _ = send.send(first.expect("netwatch begins"));
            lines.for_each(|line| distribute(&line, own, &mut checks, &mut lock(&shared)));
        }));
        let what = match read {
            Ok(()) => "has ended".to_owned(),
            Err(panic) => format!("prints what it may not: {}", said(panic.as_ref())),
        };
        let mut state = lock(&shared);
        // This kills netwatch, and so closes its stderr.
        state.running = None;
        let stderr = stderr.join().unwrap_or_default();
        state.over = Some(format!("{what}; it complains: {stderr}"));
        state.views.clear();
    });
    let ready = ready.recv_timeout(READY).unwrap_or_else(|_| {
        panic!("in vain: ready; netwatch {}", lock(&state).over.clone().unwrap_or_default());
    });
    Shared { ready, state }
}

/// It is killed when the calling thread exits, and so with this process at the latest.
fn netwatch(detail: Detail) -> (Running, ChildStdout, std::thread::JoinHandle<String>) {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(binary()).args(["watch", "--json"]).args(forced());
    command.args((detail == Detail::EveryState).then_some("--states"));
    let mut running =
        Running::start(command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()));
    let (stdout, mut stderr) = (running.stdout(), running.stderr());
    let complaints = std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = stderr.read_to_end(&mut text);
        String::from_utf8_lossy(&text).into_owned()
    });
    (running, stdout, complaints)
}

/// Sends a line to the views of its namespace; one without a namespace goes to all.
fn distribute(line: &str, own: u64, checks: &mut Checks, state: &mut State) {
    let Head { netns, kind, .. } = checks.head(line);
    let marks = netns == Some(own) && kind == "listen";
    if !marks && netns.is_some_and(|netns| state.views.values().all(|view| !view.netns.contains(&netns))) {
        return;
    }
    let event = checks.rest(line);
    for view in state.views.values_mut() {
        if marks && view.mark.is_some_and(|inode| event["inode"] == inode) {
            view.mark = None;
            // A closed view waits for nothing.
            let _ = view.events.send(Seen::Mark);
        }
        if netns.is_none_or(|netns| view.netns.contains(&netns)) {
            let _ = view.events.send(Seen::Event(event.clone()));
        }
    }
}

/// Moves the calling thread to the namespace in which the process was started.
fn enter_own_netns() {
    let own = File::open(format!("/proc/{}/ns/net", std::process::id())).expect("/proc is mounted");
    setns(own, CloneFlags::CLONE_NEWNET).expect("a namespace to enter");
}

fn said(panic: &(dyn std::any::Any + Send)) -> &str {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("?")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
