//! Executes commands on sockets, one per line of stdin, and answers each with a line on stdout: `ok …`, or `error
//! ERRNO`. Arguments are commands too: with them it executes those and exits, without output.
//!
//! Commands about a connection refer to the one that was connected or accepted last and not closed yet; likewise for
//! listeners, and for workers. A module has the commands of one subject.

mod disguise;
mod hold;
mod hops;
#[cfg(target_arch = "x86_64")]
mod ia32;
mod mass;
mod names;
mod pass;
mod raw;
mod rewrite;
mod scene;
mod staff;
mod tcp;
mod udp;
mod uring;

use std::io::BufRead;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::unistd::alarm;

/// Longer than any test takes: actors that a failed test leaves behind are killed by then.
const LIFETIME_S: u32 = 300;

/// How long `busy` keeps all processors busy.
const BUSY: Duration = Duration::from_secs(30);

/// The commands of one subject; `None`: not one of them.
type Subject = fn(&mut Actor, &[&str]) -> Option<Result<String>>;

#[derive(Default)]
struct Actor {
    listeners: Vec<TcpListener>,
    streams: Vec<TcpStream>,
    datagrams: Vec<UdpSocket>,
    raw: Vec<OwnedFd>,
    workers: Vec<staff::Worker>,
    mailbox: Option<UnixDatagram>,
    unix_listener: Option<UnixListener>,
    ring: Option<io_uring::IoUring>,
    holder: Option<hold::Holder>,
}

fn main() -> Result<()> {
    alarm::set(LIFETIME_S);
    let mut actor = Actor::default();
    // An argument may have any bytes: args() would panic.
    let arguments: Vec<_> = std::env::args_os().skip(1).collect();
    for command in &arguments {
        // A test may make attempts that fail.
        let _ = actor.obey(&command.to_string_lossy());
    }
    if !arguments.is_empty() {
        return Ok(());
    }
    obey_all(&mut actor, std::io::stdin().lock())
}

/// Executes commands until the end of the input.
fn obey_all(actor: &mut Actor, commands: impl BufRead) -> Result<()> {
    for command in commands.lines() {
        let command = command?;
        if command == "exit" {
            break;
        }
        match actor.obey(&command) {
            Ok(answer) => println!("ok {answer}"),
            Err(error) => println!("error {}", errno(&error)),
        }
    }
    Ok(())
}

/// The name of an errno, or what is wrong with the command.
fn errno(error: &anyhow::Error) -> String {
    let io = error.downcast_ref::<std::io::Error>().and_then(std::io::Error::raw_os_error);
    let errno = error.downcast_ref::<Errno>().copied().or_else(|| io.map(Errno::from_raw));
    errno.map_or_else(|| format!("{error:#}"), |errno| format!("{errno:?}"))
}

impl Actor {
    fn obey(&mut self, command: &str) -> Result<String> {
        let words: Vec<_> = command.split(' ').collect();
        if words == ["pid"] {
            return Ok(std::process::id().to_string());
        }
        let subjects: &[Subject] = &[
            staff::obey,
            pass::obey,
            raw::obey,
            mass::obey,
            names::obey,
            hold::obey,
            uring::obey,
            rewrite::obey,
            scene::obey,
            hops::obey,
            disguise::obey,
            udp::obey,
            #[cfg(target_arch = "x86_64")]
            ia32::obey,
            // Last: all other words are about the last connection.
            tcp::obey,
        ];
        for subject in subjects {
            if let Some(answer) = subject(self, &words) {
                return answer;
            }
        }
        bail!("no such command, or nothing to do it to: {command}")
    }

    fn listener(&self) -> Result<&TcpListener> {
        self.listeners.last().context("no listener")
    }

    fn stream(&self) -> Result<&TcpStream> {
        self.streams.last().context("no connection")
    }

    /// A connection that came from somewhere.
    fn push(&mut self, fd: OwnedFd) -> String {
        self.streams.push(fd.into());
        String::new()
    }
}
