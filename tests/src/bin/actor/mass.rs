//! What a process does to cost the reader of its arguments memory, and the peak memory of such a reader.

use std::fs::File;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::resource::{UsageWho, getrusage};

use crate::Actor;

/// `None`: not a command of this subject.
pub(crate) fn obey(_: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    Some(match words {
        ["swell", mib, first, last] => swell(mib, first, last),
        ["peak", output, program, arguments @ ..] => peak(output, program, arguments),
        _ => return None,
    })
}

/// As `PR_SET_MM_MAP` takes it (include/uapi/linux/prctl.h, struct prctl_mm_map).
#[repr(C)]
struct MemoryMap {
    /// From `start_code` to `env_end`.
    addresses: [u64; 11],
    auxv: u64,
    auxv_size: u32,
    exe_fd: u32,
}

/// Moves the arguments to `mib` MiB of memory, of which only the first and the last page are touched.
fn swell(mib: &str, first: &str, last: &str) -> Result<String> {
    let size = mib.parse::<usize>()? << 20;
    let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE;
    // SAFETY: new memory.
    let begin =
        unsafe { libc::mmap(std::ptr::null_mut(), size, libc::PROT_READ | libc::PROT_WRITE, flags, -1, 0) };
    if begin == libc::MAP_FAILED {
        return Err(Errno::last().into());
    }
    // SAFETY: the mapping is as long, nothing else refers to it, and it is never unmapped.
    let memory = unsafe { std::slice::from_raw_parts_mut(begin.cast::<u8>(), size) };
    memory.get_mut(..first.len()).context("no room")?.copy_from_slice(first.as_bytes());
    let at = size.checked_sub(last.len() + 1).context("no room")?;
    memory.get_mut(at..size - 1).context("no room")?.copy_from_slice(last.as_bytes());

    let stat = std::fs::read_to_string("/proc/self/stat")?;
    let (_, fields) = stat.rsplit_once(") ").context("no name")?;
    let fields: Vec<_> = fields.split_ascii_whitespace().collect();
    // As proc_pid_stat(5) numbers them.
    let field =
        |number: usize| Ok::<u64, anyhow::Error>(fields.get(number - 3).context("too short")?.parse()?);
    let arguments = begin.addr() as u64;
    // SAFETY: returns the end of the heap.
    let brk = unsafe { libc::sbrk(0) }.addr() as u64;
    let map = MemoryMap {
        addresses: [
            field(26)?,
            field(27)?,
            field(45)?,
            field(46)?,
            field(47)?,
            brk,
            field(28)?,
            arguments,
            arguments + size as u64,
            field(50)?,
            field(51)?,
        ],
        auxv: 0,
        auxv_size: 0,
        exe_fd: u32::MAX,
    };
    let (pointer, length) = ((&raw const map).addr(), size_of::<MemoryMap>());
    // SAFETY: the addresses are the process's own, and the kernel checks them.
    Errno::result(unsafe { libc::prctl(libc::PR_SET_MM, libc::PR_SET_MM_MAP, pointer, length, 0) })?;
    Ok(String::new())
}

/// Runs a program with its standard output to a file, and answers with its peak memory in KiB. Not less than that of
/// the actor: a process starts with the peak that it had before its exec (exec_mmap in fs/exec.c).
fn peak(output: &str, program: &str, arguments: &[&str]) -> Result<String> {
    let status =
        Command::new(program).args(arguments).stdin(Stdio::null()).stdout(File::create(output)?).status()?;
    if !status.success() {
        bail!("{program}: {status}");
    }
    Ok(getrusage(UsageWho::RUSAGE_CHILDREN)?.max_rss().to_string())
}
