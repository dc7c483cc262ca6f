//! The process that runs the program of `--alert-exec`: without privileges, a limited number at once, each for a limited
//! time. Started by `watch` and `record`, and ends with them.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Seek as _, Write as _};
use std::os::fd::AsFd;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{MemfdFlags, memfd_create};

use crate::limits;

/// `nobody`, on every distribution.
const NOBODY: u32 = 65_534;

/// How often it is looked whether a program has ended.
const PAUSE: Duration = Duration::from_millis(50);

/// What the process is to do.
#[derive(Clone, Debug)]
pub struct AlertExecOptions {
    /// The program with its arguments.
    pub program: Vec<OsString>,
}

/// Runs the program for each message on stdin, until stdin ends and all programs have.
///
/// # Errors
/// If privileges cannot be given up, or stdin cannot be read.
pub fn run(options: &AlertExecOptions) -> Result<()> {
    // Signals to the group of the terminal or service are for netwatch; this process ends when the pipe does.
    for signal in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGQUIT] {
        // SAFETY: to ignore a signal runs no code.
        unsafe { libc::signal(signal, libc::SIG_IGN) };
    }
    give_up_privileges().context("cannot give up privileges")?;
    let _ = std::env::set_current_dir("/");
    // Whoever started it waits for this.
    io::stdout().write_all(b"+")?;
    io::stdout().flush()?;
    // Unbuffered: what is in a buffer is not ready for poll(2).
    let input = File::from(io::stdin().as_fd().try_clone_to_owned()?);
    serve(input, &options.program, limits::EXEC_AT_ONCE, limits::EXEC_TIME)
}

fn give_up_privileges() -> nix::Result<()> {
    if nix::unistd::geteuid().is_root() {
        nix::unistd::setgroups(&[])?;
        nix::unistd::setgid(NOBODY.into())?;
        // Takes all capabilities away: capabilities(7).
        nix::unistd::setuid(NOBODY.into())?;
    }
    nix::sys::prctl::set_no_new_privs()
}

/// A program that runs.
struct Running {
    child: Child,
    until: Instant,
}

fn serve(mut input: impl Read + AsFd, program: &[OsString], at_once: usize, time: Duration) -> Result<()> {
    let mut running: Vec<Running> = Vec::new();
    let mut is_over = false;
    while !is_over || !running.is_empty() {
        let now = Instant::now();
        running.retain_mut(|one| !has_ended(one, now));
        if is_over || running.len() >= at_once {
            std::thread::sleep(PAUSE);
            continue;
        }
        let pause = Timespec { tv_sec: 0, tv_nsec: PAUSE.as_nanos() as _ };
        let patience = if running.is_empty() { None } else { Some(&pause) };
        let ready = poll(&mut [PollFd::new(&input, PollFlags::IN)], patience);
        if matches!(ready, Ok(0) | Err(rustix::io::Errno::INTR)) {
            continue;
        }
        match message(&mut input)? {
            Some(line) => running.extend(start(program, &line, now + time).ok()),
            None => is_over = true,
        }
    }
    Ok(())
}

/// Ends one whose time is over.
fn has_ended(one: &mut Running, now: Instant) -> bool {
    match one.child.try_wait() {
        Ok(None) if now < one.until => false,
        Ok(None) => {
            let _ = one.child.kill();
            let _ = one.child.wait();
            true
        }
        Ok(Some(_)) | Err(_) => true,
    }
}

/// Length and line; `None` at the end.
fn message(input: &mut impl Read) -> io::Result<Option<Vec<u8>>> {
    let mut length = [0; 4];
    match input.read_exact(&mut length) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let mut line = Vec::new();
    input.take(u32::from_le_bytes(length).into()).read_to_end(&mut line)?;
    Ok(Some(line))
}

/// Starts the program, with the line in a file in memory: a program that does not read it holds up nothing.
fn start(program: &[OsString], line: &[u8], until: Instant) -> io::Result<Running> {
    let [path, arguments @ ..] = program else { return Err(io::ErrorKind::InvalidInput.into()) };
    let mut file = File::from(memfd_create("alert", MemfdFlags::CLOEXEC)?);
    file.write_all(line)?;
    file.rewind()?;
    let mut command = Command::new(path);
    command.args(arguments).env_clear().env("PATH", "/usr/local/bin:/usr/bin:/bin");
    let child = command.stdin(file).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok(Running { child, until })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `program` for so many messages.
    fn served(program: &[&str], messages: u32, at_once: usize, time: Duration) {
        let mut file = tempfile::tempfile().unwrap();
        for n in 0..messages {
            let line = format!("{{\"n\":{n}}}\n");
            file.write_all(&(line.len() as u32).to_le_bytes()).unwrap();
            file.write_all(line.as_bytes()).unwrap();
        }
        file.rewind().unwrap();
        let program: Vec<_> = program.iter().map(OsString::from).collect();
        serve(file, &program, at_once, time).unwrap();
    }

    #[test]
    fn each_message_is_the_input_of_a_program() {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        let out = out.to_str().unwrap();
        served(&["/bin/sh", "-c", "cat >> \"$0\"", out], 5, 1, Duration::from_secs(60));
        let lines = std::fs::read_to_string(out).unwrap();
        assert_eq!(lines, (0..5).map(|n| format!("{{\"n\":{n}}}\n")).collect::<String>());
    }

    #[test]
    fn programs_that_hang_are_ended_and_few_run_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let marks = folder.path().to_str().unwrap();
        // Says how many others there are.
        let script = "touch \"$0/$$\"; ls \"$0\" | grep -c '^[0-9]*$' >> \"$0/counts\"; exec sleep 600";
        served(
            &["/bin/sh", "-c", &script.replace("exec sleep 600", "rm \"$0/$$\""), marks],
            8,
            2,
            Duration::from_secs(60),
        );
        let counts = std::fs::read_to_string(folder.path().join("counts")).unwrap();
        assert!(counts.lines().all(|count| count.parse::<u32>().unwrap() <= 2), "{counts}");
        let began = Instant::now();
        served(&["/bin/sleep", "600"], 4, 2, Duration::from_millis(200));
        assert!(began.elapsed() >= Duration::from_millis(400) && began.elapsed() < Duration::from_secs(300));
        // One that does not exist costs nothing.
        served(&["/nowhere/at/all"], 2, 1, Duration::from_secs(60));
    }
}
