//! Work that is split among threads with the feature `rayon`; without it, and for little work, done by the caller's thread.

use std::ops::Range;

/// Runs `act` on ranges that together are `0..count`, all of them on the threads of rayon's current pool, which may be as
/// many as the pool has threads but have at least `least` elements each. Without the feature `rayon`: on `0..count`.
///
/// The number of ranges depends on the number of threads. For results that do not, what `act` computes for an element
/// must not depend on the range in which the element lies.
///
/// All ranges but the last are multiples of `multiple` long, so that parts can end where vectors do.
#[cfg_attr(not(feature = "rayon"), allow(unused_variables))]
pub(crate) fn for_each_part(count: usize, least: usize, multiple: usize, act: impl Fn(Range<usize>) + Sync) {
    #[cfg(feature = "rayon")]
    {
        let parts = rayon::current_num_threads().min(count / least.max(1));
        if parts > 1 {
            let size = count.div_ceil(parts).next_multiple_of(multiple);
            let act = &act;
            return rayon::scope(|scope| {
                for first in (size..count).step_by(size) {
                    scope.spawn(move |_| act(first..count.min(first + size)));
                }
                act(0..size.min(count));
            });
        }
    }
    act(0..count);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[test]
    fn parts_are_the_whole() {
        for (count, least, multiple) in [(0, 1, 1), (1, 1, 8), (100, 10, 8), (100, 1000, 8), (7, 0, 3), (65, 1, 32)] {
            let seen = Mutex::new(Vec::new());
            for_each_part(count, least, multiple, |part| seen.lock().unwrap().push(part));
            let mut seen = seen.into_inner().unwrap();
            seen.sort_by_key(|part| part.start);
            assert_eq!(seen.iter().cloned().flatten().collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
            assert!(seen.iter().all(|part| part.start % multiple == 0 || seen.len() == 1), "{seen:?}");
        }
    }
}
