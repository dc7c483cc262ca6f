//! An allocator that counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The system's allocator, with the number of allocations by all threads. Reallocations count as well, since they may
/// copy.
struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

static ASKED: AtomicU64 = AtomicU64::new(0);

// SAFETY: the system's allocator does it all.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, old: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        ASKED.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's.
        unsafe { System.realloc(old, layout, size) }
    }

    unsafe fn dealloc(&self, old: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(old, layout) }
    }
}

/// No other test counts meanwhile: its allocations would be counted here.
pub(crate) struct Alone(MutexGuard<'static, ()>);

impl Alone {
    /// Waits for the other tests.
    pub(crate) fn now() -> Self {
        static ONE: Mutex<()> = Mutex::new(());
        Self(ONE.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The number of allocations by all threads during `work`.
    pub(crate) fn count(&self, work: impl FnOnce()) -> u64 {
        let _alone = &self.0;
        let before = ASKED.load(Ordering::Relaxed);
        work();
        ASKED.load(Ordering::Relaxed) - before
    }
}
