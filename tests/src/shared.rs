//! One netwatch for many tests: a start takes longer than most tests, by far on an emulated machine. Each test has a view
//! of the one log: the events of its own network namespaces, from its own start on.
//!
//! The log is read by one thread, which looks at every line and parses those that somebody has a view of. Where
//! netwatch ends, or prints what it may not, that thread ends, and with it every view: each test says so.

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

/// The one that runs.
static RUNNING: Mutex<Option<Arc<Shared>>> = Mutex::new(None);

/// The one that runs and tells every state.
static RUNNING_WITH_STATES: Mutex<Option<Arc<Shared>>> = Mutex::new(None);

/// What a view is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    /// What a log tells unasked.
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
    /// Why nothing more comes.
    over: Option<String>,
}

/// A view, from where it is written.
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

/// What one test sees of the log.
#[derive(Debug)]
pub(crate) struct View {
    shared: Arc<Shared>,
    number: u64,
    events: Receiver<Seen>,
}

impl View {
    /// Of namespaces, by their inode numbers, from now on. Starts netwatch where none runs.
    pub(crate) fn open(netns: Vec<u64>, told: Told) -> Self {
        let shared = running(told);
        let (events, received) = channel();
        let mut state = lock(&shared.state);
        state.opened += 1;
        let number = state.opened;
        if state.over.is_none() {
            state.views.insert(number, Open { netns, events, mark: None });
        }
        drop(state);
        let view = Self { shared, number, events: received };
        // A namespace may have the number of one that is gone, of which something is still to be told.
        view.until_now();
        view
    }

    /// The first line of the log.
    pub(crate) fn ready(&self) -> &Value {
        &self.shared.ready
    }

    /// The next event; `None` where none comes in time, or ever.
    pub(crate) fn next(&self, deadline: Instant) -> Option<Value> {
        loop {
            match self.events.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(Seen::Event(event)) => return Some(event),
                Ok(Seen::Mark) => {}
                Err(_) => return None,
            }
        }
    }

    /// All that was not read yet of what has happened until now. netwatch tells things in their order, flows of
    /// datagrams excepted: what is told before something that begins now is all.
    ///
    /// # Panics
    /// Where netwatch ends first, or never comes so far.
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

    /// A listener in this process's own namespace, where loopback is up and tests change nothing.
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

    /// How netwatch is.
    pub(crate) fn how(&self) -> String {
        lock(&self.shared.state).over.clone().unwrap_or_else(|| "is running".to_owned())
    }
}

impl Drop for View {
    fn drop(&mut self) {
        lock(&self.shared.state).views.remove(&self.number);
    }
}

/// Ends both, if they run. Nobody has a view.
pub(crate) fn end() {
    for running in [&RUNNING, &RUNNING_WITH_STATES] {
        if let Some(shared) = lock(running).take() {
            lock(&shared.state).running = None;
        }
    }
}

fn running(told: Told) -> Arc<Shared> {
    let mut running = lock(match told {
        Told::Events => &RUNNING,
        Told::EveryState => &RUNNING_WITH_STATES,
    });
    // One that is over stays: every test is to say so.
    Arc::clone(running.get_or_insert_with(|| Arc::new(start(told))))
}

fn start(told: Told) -> Shared {
    let state = Arc::<Mutex<State>>::default();
    let (send, ready) = channel();
    let shared = Arc::clone(&state);
    std::thread::spawn(move || {
        enter_own_netns();
        let own = netns();
        let (running, stdout, stderr) = netwatch(told);
        lock(&shared).running = Some(running);
        let read = catch_unwind(AssertUnwindSafe(|| {
            let mut lines = BufReader::new(stdout).lines().map(|line| line.expect("lines are UTF-8"));
            let mut checks = Checks::default();
            let first = lines.next().map(|line| checks.line(&line));
            // Whoever starts it waits for it.
            let _ = send.send(first.expect("netwatch begins"));
            lines.for_each(|line| distribute(&line, own, &mut checks, &mut lock(&shared)));
        }));
        let what = match read {
            Ok(()) => "has ended".to_owned(),
            Err(panic) => format!("prints what it may not: {}", said(panic.as_ref())),
        };
        let mut state = lock(&shared);
        // With it, it ends: then its stderr does, too.
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

/// Ends with the calling thread, and so with this process at the latest.
fn netwatch(told: Told) -> (Running, ChildStdout, std::thread::JoinHandle<String>) {
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]).arg(binary()).args(["watch", "--json"]).args(forced());
    command.args((told == Told::EveryState).then_some("--states"));
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

/// Hands a line to whoever has a view of its namespace; what is of none is for all.
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
            // Who has closed the view waits for nothing.
            let _ = view.events.send(Seen::Mark);
        }
        if netns.is_none_or(|netns| view.netns.contains(&netns)) {
            let _ = view.events.send(Seen::Event(event.clone()));
        }
    }
}

/// The calling thread goes where the process was started.
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
