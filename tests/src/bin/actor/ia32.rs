//! The system calls of 32-bit programs, made by this 64-bit one: `int 0x80` accepts them from any program.
//!
//! For them socketcall(2) was the only way to a socket until Linux 4.3, and older libraries still use it.

use std::arch::asm;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, FromRawFd as _, OwnedFd};
use std::ptr::NonNull;

use anyhow::{Context as _, Result, bail};
use nix::errno::Errno;
use nix::libc;
use nix::sys::socket::{SockaddrLike as _, SockaddrStorage};

use crate::{Actor, tcp};

/// The kernel's `arch/x86/entry/syscalls/syscall_32.tbl`.
const GETPID: u32 = 20;
const SOCKETCALL: u32 = 102;
const CONNECT: u32 = 362;
const ACCEPT4: u32 = 364;
const SENDTO: u32 = 369;
const RECVFROM: u32 = 371;

/// The kernel's uapi `net.h`: the calls of socketcall(2).
const SYS_CONNECT: u32 = 3;
const SYS_ACCEPT: u32 = 5;
const SYS_SEND: u32 = 9;
const SYS_RECV: u32 = 10;

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    let (way, command) = words.split_first()?;
    if !["ia32", "socketcall"].contains(way) {
        return None;
    }
    let direct = *way == "ia32";
    Some(match command {
        // A kernel without 32-bit calls kills the process here.
        [] => int80(GETPID, [0; 5]).map(|pid| pid.to_string()),
        ["connect", local, remote] => connect(actor, direct, local, remote),
        ["accept"] => accept(actor, direct),
        ["send", bytes] => transfer(actor, direct, bytes, true),
        ["recv", bytes] => transfer(actor, direct, bytes, false),
        _ => return None,
    })
}

fn int80(number: u32, [a, b, c, d, e]: [u32; 5]) -> Result<u32> {
    let result: u32;
    // SAFETY: the callers' pointers are to memory of theirs, and rbx, which the compiler reserves, is restored.
    unsafe {
        asm!(
            "xchg {a}, rbx",
            "int 0x80",
            "xchg {a}, rbx",
            a = inout(reg) u64::from(a) => _,
            inlateout("eax") number => result,
            in("ecx") b,
            in("edx") c,
            in("esi") d,
            in("edi") e,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let result = result.cast_signed();
    if result < 0 { Err(Errno::from_raw(-result).into()) } else { Ok(result.cast_unsigned()) }
}

/// Memory that a 32-bit pointer can point to.
struct Low(NonNull<u8>);

impl Low {
    const SIZE: usize = 4096;

    fn new() -> Result<Self> {
        let (prot, flags) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
        // SAFETY: a new mapping, at any address.
        let at =
            unsafe { libc::mmap(std::ptr::null_mut(), Self::SIZE, prot, flags | libc::MAP_32BIT, -1, 0) };
        if at == libc::MAP_FAILED {
            return Err(Errno::last().into());
        }
        Ok(Self(NonNull::new(at.cast()).context("a mapping at 0")?))
    }

    /// With `bytes` at its beginning.
    fn with(bytes: &[u8]) -> Result<Self> {
        let low = Self::new()?;
        if bytes.len() > Self::SIZE {
            bail!("too much");
        }
        // SAFETY: there is room for them, and nothing else refers to it.
        unsafe { low.0.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        Ok(low)
    }

    fn address(&self) -> Result<u32> {
        Ok(self.0.addr().get().try_into()?)
    }
}

impl Drop for Low {
    fn drop(&mut self) {
        // SAFETY: the whole mapping, to which there are no more pointers.
        unsafe { libc::munmap(self.0.as_ptr().cast(), Self::SIZE) };
    }
}

/// Its arguments are in memory, too.
fn socketcall(call: u32, arguments: &[u32]) -> Result<u32> {
    let bytes: Vec<_> = arguments.iter().flat_map(|argument| argument.to_ne_bytes()).collect();
    let arguments = Low::with(&bytes)?;
    int80(SOCKETCALL, [call, arguments.address()?, 0, 0, 0])
}

fn connect(actor: &mut Actor, direct: bool, local: &str, remote: &str) -> Result<String> {
    let remote: SocketAddr = remote.parse()?;
    let socket = tcp::tcp_socket(Some(local.parse()?), remote, &[])?;
    let address = SockaddrStorage::from(remote);
    let length = address.len();
    // SAFETY: an address is that long, and plain bytes.
    let bytes = unsafe { std::slice::from_raw_parts(address.as_ptr().cast::<u8>(), length.try_into()?) };
    let low = Low::with(bytes)?;
    let (fd, at) = (number(&socket)?, low.address()?);
    if direct {
        int80(CONNECT, [fd, at, length, 0, 0])?;
    } else {
        socketcall(SYS_CONNECT, &[fd, at, length])?;
    }
    Ok(actor.push(socket))
}

fn accept(actor: &mut Actor, direct: bool) -> Result<String> {
    let listener = number(actor.listener()?)?;
    let fd = if direct {
        int80(ACCEPT4, [listener, 0, 0, 0, 0])?
    } else {
        socketcall(SYS_ACCEPT, &[listener, 0, 0])?
    };
    // SAFETY: the kernel has just made it for this process.
    Ok(actor.push(unsafe { OwnedFd::from_raw_fd(fd.try_into()?) }))
}

fn transfer(actor: &Actor, direct: bool, bytes: &str, sends: bool) -> Result<String> {
    let length: u32 = bytes.parse()?;
    let low = Low::with(&vec![b'x'; length.try_into()?])?;
    let (fd, at) = (number(actor.stream()?)?, low.address()?);
    let done = match (direct, sends) {
        (true, true) => int80(SENDTO, [fd, at, length, 0, 0]),
        (true, false) => int80(RECVFROM, [fd, at, length, libc::MSG_WAITALL.cast_unsigned(), 0]),
        (false, true) => socketcall(SYS_SEND, &[fd, at, length, 0]),
        (false, false) => socketcall(SYS_RECV, &[fd, at, length, libc::MSG_WAITALL.cast_unsigned()]),
    }?;
    if done != length {
        bail!("{done} bytes of {length}");
    }
    Ok(String::new())
}

fn number(socket: &impl AsRawFd) -> Result<u32> {
    Ok(socket.as_raw_fd().try_into()?)
}
