//! How a thread hands out the parts of its work.
//!
//! ```text
//! the thread that has work                      it, and every helper
//!                                               while untaken has a bit:
//! act  := what is to be done with a part            take one: untaken &= !bit        acquires
//! open := the number of parts                       if it was there:
//! untaken := a bit for each         releases            act(part)
//! take parts                                            open -= 1                    releases
//! wait until open = 0               acquires
//! ```
//!
//! A part belongs to the thread that cleared its bit. While any part is open, `act` does not change: it is written when `open`
//! is 0, and read by threads that have taken a part and not yet counted it as done.
//!
//! `tests/hand_over` runs this file in all interleavings of its threads, with all values that the memory model allows them to see.
#![allow(unsafe_code)]

use std::any::Any;
use std::mem::{forget, take, transmute};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::sync::{AtomicU64, AtomicUsize, Mutex, UnsafeCell, wait_until};

/// The maximum number of parts: a bit for each.
pub(super) const MOST: usize = u64::BITS as usize;

/// The work of one thread, with which other threads help.
#[derive(Default)]
pub(super) struct HandOver {
    work: Line<Work>,
    /// The number of parts that are not done.
    open: Line<AtomicUsize>,
    /// The payloads of parts that panicked, the first one first.
    panics: Mutex<Vec<Box<dyn Any + Send>>>,
}

/// A value that is alone on its cache lines: threads write to one such value while others read another.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

#[derive(Default)]
struct Work {
    /// The parts that no thread has taken.
    untaken: AtomicU64,
    /// The function that does a part, given its number.
    act: UnsafeCell<Option<Act>>,
}

type Act = *const (dyn Fn(usize) + Sync);

// SAFETY: `act` is written before `untaken`, while no part is open, and read by threads that have taken a part from `untaken`,
// until they count it as done.
unsafe impl Sync for Work {}
// SAFETY: any thread may use the function that `act` points to.
unsafe impl Send for Work {}

impl HandOver {
    /// Whether there are parts to take.
    pub fn has_parts(&self) -> bool {
        self.work.0.untaken.load(Relaxed) != 0
    }

    /// Calls `act` once with each number below `count`, on this thread and on those that
    /// [take parts](HandOver::take_parts) meanwhile. If parts panic, this panics with the first payload, once all are done.
    ///
    /// # Panics
    /// Panics if there are no parts or more than [`MOST`], or if parts of another call are open: only one thread may call it, and
    /// not from within a part.
    #[track_caller]
    pub fn share(&self, count: usize, act: &(dyn Fn(usize) + Sync)) {
        assert!((1..=MOST).contains(&count) && self.open.0.load(Relaxed) == 0, "{count} parts");
        // SAFETY: only the lifetime changes, and nothing uses it once no part is open. This function ends after that.
        let act = unsafe { transmute::<*const (dyn Fn(usize) + Sync + '_), Act>(act) };
        // SAFETY: no part is open, so no other thread reads it.
        self.work.0.act.with_mut(|place| unsafe { *place = Some(act) });
        self.open.0.store(count, Relaxed);
        self.work.0.untaken.store(u64::MAX >> (MOST - count), Release);
        self.take_parts(0);
        wait_until(|| self.open.0.load(Acquire) == 0);
        let mut panics = take(&mut *self.panics.lock().unwrap_or_else(PoisonError::into_inner)).into_iter();
        if let Some(first) = panics.next() {
            panics.for_each(drop_quietly);
            resume_unwind(first);
        }
    }

    /// Does parts until none are left to take, and returns whether there were any. The member's own part comes first: it is the
    /// same one in every product, so its operands may still be in the cache.
    pub fn take_parts(&self, member: usize) -> bool {
        let mut any = false;
        loop {
            let untaken = self.work.0.untaken.load(Relaxed);
            if untaken == 0 {
                return any;
            }
            let part = (member + untaken.rotate_right(member as u32).trailing_zeros() as usize) % MOST;
            if self.work.0.untaken.fetch_and(!(1 << part), AcqRel) & 1 << part == 0 {
                continue;
            }
            any = true;
            // SAFETY: a part that is taken stays open until it is counted below, and `act` does not change until then.
            let act = unsafe { &*self.work.0.act.with(|act| *act).expect("set with the parts") };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| act(part))) {
                // Not dropped while parts are open: the drop could panic again.
                self.panics.lock().unwrap_or_else(PoisonError::into_inner).push(panic);
            }
            self.open.0.fetch_sub(1, Release);
        }
    }
}

/// Drops a payload; if that panics, the new payload is leaked.
fn drop_quietly(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        forget(again);
    }
}
