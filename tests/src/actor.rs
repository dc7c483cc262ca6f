//! A process that executes the commands of a test on sockets, one by one (`src/bin/actor.rs`).

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::OnceLock;

use serde_json::{Value, json};

use crate::lines::Lines;
use crate::program::Running;
use crate::wait::PATIENCE;

/// The process. It is in the network namespace of the thread that starts it.
#[derive(Debug)]
pub struct Actor {
    running: Running,
    path: PathBuf,
    pid: u32,
    commands: ChildStdin,
    answers: Lines,
}

impl Actor {
    /// The path of the program: `NETWATCH_ACTOR`, or where cargo put it, in the folder above the tests. It is
    /// determined at run time, because the tests may have been moved since they were built.
    ///
    /// # Panics
    /// If the path is not UTF-8: commands and events contain it as text.
    #[must_use]
    pub fn program() -> &'static str {
        static PROGRAM: OnceLock<String> = OnceLock::new();
        PROGRAM.get_or_init(|| {
            std::env::var_os("NETWATCH_ACTOR")
                .map_or_else(above_the_tests, PathBuf::from)
                .into_os_string()
                .into_string()
                .expect("the actor's path is UTF-8")
        })
    }

    /// Starts the program at `path`, which is [`Actor::program`] or a copy of it.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn start(path: impl AsRef<Path>) -> Self {
        Self::start_as(path.as_ref(), &mut Command::new(path.as_ref()))
    }

    /// Starts it by another command, which in the end runs the program at `path`.
    ///
    /// # Panics
    /// If that fails.
    #[must_use]
    pub fn start_as(path: &Path, command: &mut Command) -> Self {
        let mut running = Running::start(command.stdin(Stdio::piped()).stdout(Stdio::piped()));
        let commands = running.0.stdin.take().expect("piped");
        let answers = Lines::of(running.stdout());
        let pid = running.pid();
        let mut actor = Self { running, path: path.to_owned(), pid, commands, answers };
        // An answer proves that the exec is complete: from now on `/proc` shows the actor.
        actor.pid = actor.say("pid").parse().expect("a pid");
        actor
    }

    /// The process that executes the commands; another one after `fork`.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The process that was started first: the command that runs the actor, or the actor before it forked.
    #[must_use]
    pub fn started(&self) -> u32 {
        self.running.pid()
    }

    /// Executes a command that must succeed, and returns its answer.
    ///
    /// # Panics
    /// If it fails.
    pub fn say(&mut self, command: &str) -> String {
        self.try_say(command).unwrap_or_else(|errno| panic!("{command}: {errno}"))
    }

    /// Executes a command that may fail.
    ///
    /// # Errors
    /// The name of the errno.
    pub fn try_say(&mut self, command: &str) -> Result<String, String> {
        self.begin(command);
        self.answer()
    }

    /// Sends a command without waiting for its answer, which [`Actor::answer`] returns.
    ///
    /// # Panics
    /// If the actor has exited.
    pub fn begin(&mut self, command: &str) {
        writeln!(self.commands, "{command}").expect("the actor is there");
    }

    /// The answer to [`Actor::begin`].
    ///
    /// # Errors
    /// The name of the errno.
    ///
    /// # Panics
    /// If none comes.
    pub fn answer(&mut self) -> Result<String, String> {
        let line = self.answers.next(PATIENCE).expect("the actor is there");
        let (word, rest) = line.split_once(' ').unwrap_or((&line, ""));
        match word {
            "ok" => Ok(rest.to_owned()),
            "error" => Err(rest.to_owned()),
            _ => panic!("the actor says {line}"),
        }
    }

    /// Continues in a child process, which has inherited the sockets. The parent waits for it to exit. Returns the
    /// parent's pid.
    ///
    /// # Panics
    /// If it cannot fork.
    pub fn fork(&mut self) -> u32 {
        self.fork_by("fork")
    }

    /// As [`Actor::fork`], but the parent exits at once.
    ///
    /// # Panics
    /// If it cannot fork.
    pub fn fork_and_leave(&mut self) -> u32 {
        self.fork_by("fork leave")
    }

    /// As [`Actor::fork`], with a chosen pid for the child, which must be free.
    ///
    /// # Panics
    /// If it cannot fork.
    pub fn fork_as(&mut self, pid: u32) -> u32 {
        self.fork_by(&format!("fork as {pid}"))
    }

    /// As [`Actor::fork`], with the child created in a control group, by the path of its directory.
    ///
    /// # Panics
    /// If it cannot fork.
    pub fn fork_into(&mut self, cgroup: &Path) -> u32 {
        self.fork_by(&format!("fork into {}", cgroup.display()))
    }

    fn fork_by(&mut self, command: &str) -> u32 {
        let child = self.say(command).parse().expect("a pid");
        std::mem::replace(&mut self.pid, child)
    }

    /// Starts a child that has inherited the sockets and executes the commands that follow `worker`. Returns the
    /// process object that netwatch must report for it.
    ///
    /// # Panics
    /// If it cannot fork.
    pub fn hire(&mut self) -> Value {
        let pid = self.say("hire").parse().expect("a pid");
        self.object_of(pid)
    }

    /// Kills the process that was started (not one that it forked), and waits until it has exited.
    pub fn kill(self) {
        drop(self);
    }

    /// The process object that netwatch must report, as far as it is the same in every test.
    ///
    /// # Panics
    /// If the program file does not exist any more.
    #[must_use]
    pub fn object(&self) -> Value {
        self.object_of(self.pid)
    }

    /// Whether a `key` of a process, as in events, is that of the process.
    #[must_use]
    pub fn has_key(&self, key: &Value) -> bool {
        key.as_str().and_then(|key| key.split_once('@')).is_some_and(|(pid, _)| pid == self.pid.to_string())
    }

    /// As [`Actor::object`], for a child that runs the same program.
    fn object_of(&self, pid: u32) -> Value {
        let exe = self.path.canonicalize().expect("the program is there");
        json!({
            "pid": pid,
            "tid": pid,
            "comm": "actor",
            "exe": exe.to_str().expect("a path in UTF-8"),
            "exe_state": "ok",
            "args": [self.path.to_str().expect("a path in UTF-8")],
            "uid": 0,
            "user": "root",
            "kernel": false,
        })
    }

    /// Waits for the process that was started to exit by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn ended(&mut self) {
        self.running.ended("the actor ends");
    }
}

/// `target/debug/actor`, for tests in `target/debug/deps`.
fn above_the_tests() -> PathBuf {
    let tests = std::env::current_exe().expect("/proc is mounted");
    let folder = tests.ancestors().nth(2).expect("cargo puts tests two folders deep");
    folder.join("actor")
}
