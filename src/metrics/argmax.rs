//! The largest of each row.

use ndarray::{Array, ArrayRef, ArrayView1, Axis, Dimension, RemoveAxis};

use crate::kernels::Float;

/// The index of the largest element along the last axis: of logits `[T, B, V]` the class of each position, `[T, B]`.
///
/// Of equal elements it is the first. NaN is larger than any number, as for NumPy and PyTorch.
///
/// ```
/// use gradflow::{metrics::argmax, ndarray::{arr1, arr2, arr3}};
///
/// let logits = arr3(&[[[0.1, 0.7, 0.2], [3.0, 3.0, 1.0]]]);
/// assert_eq!(argmax(&logits), arr2(&[[1, 0]]));
/// assert_eq!(argmax(&arr2(&[[1.0, 2.0], [2.0, 1.0]])), arr1(&[1, 0]));
/// ```
///
/// # Panics
/// Panics if the last axis is empty.
#[track_caller]
pub fn argmax<F: Float, D: Dimension + RemoveAxis>(x: &ArrayRef<F, D>) -> Array<usize, D::Smaller> {
    x.map_axis(Axis(x.ndim() - 1), largest)
}

/// The index of the first of the largest elements of a row.
#[track_caller]
pub(super) fn largest<F: Float>(row: ArrayView1<'_, F>) -> usize {
    assert!(!row.is_empty(), "argmax: x: expected at least one element, got none");
    (1..row.len()).fold(0, |best, k| if is_above(row[k], row[best]) { k } else { best })
}

/// `a > b`, with NaN above any number.
pub(super) fn is_above<F: Float>(a: F, b: F) -> bool {
    a > b || (a.is_nan() && !b.is_nan())
}
