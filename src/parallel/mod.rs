//! Work split among threads (feature `rayon`), or done by the calling thread.
//!
//! Work is counted in multiplications of large products, of which a core does about a hundred thousand in a microsecond: in 64
//! bits, and no further than they go, as there can be more work than addresses.

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

/// The least work of a part: about 10 µs, several times what it takes to hand it to a thread that is awake.
pub(crate) const PART: u64 = 1 << 20;

/// The least work for which threads are woken: about 80 µs, what that takes at most.
pub(crate) const ENTRY: u64 = 1 << 23;

/// Parts of rows are multiples of this number of columns, whole registers.
pub(crate) const COLUMNS: usize = 64;

/// The work of products of `rows` with this number of weights: what few rows take is to read the weights.
pub(crate) fn product_work(rows: usize, weights: usize) -> u64 {
    (rows as u64).saturating_add(8).saturating_mul(weights as u64)
}

/// The work for this number of elements that are read and written, about.
pub(crate) fn element_work(count: usize) -> u64 {
    (count as u64).saturating_mul(16)
}

/// The work for an elementary function of this number of elements, about.
pub(crate) fn function_work(count: usize) -> u64 {
    (count as u64).saturating_mul(64)
}

/// Where part `i` of `count` parts of `all` begins that are about equally long: `all i / count`, rounded down.
pub(crate) fn part_start(all: usize, i: usize, count: usize) -> usize {
    all / count * i + all % count * i / count // all i may be too large
}

/// Runs `act` on parts that together are `whole`, in which there is so much `work`, on this thread and threads of rayon's
/// current pool. Without the feature `rayon`: on the whole.
///
/// The parts depend on the number of threads. For results that do not, what `act` computes for an element must not depend on
/// the part in which the element lies.
///
/// All parts but the last are multiples of `multiple` long, so that they can end where vectors do.
pub(crate) fn for_each_part<S: Split>(whole: S, work: u64, multiple: usize, act: impl Fn(S) + Sync) {
    #[cfg(feature = "rayon")]
    if work >= 2 * PART {
        return team::in_pass(|| (work, 1), || team::for_each_part(whole, work / PART, multiple, act));
    }
    act(whole);
}

/// Runs `act`, in which there is this much `work` in this number of products, while other threads wait for its parts: a thread that has
/// gone to sleep takes longer to wake than a part takes to compute.
pub(crate) fn in_pass<R>(work: impl FnOnce() -> (u64, u64), act: impl FnOnce() -> R) -> R {
    #[cfg(feature = "rayon")]
    return team::in_pass(work, act);
    #[cfg(not(feature = "rayon"))]
    act()
}

/// Runs `act`, of which no work is split.
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

    /// Of what an address space holds, also one of 32 bits.
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
