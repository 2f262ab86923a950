//! How much memory a piece of work takes: an allocator for the test binary that counts what each thread holds.
//! What C libraries take by themselves (zstd's own state) is not seen.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

thread_local! {
    /// Bytes that this thread has taken and not given back. Below zero if it frees what another took.
    static HELD: Cell<isize> = const { Cell::new(0) };
    /// The most of that since the last measurement began.
    static MOST: Cell<isize> = const { Cell::new(0) };
}

struct Counting;

#[global_allocator]
static COUNTING: Counting = Counting;

#[expect(
    unsafe_code,
    reason = "an allocator is unsafe by its trait; this one only counts and passes on"
)]
// SAFETY: every call goes to the system's allocator as it came, and its answer back as it is. The counters are
// plain cells without destructors, so reaching them neither allocates nor fails while a thread ends.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: the caller's promises are the system allocator's conditions.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 0);
        // SAFETY: as above.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // Both may be held while what stands there is copied.
        count(size, 0);
        count(0, layout.size());
        // SAFETY: as above.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

fn count(taken: usize, freed: usize) {
    let held = HELD
        .get()
        .wrapping_add_unsigned(taken)
        .wrapping_sub_unsigned(freed);
    HELD.set(held);
    MOST.set(MOST.get().max(held));
}

/// What the work yields, and by how many bytes it raised what this thread holds at its highest.
pub(in crate::engine) fn peak<T>(work: impl FnOnce() -> T) -> (T, usize) {
    let before = HELD.get();
    MOST.set(before);
    let result = work();
    let most = MOST.get().wrapping_sub(before);
    (result, usize::try_from(most).unwrap_or(0))
}

/// Bytes that this thread holds, for comparisons.
pub(in crate::engine) fn held() -> isize {
    HELD.get()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_peak_is_what_was_held_at_once() {
        let ((), one_by_one) = peak(|| {
            for _ in 0..10 {
                drop(Vec::<u8>::with_capacity(1_000));
            }
        });
        let (_, together) = peak(|| [(); 10].map(|()| Vec::<u8>::with_capacity(1_000)));
        let (grown, growing) = peak(|| {
            let mut list = Vec::<u8>::with_capacity(1_000);
            list.reserve_exact(5_000);
            list
        });

        assert_eq!((one_by_one, together), (1_000, 10_000));
        assert_eq!((grown.capacity(), growing), (5_000, 6_000));
    }
}
