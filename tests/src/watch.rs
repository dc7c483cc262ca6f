//! `netwatch watch --json`, read as it comes.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::checks::Checks;
use crate::event::{End, kind};
use crate::lines::Lines;
use crate::netns::netns;
use crate::program::{Running, binary};
use crate::wait::PATIENCE;

/// Loading, attaching, seeding: more than any event takes.
const READY: Duration = Duration::from_secs(30);

/// Lines shown where a test fails.
const SHOWN: usize = 60;

/// What every log is to be made with: jobs and rungs, as `--probe` has them, from `NETWATCH_TEST_PROBES`. So a
/// kernel that offers several rungs is tested on each.
#[must_use]
pub fn forced() -> Vec<String> {
    let probes = std::env::var("NETWATCH_TEST_PROBES").unwrap_or_default();
    probes.split_whitespace().flat_map(|probe| ["--probe".to_owned(), probe.to_owned()]).collect()
}

/// A running log. It is in the network namespace of the thread that starts it.
#[derive(Debug)]
pub struct Watch {
    running: Running,
    lines: Lines,
    stderr: Receiver<String>,
    checks: Checks,
    events: Vec<Value>,
    may_lose: bool,
}

/// What a run printed, from its first line to its last.
#[derive(Debug)]
pub struct Log {
    /// `ready` first.
    pub events: Vec<Value>,
    /// How it ended.
    pub status: ExitStatus,
    /// All of it.
    pub stderr: String,
}

impl Watch {
    /// Starts it, with `arguments` after `watch --json`, and waits until it is ready. It shows the calling
    /// thread's namespace: all others' events, the floods of other tests among them, would be read for
    /// nothing.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn start(arguments: &[&str]) -> Self {
        Self::showing(&["--netns", "self"], arguments)
    }

    /// The same for several namespaces with wires between them.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn on_wires(arguments: &[&str]) -> Self {
        Self::showing(&["--local", "10.0.0.0/8"], arguments)
    }

    /// A recorder into `store` that prints what it records, of the whole host.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn recording(store: &Path, arguments: &[&str]) -> Self {
        let store = store.to_str().expect("a path in UTF-8");
        Self::running(&[&["record", "--print", "--json", "--store", store], arguments].concat())
    }

    /// The same for whatever `arguments` show.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn everywhere(arguments: &[&str]) -> Self {
        Self::showing(&[], arguments)
    }

    fn showing(filter: &[&str], arguments: &[&str]) -> Self {
        let own = arguments.iter().any(|argument| filter.first() == Some(argument));
        let arguments = [arguments, if own { &[] } else { filter }].concat();
        Self::running(&[&["watch", "--json"], &arguments[..]].concat())
    }

    fn running(arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(arguments).args(forced()).stdin(Stdio::null());
        let mut running = Running::start(command.stdout(Stdio::piped()).stderr(Stdio::piped()));
        let lines = Lines::of(running.stdout());
        let mut pipe = running.stderr();
        let (send, stderr) = channel();
        std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = pipe.read_to_end(&mut text);
            // Nobody waits for it where the test has failed already.
            let _ = send.send(String::from_utf8_lossy(&text).into_owned());
        });
        let may_lose = arguments.contains(&"--ring");
        let mut watch =
            Self { running, lines, stderr, checks: Checks::default(), events: Vec::new(), may_lose };
        if !watch.read(Instant::now() + READY) {
            watch.fail("ready");
        }
        watch
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it has ended already.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// The first line.
    #[must_use]
    pub fn ready(&self) -> &Value {
        &self.events[0]
    }

    /// What was read so far.
    #[must_use]
    pub fn events(&self) -> &[Value] {
        &self.events
    }

    /// The first event that `is` it, past or to come.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn expect(&mut self, what: &str, is: impl Fn(&Value) -> bool) -> Value {
        let found = self.expect_times(what, 1, is);
        found.into_iter().next().expect("one was found")
    }

    /// The first so many events that each `is` it, past or to come. Looks at each event once: other tests'
    /// events are among them, and may be many.
    ///
    /// # Panics
    /// When they do not come.
    #[track_caller]
    pub fn expect_times(&mut self, what: &str, times: usize, is: impl Fn(&Value) -> bool) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        let mut looked_at = 0;
        let mut found = Vec::new();
        loop {
            let new = self.events[looked_at..].iter().filter(|event| is(event));
            found.extend(new.take(times - found.len()).cloned());
            looked_at = self.events.len();
            if found.len() == times {
                return found;
            }
            if Instant::now() > deadline || !self.read(deadline) {
                self.fail(&format!("{what}: {} of {times}", found.len()));
            }
        }
    }

    /// The first event of this kind about this end.
    ///
    /// # Panics
    /// When it does not come.
    #[track_caller]
    pub fn at(&mut self, event: &str, end: End) -> Value {
        self.expect(&format!("{event} of {end:?}"), |seen| kind(seen) == event && end.of(seen))
    }

    /// Reads on until the events so far are `enough`, looking again at whatever is outside from time to
    /// time, though no event comes.
    ///
    /// # Panics
    /// When they never are.
    #[track_caller]
    pub fn settles(&mut self, what: &str, mut enough: impl FnMut(&[Value]) -> bool) {
        const LOOK: Duration = Duration::from_millis(100);
        let deadline = Instant::now() + PATIENCE;
        loop {
            while Instant::now() < deadline && self.read(Instant::now() + LOOK) {}
            if enough(&self.events) {
                return;
            }
            if Instant::now() > deadline {
                self.fail(what);
            }
        }
    }

    /// Interrupts it and reads the rest.
    ///
    /// # Panics
    /// When it does not end, or lost what it had room for.
    #[track_caller]
    pub fn finish(self) -> Log {
        self.signal(Signal::SIGINT);
        self.ended()
    }

    /// What a log printed that was killed.
    ///
    /// # Panics
    /// When it goes on all the same.
    #[must_use]
    pub fn killed(mut self) -> Vec<Value> {
        let deadline = Instant::now() + PATIENCE;
        while let Ok(Some(line)) = self.lines.before(deadline) {
            // The last may have been cut off.
            if let Ok(event) = serde_json::from_str(&line) {
                self.events.push(event);
            }
        }
        self.running.ended("netwatch is killed");
        self.events
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// When it does not, or lost what it had room for.
    #[track_caller]
    pub fn ended(mut self) -> Log {
        let deadline = Instant::now() + PATIENCE;
        while self.read(deadline) {}
        let status = self.running.ended("netwatch ends");
        let stderr = self.stderr.recv_timeout(PATIENCE).expect("its stderr ends with it");
        assert!(!stderr.contains("panicked"), "{stderr}");
        let lost = self.events.iter().find(|event| kind(event) == "loss");
        assert!(self.may_lose || lost.is_none(), "{}", lost.unwrap_or(&Value::Null));
        Log { events: self.events, status, stderr }
    }

    /// Reads a line; false where none comes in time, or ever.
    fn read(&mut self, deadline: Instant) -> bool {
        let Ok(Some(line)) = self.lines.before(deadline) else { return false };
        let event = self.checks.line(&line);
        self.events.push(event);
        true
    }

    /// Ends the test, with the events of the calling thread's namespace: others are other tests'.
    #[track_caller]
    fn fail(&mut self, what: &str) -> ! {
        let own = netns();
        let ours = |event: &&Value| event.get("netns").is_none_or(|netns| *netns == own);
        let mut last: Vec<_> = self.events.iter().filter(ours).map(Value::to_string).collect();
        let all = last.len();
        drop(last.drain(..all.saturating_sub(SHOWN)));
        let end = match self.running.0.try_wait() {
            Ok(None) => "is running".to_owned(),
            ended => format!("{ended:?}: {}", self.stderr.recv_timeout(PATIENCE).unwrap_or_default()),
        };
        let rest = last.join("\n");
        // Where nothing comes of other tests either, it is netwatch that stands still.
        let newest = self.events.last().map_or(&Value::Null, |event| &event["ts"]);
        let (read, now) = (self.events.len(), jiff::Timestamp::now());
        panic!(
            "in vain: {what}; netwatch {end}; {read} events, the newest of {newest}, now {now}; \
             the last of {all} events here ({own}):\n{rest}"
        );
    }
}

impl Log {
    /// Events of this kind about this end.
    #[must_use]
    pub fn at(&self, event: &str, end: End) -> Vec<&Value> {
        self.events.iter().filter(|seen| kind(seen) == event && end.of(seen)).collect()
    }

    /// Kinds of the events about this end, in their order.
    #[must_use]
    pub fn kinds(&self, end: End) -> Vec<&str> {
        self.events.iter().filter(|seen| end.of(seen)).map(kind).collect()
    }
}
