//! A thread and its helpers.
//!
//! A thread that runs a pass calls helpers from rayon's current pool. They poll for parts of its work until none has come for
//! a while, as the threads of OpenMP do. The caller takes parts too and never waits for one that no helper has started, so
//! helpers that come late, or never, only leave it more work.

use std::cell::Cell;
use std::hint::spin_loop;
use std::ptr::{self, null};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU64, AtomicUsize};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use rayon::Yield;

use super::affinity::{current_core, leave};
use super::hand_over::{HandOver, MOST};
use super::split::Split;
use super::{ENTRY, PART, part_start};

/// How long a helper polls for work before it returns to the pool.
const IDLE: Duration = Duration::from_micros(200);

/// The time without work after which a helper takes other work of the pool: by then, the helpers called with it have started.
const ALONE: Duration = Duration::from_micros(50);

/// The longest time that a helper stays: if the program uses the pool for other work too, it may be waiting for this thread.
const STAY: Duration = Duration::from_millis(20);

/// The longest pause between two passes for which the second one uses the helpers of the first, or calls helpers for later passes.
const SOON: Duration = Duration::from_micros(10);

/// The number of polls for work between two readings of the clock. A helper never yields to other threads of the system: two
/// threads that take turns at yielding on one core both look busy to the scheduler, which then moves neither.
const LOOKS: usize = 32;

/// The current role of a thread.
#[derive(Clone, Copy, PartialEq)]
enum Role {
    /// None of the others.
    Free,
    /// Polling for parts, or for other work of the pool, which may be a pass.
    Helper,
    /// Running a pass that wants a team of this size.
    Pass { members: usize },
    /// Doing a part, whose work is not split again.
    Part,
}

thread_local! {
    static ROLE: Cell<Role> = const { Cell::new(Role::Free) };
    static LAST_PASS: Cell<Option<Instant>> = const { Cell::new(None) };
    static TEAM: Arc<Team> = Arc::default();
    /// The team that this thread helps.
    static HELPED: Cell<*const Team> = const { Cell::new(null()) };
}

/// The number of threads that run passes, plus all helpers: no more than the pool's threads, as far as passes can know.
static BUSY: AtomicUsize = AtomicUsize::new(0);

/// Runs `act`, with helpers if it is worth it. `work` returns the amount of work in `act` and the number of products that it is in.
/// A pass within another one may want more helpers.
pub(super) fn in_pass<R>(work: impl FnOnce() -> (u64, u64), act: impl FnOnce() -> R) -> R {
    let role = ROLE.get();
    if role == Role::Part {
        return act();
    }
    let (work, products) = work();
    let members = at_most_all(work / products / PART);
    if members < 2 || rayon::current_num_threads() == 1 {
        return act();
    }
    if let Role::Pass { members: outer } = role {
        let members = if work >= ENTRY { members } else { 1 };
        return as_role(Role::Pass { members: members.max(outer) }, act);
    }
    let is_worth = work >= ENTRY || LAST_PASS.get().is_some_and(|last| last.elapsed() < SOON);
    let _busy = (role == Role::Free).then(Busy::new);
    let result = as_role(Role::Pass { members: if is_worth { members } else { 1 } }, act);
    LAST_PASS.set(Some(Instant::now()));
    result
}

/// Runs `act` on at most `most` parts of `whole`, one for each member of this thread's team.
pub(super) fn for_each_part<S: Split>(whole: S, most: u64, multiple: usize, act: impl Fn(S) + Sync) {
    let Role::Pass { members } = ROLE.get() else { return act(whole) };
    TEAM.with(|team| {
        team.call(members);
        let count = at_most_all(most).min(team.members()).min(whole.count().div_ceil(multiple));
        if count < 2 {
            return act(whole);
        }
        let parts = cut(whole, count, multiple);
        team.work.share(count, &|i| {
            let part = parts[i].lock().unwrap_or_else(PoisonError::into_inner).take();
            as_role(Role::Part, || act(part.expect("a part is taken once")));
        });
    });
}

/// A number of parts or members, limited to the maximum.
fn at_most_all(count: u64) -> usize {
    count.min(MOST as u64) as usize
}

/// Cuts `whole` into `count` parts of about the same size.
fn cut<S: Split>(whole: S, count: usize, multiple: usize) -> [Mutex<Option<S>>; MOST] {
    let parts = [const { Mutex::new(None) }; MOST];
    let (all, mut start, mut rest) = (whole.count(), 0, whole);
    for (i, part) in parts[..count - 1].iter().enumerate() {
        let end = part_start(all, i + 1, count).next_multiple_of(multiple).min(all);
        let (first, others) = rest.split(end - start);
        *part.lock().expect("is new") = Some(first);
        (start, rest) = (end, others);
    }
    *parts[count - 1].lock().expect("is new") = Some(rest);
    parts
}

fn as_role<R>(role: Role, act: impl FnOnce() -> R) -> R {
    struct Before(Role);
    impl Drop for Before {
        fn drop(&mut self) {
            ROLE.set(self.0);
        }
    }
    let _before = Before(ROLE.replace(role));
    act()
}

/// Counts a thread among the busy ones.
struct Busy;

impl Busy {
    fn new() -> Self {
        BUSY.fetch_add(1, Relaxed);
        Busy
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        BUSY.fetch_sub(1, Relaxed);
    }
}

/// The data that a thread and its helpers share. Helpers have numbers from 1 to 63, the thread itself is 0.
#[derive(Default)]
struct Team {
    /// The helpers, from their call until they leave.
    helpers: AtomicU64,
    work: HandOver,
}

impl Team {
    fn members(&self) -> usize {
        1 + self.helpers.load(Relaxed).count_ones() as usize
    }

    /// Calls helpers until the team has this number of members, as far as the pool has threads that are not busy.
    fn call(self: &Arc<Self>, members: usize) {
        let present = self.members();
        if members > present {
            let others = BUSY.load(Relaxed).saturating_sub(present);
            self.enlist(members.min(rayon::current_num_threads().saturating_sub(others)));
        }
    }

    fn enlist(self: &Arc<Self>, members: usize) {
        for helper in 1..MOST {
            if self.members() >= members {
                return;
            }
            let bit = 1 << helper;
            if self.helpers.fetch_or(bit, Relaxed) & bit == 0 {
                let (team, busy, core) = (Arc::clone(self), Busy::new(), current_core());
                rayon::spawn(move || {
                    team.help(helper, core);
                    team.helpers.fetch_and(!bit, Relaxed);
                    drop(busy);
                });
            }
        }
    }

    fn help(&self, helper: usize, called_on: Option<usize>) {
        // If a layer uses the pool for other work, a thread may come across a call of its own team or of the one that it helps,
        // and a thread in a pass may come across any call.
        let is_own = TEAM.with(|own| ptr::eq(&**own, self)) || ptr::eq(HELPED.get(), self);
        if is_own || matches!(ROLE.get(), Role::Pass { .. } | Role::Part) {
            return;
        }
        leave(called_on);
        let before = HELPED.replace(self);
        as_role(Role::Helper, || {
            let (called, mut last) = (Instant::now(), Instant::now());
            while last.elapsed() < IDLE && called.elapsed() < STAY {
                if self.look(helper) {
                    last = Instant::now();
                } else if last.elapsed() > ALONE && rayon::yield_now() == Some(Yield::Executed) {
                    break;
                }
            }
        });
        HELPED.set(before);
    }

    /// Polls for parts a few times, and returns whether there were any.
    fn look(&self, helper: usize) -> bool {
        for _ in 0..LOOKS {
            if self.work.has_parts() {
                return self.work.take_parts(helper);
            }
            spin_loop();
        }
        false
    }
}

/// Runs `act` without helpers.
#[cfg(any(test, fuzzing))]
pub(super) fn on_one_thread(act: impl FnOnce()) {
    as_role(Role::Part, act);
}

/// Runs `act` in a pass, in a pool of this number of threads, all of which are helpers or have been called.
#[cfg(test)]
pub(crate) fn in_team<R: Send>(members: usize, act: impl FnOnce() -> R + Send) -> R {
    let pool = rayon::ThreadPoolBuilder::new().num_threads(members).build().unwrap();
    let with_helpers = || {
        TEAM.with(|team| team.enlist(members));
        act()
    };
    pool.install(|| as_role(Role::Pass { members }, with_helpers))
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
    use std::thread::{current, scope, sleep};

    use super::*;

    fn sum(count: usize) -> usize {
        let sum = AtomicUsize::new(0);
        for_each_part(0..count, MOST as u64, 1, |part| {
            sum.fetch_add(part.sum(), Relaxed);
        });
        sum.into_inner()
    }

    #[test]
    fn helpers_take_parts() {
        in_team(3, || {
            let (start, threads) = (Instant::now(), Mutex::new(HashSet::new()));
            while threads.lock().unwrap().len() < 3 {
                assert!(start.elapsed() < Duration::from_secs(60), "only {threads:?}");
                for_each_part(0..3, 3, 1, |_| {
                    threads.lock().unwrap().insert(current().id());
                    sleep(Duration::from_millis(1));
                });
            }
        });
    }

    #[test]
    fn many_small_pieces_of_work() {
        in_team(3, || (0..20_000).for_each(|i| assert_eq!(sum(i), i * i.saturating_sub(1) / 2)));
    }

    /// More callers than the pool has threads, each with a team.
    #[test]
    fn callers_at_once() {
        let pass = || in_pass(|| (u64::MAX, 1), || assert_eq!(sum(1000), 499_500));
        scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..2000).for_each(|_| pass()));
            }
        });
        assert!(ROLE.get() == Role::Free);
    }

    #[test]
    fn a_panic_reaches_the_caller() {
        in_team(3, || {
            for panicking in (0..300).map(|i| i % 3) {
                let share = || {
                    for_each_part(0..3, 3, 1, |part| {
                        assert!(!part.contains(&panicking), "part {panicking}");
                    });
                };
                let panic = catch_unwind(AssertUnwindSafe(share)).unwrap_err();
                assert_eq!(panic.downcast_ref(), Some(&format!("part {panicking}")));
                assert_eq!(sum(100), 4950);
            }
        });
    }

    /// Of the payloads of several parts, one reaches the caller and the others are dropped, even if a drop panics again.
    #[test]
    fn no_payload_leaks() {
        static LEFT: AtomicUsize = AtomicUsize::new(0);
        struct Payload {
            panics: bool,
        }
        impl Drop for Payload {
            fn drop(&mut self) {
                LEFT.fetch_sub(1, Relaxed);
                assert!(!self.panics, "dropped");
            }
        }
        in_team(3, || {
            for panics in [false, true] {
                for _ in 0..100 {
                    let share = || {
                        for_each_part(0..3, 3, 1, |_| {
                            LEFT.fetch_add(1, Relaxed);
                            panic_any(Payload { panics });
                        });
                    };
                    let payload = catch_unwind(AssertUnwindSafe(share)).unwrap_err().downcast::<Payload>().unwrap();
                    assert_eq!(LEFT.load(Relaxed), 1, "payloads are left besides the one that was caught");
                    let _ = catch_unwind(AssertUnwindSafe(|| drop(payload)));
                    assert_eq!(sum(100), 4950);
                }
            }
        });
    }

    /// A pass ends even if a layer uses the pool for other work, or panics outside of any part.
    #[test]
    fn a_pass_ends() {
        let own_threads = || rayon::join(|| rayon::join(|| 1, || sum(3)), || rayon::join(|| 3, || 4));
        let pass = || in_pass(|| (u64::MAX, 1), || rayon::join(own_threads, own_threads));
        for threads in [1, 2, 5] {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| {
                for _ in 0..100 {
                    assert_eq!(rayon::join(pass, pass).1, (((1, 3), (3, 4)), ((1, 3), (3, 4))));
                }
                let failed = catch_unwind(|| in_pass(|| (u64::MAX, 1), || panic!("in a pass")));
                assert_eq!(failed.unwrap_err().downcast_ref(), Some(&"in a pass"));
                assert!(ROLE.get() == Role::Free);
            });
        }
    }
}
