//! What every target does: an input goes through its door, and takes no more memory than it is worth.

use backstay_repo::fuzz::DOORS;
use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// The system's, counting. C libraries have their own; none of them is asked for memory by a length that was read.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

fn took(bytes: usize) {
    PEAK.fetch_max(LIVE.fetch_add(bytes, Relaxed).wrapping_add(bytes), Relaxed);
}

fn gave(bytes: usize) {
    LIVE.fetch_sub(bytes, Relaxed);
}

// SAFETY: every call goes to the system's allocator as it came.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        took(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        gave(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(at, layout) }
    }

    unsafe fn realloc(&self, at: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        // While it is moved both are there.
        took(bytes);
        gave(layout.size());
        // SAFETY: the caller's promises are passed on.
        unsafe { System.realloc(at, layout, bytes) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// Shows an input to the door of `target`.
///
/// # Panics
/// When the door does, or when the input took more memory than it is worth.
pub fn show(target: &str, input: &[u8]) {
    let door = DOORS.iter().find(|(name, _)| *name == target).expect("every target has a door").1;
    let before = LIVE.load(Relaxed);
    PEAK.store(before, Relaxed);
    let seen = door(input);
    let peak = PEAK.load(Relaxed) - before;
    assert!(
        peak <= seen.memory_bytes_max(),
        "{peak} bytes of memory for {} of input, {} parsed",
        input.len(),
        seen.bytes
    );
}

/// A target: its name is that of its door.
#[macro_export]
macro_rules! target {
    ($name:literal) => {
        libfuzzer_sys::fuzz_target!(|input: &[u8]| $crate::show($name, input));
    };
}
