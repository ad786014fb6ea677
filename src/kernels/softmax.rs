//! Softmax of rows, forward and backward.
//!
//! ```text
//! s_k = exp(scale (z_k - max z)) / Σ_j exp(scale (z_j - max z))
//! dz = scale s ∘ (ds - s · ds)
//! ```
//!
//! The largest element is subtracted first, so elements of any finite size are safe. A NaN makes its row NaN. As `Σ s_k = 1`, the
//! gradient may be computed from ds minus any number. That number is the ds of the largest s: if that s is nearly 1, then `s · ds`
//! is nearly its ds, and the difference of the two would lose all digits.

use ndarray::{ArrayView2, ArrayViewMut2};

use super::float::Float;
use super::math::{exp, sum, sum_pairs};
use super::once::vectorised;

/// The number of lanes of [`largest_element`]: enough that comparisons do not wait for each other.
const LANES: usize = 64;

/// The largest element; NaN elements are skipped.
#[inline(always)]
fn largest_element<F: Float>(z: &[F]) -> F {
    let larger = |largest: F, z: F| if z > largest { z } else { largest };
    let chunks = z.chunks_exact(LANES);
    let mut most = chunks.remainder().iter().copied().fold(F::neg_infinity(), larger);
    if z.len() >= LANES {
        let mut lanes = [F::neg_infinity(); LANES];
        for chunk in chunks {
            for (largest, &z) in lanes.iter_mut().zip(chunk) {
                *largest = larger(*largest, z);
            }
        }
        let mut count = LANES;
        while count > 1 {
            count /= 2;
            let (low, high) = lanes[..2 * count].split_at_mut(count);
            for (low, &mut high) in low.iter_mut().zip(high) {
                *low = larger(*low, high);
            }
        }
        most = larger(most, lanes[0]);
    }
    most
}

/// `z <- exp(scale (z - largest))`.
#[inline(always)]
fn powers<F: Float>(scale: F, largest: F, z: &mut [F]) {
    for z in z.iter_mut() {
        *z = exp((*z - largest) * scale);
    }
}

/// `Σ power(z) - 1`, for powers whose largest is 1: those that are 1 are summed separately.
#[inline(always)]
fn beside_one<F: Float>(z: &[F], power: impl Fn(F) -> F) -> f64 {
    let (below, ones) = sum_pairs([z], |[z]| {
        let power = power(z).widen();
        if power < 1.0 { (power, 0.0) } else { (0.0, power) }
    });
    below + (ones - 1.0)
}

vectorised! {
    /// The largest element; NaN elements are skipped.
    pub(crate) fn largest<'a, F: Float>(z: &'a [F]) -> F {
        largest_element(z)
    }

    /// Each row `z` becomes `softmax(scale z)`.
    pub(crate) fn softmax<'a, F: Float>(scale: F, rows: ArrayViewMut2<'a, F>) {
        let mut rows = rows;
        for row in rows.outer_iter_mut() {
            let z = row.into_slice().expect("contiguous rows");
            powers(scale, largest_element(z), z);
            let total = sum([z], |[z]| z);
            for z in z.iter_mut() {
                *z /= total;
            }
        }
    }

    /// Each row `ds` becomes `dz`; the rows of `softmax` are results of [`softmax`].
    pub(crate) fn softmax_backward<'a, F: Float>(scale: F, softmax: ArrayView2<'a, F>, rows: ArrayViewMut2<'a, F>) {
        let mut rows = rows;
        for (s, d) in softmax.outer_iter().zip(rows.outer_iter_mut()) {
            let s = s.to_slice().expect("contiguous rows");
            let d = d.into_slice().expect("contiguous rows");
            let top = largest_element(s);
            let middle = s.iter().zip(&*d).find(|&(&s, _)| s == top).map_or(F::zero(), |(_, &d)| d);
            let mean = sum([s, d], |[s, d]| s * (d - middle));
            for (d, &s) in d.iter_mut().zip(s) {
                *d = scale * s * ((*d - middle) - mean);
            }
        }
    }

    /// `Σ exp(z - largest) - 1`, in f64: the sum over all elements but the largest, whose term is 1. It keeps its digits however
    /// small it is.
    pub(crate) fn beside_largest<'a, F: Float>(largest: F, z: &'a [F]) -> f64 {
        beside_one(z, |z| exp(z - largest))
    }

    /// `z <- weight softmax(z)`; returns the [`largest`] element, [`beside_largest`], and `Σ exp(z_k - largest)` over all k but
    /// `id`, which keeps its digits too.
    pub(crate) fn weighted_softmax<'a, F: Float>(weight: F, id: usize, z: &'a mut [F]) -> (F, f64, f64) {
        let largest = largest_element(z);
        powers(F::one(), largest, z);
        let beside = beside_one(z, |power| power);
        let others = (1.0 - z[id].widen()) + beside;
        let scale = weight / F::of(1.0 + beside);
        for z in z.iter_mut() {
            *z *= scale;
        }
        (largest, beside, others)
    }

    /// Whether no element is infinite or NaN.
    pub(crate) fn all_finite<'a, F: Float>(z: &'a [F]) -> bool {
        !sum([z], |[z]| z * F::zero()).is_nan()
    }
}
