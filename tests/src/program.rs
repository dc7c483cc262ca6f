//! Processes: netwatch, and whatever else a test starts.

use std::io::Read;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::{Child, ChildStderr, ChildStdout, Command, ExitStatus, Output, Stdio};
use std::thread::JoinHandle;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::wait::until;

/// The netwatch to test.
///
/// # Panics
/// Without `NETWATCH_BIN`.
#[must_use]
pub fn binary() -> PathBuf {
    std::env::var_os("NETWATCH_BIN").expect("NETWATCH_BIN: the path of the netwatch to test").into()
}

/// Runs netwatch to its end, which the arguments must bring about.
///
/// # Panics
/// When it cannot be started, or goes on.
#[must_use]
pub fn netwatch(arguments: &[&str]) -> Output {
    output(Command::new(binary()).args(arguments))
}

/// What a program prints until it ends by itself.
///
/// # Panics
/// When it cannot be started, or goes on.
#[must_use]
pub fn output(command: &mut Command) -> Output {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command);
    let (stdout, stderr) = (rest_of(running.stdout()), rest_of(running.stderr()));
    let status = running.ended(&format!("{command:?} ends"));
    let whole = |thread: JoinHandle<_>| thread.join().expect("a pipe to read");
    Output { status, stdout: whole(stdout), stderr: whole(stderr) }
}

fn rest_of(mut pipe: impl Read + Send + 'static) -> JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        pipe.read_to_end(&mut bytes).expect("a pipe to read");
        bytes
    })
}

/// A copy of `program` where anybody may run it, called `name`, and the directory that keeps it there.
///
/// # Panics
/// When it cannot be made.
#[must_use]
pub fn stranger_s_copy(program: &std::path::Path, name: impl AsRef<std::path::Path>) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().expect("a directory");
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everybody).expect("its permissions");
    let copy = directory.path().join(name);
    copy_program(program, &copy);
    (directory, copy)
}

/// Copies a program by a process of its own. This one never has the copy open for writing: if it had, a fork in another
/// thread could keep it so for a moment, and exec would fail with ETXTBSY.
///
/// # Panics
/// When it cannot be copied.
pub fn copy_program(program: &std::path::Path, to: &std::path::Path) {
    let mut copy = Command::new("sh");
    let copied = output(copy.args(["-c", "cat \"$0\" >\"$1\""]).args([program, to]));
    assert!(copied.status.success(), "{copied:?}");
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(to, everybody).expect("its permissions");
}

/// A process that ends with the test.
#[derive(Debug)]
pub struct Running(pub(crate) Child);

impl Running {
    /// Starts it.
    ///
    /// # Panics
    /// When that fails.
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

    /// `sleep`, with a socket as its standard input: a holder that does nothing with it.
    ///
    /// # Panics
    /// When it cannot be started.
    pub fn holding(fd: impl Into<std::os::fd::OwnedFd>) -> Self {
        let running = Self::start(Command::new("sleep").arg("600").stdin(Stdio::from(fd.into())));
        // spawn() returns in the middle of the exec, before the new arguments can be read.
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

    /// What it prints, where that was asked for.
    ///
    /// # Panics
    /// When it was not, or was taken already.
    pub fn stdout(&mut self) -> ChildStdout {
        self.0.stdout.take().expect("piped")
    }

    /// What it complains about, where that was asked for.
    ///
    /// # Panics
    /// When it was not, or was taken already.
    pub fn stderr(&mut self) -> ChildStderr {
        self.0.stderr.take().expect("piped")
    }

    /// Sends it a signal.
    ///
    /// # Panics
    /// When it was waited for already.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid()).expect("a pid");
        kill(Pid::from_raw(pid), signal).expect("the process is not reaped yet");
    }

    /// Waits for it to end by itself.
    ///
    /// # Panics
    /// When it does not.
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
