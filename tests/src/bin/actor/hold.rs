//! Holds the lock of the own memory map: a page fault that a file system does not answer has it for reading, and a thread
//! that waits to write the map keeps all others from it.

use std::fs::File;
use std::os::fd::AsRawFd as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::channel;
use std::thread::{JoinHandle, park};

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::libc;
use nix::unistd::gettid;

use crate::Actor;

const PAGE: usize = 4096;

/// Two threads that wait for their command. They are started before, since that changes the map.
pub(crate) struct Holder {
    fault: Waiting,
    write: Waiting,
}

struct Waiting {
    thread: JoinHandle<()>,
    go: Arc<AtomicBool>,
}

/// `None`: not a command of this subject.
pub(crate) fn obey(actor: &mut Actor, words: &[&str]) -> Option<Result<String>> {
    Some(match words {
        ["map", path] => map(path).map(|(holder, writer)| {
            actor.holder = Some(holder);
            writer
        }),
        ["fault"] => actor.holder.as_ref().context("no map").map(|holder| holder.fault.go()),
        ["remap"] => actor.holder.as_ref().context("no map").map(|holder| holder.write.go()),
        _ => return None,
    })
}

impl Waiting {
    fn start(first: impl FnOnce() + Send + 'static, work: impl FnOnce() + Send + 'static) -> Self {
        let go = Arc::new(AtomicBool::new(false));
        let told = go.clone();
        let thread = std::thread::spawn(move || {
            first();
            while !told.load(Ordering::SeqCst) {
                park();
            }
            work();
        });
        Self { thread, go }
    }

    /// Allocates nothing, which might change the map.
    fn go(&self) -> String {
        self.go.store(true, Ordering::SeqCst);
        self.thread.thread().unpark();
        String::new()
    }
}

/// Maps a page of a file. Answers with the id of the thread that will write the map.
fn map(path: &str) -> Result<(Holder, String)> {
    let file = File::open(path)?;
    let begin = new_mapping(libc::MAP_SHARED, file.as_raw_fd())?;
    let read = move || {
        // SAFETY: a page of that mapping, which stays. If it cannot be read, SIGBUS ends the process.
        unsafe { std::ptr::with_exposed_provenance::<u8>(begin).read_volatile() };
    };
    let fault = Waiting::start(|| (), read);
    let (sender, receiver) = channel();
    let write = Waiting::start(
        move || _ = sender.send(gettid()),
        // The map is to be written, whatever comes of it.
        || _ = new_mapping(libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
    );
    let writer = receiver.recv()?;
    Ok((Holder { fault, write }, writer.to_string()))
}

fn new_mapping(flags: libc::c_int, fd: libc::c_int) -> Result<usize> {
    // SAFETY: a new mapping.
    let begin = unsafe { libc::mmap(std::ptr::null_mut(), PAGE, libc::PROT_READ, flags, fd, 0) };
    if begin == libc::MAP_FAILED { Err(Errno::last().into()) } else { Ok(begin.expose_provenance()) }
}
