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
//! A part belongs to the thread that took its bit away. While any part is open, `act` stays what it is: it is written when `open`
//! is 0, and read by those who have taken a part and not counted it.
//!
//! `tests/hand_over` runs this file in all orders in which its threads can come, with all that the memory model allows them to see.
#![allow(unsafe_code)]

use std::any::Any;
use std::mem::{forget, take, transmute};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::PoisonError;
use std::sync::atomic::Ordering::{AcqRel, Acquire, Relaxed, Release};

use super::sync::{AtomicU64, AtomicUsize, Mutex, UnsafeCell, wait_until};

/// The most parts: a bit for each.
pub(super) const MOST: usize = u64::BITS as usize;

/// The work of one thread, which others help with.
#[derive(Default)]
pub(super) struct HandOver {
    work: Line<Work>,
    /// How many parts are not done.
    open: Line<AtomicUsize>,
    /// What parts that panicked have thrown, the first one first.
    panics: Mutex<Vec<Box<dyn Any + Send>>>,
}

/// Alone on its cache lines: threads write to one while others read another.
#[derive(Default)]
#[repr(align(128))]
struct Line<T>(T);

#[derive(Default)]
struct Work {
    /// The parts that no thread has taken.
    untaken: AtomicU64,
    /// What is to be done with the number of a part.
    act: UnsafeCell<Option<Act>>,
}

type Act = *const (dyn Fn(usize) + Sync);

// SAFETY: `act` is written before `untaken` is, while no part is open, and read by those who have taken a part from there, until
// it is counted as done.
unsafe impl Sync for Work {}
// SAFETY: what `act` refers to may be used by any thread.
unsafe impl Send for Work {}

impl HandOver {
    /// Whether there are parts to take.
    pub fn has_parts(&self) -> bool {
        self.work.0.untaken.load(Relaxed) != 0
    }

    /// Runs `act` with the numbers up to `count`, each once, on this thread and on those that
    /// [take parts](HandOver::take_parts) meanwhile. If some panic, so does this, with the first payload, once all are done.
    ///
    /// # Panics
    /// Panics if there are no parts or more than [`MOST`], or if parts of another call are open: it is for one thread, which is
    /// in no part.
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

    /// Does one part after the other as long as there are some: its own first, which is the same one in the next product, and
    /// may have left its operands in the cache. Says whether there were any.
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
            // SAFETY: a part that is taken is open until it is counted below, and so long `act` is what it was.
            let act = unsafe { &*self.work.0.act.with(|act| *act).expect("set with the parts") };
            if let Err(panic) = catch_unwind(AssertUnwindSafe(|| act(part))) {
                // Not dropped while parts are open: that could panic again.
                self.panics.lock().unwrap_or_else(PoisonError::into_inner).push(panic);
            }
            self.open.0.fetch_sub(1, Release);
        }
    }
}

/// Drops a payload; what that throws, if it panics, is leaked.
fn drop_quietly(payload: Box<dyn Any + Send>) {
    if let Err(again) = catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        forget(again);
    }
}
