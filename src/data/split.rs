//! Parts of a data set.

use std::ops::Range;

use rand::Rng;
use rand::seq::SliceRandom;

use crate::base::error::mismatch;

/// Splits `count` samples or rows in their order, into parts with these shares: for time series, whose test data must come after
/// the training data.
///
/// ```
/// use gradflow::data::split_in_order;
///
/// let [train, validate, test] = split_in_order(100, [0.8, 0.1, 0.1]);
/// assert_eq!((train, validate, test), (0..80, 80..90, 90..100));
/// ```
///
/// # Panics
/// Panics if a share is negative, or they do not sum to 1.
#[track_caller]
pub fn split_in_order<const N: usize>(count: usize, shares: [f64; N]) -> [Range<usize>; N] {
    let total: f64 = shares.iter().sum();
    if !shares.iter().all(|&share| share >= 0.0) || (total - 1.0).abs() > 1e-9 {
        mismatch("split", "shares", &"shares from 0 up with a sum of 1", &format_args!("{shares:?}"))
    }
    let (mut sum, mut start) = (0.0, 0);
    shares.map(|share| {
        sum += share;
        let end = ((sum * count as f64).round() as usize).clamp(start, count);
        std::mem::replace(&mut start, end)..end
    })
}

/// Splits `count` samples at random, into parts with these shares: for independent samples. Each part is in ascending order.
///
/// ```
/// use gradflow::{data::split_at_random, rand::{SeedableRng, rngs::StdRng}};
///
/// let [train, test] = split_at_random(10, [0.7, 0.3], &mut StdRng::seed_from_u64(0));
/// assert_eq!((train.len(), test.len()), (7, 3));
/// assert!(test.iter().all(|sample| !train.contains(sample)));
/// ```
///
/// # Panics
/// Panics if a share is negative, or they do not sum to 1.
#[track_caller]
pub fn split_at_random<const N: usize>(
    count: usize,
    shares: [f64; N],
    rng: &mut (impl Rng + ?Sized),
) -> [Vec<usize>; N] {
    let parts = split_in_order(count, shares);
    let mut order = Vec::from_iter(0..count);
    order.shuffle(rng);
    parts.map(|part| {
        let mut part = order[part].to_vec();
        part.sort_unstable();
        part
    })
}
