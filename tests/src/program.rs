//! Processes: netwatch, and others that a test starts.

use std::io::{Read, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::lines::PROGRESS;
use crate::wait::until;

/// The netwatch to test.
///
/// # Panics
/// If `NETWATCH_BIN` is not set.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("NETWATCH_BIN").expect("NETWATCH_BIN: the path of the netwatch to test").into()
}

/// Runs netwatch until it exits, as the arguments must make it do.
///
/// # Panics
/// If it cannot be started, or does not exit.
#[must_use]
pub fn netwatch(arguments: &[&str]) -> Output {
    output(Command::new(binary()).args(arguments))
}

/// The output of a program that exits by itself.
///
/// # Panics
/// If it cannot be started, or does not exit.
#[must_use]
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command);
    let (stdout, stderr) = (rest_of(running.stdout()), rest_of(running.stderr()));
    let status = running.ended(&format!("{command:?} ends"));
    let whole = |thread: JoinHandle<_>| thread.join().expect("a pipe to read");
    Output { status, stdout: whole(stdout), stderr: without_progress(&whole(stderr)) }
}

/// What netwatch prints on stderr, without what it says about its start on a busy host.
pub(crate) fn without_progress(stderr: &[u8]) -> Vec<u8> {
    let lines = stderr.split_inclusive(|byte| *byte == b'\n');
    lines.filter(|line| !line.starts_with(PROGRESS.as_bytes())).flatten().copied().collect()
}

fn rest_of(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe to read");
        bytes
    })
}

/// A copy of `program` that any user may run, with the file name `name`, and the directory that contains it.
///
/// # Panics
/// If it cannot be made.
#[must_use]
pub fn stranger_s_copy(program: &std::path::Path, name: impl AsRef<std::path::Path>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everybody).expect("its permissions");
    let copy = directory.path().join(name);
    copy_program(program, &copy);
    (directory, copy)
}

/// Copies a program by another process. This one never has the copy open for writing: if it had, a fork in another
/// thread could keep it open for a moment, and exec would fail with ETXTBSY.
///
/// # Panics
/// If it cannot be copied.
pub fn copy_program(program: &std::path::Path, to: &std::path::Path) {
    let mut copy = Command::new("sh");
    let copied = output(copy.args(["-c", "cat \"$0\" >\"$1\""]).args([program, to]));
    assert!(copied.status.success(), "{copied:?}");
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(to, everybody).expect("its permissions");
}

/// A process that is killed with the test.
#[derive(Debug)]
pub struct Running(pub(crate) Child);

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// If that fails.
    pub fn start(command: &mut Command) -> Self {
        let mut started = command.spawn();
        // Another thread's fork may hold a fresh copy of a program open for writing until its exec.
        until("the program is not being written to", || match &started {
            Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => {
                started = command.spawn();
                false
            }
            _ => true,
        });
        Self(started.unwrap_or_else(|error| panic!("{command:?}: {error}")))
    }

    /// `sleep`, with a socket as its standard input: a holder that does not use it.
    ///
    /// # Panics
    /// If it cannot be started.
    pub fn holding(fd: impl Into<std::os::fd::OwnedFd>) -> Self {
        let running = Self::start(Command::new("sleep").arg("600").stdin(Stdio::from(fd.into())));
        // spawn() returns during the exec, before the new arguments can be read.
        until("sleep has its arguments", || {
            std::fs::read(format!("/proc/{}/cmdline", running.pid()))
                .is_ok_and(|line| line.starts_with(b"sleep"))
        });
        running
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Writes to its stdin, which is piped and stays open.
    ///
    /// # Panics
    /// If it is not piped, or the process has ended.
    pub fn tell(&mut self, text: &str) {
        let stdin = self.0.stdin.as_mut().expect("piped");
        stdin.write_all(text.as_bytes()).expect("the process reads");
    }

    /// Its stdout, if it is piped.
    ///
    /// # Panics
    /// If it is not, or was taken already.
    pub fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("piped")
    }

    /// Its stderr, if it is piped.
    ///
    /// # Panics
    /// If it is not, or was taken already.
    pub fn stderr(&mut self) -> ChildStderr {
        self.0.stderr.take().expect("piped")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// If it was reaped already.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("the process is not reaped yet");
    }

    /// Waits for it to exit by itself.
    ///
    /// # Panics
    /// If it does not.
    pub fn ended(&mut self, what: &str) -> ExitStatus {
        let mut status = None;
        until(what, || {
            status = self.0.try_wait().expect("a child");
            status.is_some()
        });
        status.expect("until() waited for it")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
