//! Work that is split among threads with the feature `rayon`; without it, and for little work, done by the caller's thread.
//!
//! Work is counted in multiplications of large products, of which a core does about a hundred thousand in a microsecond.

#![cfg_attr(not(feature = "rayon"), allow(dead_code, unused_variables))]

use std::ops::Range;

use ndarray::{ArrayView2, ArrayViewMut2, Axis};

/// The least work of a part: about 10 µs, several times what it takes to hand it to a thread that is awake.
pub(crate) const PART: usize = 1 << 20;

/// The least work for which a thread from outside hands over to the pool: about 80 µs, what it takes at most to wake it.
pub(crate) const ENTRY: usize = 1 << 23;

/// The work for an element of an elementary function, about.
pub(crate) const FUNCTION: usize = 64;

/// The work for an element that is read and written, about.
pub(crate) const ELEMENT: usize = 16;

/// Parts of rows are multiples of so many columns: whole registers.
pub(crate) const COLUMNS: usize = 64;

/// The work of products of `rows` with so many weights: what few rows take is to read the weights.
pub(crate) fn product_work(rows: usize, weights: usize) -> usize {
    (rows + 8) * weights
}

/// What can be handed to several threads: rows of a matrix, elements, indices.
pub(crate) trait Split: Sized + Send {
    /// Of how many elements.
    fn count(&self) -> usize;
    /// The first `at`, and the others.
    fn split(self, at: usize) -> (Self, Self);
}

impl Split for Range<usize> {
    fn count(&self) -> usize {
        self.len()
    }
    fn split(self, at: usize) -> (Self, Self) {
        let middle = self.start + at;
        (self.start..middle, middle..self.end)
    }
}

impl<F: Sync> Split for &[F] {
    fn count(&self) -> usize {
        self.len()
    }
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at(at)
    }
}

impl<F: Send> Split for &mut [F] {
    fn count(&self) -> usize {
        self.len()
    }
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at_mut(at)
    }
}

impl<F: Sync> Split for ArrayView2<'_, F> {
    fn count(&self) -> usize {
        self.nrows()
    }
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at(Axis(0), at)
    }
}

impl<F: Send> Split for ArrayViewMut2<'_, F> {
    fn count(&self) -> usize {
        self.nrows()
    }
    fn split(self, at: usize) -> (Self, Self) {
        self.split_at(Axis(0), at)
    }
}

/// Nothing, or something as long as what it goes along with.
impl<A: Split> Split for Option<A> {
    fn count(&self) -> usize {
        self.as_ref().map_or(0, A::count)
    }
    fn split(self, at: usize) -> (Self, Self) {
        self.map(|whole| whole.split(at)).unzip()
    }
}

/// Two that are split at the same places.
impl<A: Split, B: Split> Split for (A, B) {
    fn count(&self) -> usize {
        self.0.count()
    }
    fn split(self, at: usize) -> (Self, Self) {
        let ((a, other_a), (b, other_b)) = (self.0.split(at), self.1.split(at));
        ((a, b), (other_a, other_b))
    }
}

/// Runs `act` on parts that together are `whole`, in which there is so much `work`, on the threads of rayon's current pool:
/// as many parts as the pool has threads, or fewer for little work. Without the feature `rayon`: on the whole.
///
/// The parts depend on the number of threads. For results that do not, what `act` computes for an element must not depend on
/// the part in which the element lies.
///
/// All parts but the last are multiples of `multiple` long, so that they can end where vectors do.
pub(crate) fn for_each_part<S: Split>(whole: S, work: usize, multiple: usize, act: impl Fn(S) + Sync) {
    #[cfg(feature = "rayon")]
    if work >= 2 * PART && (work >= ENTRY || is_inside()) {
        let parts = rayon::current_num_threads().min(work / PART).min(whole.count().div_ceil(multiple));
        return by_halves(whole, parts, multiple, &act);
    }
    act(whole);
}

#[cfg(feature = "rayon")]
fn by_halves<S: Split>(whole: S, parts: usize, multiple: usize, act: &(impl Fn(S) + Sync)) {
    if parts <= 1 {
        return act(whole);
    }
    let (half, count) = (parts / 2, whole.count());
    let at = (count * half / parts).next_multiple_of(multiple).min(count);
    let (part, other) = whole.split(at);
    rayon::join(|| by_halves(part, half, multiple, act), || by_halves(other, parts - half, multiple, act));
}

/// Runs `act`, in which there is so much `work` in so many products, on a thread of the pool while others of its threads stay awake: a
/// thread that has gone to sleep takes longer to wake than a part takes to compute.
pub(crate) fn inside<R: Send>(work: impl FnOnce() -> (usize, usize), act: impl FnOnce() -> R + Send) -> R {
    #[cfg(feature = "rayon")]
    if rayon::current_num_threads() > 1 && !awake::IN_PASS.get() {
        let (work, products) = work();
        if work / products >= 2 * PART {
            return awake::in_succession(|soon| {
                let threads = if soon || work >= ENTRY { awake::most_threads().min(work / products / PART) } else { 1 };
                awake::keep(threads, act)
            });
        }
    }
    act()
}

/// Whether this is a thread of a pool.
#[cfg(feature = "rayon")]
fn is_inside() -> bool {
    rayon::current_thread_index().is_some()
}

/// Threads of the pool that look for parts to compute until a pass is over, as those of OpenMP do.
#[cfg(feature = "rayon")]
mod awake {
    use std::cell::Cell;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    use std::thread::available_parallelism;
    use std::time::{Duration, Instant};

    use rayon::Yield;

    /// So long a thread stays awake without work. It may be one that this pass waits for, in a layer with threads of its
    /// own, so there has to be an end.
    const IDLE: Duration = Duration::from_micros(200);

    thread_local! {
        /// Whether this thread runs a pass: what it calls are parts of it.
        pub static IN_PASS: Cell<bool> = const { Cell::new(false) };
    }

    /// Passes that follow one another so soon find the threads of the one before awake, or wake them for those to come.
    const SOON: Duration = Duration::from_micros(10);

    /// Runs `act`, which is told whether this thread ran another one shortly before.
    pub fn in_succession<R>(act: impl FnOnce(bool) -> R) -> R {
        thread_local! {
            static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
        }
        let _pass = InPass::new(None);
        let result = act(LAST.get().is_some_and(|last| last.elapsed() < SOON));
        LAST.set(Some(Instant::now()));
        result
    }

    /// The threads that can be awake at a time.
    pub fn most_threads() -> usize {
        static CORES: LazyLock<usize> = LazyLock::new(|| available_parallelism().map_or(1, usize::from));
        rayon::current_num_threads().min(*CORES)
    }

    /// Runs `act` on one thread and keeps others awake, so many in all.
    pub fn keep<R: Send>(threads: usize, act: impl FnOnce() -> R + Send) -> R {
        if threads == 1 {
            return act();
        }
        let (is_over, mut act, mut result) = (AtomicBool::new(false), Some(act), None);
        with_others(threads - 1, &is_over, &mut || {
            let _pass = InPass::new(Some(&is_over));
            result = act.take().map(|act| act());
        });
        result.expect("has run")
    }

    /// A pass on this thread, and who is told that it is over, also where it panics.
    struct InPass<'a> {
        was_in_pass: bool,
        is_over: Option<&'a AtomicBool>,
    }

    impl<'a> InPass<'a> {
        fn new(is_over: Option<&'a AtomicBool>) -> Self {
            InPass { was_in_pass: IN_PASS.replace(true), is_over }
        }
    }

    impl Drop for InPass<'_> {
        fn drop(&mut self) {
            IN_PASS.set(self.was_in_pass);
            if let Some(is_over) = self.is_over {
                is_over.store(true, Relaxed);
            }
        }
    }

    fn with_others(others: usize, is_over: &AtomicBool, act: &mut (dyn FnMut() + Send)) {
        match others {
            0 => act(),
            _ => {
                rayon::join(|| with_others(others - 1, is_over, act), || wait(is_over));
            }
        }
    }

    fn wait(is_over: &AtomicBool) {
        let mut idle = Instant::now();
        // A thread that runs a pass may come across this while it waits for a part: it has to go on.
        while !is_over.load(Relaxed) && !IN_PASS.get() && idle.elapsed() < IDLE {
            match rayon::yield_now() {
                Some(Yield::Executed) => idle = Instant::now(),
                _ => std::thread::yield_now(),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn parts_are_the_whole() {
        for (count, work, multiple) in
            [(0, 1, 1), (1, 1, 8), (100, 10, 8), (100, 10 * PART, 8), (7, PART, 3), (65, 9 * PART, 32)]
        {
            let seen = Mutex::new(Vec::new());
            for_each_part(0..count, work, multiple, |part| seen.lock().unwrap().push(part));
            let mut seen = seen.into_inner().unwrap();
            seen.sort_by_key(|part| part.start);
            assert_eq!(seen.iter().cloned().flatten().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            assert!(seen.iter().all(|part| part.start % multiple == 0 || seen.len() == 1), "{seen:?}");
        }
    }

    /// A pass that uses the pool in ways of its own, and one that panics, are both over some time.
    #[cfg(feature = "rayon")]
    #[test]
    fn a_pass_ends() {
        use std::panic::{AssertUnwindSafe, catch_unwind};

        let own_threads = || rayon::join(|| rayon::join(|| 1, || 2), || rayon::join(|| 3, || 4));
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                for _ in 0..100 {
                    let parts = || rayon::join(|| inside(|| (usize::MAX, 1), own_threads), own_threads);
                    assert_eq!(inside(|| (usize::MAX, 1), parts), (((1, 2), (3, 4)), ((1, 2), (3, 4))));
                }
                let failed = catch_unwind(AssertUnwindSafe(|| inside(|| (usize::MAX, 1), || panic!("in a pass"))));
                assert_eq!(failed.unwrap_err().downcast_ref(), Some(&"in a pass"));
                assert!(!awake::IN_PASS.get());
            });
        }
    }
}
