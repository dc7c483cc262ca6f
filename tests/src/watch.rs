//! `netwatch watch --json`, read as it comes.

use std::io::Read as _;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::checks::Checks;
use crate::event::{End, kind};
use crate::lines::Lines;
use crate::log::Log;
use crate::netns::{Netns, netns};
use crate::presence::Presence;
use crate::program::{Running, binary};
use crate::schema::validate;
use crate::shared::{Told, View};
use crate::wait::PATIENCE;

/// Loading, attaching, seeding: more than any event takes.
pub(crate) const READY: Duration = Duration::from_secs(30);

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

/// A netwatch of the test's own.
#[derive(Debug)]
struct Own {
    running: Running,
    lines: Lines,
    stderr: Receiver<String>,
    checks: Checks,
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
        Self::showing(&["--netns", "self"], arguments, Presence::shared())
    }

    /// The same of a netwatch that other tests look at as well: for those that do not ask how it begins (`ready`,
    /// seeds) or ends.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn shared() -> Self {
        Self::of_view(vec![netns()], Told::Events)
    }

    /// Likewise, of one with `--states`.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn shared_with_states() -> Self {
        Self::of_view(vec![netns()], Told::EveryState)
    }

    /// The same for several namespaces with wires between them.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn shared_by(all: &[&Netns]) -> Self {
        Self::of_view(all.iter().map(|netns| netns.inum()).collect(), Told::Events)
    }

    /// Likewise, of one with `--states`.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn shared_with_states_by(all: &[&Netns]) -> Self {
        Self::of_view(all.iter().map(|netns| netns.inum()).collect(), Told::EveryState)
    }

    fn of_view(netns: Vec<u64>, told: Told) -> Self {
        let presence = Presence::shared();
        let view = View::open(netns, told);
        let events = vec![view.ready().clone()];
        Self { source: Source::Shared(view), events, may_lose: false, _presence: Arc::new(presence) }
    }

    /// The same while no other test has a log: waits until that is so.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn alone(arguments: &[&str]) -> Self {
        Self::showing(&["--netns", "self"], arguments, Presence::alone())
    }

    /// The same for several namespaces with wires between them.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn on_wires(arguments: &[&str]) -> Self {
        Self::showing(&["--local", "10.0.0.0/8"], arguments, Presence::shared())
    }

    /// A recorder into `store` that prints what it records, of the whole host.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn recording(store: &Path, arguments: &[&str]) -> Self {
        let store = store.to_str().expect("a path in UTF-8");
        Self::running(
            &[&["record", "--print", "--json", "--store", store], arguments].concat(),
            Presence::shared(),
        )
    }

    /// The same for whatever `arguments` show.
    ///
    /// # Panics
    /// When it does not get ready.
    #[must_use]
    pub fn everywhere(arguments: &[&str]) -> Self {
        Self::showing(&[], arguments, Presence::shared())
    }

    /// Several of those, one for each of `all`, while no other test has a log. Every one attaches four programs to
    /// `tcp_v4_connect`, and a function takes 38 (`include/linux/bpf.h`, `BPF_MAX_TRAMP_LINKS`): with those of other
    /// tests the last would fall back to kprobes, which miss what happens on a CPU where a task was preempted within
    /// bpf(2) (`bpf_disable_instrumentation` there).
    ///
    /// # Panics
    /// When one does not get ready.
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
            // Nobody waits for it where the test has failed already.
            let _ = send.send(String::from_utf8_lossy(&text).into_owned());
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
    /// When it has ended already, or is not the test's own.
    pub fn signal(&self, signal: Signal) {
        match &self.source {
            Source::Own(own) => own.running.signal(signal),
            Source::Shared(_) => panic!("other tests look at it as well"),
        }
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

    /// Interrupts it and reads the rest; of one that is shared, what is told until now.
    ///
    /// # Panics
    /// When it does not end in good order, or lost what it had room for.
    #[track_caller]
    pub fn finish(mut self) -> Log {
        let Source::Shared(view) = &self.source else {
            self.signal(Signal::SIGINT);
            let log = self.ended();
            assert!(log.status.success(), "{:?}: {}", log.status, log.stderr);
            return log;
        };
        self.events.extend(view.until_now());
        // How it ends is the business of tests that have one of their own.
        self.log(ExitStatus::default(), String::new())
    }

    /// What a log printed that was killed.
    ///
    /// # Panics
    /// When it goes on all the same, or is not the test's own.
    #[must_use]
    pub fn killed(mut self) -> Vec<Value> {
        let Source::Own(own) = &mut self.source else { panic!("other tests look at it as well") };
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

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// When it does not, or lost what it had room for.
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
        let lost = self.events.iter().find(|event| kind(event) == "loss");
        assert!(self.may_lose || lost.is_none(), "{}", lost.unwrap_or(&Value::Null));
        Log { events: self.events, status, stderr }
    }

    /// Reads a line; false where none comes in time, or ever.
    fn read(&mut self, deadline: Instant) -> bool {
        let event = match &mut self.source {
            Source::Own(own) => own.lines.before(deadline).ok().flatten().map(|line| own.checks.line(&line)),
            Source::Shared(view) => view.next(deadline),
        };
        let came = event.is_some();
        // What follows says less of originators, and is not worth a comparison.
        let lost = event.as_ref().filter(|event| !self.may_lose && kind(event) == "loss");
        assert!(lost.is_none(), "{}", lost.unwrap_or(&Value::Null));
        self.events.extend(event);
        came
    }

    /// Ends the test, with the events of the calling thread's namespace: others are other tests'.
    #[track_caller]
    fn fail(&mut self, what: &str) -> ! {
        let own = netns();
        let ours = |event: &&Value| event.get("netns").is_none_or(|netns| *netns == own);
        let mut last: Vec<_> = self.events.iter().filter(ours).map(Value::to_string).collect();
        let all = last.len();
        drop(last.drain(..all.saturating_sub(SHOWN)));
        let end = match &mut self.source {
            Source::Own(own) => match own.running.0.try_wait() {
                Ok(None) => "is running".to_owned(),
                ended => format!("{ended:?}: {}", own.stderr.recv_timeout(PATIENCE).unwrap_or_default()),
            },
            Source::Shared(view) => view.how(),
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
