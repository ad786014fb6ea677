//! The synchronization primitives of [`hand_over`](super::hand_over), from the standard library. `tests/hand_over` replaces this
//! file with one that takes them from loom, which tries the orders in which threads may run.

use std::hint::spin_loop;
pub(super) use std::sync::Mutex;
pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::thread;

/// [`std::cell::UnsafeCell`], with access through closures instead of pointers.
#[derive(Debug, Default)]
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// Calls `act` with a pointer to read from.
    pub fn with<R>(&self, act: impl FnOnce(*const T) -> R) -> R {
        act(self.0.get())
    }

    /// Calls `act` with a pointer to write to.
    pub fn with_mut<R>(&self, act: impl FnOnce(*mut T) -> R) -> R {
        act(self.0.get())
    }
}

/// Waits until `is_done` returns true.
pub(super) fn wait_until(mut is_done: impl FnMut() -> bool) {
    /// The number of polls after which the thread yields to others.
    const POLLS: usize = 1 << 12;
    let mut polls = 0_usize;
    while !is_done() {
        polls = polls.wrapping_add(1);
        if polls.is_multiple_of(POLLS) { thread::yield_now() } else { spin_loop() }
    }
}
