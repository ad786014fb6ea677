//! Work split among threads (feature `rayon`), or done by the calling thread.
//!
//! Work is measured in multiplications of large products; a core does about a hundred thousand of them in a microsecond. The
//! counts have 64 bits and saturate, as there can be more work than addresses.

#![cfg_attr(not(feature = "rayon"), allow(dead_code, unused_variables))]

#[cfg(feature = "rayon")]
mod affinity;
#[cfg(feature = "rayon")]
mod hand_over;
mod split;
#[cfg(feature = "rayon")]
mod sync;
#[cfg(feature = "rayon")]
mod team;

pub(crate) use split::Split;
#[cfg(all(test, feature = "rayon"))]
pub(crate) use team::in_team;

/// The minimum work of a part: about 10 µs, several times the time to hand it to a thread that is awake.
pub(crate) const PART: u64 = 1 << 20;

/// The minimum work for which threads are woken: about 80 µs, the longest that waking them takes.
pub(crate) const ENTRY: u64 = 1 << 23;

/// Parts of rows are multiples of this number of columns, so that they fill whole registers.
pub(crate) const COLUMNS: usize = 64;

/// The work of products of `rows` with this number of weights. For few rows, most of it is to read the weights.
pub(crate) fn product_work(rows: usize, weights: usize) -> u64 {
    (rows as u64).saturating_add(8).saturating_mul(weights as u64)
}

/// The approximate work to read and write this number of elements.
pub(crate) fn element_work(count: usize) -> u64 {
    (count as u64).saturating_mul(16)
}

/// The approximate work of an elementary function of this number of elements.
pub(crate) fn function_work(count: usize) -> u64 {
    (count as u64).saturating_mul(64)
}

/// The start of part `i` if `all` is cut into `count` parts of about the same length: `all i / count`, rounded down.
pub(crate) fn part_start(all: usize, i: usize, count: usize) -> usize {
    all / count * i + all % count * i / count // `all * i` may overflow
}

/// Runs `act` on the parts of `whole`, which is this much `work` in all, on this thread and threads of rayon's
/// current pool. Without the feature `rayon`, it runs `act` on the whole.
///
/// The parts depend on the number of threads. For results that do not, the result of `act` for an element must not depend on
/// the part that the element is in.
///
/// The length of every part but the last is a multiple of `multiple`, so that parts can end where vectors do.
pub(crate) fn for_each_part<S: Split>(whole: S, work: u64, multiple: usize, act: impl Fn(S) + Sync) {
    #[cfg(feature = "rayon")]
    if work >= 2 * PART {
        return team::in_pass(|| (work, 1), || team::for_each_part(whole, work / PART, multiple, act));
    }
    act(whole);
}

/// Runs `act` while other threads poll for its parts: waking a thread that has gone to sleep takes longer than computing a part.
/// `work` returns the amount of work in `act` and the number of products that it is in.
pub(crate) fn in_pass<R>(work: impl FnOnce() -> (u64, u64), act: impl FnOnce() -> R) -> R {
    #[cfg(feature = "rayon")]
    return team::in_pass(work, act);
    #[cfg(not(feature = "rayon"))]
    act()
}

/// Runs `act` without splitting its work.
#[cfg(any(test, fuzzing))]
pub(crate) fn on_one_thread(act: impl FnOnce()) {
    #[cfg(feature = "rayon")]
    team::on_one_thread(act);
    #[cfg(not(feature = "rayon"))]
    act();
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    /// For all sizes that an address space holds, also one of 32 bits.
    #[test]
    fn work_does_not_overflow() {
        assert_eq!(product_work(1024, 2048 * 2048), (1024 + 8) << 22);
        assert_eq!(product_work(1 << 31, 1 << 31), ((1 << 31) + 8) << 31);
        let all = usize::MAX / 2;
        assert_eq!(product_work(all, all), u64::try_from((all as u128 + 8) * all as u128).unwrap_or(u64::MAX));
        assert_eq!(function_work(all), u64::try_from(all as u128 * 64).unwrap_or(u64::MAX));
        assert_eq!(element_work(all), u64::try_from(all as u128 * 16).unwrap_or(u64::MAX));
        for (all, count) in [(0, 1), (7, 3), (63, 64), (usize::MAX, 64), (usize::MAX, 63), (usize::MAX / 3, 1000)] {
            let starts = (0..=count).map(|i| part_start(all, i, count));
            assert!(starts.eq((0..=count).map(|i| (all as u128 * i as u128 / count as u128) as usize)));
        }
    }

    #[test]
    fn parts_are_the_whole() {
        let check = || {
            for (count, work, multiple) in [
                (0, 1, 1),
                (0, 10 * PART, 8),
                (1, 1, 8),
                (100, 10, 8),
                (100, 10 * PART, 8),
                (7, PART, 3),
                (65, 9 * PART, 32),
                (70, 100 * PART, 1),
            ] {
                let seen = Mutex::new(Vec::new());
                for_each_part(0..count, work, multiple, |part| seen.lock().unwrap().push(part));
                let mut seen = seen.into_inner().unwrap();
                seen.sort_by_key(|part| (part.start, part.end));
                assert_eq!(seen.iter().cloned().flatten().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
                assert!(seen.iter().all(|part| part.start % multiple == 0 || seen.len() == 1), "{seen:?}");
            }
        };
        check();
        #[cfg(feature = "rayon")]
        for members in [1, 3, 100] {
            in_team(members, check);
        }
    }
}
