//! The mean squared error.

use ndarray::{Array3, ArrayRef3};

use super::{Elements, Reduction};
use crate::kernels::Float;

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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct MeanSquaredError {
    elements: Elements,
}

impl MeanSquaredError {
    /// The mean over all elements.
    pub fn new() -> Self {
        Self::default()
    }

    /// Elements with this target do not count: their loss and gradient are zero. NaN is a target like any other here.
    pub fn ignore(self, target: f64) -> Self {
        MeanSquaredError { elements: Elements { ignored: Some(target), ..self.elements } }
    }

    /// The sum over the elements instead of their mean.
    pub fn sum(self) -> Self {
        MeanSquaredError { elements: Elements { reduction: Reduction::Sum, ..self.elements } }
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
        self.elements.evaluate(NAME, y, target, lengths, dy, |_, y, target| {
            let error = y - target;
            (error * error, 2.0 * error)
        })
    }
}
