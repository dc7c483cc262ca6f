//! netwatch's kernel side. One file a family of probes: `state` (TCP transitions), `accept`, `listen`, `connect`
//! (attempts that fail before a SYN leaves), `using` (who reads and writes), `udp`, `process` (fork, exec, exit),
//! `cgroup`, `cookie`, `listed` (what is there); `sock`, `task` and `files` read the kernel's structures, `cause` is
//! what a thread is about, `calls` the connect() that it is in, `known` is what is kept with a socket, `twice` keeps a
//! program from being left out, `emit` fills the ring.
#![no_std]
#![no_main]

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

/// Some helpers are only for programs that declare this licence.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
