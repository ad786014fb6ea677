//! What [`hand_over`](super::hand_over) is made of. Here it is the standard library's; `tests/hand_over` has another file in place
//! of this one, with loom's, which tries the orders in which threads may come.

use std::hint::spin_loop;
pub(super) use std::sync::Mutex;
pub(super) use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::thread;

/// [`std::cell::UnsafeCell`], with closures in place of pointers.
#[derive(Debug, Default)]
pub(super) struct UnsafeCell<T>(std::cell::UnsafeCell<T>);

impl<T> UnsafeCell<T> {
    /// Calls `act` with where it is, to be read.
    pub fn with<R>(&self, act: impl FnOnce(*const T) -> R) -> R {
        act(self.0.get())
    }

    /// Calls `act` with where it is, to be written.
    pub fn with_mut<R>(&self, act: impl FnOnce(*mut T) -> R) -> R {
        act(self.0.get())
    }
}

/// Waits until `is_done`.
pub(super) fn wait_until(mut is_done: impl FnMut() -> bool) {
    /// The polls after which other threads may run.
    const POLLS: usize = 1 << 12;
    let mut polls = 0_usize;
    while !is_done() {
        polls = polls.wrapping_add(1);
        if polls.is_multiple_of(POLLS) { thread::yield_now() } else { spin_loop() }
    }
}
