//! A store that is removed with the test, and a recorder that prints no events.

use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Output, Stdio};
use std::time::Instant;

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::Signal;
use serde_json::Value;
use tempfile::TempDir;

use crate::lines::Lines;
use crate::program::{Running, binary, output};
use crate::schema::validate;
use crate::wait::PATIENCE;
use crate::watch::forced;

/// A folder for one store.
#[derive(Debug)]
pub struct Store {
    folder: TempDir,
    mounted: bool,
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl Store {
    /// An empty folder.
    ///
    /// # Panics
    /// If it cannot be created.
    #[must_use]
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder"), mounted: false }
    }

    /// The same on its own file system of this size.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[must_use]
    pub fn in_room_of(bytes: u64) -> Self {
        Self::on_its_own(&format!("size={bytes}"))
    }

    /// The same on its own file system with this number of inodes.
    ///
    /// # Panics
    /// If it cannot be mounted.
    #[must_use]
    pub fn with_inodes(inodes: u64) -> Self {
        Self::on_its_own(&format!("size=8m,nr_inodes={inodes}"))
    }

    fn on_its_own(options: &str) -> Self {
        let mut store = Self::new();
        mount(Some("tmpfs"), store.folder.path(), Some("tmpfs"), MsFlags::empty(), Some(options))
            .expect("a tmpfs");
        store.mounted = true;
        store
    }

    /// Makes the file system read-only.
    ///
    /// # Panics
    /// If it cannot be remounted.
    pub fn becomes_read_only(&self) {
        let flags = MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(None::<&str>, self.folder.path(), None::<&str>, flags, None::<&str>)
            .expect("a tmpfs of its own");
    }

    /// The path of the database.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        self.folder.path().join("netwatch.db")
    }

    /// A file beside it.
    #[must_use]
    pub fn beside(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Runs a command of netwatch on it.
    ///
    /// # Panics
    /// If it does not exit.
    #[must_use]
    pub fn run(&self, command: &str, arguments: &[&str]) -> Output {
        output(Command::new(binary()).arg(command).arg("--store").arg(self.path()).args(arguments))
    }

    /// The events that `log --json` prints.
    ///
    /// # Panics
    /// If it fails.
    #[must_use]
    pub fn log(&self, arguments: &[&str]) -> Vec<Value> {
        let output = self.run("log", &[&["--json"], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout).expect("JSON is UTF-8");
        let events: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        events.iter().for_each(validate);
        events
    }

    /// The status of `verify`, and what it prints.
    ///
    /// # Panics
    /// If it does not exit.
    #[must_use]
    pub fn verify(&self, arguments: &[&str]) -> (Option<i32>, String) {
        let output = self.run("verify", arguments);
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).expect("UTF-8").trim_end().to_owned())
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if self.mounted {
            let _ = umount2(self.folder.path(), MntFlags::MNT_DETACH);
        }
    }
}

/// A running `netwatch record`, which prints only messages.
#[derive(Debug)]
pub struct Recorder {
    running: Running,
    stderr: Lines,
    said: Vec<String>,
}

impl Recorder {
    /// Starts it, and waits until it records. It records the calling thread's namespace.
    ///
    /// # Panics
    /// If it does not.
    #[must_use]
    pub fn start(store: &Path, arguments: &[&str]) -> Self {
        let mut recorder = Self::begin(store, arguments);
        recorder.says("recording to");
        recorder
    }

    /// Starts it without waiting.
    ///
    /// # Panics
    /// If it cannot be started.
    #[must_use]
    pub fn begin(store: &Path, arguments: &[&str]) -> Self {
        let mut command = Command::new(binary());
        command.args(["record", "--netns", "self", "--store"]).arg(store).args(arguments).args(forced());
        Self::of(command.stdin(Stdio::null()).stdout(Stdio::null()))
    }

    /// The same by another command.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn of(command: &mut Command) -> Self {
        let mut running = Running::start(command.stderr(Stdio::piped()));
        let stderr = Lines::of(running.stderr());
        Self { running, stderr, said: Vec::new() }
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.running.pid()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        self.running.signal(signal);
    }

    /// Waits for a line with `what` in it.
    ///
    /// # Panics
    /// If it does not come.
    #[track_caller]
    pub fn says(&mut self, what: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let Ok(Some(line)) = self.stderr.before(deadline) else {
                panic!("in vain: {what}; it says {:?}", self.said);
            };
            self.said.push(line.clone());
            if line.contains(what) {
                return line;
            }
        }
    }

    /// Waits for it to exit. Returns its status, and all lines of its stderr.
    ///
    /// # Panics
    /// If it does not.
    #[track_caller]
    pub fn ended(mut self) -> (ExitStatus, Vec<String>) {
        let status = self.running.ended("netwatch ends");
        while let Some(line) = self.stderr.next(PATIENCE) {
            self.said.push(line);
        }
        (status, self.said)
    }

    /// Stops it by a signal, and checks that it succeeded.
    ///
    /// # Panics
    /// If it prints an error.
    #[track_caller]
    pub fn finish(self) {
        self.signal(Signal::SIGTERM);
        let (status, said) = self.ended();
        assert_eq!((status.code(), said.len()), (Some(0), 1), "{said:?}");
    }
}
