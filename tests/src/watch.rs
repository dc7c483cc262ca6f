//! `netwatch watch --json`, read line by line.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::checks::Checks;
use crate::event::{Endpoint, kind};
use crate::lines::Lines;
use crate::log::Log;
use crate::netns::{Netns, netns};
use crate::presence::Presence;
use crate::program::{Running, binary, without_progress};
use crate::schema::validate;
use crate::shared::{Detail, View};
use crate::wait::PATIENCE;

/// Loading, attaching and the snapshot take longer than any event.
pub(crate) const READY: Duration = Duration::from_secs(30);

/// Lines shown if a test fails.
const SHOWN: usize = 60;

/// Jobs and rungs that every netwatch is started with, as `--probe` takes them, from `NETWATCH_TEST_PROBES`: so each
/// rung of a kernel can be tested.
#[must_use]
pub fn forced() -> Vec<String> {
    let probes = std::env::var("NETWATCH_TEST_PROBES").unwrap_or_default();
    probes.split_whitespace().flat_map(|probe| ["--probe".to_owned(), probe.to_owned()]).collect()
}

/// A running `netwatch watch`. It is in the network namespace of the thread that starts it.
#[derive(Debug)]
pub struct Watch {
    source: Source,
    events: Vec<Value>,
    may_lose: bool,
    _presence: Arc<Presence>,
}

#[derive(Debug)]
enum Source {
    Own(Box<Own>),
    Shared(View),
}

/// A netwatch for one test.
#[derive(Debug)]
struct Own {
    running: Running,
    lines: Lines,
    stderr: Receiver<String>,
    checks: Checks,
}

impl Watch {
    /// Starts it, with `arguments` after `watch --json`, and waits until it is ready. It shows the calling thread's
    /// namespace only: reading the events of other tests would take time for nothing.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        Self::showing(&["--netns", "self"], arguments, Presence::shared())
    }

    /// The same from the shared netwatch: for tests that do not depend on how it starts (`ready`, seeds) or exits.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn shared() -> Self {
        Self::of_view(vec![netns()], Detail::Events)
    }

    /// The same with `--states`.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn shared_with_states() -> Self {
        Self::of_view(vec![netns()], Detail::EveryState)
    }

    /// The same for several namespaces with wires between them.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn shared_by(all: &[&Netns]) -> Self {
        Self::of_view(all.iter().map(|netns| netns.inum()).collect(), Detail::Events)
    }

    /// The same with `--states`.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn shared_with_states_by(all: &[&Netns]) -> Self {
        Self::of_view(all.iter().map(|netns| netns.inum()).collect(), Detail::EveryState)
    }

    fn of_view(netns: Vec<u64>, detail: Detail) -> Self {
        let presence = Presence::shared();
        let view = View::open(netns, detail);
        let events = vec![view.ready().clone()];
        Self { source: Source::Shared(view), events, may_lose: false, _presence: Arc::new(presence) }
    }

    /// As [`Watch::start`], while no other test has a netwatch: waits until that is so.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn alone(arguments: &[&str]) -> Self {
        Self::showing(&["--netns", "self"], arguments, Presence::alone())
    }

    /// As [`Watch::start`], for several namespaces with wires between them.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn on_wires(arguments: &[&str]) -> Self {
        Self::showing(&["--local", "10.0.0.0/8"], arguments, Presence::shared())
    }

    /// A recorder into `store` that also prints what it records, of the whole host.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn recording(store: &Path, arguments: &[&str]) -> Self {
        let store = store.to_str().expect("a path in UTF-8");
        Self::running(
            &[&["record", "--print", "--json", "--store", store], arguments].concat(),
            Presence::shared(),
        )
    }

    /// As [`Watch::start`], for all namespaces that `arguments` do not exclude.
    ///
    /// # Panics
    /// If it does not get ready.
    #[must_use]
    pub fn everywhere(arguments: &[&str]) -> Self {
        Self::showing(&[], arguments, Presence::shared())
    }

    /// Several of those, one for each of `all`, while no other test has one. Each attaches four programs to
    /// `tcp_v4_connect`, and a function takes 38 (`include/linux/bpf.h`, `BPF_MAX_TRAMP_LINKS`): with those of other
    /// tests the last would fall back to kprobes, which miss calls on a CPU where a task was preempted within bpf(2)
    /// (`bpf_disable_instrumentation` there).
    ///
    /// # Panics
    /// If one does not get ready.
    pub fn everywhere_alone<'a>(all: impl IntoIterator<Item = Vec<&'a str>>) -> Vec<Self> {
        let presence = Arc::new(Presence::alone());
        all.into_iter().map(|arguments| Self::showing(&[], &arguments, presence.clone())).collect()
    }

    fn showing(filter: &[&str], arguments: &[&str], presence: impl Into<Arc<Presence>>) -> Self {
        let own = arguments.iter().any(|argument| filter.first() == Some(argument));
        let arguments = [arguments, if own { &[] } else { filter }].concat();
        Self::running(&[&["watch", "--json"], &arguments[..]].concat(), presence)
    }

    fn running(arguments: &[&str], presence: impl Into<Arc<Presence>>) -> Self {
        let mut command = Command::new(binary());
        command.args(arguments).args(forced()).stdin(Stdio::null());
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let lines = Lines::of(running.stdout());
        let mut pipe = running.stderr();
        let (send, stderr) = channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.read_to_end(&mut text);
            // The receiver is gone if the test has failed already.
            let _ = send.send(String::from_utf8_lossy(&without_progress(&text)).into_owned());
        });
        let may_lose = arguments.contains(&"--ring");
        let own = Own { running, lines, stderr, checks: Checks::default() };
        let source = Source::Own(Box::new(own));
        let mut watch = Self { source, events: Vec::new(), may_lose, _presence: presence.into() };
        if !watch.read(Instant::now() + READY) {
            watch.fail("ready");
        }
        watch
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it has exited already, or is shared.
    pub fn signal(&self, signal: Signal) {
        match &self.source {
            Source::Own(own) => own.running.signal(signal),
            Source::Shared(_) => panic!("other tests use it as well"),
        }
    }

    /// Its process id.
    ///
    /// # Panics
    /// When it is not the test's own.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match &self.source {
            Source::Own(own) => own.running.pid(),
            Source::Shared(_) => panic!("other tests look at it as well"),
        }
    }

    /// The first line.
    #[must_use]
    pub fn ready(&self) -> &Value {
        &self.events[0]
    }

    /// The events read so far.
    #[must_use]
    pub fn events(&self) -> &[Value] {
        &self.events
    }

    /// The first event for which `is` holds, read already or to come.
    ///
    /// # Panics
    /// If it does not come.
    #[track_caller]
    pub fn expect(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = self.expect_times(what, 1, is);
        found.into_iter().next().expect("one was found")
    }

    /// The first `times` events for which `is` holds, read already or to come. Checks each event once: events of other
    /// tests are among them, and may be many.
    ///
    /// # Panics
    /// If they do not come.
    #[track_caller]
    pub fn expect_times(&mut self, what: &str, times: usize, is: impl Fn(&Value) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut checked = 0;
        let mut found = Vec::new();
        loop {
            let new = self.events[checked..].iter().filter(|event| is(event));
            found.extend(new.take(times - found.len()).cloned());
            checked = self.events.len();
            if found.len() == times {
                return found;
            }
            if Instant::now() > deadline || !self.read(deadline) {
                self.fail(&format!("{what}: {} of {times}", found.len()));
            }
        }
    }

    /// The first event of this kind about this endpoint.
    ///
    /// # Panics
    /// If it does not come.
    #[track_caller]
    pub fn at(&mut self, event: &str, endpoint: Endpoint) -> Value {
        self.expect(&format!("{event} of {endpoint:?}"), |seen| kind(seen) == event && endpoint.of(seen))
    }

    /// Reads until the events so far are `enough`. Also checks from time to time if no event comes, since the condition
    /// may depend on something else.
    ///
    /// # Panics
    /// If they never are.
    #[track_caller]
    pub fn settles(&mut self, what: &str, mut enough: impl FnMut(&[Value]) -> bool) {
        const PAUSE: Duration = Duration::from_millis(100);
        let deadline = Instant::now() + PATIENCE;
        loop {
            while Instant::now() < deadline && self.read(Instant::now() + PAUSE) {}
            if enough(&self.events) {
                return;
            }
            if Instant::now() > deadline {
                self.fail(what);
            }
        }
    }

    /// Interrupts it and reads the rest; of a shared one, what is emitted until now.
    ///
    /// # Panics
    /// If its status is not 0, or it lost records that it had room for.
    #[track_caller]
    pub fn finish(mut self) -> Log {
        let Source::Shared(view) = &self.source else {
            self.signal(Signal::SIGINT);
            let log = self.ended();
            assert!(log.status.success(), "{:?}: {}", log.status, log.stderr);
            return log;
        };
        self.events.extend(view.until_now());
        // Tests with their own netwatch check how it exits.
        self.log(ExitStatus::default(), String::new())
    }

    /// The events that a killed netwatch printed.
    ///
    /// # Panics
    /// If it does not exit, or is shared.
    #[must_use]
    pub fn killed(mut self) -> Vec<Value> {
        let Source::Own(own) = &mut self.source else { panic!("other tests use it as well") };
        let deadline = Instant::now() + PATIENCE;
        while let Ok(Some(line)) = own.lines.before(deadline) {
            // The last may have been cut off.
            if let Ok(event) = serde_json::from_str(&line) {
                validate(&event);
                self.events.push(event);
            }
        }
        own.running.ended("netwatch is killed");
        self.events
    }

    /// Waits for it to exit by itself.
    ///
    /// # Panics
    /// If it does not, or lost records that it had room for.
    #[track_caller]
    pub fn ended(mut self) -> Log {
        let deadline = Instant::now() + PATIENCE;
        while self.read(deadline) {}
        let Source::Own(own) = &mut self.source else { panic!("it goes on for others") };
        let status = own.running.ended("netwatch ends");
        let stderr = own.stderr.recv_timeout(PATIENCE).expect("its stderr ends with it");
        assert!(!stderr.contains("panicked"), "{stderr}");
        self.log(status, stderr)
    }

    #[track_caller]
    fn log(self, status: ExitStatus, stderr: String) -> Log {
        let lost = self.events.iter().find(|event| is_loss(event));
        assert!(self.may_lose || lost.is_none(), "{}", lost.unwrap_or(&Value::Null));
        Log { events: self.events, status, stderr }
    }

    /// Reads a line; false if none comes in time or ever.
    fn read(&mut self, deadline: Instant) -> bool {
        let event = match &mut self.source {
            Source::Own(own) => own.lines.before(deadline).ok().flatten().map(|line| own.checks.line(&line)),
            Source::Shared(view) => view.next(deadline),
        };
        let came = event.is_some();
        // After a loss, events may say less about originators: no test can compare them.
        let lost = event.as_ref().filter(|event| !self.may_lose && is_loss(event));
        assert!(lost.is_none(), "{}", lost.unwrap_or(&Value::Null));
        self.events.extend(event);
        came
    }

    /// Fails the test, with the events of the calling thread's namespace; others belong to other tests.
    #[track_caller]
    fn fail(&mut self, what: &str) -> ! {
        let own = netns();
        let ours = |event: &&Value| event.get("netns").is_none_or(|netns| *netns == own);
        let mut last: Vec<_> = self.events.iter().filter(ours).map(Value::to_string).collect();
        let all = last.len();
        drop(last.drain(..all.saturating_sub(SHOWN)));
        let status = match &mut self.source {
            Source::Own(own) => match own.running.0.try_wait() {
                Ok(None) => "is running".to_owned(),
                ended => format!("{ended:?}: {}", own.stderr.recv_timeout(PATIENCE).unwrap_or_default()),
            },
            Source::Shared(view) => view.how(),
        };
        let rest = last.join("\n");
        // If the newest event of any test is old, netwatch itself has stopped.
        let newest = self.events.last().map_or(&Value::Null, |event| &event["ts"]);
        let (read, now) = (self.events.len(), jiff::Timestamp::now());
        panic!(
            "in vain: {what}; netwatch {status}; {read} events, the newest of {newest}, now {now}; \
             the last of {all} events here ({own}):\n{rest}"
        );
    }
}

/// A loss that concerns the test. Translations of other tests' connections, for which a stopped netwatch was too late, do
/// not, nor names of UNIX sockets beyond the budget of the host, which any program may use up.
fn is_loss(event: &Value) -> bool {
    const OF_OTHERS: [&str; 2] = ["nat_not_asked", "unix_names_not_followed"];
    let is_of_others = event["kinds"]
        .as_object()
        .is_some_and(|kinds| kinds.keys().all(|kind| OF_OTHERS.contains(&kind.as_str())));
    kind(event) == "loss" && !is_of_others
}
