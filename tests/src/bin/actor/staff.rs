//! Processes and threads that act for the actor: they share its sockets.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, alarm, dup2_stdin, dup2_stdout, fork, gettid, pipe};

use crate::disguise::{Choice, fork_with};
use crate::{Actor, BUSY, LIFETIME_S};

/// A child that has inherited all sockets, and executes commands like the actor itself.
pub(crate) struct Worker {
    pid: Pid,
    commands: File,
    answers: BufReader<File>,
}

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    Some(match words {
        ["fork"] => go_on_in_child(actor, true, None),
        ["fork", "leave"] => go_on_in_child(actor, false, None),
        ["fork", "as", pid] => go_on_in_child(actor, true, Some(Choice::Pid(pid))),
        ["fork", "into", cgroup] => go_on_in_child(actor, true, Some(Choice::Cgroup(cgroup))),
        ["hire"] => hire(actor),
        ["dismiss"] => dismiss(actor),
        ["worker", command @ ..] => command_worker(actor, &command.join(" ")),
        ["thread", name, command @ ..] => in_thread(actor, name, &command.join(" ")),
        ["spawn", what, program, arguments @ ..] => spawn(actor, what, program, arguments),
        ["cgi", program, arguments @ ..] => cgi(actor, program, arguments),
        ["forward", to] => forward(actor, to),
        ["turns", children, rounds] => take_turns(actor, children, rounds),
        ["become", program] => become_program(actor, program),
        ["busy"] => busy(),
        ["wait"] => std::io::stdin().read_line(&mut String::new()).map(|_| String::new()).map_err(Into::into),
        _ => return None,
    })
}

/// The child continues and answers. The parent answers no more.
fn go_on_in_child(actor: &mut Actor, wait: bool, choice: Option<Choice<'_>>) -> Result<String> {
    let forked = match choice {
        // SAFETY: no other thread is running, so nothing in the child is locked forever.
        Some(choice) => unsafe { fork_with(choice) }?,
        // SAFETY: the same.
        None => unsafe { fork() }?,
    };
    match forked {
        ForkResult::Child => {
            alarm::set(LIFETIME_S);
            Ok(std::process::id().to_string())
        }
        ForkResult::Parent { child } => {
            actor.listeners.clear();
            actor.streams.clear();
            actor.datagrams.clear();
            if wait {
                waitpid(child, None)?;
            }
            std::process::exit(0)
        }
    }
}

fn hire(actor: &mut Actor) -> Result<String> {
    let (commands, to_child) = pipe()?;
    let (from_child, answers) = pipe()?;
    // SAFETY: no other thread is running, so nothing in the child is locked forever.
    match unsafe { fork() }? {
        ForkResult::Child => {
            alarm::set(LIFETIME_S);
            actor.workers.clear();
            // All earlier commands were read: the next line comes from the parent.
            dup2_stdin(commands)?;
            dup2_stdout(answers)?;
            Ok(std::process::id().to_string())
        }
        ForkResult::Parent { child } => {
            drop((commands, answers));
            let answers = BufReader::new(File::from(from_child));
            actor.workers.push(Worker { pid: child, commands: to_child.into(), answers });
            answer(actor)
        }
    }
}

/// It exits at the end of its commands.
fn dismiss(actor: &mut Actor) -> Result<String> {
    let Worker { pid, commands, .. } = actor.workers.pop().context("no worker")?;
    drop(commands);
    waitpid(pid, None)?;
    Ok(String::new())
}

fn command_worker(actor: &mut Actor, command: &str) -> Result<String> {
    let worker = actor.workers.last_mut().context("no worker")?;
    writeln!(worker.commands, "{command}")?;
    answer(actor)
}

fn answer(actor: &mut Actor) -> Result<String> {
    let mut line = String::new();
    actor.workers.last_mut().context("no worker")?.answers.read_line(&mut line)?;
    match line.trim_end().split_once(' ').unwrap_or((line.trim_end(), "")) {
        ("ok", answer) => Ok(answer.to_owned()),
        (_, error) => bail!("{error}"),
    }
}

/// Answers with the thread's id, and then the answer to the command.
fn in_thread(actor: &mut Actor, name: &str, command: &str) -> Result<String> {
    std::thread::scope(|scope| {
        let work = || Ok(format!("{} {}", gettid(), actor.obey(command)?));
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work)?;
        thread.join().unwrap_or_else(|_| bail!("the thread panicked"))
    })
}

/// What inetd does: starts a program with the connection (or the listener) as its standard input and output. A blank
/// within an argument is spelled `+`.
fn spawn(actor: &mut Actor, what: &str, program: &str, arguments: &[&str]) -> Result<String> {
    let socket = || -> Result<OwnedFd> {
        Ok(match what {
            "listener" => actor.listeners.last().context("no listener")?.as_fd().try_clone_to_owned()?,
            _ => actor.streams.last().context("no connection")?.as_fd().try_clone_to_owned()?,
        })
    };
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|argument| argument.replace('+', " ")));
    let child = command.stdin(Stdio::from(socket()?)).stdout(Stdio::from(socket()?)).spawn()?;
    Ok(child.id().to_string())
}

/// What a server with CGI does: reads a request from the connection, and runs a program because of it. The program has
/// nothing of the connection.
fn cgi(actor: &Actor, program: &str, arguments: &[&str]) -> Result<String> {
    actor.stream()?.read_exact(&mut [0])?;
    let mut command = Command::new(program);
    command.args(arguments.iter().map(|argument| argument.replace('+', " ")));
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn()?;
    let pid = child.id();
    child.wait()?;
    Ok(pid.to_string())
}

/// What a proxy does: reads from the connection, and makes another one because of it.
fn forward(actor: &mut Actor, to: &str) -> Result<String> {
    actor.stream()?.read_exact(&mut [0])?;
    let onward = std::net::TcpStream::connect(to)?;
    Ok(actor.push(onward.into()))
}

/// The process executes another program, with the connection as its standard input and output.
fn become_program(actor: &Actor, program: &str) -> Result<String> {
    let socket = || actor.stream()?.as_fd().try_clone_to_owned().map_err(anyhow::Error::from);
    Err(Command::new(program).stdin(Stdio::from(socket()?)).stdout(Stdio::from(socket()?)).exec().into())
}

/// Children write to the connection in turn, a byte each time.
fn take_turns(actor: &Actor, children: &str, rounds: &str) -> Result<String> {
    let (children, rounds): (usize, usize) = (children.parse()?, rounds.parse()?);
    // Each reads from its pipe before its turn, and then writes to the next one's.
    let pipes = (0..children).map(|_| pipe()).collect::<Result<Vec<_>, _>>()?;
    let stream = actor.stream()?;
    let work = |turn: &OwnedFd, next: &OwnedFd| -> Result<()> {
        for _ in 0..rounds {
            nix::unistd::read(turn, &mut [0])?;
            nix::unistd::write(stream, b"x")?;
            nix::unistd::write(next, b"x")?;
        }
        Ok(())
    };
    let mut pids = Vec::new();
    for ((turn, _), (_, next)) in pipes.iter().zip(pipes.iter().cycle().skip(1)) {
        // SAFETY: no other thread is running, so nothing in the child is locked for ever.
        match unsafe { fork() }? {
            ForkResult::Child => {
                alarm::set(LIFETIME_S);
                std::process::exit(i32::from(work(turn, next).is_err()))
            }
            ForkResult::Parent { child } => pids.push(child),
        }
    }
    let (_, first) = pipes.first().context("no children")?;
    nix::unistd::write(first, b"x")?;
    for pid in pids {
        match waitpid(pid, None)? {
            WaitStatus::Exited(_, 0) => {}
            status => bail!("{status:?}"),
        }
    }
    Ok(String::new())
}

fn busy() -> Result<String> {
    let until = Instant::now() + BUSY;
    for _ in 0..std::thread::available_parallelism()?.get() {
        std::thread::spawn(move || while Instant::now() < until {});
    }
    Ok(String::new())
}
