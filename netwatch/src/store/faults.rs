//! Writes survive the truncation of the shared memory (`-shm`). SQLite maps that file, and an access beyond its end is a
//! SIGBUS, which would kill the recorder with what waits to be written.
//!
//! The handler puts an empty page where the missing one was, as systemd's journal does (src/basic/sigbus.c). SQLite then
//! reads zeros and may take an old page from the database for the newest, so the transaction must not be committed if
//! [`happened`]. For checkpoints there is no such point in time: they are not run within [`surviving`].

use std::cell::Cell;
use std::ptr;
use std::sync::Once;
use std::sync::atomic::{AtomicUsize, Ordering};

thread_local! {
    static SURVIVES: Cell<bool> = const { Cell::new(false) };
    static HAPPENED: Cell<bool> = const { Cell::new(false) };
}

static PAGE: AtomicUsize = AtomicUsize::new(4096);

/// Runs `work` with the handler for this thread.
pub(super) fn surviving<T>(work: impl FnOnce() -> T) -> T {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(install);
    HAPPENED.set(false);
    SURVIVES.set(true);
    let done = work();
    SURVIVES.set(false);
    done
}

/// Whether this thread has accessed a missing page since the last [`surviving`] began.
pub(super) fn happened() -> bool {
    HAPPENED.get()
}

fn install() {
    PAGE.store(rustix::param::page_size(), Ordering::Relaxed);
    // SAFETY: zeros are a valid `sigaction`: no flags, an empty mask.
    let mut action: libc::sigaction = unsafe { std::mem::zeroed() };
    action.sa_sigaction = on_fault as *const () as libc::sighandler_t;
    action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
    // SAFETY: the handler has the type for SA_SIGINFO, and calls only system calls.
    if unsafe { libc::sigaction(libc::SIGBUS, &raw const action, ptr::null_mut()) } != 0 {
        log::warn!("no handler for SIGBUS: {}", std::io::Error::last_os_error());
    }
}

/// The thread-locals are constants without destructors: the access is a plain load.
extern "C" fn on_fault(_: libc::c_int, info: *mut libc::siginfo_t, _: *mut libc::c_void) {
    // SAFETY: the kernel passes a valid `siginfo_t`.
    let info = unsafe { &*info };
    if SURVIVES.get() && info.si_code == libc::BUS_ADRERR {
        // SAFETY: it has an address for SIGBUS (sigaction(2)).
        let address = unsafe { info.si_addr() };
        let page = PAGE.load(Ordering::Relaxed);
        let start = address.map_addr(|address| address & !(page - 1));
        let protection = libc::PROT_READ | libc::PROT_WRITE;
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_FIXED;
        // SAFETY: it replaces one page of a mapping, whose file has no such page any more.
        let mapped = unsafe { libc::mmap(start, page, protection, flags, -1, 0) };
        if mapped != libc::MAP_FAILED {
            HAPPENED.set(true);
            return;
        }
    }
    // The access is repeated, and ends the process as without a handler.
    // SAFETY: signal() has no preconditions.
    unsafe { libc::signal(libc::SIGBUS, libc::SIG_DFL) };
}
