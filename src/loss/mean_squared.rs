//! The mean squared error.

use ndarray::{Array3, ArrayRef3, Zip};

use super::Reduction;
use crate::Float;
use crate::cache::reuse;
use crate::error::{check_not_empty, check_shape};

const NAME: &str = "MeanSquaredError";

/// The squared error, its mean taken over every element as in PyTorch's `mse_loss`.
///
/// ```text
/// L = w Σ (y - target)²        dL/dy = 2 w (y - target)
/// ```
///
/// with `w` = 1/(number of elements that count) for the mean and 1 for the sum. `[T, B, D]` each.
///
/// ```
/// use gradflow::{MeanSquaredError, ndarray::Array3};
///
/// let (y, target) = (Array3::<f64>::ones((1, 1, 2)), Array3::from_elem((1, 1, 2), 3.0));
/// let mut gradient = Array3::default((0, 0, 0));
/// assert_eq!(MeanSquaredError::new().evaluate(&y, &target, None, &mut gradient), 4.0);
/// assert_eq!(gradient.as_slice().unwrap(), [-2.0, -2.0]);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MeanSquaredError {
    reduction: Reduction,
}

impl MeanSquaredError {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self::default()
    }

    /// The sum over the elements instead of their mean.
    pub fn sum(self) -> Self {
        MeanSquaredError { reduction: Reduction::Sum }
    }

    /// The loss; its gradient by `y` goes to `dy`, which takes its shape. Positions past the lengths, where given, do
    /// not count and are not read.
    ///
    /// # Panics
    /// Where shapes differ, the batch is empty or the lengths do not fit.
    #[track_caller]
    pub fn evaluate<F: Float>(
        &self,
        y: &ArrayRef3<F>,
        target: &ArrayRef3<F>,
        lengths: Option<&[usize]>,
        dy: &mut Array3<F>,
    ) -> f64 {
        let (steps, batch, features) = y.dim();
        check_not_empty(NAME, y.shape());
        check_shape(NAME, "target", y.shape(), target.shape());
        super::check_lengths(NAME, lengths, (steps, batch));
        let positions = lengths.map_or(steps * batch, |lengths| lengths.iter().sum());
        let weight = self.reduction.weight((positions * features) as f64);
        let factor = F::of(2.0 * weight);

        reuse(dy, y.raw_dim());
        let mut loss = 0.0;
        Zip::indexed(&mut *dy).and(y).and(target).for_each(|(t, b, _), dy, &y, &target| {
            let error = if lengths.is_none_or(|lengths| t < lengths[b]) { y - target } else { F::zero() };
            *dy = factor * error;
            loss += error.widen() * error.widen();
        });
        loss * weight
    }
}
