//! Tests `src/parallel/hand_over.rs` in every order in which its threads can run, and with everything that the memory model allows them
//! to see. A test fails if a value is read while it is written, or if a part is not done or is done twice.
//!
//! ```text
//! RUSTFLAGS="--cfg loom" cargo test --release
//! ```
//!
//! Loom limits neither the number of threads nor their steps, but its time grows with both: two or three threads, and two calls.
#![cfg(test)]

#[path = "../../../src/parallel/hand_over.rs"]
#[allow(dead_code)]
mod hand_over;

/// The primitives that the file uses, from loom.
mod sync {
    use std::sync::atomic::Ordering;

    pub(super) use loom::cell::UnsafeCell;
    pub(super) use loom::sync::Mutex;
    pub(super) use loom::sync::atomic::AtomicUsize;

    /// For `untaken`. In Loom 0.7, a thread that has stored a value may read the result of another thread's read-modify-write of the
    /// previous value, as if its store could come between the two. No memory model allows that, and with a swap it cannot happen.
    #[derive(Default)]
    pub(super) struct AtomicU64(loom::sync::atomic::AtomicU64);

    impl AtomicU64 {
        pub fn load(&self, order: Ordering) -> u64 {
            self.0.load(order)
        }

        pub fn store(&self, value: u64, order: Ordering) {
            self.0.swap(value, order);
        }

        pub fn fetch_and(&self, value: u64, order: Ordering) -> u64 {
            self.0.fetch_and(value, order)
        }
    }

    pub(super) fn wait_until(mut is_done: impl FnMut() -> bool) {
        while !is_done() {
            loom::thread::yield_now();
        }
    }
}

use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};

use loom::cell::Cell;
use loom::model::Builder;
use loom::sync::Arc;
use loom::thread;

use hand_over::HandOver;

/// A place that one part writes, ordered only by the protocol: loom rejects any accesses that are not one after the other.
struct Place(Cell<usize>);

// SAFETY: loom checks it.
unsafe impl Sync for Place {}

/// Runs `act` on a thread with `helpers` helpers, each of which looks for parts a few times, starting at any moment. At most
/// `preemptions` switches occur between threads of which neither waits.
fn model(helpers: usize, preemptions: Option<usize>, act: impl Fn(&HandOver) + Sync + Send + 'static) {
    const LOOKS: usize = 2;
    let mut builder = Builder::new();
    builder.preemption_bound = preemptions;
    builder.check(move || {
        let work = Arc::new(HandOver::default());
        let helpers: Vec<_> = (1..=helpers)
            .map(|helper| {
                let work = Arc::clone(&work);
                thread::spawn(move || {
                    for _ in 0..LOOKS {
                        if !work.has_parts() || !work.take_parts(helper) {
                            thread::yield_now();
                        }
                    }
                })
            })
            .collect();
        act(&work);
        helpers.into_iter().for_each(|helper| helper.join().unwrap());
    });
}

/// Shares `parts` parts, each of which adds its number and `round` to its own place; afterwards all sums must be there.
fn share(work: &HandOver, parts: usize, round: usize) {
    let places: Vec<_> = (0..parts).map(|_| Place(Cell::new(0))).collect();
    work.share(parts, &|part| {
        let place = &places[part];
        place.0.set(place.0.get() + 10 * round + part + 1);
    });
    for (part, place) in places.iter().enumerate() {
        assert_eq!(place.0.get(), 10 * round + part + 1, "part {part} of {parts}");
    }
}

#[test]
fn every_part_is_done_once_and_seen() {
    model(1, None, |work| share(work, 2, 1));
}

/// The data on the caller's stack in the first call is gone in the second.
#[test]
fn a_helper_that_comes_late_finds_the_next_work() {
    model(1, Some(4), |work| {
        share(work, 1, 1);
        share(work, 2, 2);
    });
}

#[test]
fn two_helpers() {
    model(2, Some(1), |work| {
        share(work, 2, 1);
        share(work, 1, 2);
    });
}

#[test]
fn panics_reach_the_caller_when_all_parts_are_done() {
    model(1, Some(3), |work| {
        let places = [Place(Cell::new(0)), Place(Cell::new(0))];
        let share_panics = || {
            work.share(2, &|part| {
                places[part].0.set(1);
                panic_any(part);
            });
        };
        let payload = catch_unwind(AssertUnwindSafe(share_panics)).unwrap_err();
        assert!(*payload.downcast::<usize>().unwrap() < 2);
        assert!(places.iter().all(|place| place.0.get() == 1));
        share(work, 2, 2);
    });
}
