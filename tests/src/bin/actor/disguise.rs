//! What a process does to look like another one. Bytes are in hexadecimal.

use std::ffi::CString;
use std::fs::File;
use std::io::BufReader;
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl::set_name;
use nix::sys::wait::{WaitStatus, waitpid};
use nix::unistd::{ForkResult, Pid, fork, gettid};

use crate::Actor;

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    Some(match words {
        ["leaderless", thread] => leaderless(actor, thread),
        ["loginuid", uid] => login(uid),
        ["rename", name] => rename(name),
        ["argv", bytes] => argv(bytes),
        ["delete", path] => std::fs::remove_file(path).map(|()| String::new()).map_err(Into::into),
        ["twins", first, second, server] => twins([first, second], server),
        _ => return None,
    })
}

fn bytes(hex: &str) -> Result<Vec<u8>> {
    let pair = |at| hex.get(at..at + 2).context("half a byte");
    (0..hex.len()).step_by(2).map(|at| Ok(u8::from_str_radix(pair(at)?, 16)?)).collect()
}

/// What pam_loginuid does at a login.
fn login(uid: &str) -> Result<String> {
    std::fs::write("/proc/self/loginuid", uid)?;
    Ok(String::new())
}

fn rename(name: &str) -> Result<String> {
    set_name(&CString::new(bytes(name)?)?)?;
    Ok(String::new())
}

/// The fields of `/proc/PID/stat` after the name, that one being in parentheses: see proc_pid_stat(5).
const ARG_START: usize = 48 - 3;
const ARG_END: usize = 49 - 3;

/// Overwrites the memory where the kernel left the arguments, which is what `/proc/PID/cmdline` shows.
fn argv(hex: &str) -> Result<String> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let fields: Vec<_> = fields.split_ascii_whitespace().collect();
    let address = |nth: usize| Ok::<u64, anyhow::Error>(fields.get(nth).context("too short")?.parse()?);
    let (start, end) = (address(ARG_START)?, address(ARG_END)?);
    let mut fake = bytes(hex)?;
    let room = usize::try_from(end - start)?;
    if fake.len() > room {
        bail!("room for {room} bytes");
    }
    fake.resize(room, 0);
    let memory = std::fs::OpenOptions::new().write(true).open("/proc/self/mem")?;
    memory.write_all_at(&fake, start)?;
    Ok(String::new())
}

/// Continues in another thread, and the first one exits: the process still exists, but `/proc` shows little of it.
fn leaderless(actor: &mut Actor, thread: &str) -> Result<String> {
    let mut actor = std::mem::take(actor);
    // The first thread keeps the lock of its standard input forever.
    let commands = BufReader::new(File::from(std::io::stdin().as_fd().try_clone_to_owned()?));
    std::thread::Builder::new().name(thread.to_owned()).spawn(move || {
        println!("ok {}", gettid());
        let _ = crate::obey_all(&mut actor, commands);
        std::process::exit(0)
    })?;
    // SAFETY: nothing of this thread is used by others, except the lock.
    unsafe { libc::syscall(libc::SYS_exit, 0) };
    bail!("a thread that ended")
}

/// Two children, one after the other and with one pid, connect from these ports of 127.0.0.1 and exit.
fn twins(ports: [&str; 2], server: &str) -> Result<String> {
    let mut pid: Option<String> = None;
    for port in ports {
        let forked = match &pid {
            // SAFETY: no other thread is running, so nothing in the child is locked forever.
            Some(pid) => unsafe { fork_with(Choice::Pid(pid)) }?,
            // SAFETY: the same.
            None => unsafe { fork() }?,
        };
        match forked {
            ForkResult::Child => {
                let connected = Actor::default().obey(&format!("connect 127.0.0.1:{port} {server}"));
                // SAFETY: ends the process, without what the parent does at its end.
                unsafe { libc::_exit(connected.is_err().into()) };
            }
            ForkResult::Parent { child } => match waitpid(child, None)? {
                WaitStatus::Exited(_, 0) => pid = Some(child.to_string()),
                other => bail!("{other:?}"),
            },
        }
    }
    pid.context("no child")
}

/// `include/uapi/linux/sched.h`; the constant of the libc crate overflows.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// What clone3(2) chooses for a child and fork(2) does not.
#[derive(Clone, Copy)]
pub(crate) enum Choice<'a> {
    /// Its pid.
    Pid(&'a str),
    /// Its control group, by the path of its directory.
    Cgroup(&'a str),
}

/// fork(), with a choice for the child.
///
/// # Safety
/// As for fork().
pub(crate) unsafe fn fork_with(choice: Choice<'_>) -> Result<ForkResult> {
    let signal = libc::SIGCHLD.cast_unsigned().into();
    // SAFETY: integers, of which 0 requests nothing.
    let mut arguments: libc::clone_args = unsafe { std::mem::zeroed() };
    arguments.exit_signal = signal;
    let (pid, cgroup): (libc::pid_t, _);
    match choice {
        Choice::Pid(chosen) => {
            pid = chosen.parse()?;
            arguments.set_tid = (&raw const pid).addr().try_into()?;
            arguments.set_tid_size = 1;
        }
        Choice::Cgroup(directory) => {
            cgroup = File::open(directory)?;
            arguments.flags = CLONE_INTO_CGROUP;
            arguments.cgroup = cgroup.as_raw_fd().try_into()?;
        }
    }
    let length = size_of_val(&arguments);
    // SAFETY: the arguments are complete, and what they point to lives on.
    let child = unsafe { libc::syscall(libc::SYS_clone3, &raw const arguments, length) };
    Ok(match Errno::result(child)? {
        0 => ForkResult::Child,
        child => ForkResult::Parent { child: Pid::from_raw(child.try_into()?) },
    })
}
