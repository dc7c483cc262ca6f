//! The kernel side of netwatch. Each file is one family of probes: `state` (TCP transitions), `accept`, `listen`,
//! `connect` (attempts that fail before a SYN is sent), `using` (reads and writes), `udp`, `process` (fork, exec,
//! exit), `cgroup`, `cookie`, `listed` (iterators), `unix` and `pipe` (messages between processes), `names` (DNS answers, TLS); or a helper: `sock`,
//! `task`, `files` and `stdio` read kernel structures, `packet` reads headers, `netns` recognises network namespaces, `mem` reads memory, `act` writes records about the current task,
//! `budget` limits records in time, `cause` tracks what a thread acts upon, `notes` keeps with a socket what was sent and why, `calls` tracks threads in
//! connect(), `known` is the state kept per socket, `twice` covers skipped runs, `emit` writes to
//! the ring.
#![no_std]
#![no_main]
// For `emit::add`: core has no atomic addition for the BPF target.
#![feature(asm_experimental_arch)]

mod accept;
mod act;
mod budget;
mod calls;
mod cause;
mod cgroup;
mod connect;
mod cookie;
mod emit;
mod files;
mod frames;
mod known;
mod listed;
mod listen;
mod mem;
mod names;
mod netns;
mod notes;
mod packet;
mod pipe;
mod process;
mod sock;
mod state;
mod stdio;
mod task;
mod tcp;
mod twice;
mod udp;
mod unix;
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
