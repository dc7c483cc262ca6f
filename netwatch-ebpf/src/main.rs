//! The kernel side of netwatch. Each file is one family of probes: `state` (TCP transitions), `accept`, `listen`,
//! `connect` (attempts that fail before a SYN is sent), `using` (reads and writes), `udp`, `process` (fork, exec,
//! exit), `cgroup`, `cookie`, `listed` (iterators); or a helper: `sock`, `task` and `files` read kernel structures,
//! `mem` reads memory, `act` writes records about the current task, `cause` tracks the socket that a thread handles,
//! `calls` threads in connect(), `known` is the state kept per socket, `twice` covers skipped runs, `emit` writes to
//! the ring.
#![no_std]
#![no_main]
// For `emit::add`: core has no atomic addition for the BPF target.
#![feature(asm_experimental_arch)]

mod accept;
mod act;
mod calls;
mod cause;
mod cgroup;
mod connect;
mod cookie;
mod emit;
mod files;
mod known;
mod listed;
mod listen;
mod mem;
mod process;
mod sock;
mod state;
mod task;
mod tcp;
mod twice;
mod udp;
mod using;

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// Some helpers require a program with a GPL-compatible licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
